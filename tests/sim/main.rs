//! The real engine on a simulated bucket with virtual time: everything of a run follows from one seed.
//!
//! | module | what it does |
//! |---|---|
//! | [`world`], [`plan`], [`timeline`] | a run: who takes turns, which troubles there are, in which order things happen |
//! | [`machine`], [`link`], [`bucket`] | processes that die and sleep, their ways to the bucket, the bucket |
//! | [`trouble`] | what befalls the machines |
//! | [`script`], [`client`], [`writers`], [`producers`], [`readers`], [`lives`] | clients, and what they do |
//! | [`history`] | what they asked and heard |
//! | [`ledger`], [`story`] | what really happened, and whether the protocol allows it |
//! | [`judge`], [`owners`], [`aftermath`], [`account`] | whether it is what clients heard, what is read later, and what is left |
//! | [`replicas`] | situations that random runs seldom meet |
//!
//! `SIM_SEEDS=N cargo test --release --test sim` runs N seeds, `SIM_SEEDS=A-B` those from A to B, `SIM_SEED=S` one.

mod account;
mod aftermath;
mod bucket;
mod client;
mod clocks;
mod history;
mod judge;
mod ledger;
mod link;
mod lives;
mod machine;
mod neighbours;
mod owners;
mod panics;
mod plan;
mod producers;
mod readers;
mod replicas;
mod script;
mod story;
mod timeline;
mod trouble;
mod world;
mod writers;

mod run;
