//! What several test programs share. Each includes it with `#[path = "../support/mod.rs"] mod support;`.

#![allow(dead_code, unused_imports, reason = "every test program uses another part of it")]

mod minio;

pub use minio::{ACCESS_KEY, Minio, SECRET_KEY};
