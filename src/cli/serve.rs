//! `headwater serve`: opens the store, the engine and the port, and serves until it is told to stop.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::descriptors;
use crate::clock::{Clock, Ids};
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::http::{self, Api, MetricsText};
use crate::settings::{ClusterSettings, LogFormat, LogSettings, Settings, StoreSettings};
use crate::store::metered::Metered;
use crate::store::probe::probe;
use crate::store::s3::{AccessKeys, S3Options};
use crate::store::{self, Store, StoreUrl};

/// Each phase that fails names itself and what it was about.
pub fn run(settings: Settings) -> Result<(), String> {
    start_log(&settings.log)?;
    let shown = serde_json::to_string(&settings).map_err(|error| format!("settings: {error}"))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = shown, "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("threads: {error}"))?.block_on(serve(settings))
}

async fn serve(mut settings: Settings) -> Result<(), String> {
    settings.http.max_connections = descriptors::for_connections(settings.http.max_connections);
    // The port first: a second server on the same machine should fail before it touches the bucket.
    let address = settings.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("listen on {address}: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("listen on {address}: {error}"))?;
    let Opened { store, metrics } =
        open_store(&settings.store, Clock::system()).await.map_err(|why| format!("store: {why}"))?;
    let place = store.describe();
    let engine = Engine::open(Arc::clone(&store), settings.engine, Clock::system(), Ids::random());
    let engine = engine.await.map_err(|error| format!("engine: {error}"))?;
    let cluster = match settings.cluster.heartbeat_interval.is_zero() {
        true => None,
        false => join(&engine, Arc::clone(&store), &settings.cluster, address).await,
    };
    let (ids, stopping) = (Ids::random(), CancellationToken::new());
    let api = Api::of_replica(engine, settings.http, ids, stopping, metrics, cluster.clone());
    announce(address, &place);
    let signal = stop_signal()?;
    let stop = async move {
        signal.await;
        if let Some(cluster) = cluster {
            cluster.leave(&*store).await;
        }
    };
    http::serve(listener, api, stop).await;
    Ok(())
}

/// Finds the other replicas of the bucket. `None` if they could not reach this one.
async fn join(
    engine: &Engine,
    store: Arc<dyn Store>,
    settings: &ClusterSettings,
    listen: SocketAddr,
) -> Option<Arc<Cluster>> {
    let address = settings.advertise.clone().map_or_else(|| Ok(reachable(listen)?.to_string()), Ok);
    let address = match address {
        Ok(address) => address,
        Err::<_, std::io::Error>(error) => {
            let why = "this server stays on its own: where others could reach it is not known; give it as --advertise";
            tracing::warn!(%error, "{why}");
            return None;
        }
    };
    let cluster = Cluster::join(store, settings, address, engine.cluster_id(), engine.shards(), Ids::random()).await;
    engine.join(Arc::clone(&cluster) as _);
    Some(cluster)
}

/// The address itself, or, if that is every address of the machine, the one that its traffic goes out by.
fn reachable(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    // Nothing is sent: the routing table is asked. The addresses are ones that are kept for documentation.
    let towards = |own: IpAddr, other: IpAddr| {
        let socket = std::net::UdpSocket::bind((own, 0))?;
        socket.connect((other, 9))?;
        Ok(SocketAddr::new(socket.local_addr()?.ip(), listen.port()))
    };
    let by_v4 = || towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let by_v6 = || towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    // An IPv6 socket takes IPv4, too, on most machines.
    if listen.is_ipv4() { by_v4() } else { by_v6().or_else(|_: std::io::Error| by_v4()) }
}

struct Opened {
    store: Arc<dyn Store>,
    metrics: MetricsText,
}

/// The store that the settings name: probed, and its requests counted.
async fn open_store(settings: &StoreSettings, clock: Clock) -> Result<Opened, String> {
    let url: StoreUrl = settings.store.parse()?;
    let store = store::open(&url, s3_options(settings)?, clock, Ids::random()).await?;
    let metered = Arc::new(Metered::new(store));
    probe(&*metered, &Ids::random()).await.map_err(|failure| format!("{}: {failure}", metered.describe()))?;
    let counts = Arc::clone(&metered);
    Ok(Opened { store: metered, metrics: Arc::new(move || counts.snapshot().to_prometheus()) })
}

pub(super) fn s3_options(settings: &StoreSettings) -> Result<S3Options, String> {
    let keys = match (&settings.access_key_id, &settings.secret_access_key) {
        (Some(id), Some(secret)) => Some(AccessKeys {
            access_key: id.clone(),
            secret_key: secret.reveal().to_owned(),
            session_token: settings.session_token.as_ref().map(|token| token.reveal().to_owned()),
        }),
        (None, None) => None,
        _ => return Err("access-key-id and secret-access-key must be given together".to_owned()),
    };
    Ok(S3Options {
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        path_style: settings.path_style.unwrap_or(settings.endpoint.is_some()),
        keys,
        connect_timeout: settings.store_connect_timeout,
        attempt_timeout: settings.store_attempt_timeout,
        operation_timeout: settings.store_operation_timeout,
        // Bucket and prefix are the URL's.
        ..S3Options::default()
    })
}

pub(super) fn start_log(settings: &LogSettings) -> Result<(), String> {
    let filter = settings.log.parse::<EnvFilter>().map_err(|error| format!("log: '{}': {error}", settings.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| format!("log: {error}"))
}

/// Tells a person where everything is; the last lines can be pasted into a shell.
fn announce(address: SocketAddr, place: &str) {
    tracing::info!(%address, store = place, "listening");
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = format!("http://{reachable}/v1/stream/hello");
    println!("headwater {} listens on http://{address}, data in {place}", env!("CARGO_PKG_VERSION"));
    println!("\nTry it:");
    println!("  curl -X PUT -H 'Content-Type: text/plain' -d 'Hello, stream!' {url}");
    println!("  curl {url}\n");
}

/// Completes at the first SIGINT or SIGTERM.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
