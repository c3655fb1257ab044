use super::*;
use crate::clock::Clock;
use crate::store::memory::MemoryStore;

fn stores(seed: u64) -> (Arc<MemoryStore>, Faulty) {
    let memory = Arc::new(MemoryStore::new(Clock::tokio(1000)));
    let faulty = Faulty::new(memory.clone(), Ids::seeded(seed));
    (memory, faulty)
}

async fn put(store: &impl Store, key: &str) -> StoreResult<Put> {
    store.put(key, Bytes::from_static(b"x"), Condition::Absent).await
}

async fn has(store: &impl Store, key: &str) -> bool {
    store.get(key).await.is_ok_and(|reply| reply.value.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_decided_fate_meets_one_put_of_its_prefix() {
    let (memory, faulty) = stores(1);
    for (fate, unknown, applied) in [
        (Fate::Answered, None, true),
        (Fate::Refused, Some(false), false),
        (Fate::Lost, Some(true), false),
        (Fate::Unheard, Some(true), true),
    ] {
        let key = format!("log/{fate:?}");
        faulty.next_put("log/", fate);
        assert!(put(&faulty, &format!("other/{fate:?}")).await.is_ok());
        let outcome = put(&faulty, &key).await;
        assert_eq!(outcome.err().map(|error| matches!(error, StoreError::Unknown(_))), unknown, "{fate:?}");
        assert_eq!(has(&*memory, &key).await, applied, "{fate:?}");
        assert!(put(&faulty, &key).await.is_ok(), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_put_lands_only_if_its_condition_holds_then() {
    let (memory, faulty) = stores(1);
    for key in ["free", "taken"] {
        faulty.next_put("", Fate::Late(Duration::from_secs(5)));
        assert!(matches!(put(&faulty, key).await, Err(StoreError::Unknown(_))));
        assert!(!has(&*memory, key).await);
    }
    let rival = memory.put("taken", Bytes::from_static(b"rival"), Condition::Absent).await;
    assert!(rival.is_ok());
    sleep(Duration::from_secs(6)).await;
    assert!(has(&*memory, "free").await);
    let taken = memory.get("taken").await.ok().and_then(|reply| reply.value).map(|object| object.body);
    assert_eq!(taken.as_deref(), Some(&b"rival"[..]));
}

#[tokio::test(start_paused = true)]
async fn an_outage_lasts_until_it_is_over() {
    let (memory, faulty) = stores(1);
    faulty.outage(true);
    for _ in 0..3 {
        assert!(matches!(put(&faulty, "k").await, Err(StoreError::NotApplied(_))));
    }
    assert!(faulty.get("k").await.is_err() && !has(&*memory, "k").await);
    faulty.outage(false);
    assert!(put(&faulty, "k").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults() {
    let mut histories = Vec::new();
    for seed in [7, 7, 8] {
        let (_, faulty) = stores(seed);
        let (latency, landing) = (Duration::ZERO..Duration::from_millis(9), Duration::ZERO..Duration::from_secs(1));
        faulty.set(Faults {
            refused: 100,
            lost: 100,
            unheard: 100,
            late: 100,
            landing,
            bursts: 50,
            burst: Duration::from_millis(30),
            latency: latency.clone(),
            slow: 50,
            slowness: Duration::from_millis(50)..Duration::from_millis(90),
            patience: latency,
        });
        let (started, mut history) = (Instant::now(), Vec::new());
        for i in 0..100 {
            let outcome = put(&faulty, &format!("{i}")).await;
            history.push((started.elapsed(), format!("{:?}", outcome.map(|reply| reply.value))));
        }
        histories.push(history);
    }
    assert_eq!(histories[0], histories[1]);
    assert_ne!(histories[0], histories[2]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_hits_its_keys_and_direction_alone() {
    let (memory, faulty) = stores(1);
    let cut = |prefix: &str, direction| Cut { prefix: prefix.to_owned(), direction };
    faulty.cut(vec![cut("log/0/", Direction::Requests), cut("log/1/", Direction::Answers)]);
    for (key, heard, applied) in [("log/0/1", false, false), ("log/1/1", false, true), ("log/2/1", true, true)] {
        assert_eq!(put(&faulty, key).await.is_ok(), heard, "{key}");
        assert_eq!(has(&*memory, key).await, applied, "{key}");
        assert_eq!(faulty.get(key).await.is_ok(), heard, "{key}");
    }
    faulty.cut(Vec::new());
    assert!(put(&faulty, "log/0/1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_hear_an_answer_does_not_learn_its_time() {
    let (_, faulty) = stores(1);
    assert!(put(&faulty, "a").await.is_ok());
    let learnt = faulty.last_seen();
    assert!(learnt > StoreTime::default());
    sleep(Duration::from_secs(5)).await;
    faulty.next_put("", Fate::Unheard);
    assert!(put(&faulty, "b").await.is_err());
    assert_eq!(faulty.last_seen(), learnt);
    assert!(put(&faulty, "c").await.is_ok());
    assert!(faulty.last_seen() > learnt);
}

#[tokio::test(start_paused = true)]
async fn a_late_delete_lands_late() {
    let (memory, faulty) = stores(1);
    assert!(put(&faulty, "k").await.is_ok());
    let second = Duration::from_secs(1);
    faulty.set(Faults { late: 1000, landing: second..second, ..Faults::default() });
    assert!(matches!(faulty.delete("k").await, Err(StoreError::Unknown(_))));
    assert!(has(&*memory, "k").await);
    sleep(second * 2).await;
    assert!(!has(&*memory, "k").await);
}
