//! Settings of replicas among each other.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Secret, duration, show_duration};

/// How the replicas of a bucket find and reach each other.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Replicas")]
pub struct ClusterSettings {
    /// Where other replicas reach this one; else the address it listens at, or, if that is every address of the machine,
    /// the one that its traffic goes out by
    #[arg(long, env = "HEADWATER_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The replicas, instead of looking for their objects in the bucket: a host name may stand for all of them. This one's
    /// --advertise must be among them as it is resolved
    #[arg(long, env = "HEADWATER_PEERS", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// How often a replica writes that it is there, and looks for others: one PUT and one LIST each time. One that has
    /// not written for three of these is gone. 0s: this replica stays on its own
    #[arg(long, env = "HEADWATER_HEARTBEAT_INTERVAL", default_value = "20s", value_parser = duration, value_name = "DURATION")]
    #[serde(serialize_with = "show_duration")]
    pub heartbeat_interval: Duration,
    /// What replicas know each other by; else something that only those can know who may read the bucket
    #[arg(long, env = "HEADWATER_CLUSTER_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub cluster_secret: Option<Secret>,
}
