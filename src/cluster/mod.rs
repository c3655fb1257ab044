//! The replicas of one bucket: who is there, who is home of which shard, and what passes between them.
//!
//! | module | what it does |
//! |---|---|
//! | `members` | who is there: heartbeats in the bucket, or a list of addresses |
//! | `home` | which of them is home of a shard (rendezvous hashing) |
//! | `link` | the connection to another replica |
//! | `wire` | log objects as a response body |
//!
//! Nothing here is needed for correctness. Two replicas that both take themselves for a shard's home are slow, never wrong:
//! agreement is the log's. So whoever does not answer is passed over, at once, and asked again a little later.

mod home;
mod link;
mod members;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::clock::Ids;
use crate::engine::{LogPart, Peers, ShardState};
use crate::settings::ClusterSettings;
use crate::store::Store;

use link::Link;
pub use link::{Body, Unsent};
use members::Members;
pub use wire::encode as encode_log;

/// Says that a request comes from another replica, which knows the cluster's secret. It is answered where it arrives. In an
/// answer: that it was not believed.
pub const TOKEN_HEADER: &str = "headwater-replica";
/// Where a replica tells others of its shards' logs.
pub const LOG_PATH: &str = "/__headwater/log/";
/// Where it tells of all of them.
pub const STATUS_PATH: &str = "/__headwater/cluster";
/// How often a replica that did not answer is asked whether it does again.
const ASKED_AGAIN_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a home's log, beyond what it was asked to wait: longer, and the bucket tells sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for whether a replica is ready, which itself waits for the store.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// Where it says so.
const READY_PATH: &str = "/readyz";
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of log objects that an answer may have: what a replica passes on at a time, and one object more.
const LARGEST_PART: usize = 256 << 20;

/// A replica, and where others reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replica {
    pub id: String,
    pub address: String,
}

/// What this replica knows of the others.
#[derive(Debug)]
pub struct Cluster {
    own: Replica,
    token: String,
    shards: u32,
    members: Mutex<Members>,
    /// By id: connections for requests that are passed on, which clients may be slow to send, and for questions.
    links: Mutex<HashMap<String, Links>>,
    /// For what goes on in the background.
    this: Weak<Cluster>,
}

#[derive(Debug, Clone)]
struct Links {
    requests: Arc<Link>,
    questions: Arc<Link>,
}

/// What `GET /__headwater/cluster` tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The replica that was asked.
    pub replica: Replica,
    pub replicas: Vec<ReplicaStatus>,
    pub shards: Vec<ShardStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    #[serde(flatten)]
    pub replica: Replica,
    /// It did not answer a moment ago, and is passed over.
    pub suspected: bool,
}

/// The last three are as the replica knows them that was asked; none if the shard is not in use there.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: u32,
    /// The id of the replica that is its home.
    pub home: String,
    /// The position at which its log goes on.
    pub log_position: Option<u64>,
    /// Streams with something in the log that is in no manifest yet, and their bytes there.
    pub unsealed_streams: Option<u64>,
    pub unsealed_bytes: Option<u64>,
}

impl Cluster {
    /// Finds the others, and goes on looking for them. `identity` is what only those know who may read the bucket.
    pub async fn join(
        store: Arc<dyn Store>,
        settings: &ClusterSettings,
        address: String,
        identity: &str,
        shards: u32,
        ids: Ids,
    ) -> Arc<Cluster> {
        let secret = settings.cluster_secret.as_ref().map_or(identity, |secret| secret.reveal());
        let own = match settings.peers.is_empty() {
            true => Replica { id: format!("{:032x}", ids.id()), address },
            // With a list, there is nothing else that others know it by.
            false => members::at(&address).await,
        };
        let members = Mutex::new(Members::new(own.clone(), shards));
        let (token, links) = (token(secret), Mutex::default());
        let cluster = Arc::new_cyclic(|this| Cluster { own, token, shards, members, links, this: Weak::clone(this) });
        members::start(&cluster, store, settings, ids).await;
        cluster
    }

    /// The shard's home, if that is another replica.
    pub fn other_home(&self, shard: u32) -> Option<Replica> {
        self.members().other_home(shard)
    }

    /// Whether a header's value says that a request comes from a replica.
    pub fn knows(&self, token: &[u8]) -> bool {
        // Of hashes: how long it takes tells nothing of the token.
        Sha256::digest(token) == Sha256::digest(&self.token)
    }

    /// Passes a request on to the shard's home. It is given back if it certainly was not sent.
    pub async fn forward(&self, home: &Replica, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        let sent = self.links_to(home).requests.send(self.signed(request)).await;
        match &sent {
            // It does not know this replica, and will not for the next request.
            Ok(answer) if answer.headers().contains_key(TOKEN_HEADER) => {
                self.suspect(home);
                return Err(Unsent::Refused);
            }
            // It may be that it can't reach the store, which others can.
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => self.doubt(home),
            Ok(_) | Err(Unsent::Busy(_)) => {}
            Err(Unsent::Unreachable(_)) => self.suspect(home),
            // Or the client has broken off.
            Err(_) => self.doubt(home),
        }
        sent
    }

    fn signed(&self, mut request: Request<Body>) -> Request<Body> {
        if let Ok(token) = self.token.parse() {
            request.headers_mut().insert(TOKEN_HEADER, token);
        }
        request
    }

