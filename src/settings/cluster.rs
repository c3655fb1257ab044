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
    #[arg(long, env = "HEADWATER_ADVERTISE", value_parser = host_and_port, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The replicas, instead of looking for their objects in the bucket. A host name may stand for many of them; this one may
    /// be among them
    #[arg(long, env = "HEADWATER_PEERS", value_parser = host_and_port, value_name = "HOST:PORT,…", value_delimiter = ',')]
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

fn host_and_port(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    parts.map(|_| text.to_owned()).ok_or_else(|| "not a host and a port such as headwater.internal:4437".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for right in ["headwater:4437", "10.0.0.1:4437", "[::1]:4437"] {
            assert_eq!(host_and_port(right), Ok(right.to_owned()));
        }
        for wrong in ["", "headwater", ":4437", "headwater:", "headwater:70000", "headwater:http"] {
            assert!(host_and_port(wrong).is_err(), "{wrong:?}");
        }
    }
}
