//! The protocol over HTTP, one file per chapter, against a server on a store in memory.

mod append;
mod caching;
mod catch_up;
mod closure;
mod create;
mod forks;
mod http2;
mod json;
mod lifetime;
mod limits;
mod listing;
mod long_poll;
mod names;
mod producers;
mod server;
mod shutdown;
mod sse;