    /// What is known, with what the caller knows of shards.
    pub fn status(&self, state: impl Fn(u32) -> Option<ShardState>) -> Status {
        let shard = |shard| {
            let home = self.other_home(shard).map_or_else(|| self.own.id.clone(), |home| home.id);
            let state = state(shard);
            ShardStatus {
                shard,
                home,
                log_position: state.map(|state| state.log_position),
                unsealed_streams: state.map(|state| state.unsealed_streams),
                unsealed_bytes: state.map(|state| state.unsealed_bytes),
            }
        };
        let replicas = self.members().all();
        let shards = (0..self.shards).map(shard).collect();
        Status { replica: self.own.clone(), replicas, shards }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes over a replica until it answers again.
    fn suspect(&self, replica: &Replica) {
        if self.members().suspect(&replica.id) {
            tracing::warn!(
                replica = replica.id,
                address = replica.address,
                "replica does not answer, it is passed over"
            );
            tokio::spawn(watch(Weak::clone(&self.this), replica.clone()));
        }
    }

    /// Passes over a replica if it is not ready.
    fn doubt(&self, replica: &Replica) {
        if !self.members().doubt(&replica.id) {
            return;
        }
        let (this, replica) = (Weak::clone(&self.this), replica.clone());
        tokio::spawn(async move {
            let Some(cluster) = this.upgrade() else { return };
            let is_ready = cluster.is_ready(&replica).await;
            cluster.members().believe(&replica.id);
            if !is_ready {
                cluster.suspect(&replica);
            }
        });
    }

    /// On a connection of its own: the other ones may be what does not work.
    async fn is_ready(&self, replica: &Replica) -> bool {
        let link = Link::new(&replica.address);
        let asked = async {
            let request = Request::get(format!("http://{}{READY_PATH}", replica.address)).body(nothing()).ok()?;
            link.send(self.signed(request)).await.ok().filter(|answer| answer.status() == StatusCode::OK)
        };
        matches!(timeout(READY_TIMEOUT, asked).await, Ok(Some(_)))
    }

    fn links(&self) -> MutexGuard<'_, HashMap<String, Links>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links_to(&self, replica: &Replica) -> Links {
        let new = || Arc::new(Link::new(&replica.address));
        let links = || Links { requests: new(), questions: new() };
        self.links().entry(replica.id.clone()).or_insert_with(links).clone()
    }

    /// From now on these are the others.
    fn others_are(&self, others: BTreeSet<Replica>) {
        self.links().retain(|id, _| others.iter().any(|other| other.id == *id));
        self.members().are(others);
    }

    async fn ask(&self, home: &Replica, path: &str, wait: Duration) -> Option<LogPart> {
        let request = Request::get(format!("http://{}{path}", home.address)).body(nothing()).ok()?;
        let links = self.links_to(home);
        let asked = async {
            let answer = match links.questions.send(self.signed(request)).await {
                Ok(answer) => answer,
                Err(Unsent::Unreachable(_)) => {
                    self.suspect(home);
                    return None;
                }
                Err(_) => {
                    self.doubt(home);
                    return None;
                }
            };
            match answer.status() {
                StatusCode::OK => {
                    let body = Limited::new(answer.into_body(), LARGEST_PART).collect().await.ok()?.to_bytes();
                    wire::decode(&body)
                }
                // It does not have that in memory, or does not take itself for the home.
                StatusCode::NOT_FOUND => None,
                _ => {
                    self.doubt(home);
                    None
                }
            }
        };
        // That it is slow says nothing: the bucket may be.
        timeout(wait + ANSWER_TIMEOUT, asked).await.unwrap_or(None)
    }
}

/// Asks a replica that is passed over again and again, until it answers or is gone.
async fn watch(cluster: Weak<Cluster>, replica: Replica) {
    loop {
        tokio::time::sleep(ASKED_AGAIN_EVERY).await;
        let Some(cluster) = cluster.upgrade() else { return };
        if !cluster.members().has(&replica.id) {
            return;
        }
        if cluster.is_ready(&replica).await {
            cluster.links().remove(&replica.id);
            cluster.members().trust(&replica.id);
            tracing::info!(replica = replica.id, address = replica.address, "replica answers again");
            return;
        }
    }
}

/// No body.
fn nothing() -> Body {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

#[async_trait]
impl Peers for Cluster {
    fn has_other_home(&self, shard: u32) -> bool {
        self.members().has_other_home(shard)
    }

    async fn log_after(&self, shard: u32, next: u64, wait: Duration) -> Option<LogPart> {
        let home = self.other_home(shard)?;
        let path = format!("{LOG_PATH}{shard}/{next}/{}", wait.as_millis());
        let part = self.ask(&home, &path, wait).await?;
        (part.from == next).then_some(part)
    }
}

/// Asks a replica at an address for what it knows of all of them.
pub async fn ask_status(address: &str) -> Result<Status, String> {
    let request = Request::get(format!("http://{address}{STATUS_PATH}")).body(nothing());
    let request = request.map_err(|error| format!("{address}: {error}"))?;
    let link = Link::new(address);
    let asked = async {
        let answer = link.send(request).await.map_err(|_| "it can't be reached".to_owned())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST_PART).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|error| format!("it is no headwater: {error}")),
            _ => Err(format!("it answers {status}: {}", String::from_utf8_lossy(&body))),
        }
    };
    let answered = timeout(STATUS_TIMEOUT, asked).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
    answered.map_err(|why| format!("{address}: {why}"))
}

fn token(secret: &str) -> String {
    let digest = Sha256::digest(format!("headwater replica {secret}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
