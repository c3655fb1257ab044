//! headwater: a Durable Streams server whose only state is an S3-compatible bucket.

pub mod cli;
pub mod clock;
pub mod cluster;
pub mod engine;
pub mod http;
pub mod layout;
pub mod protocol;
pub mod settings;
pub mod store;
