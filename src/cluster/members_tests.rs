use super::*;
use crate::clock::Clock;
use crate::store::memory::MemoryStore;

const INTERVAL: Duration = Duration::from_secs(20);

fn settings() -> ClusterSettings {
    ClusterSettings { advertise: None, peers: Vec::new(), heartbeat_interval: INTERVAL, cluster_secret: None }
}

async fn join(store: &Arc<MemoryStore>, number: u64) -> Arc<Cluster> {
    join_at(store, number, number).await
}

async fn join_at(store: &Arc<MemoryStore>, port: u64, number: u64) -> Arc<Cluster> {
    let address = format!("127.0.0.1:{port}");
    Cluster::join(Arc::clone(store) as _, &settings(), address, "bucket", 100, Ids::seeded(number)).await
}

/// How many of the shards are at home at each of these, as all of them see it.
fn homes(replicas: &[&Arc<Cluster>]) -> Vec<usize> {
    let as_seen_by = |cluster: &Arc<Cluster>| {
        let own = cluster.own.clone();
        (0..100).map(|shard| cluster.other_home(shard).unwrap_or(own.clone())).collect::<Vec<_>>()
    };
    let seen = as_seen_by(replicas[0]);
    for replica in replicas {
        assert_eq!(as_seen_by(replica), seen, "they do not agree");
    }
    replicas.iter().map(|replica| seen.iter().filter(|home| **home == replica.own).count()).collect()
}

async fn intervals(count: u32) {
    tokio::time::sleep(INTERVAL * count + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn replicas_find_each_other_and_share_the_shards_until_one_is_gone() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let (one, two, three) = (join(&store, 1).await, join(&store, 2).await, join(&store, 3).await);
    intervals(1).await;
    let shared = homes(&[&one, &two, &three]);
    assert!(shared.iter().sum::<usize>() == 100 && shared.iter().all(|count| *count > 15), "{shared:?}");
    // Killed: nobody tells.
    drop(three);
    intervals(GONE_AFTER + 1).await;
    let shared = homes(&[&one, &two]);
    assert!(shared.iter().sum::<usize>() == 100 && shared.iter().all(|count| *count > 25), "{shared:?}");
    // Stopped: its shards are the other's at once, and the other knows after an interval.
    two.leave(&*store).await;
    assert!((0..100).all(|shard| two.other_home(shard).is_some()));
    intervals(1).await;
    assert_eq!(homes(&[&one]), [100]);
    intervals(FORGOTTEN_AFTER).await;
    let left = store.list(key::REPLICAS, None, 10).await.unwrap_or_else(|e| panic!("{e}")).value.items;
    assert_eq!(left.len(), 1, "those who are gone left something: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_passed_over_until_it_does() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let (one, two) = (join(&store, 1).await, join(&store, 2).await);
    intervals(1).await;
    let shard = (0..100).find(|shard| one.other_home(*shard).is_some()).unwrap_or_else(|| panic!("nothing is shared"));
    one.suspect(&two.own);
    assert_eq!(one.other_home(shard), None);
    assert!(one.status(|_| None).replicas[1].suspected);
    // Until it answers.
    intervals(2).await;
    assert_eq!(one.other_home(shard), None);
    one.members().trust(&two.own.id);
    assert_eq!(one.other_home(shard), Some(two.own.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_object_was_removed_writes_it_again() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let (one, two) = (join(&store, 1).await, join(&store, 2).await);
    store.delete(&key::replica(&two.own.id)).await.unwrap_or_else(|e| panic!("{e}"));
    intervals(3).await;
    assert_eq!(one.status(|_| None).replicas.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_replica_asks_the_store_twice_in_an_interval() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let metered = Arc::new(crate::store::metered::Metered::new(Arc::clone(&store) as _));
    let one = Cluster::join(Arc::clone(&metered) as _, &settings(), "a:1".into(), "bucket", 4, Ids::seeded(7)).await;
    let two = join(&store, 2).await;
    tokio::time::sleep(Duration::from_secs(3601)).await;
    let counts = ["put", "list", "get", "delete"].map(|operation| metered.snapshot().all(operation));
    assert_eq!(counts, [181, 181, 1, 0], "PUT, LIST, GET, DELETE");
    drop((one, two));
}

#[tokio::test]
async fn a_list_of_addresses_is_resolved_and_leaves_out_the_own() {
    let own = Replica { id: "127.0.0.1:1".into(), address: "127.0.0.1:1".into() };
    let list = |peers: &[&str]| peers.iter().map(|peer| ((*peer).to_owned(), BTreeSet::new())).collect();
    let found = resolve(&mut list(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]), &own).await;
    let found = found.iter().map(|replica| replica.address.as_str()).collect::<Vec<_>>();
    assert_eq!(found, ["127.0.0.1:2", "127.0.0.1:3"]);
    let mut list: BTreeMap<_, _> = list(&["127.0.0.1:1", "no address", "127.0.0.1:3"]);
    assert_eq!(resolve(&mut list, &own).await.len(), 1, "one that fails hides the others");
    list.insert("no address".to_owned(), BTreeSet::from(["127.0.0.1:9".to_owned()]));
    assert_eq!(resolve(&mut list, &own).await.len(), 2, "what it was last time is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_started_again_at_its_address_is_there_once_and_the_own_address_is_nobody_elses() {
    let store = Arc::new(MemoryStore::new(Clock::tokio(1_800_000_000_000)));
    let one = join(&store, 1).await;
    drop(join(&store, 2).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = join_at(&store, 2, 22).await;
    let same = join_at(&store, 1, 11).await;
    intervals(1).await;
    let others = |cluster: &Arc<Cluster>| {
        let all = cluster.status(|_| None).replicas;
        all.into_iter().skip(1).map(|other| other.replica.id).collect::<Vec<_>>()
    };
    for replica in [&one, &same] {
        assert_eq!(others(replica), std::slice::from_ref(&again.own.id));
    }
}
