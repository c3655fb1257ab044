//! The store contract, checked on every store.

#[path = "../support/mod.rs"]
mod support;

use support::Minio;

#[test]
fn minio_comes_back_after_an_outage() {
    let Some(mut minio) = Minio::start() else { return };
    let endpoint = minio.endpoint();
    minio.stop();
    minio.restart();
    assert_eq!(minio.endpoint(), endpoint);
}
