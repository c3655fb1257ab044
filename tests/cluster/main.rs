//! Real processes on a real bucket: crashes, a bad network, outages, two servers at once, orderly ends, tools.

#![allow(clippy::disallowed_methods, reason = "tests of real processes wait for real time")]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod faults;
mod flood;
mod limits;
mod load;
mod outage;
mod replicas;
mod stop;
mod tools;
mod transfer;
mod two;
