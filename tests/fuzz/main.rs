//! Whatever comes from outside as bytes, read with mutations of what is valid: nothing panics, nothing takes more
//! memory than the input's length allows, what is accepted means what it says, and what was damaged is refused.
//!
//! `FUZZ_CASES=N cargo test --test fuzz` tries N inputs of each kind (of the slow kinds, that go through sockets, fewer in
//! proportion). `FUZZ_SEED=S` makes the same choices again. An input that fails is kept, and its path is printed: put
//! it into `corpus/{kind}`, which every run reads first. There, the names of inputs that must be accepted start with
//! `ok-`, of those that must be refused with `no-`.

mod corpus;
#[path = "../support/forge.rs"]
mod forge;
mod harness;
mod layout;
mod mutate;
mod objects;
#[path = "../support/panics.rs"]
mod panics;
mod protocol;
mod request;
mod s3;
mod settings;
mod wire;
