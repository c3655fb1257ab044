//! `headwater status`: the replicas and shards of a cluster, as one of its replicas sees them.

use std::process::ExitCode;

use clap::Args;

use crate::cluster::{self, ReplicaStatus, ShardStatus, Status};

/// Exits with 0 if the replica has answered, with 2 if not.
#[derive(Debug, Args)]
pub(super) struct StatusOf {
    /// One of the replicas
    #[arg(default_value = "127.0.0.1:4437", value_name = "HOST:PORT")]
    replica: String,
    /// What the replica answers, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(status: &StatusOf) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let address = status.replica.trim_start_matches("http://").trim_end_matches('/');
    let asked = runtime.map_err(|error| format!("threads: {error}"));
    match asked.and_then(|runtime| runtime.block_on(cluster::ask_status(address))) {
        Ok(answer) => {
            let text =
                if status.json { serde_json::to_string_pretty(&answer).unwrap_or_default() } else { table(&answer) };
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("headwater: {why}");
            ExitCode::from(2)
        }
    }
}

fn table(status: &Status) -> String {
    let mut text = String::from("REPLICA                           ADDRESS                SHARDS  STATE\n");
    for ReplicaStatus { replica, suspected } in &status.replicas {
        let shards = status.shards.iter().filter(|shard| shard.home == replica.id).count();
        let state = match (*suspected, replica == &status.replica) {
            (true, _) => "does not answer",
            (false, true) => "has answered this",
            (false, false) => "there",
        };
        text += &format!("{:<32}  {:<21}  {shards:>6}  {state}\n", replica.id, replica.address);
    }
    text += "\nSHARD  HOME                              LOG POSITION  UNSEALED STREAMS  UNSEALED BYTES\n";
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for ShardStatus { shard, home, log_position, unsealed_streams, unsealed_bytes } in &status.shards {
        let [position, streams, bytes] = [log_position, unsealed_streams, unsealed_bytes].map(|known| number(*known));
        text += &format!("{shard:>5}  {home:<32}  {position:>12}  {streams:>16}  {bytes:>14}\n");
    }
    text
}
