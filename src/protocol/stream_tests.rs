use super::*;
use proptest::prelude::*;

fn text() -> ContentType {
    ContentType::new("text/plain").unwrap_or_default()
}

fn body(bytes: &'static str) -> Body {
    let ends = if bytes.is_empty() { vec![] } else { vec![u32::try_from(bytes.len()).unwrap_or(0)] };
    Body { data: Data::Inline(Bytes::from_static(bytes.as_bytes())), ends }
}

fn incarnation(n: u64) -> Incarnation {
    Incarnation::new(n).unwrap_or(Incarnation::ANY)
}

fn create(n: u64) -> Create {
    Create {
        incarnation: incarnation(n),
        content_type: text(),
        lifetime: Lifetime::Forever,
        closed: false,
        body: Body::default(),
        fork: None,
        retention: None,
    }
}

fn append(bytes: &'static str) -> Append {
    Append { content_type: Some(text()), body: body(bytes), seq: None, producer: None, close: false }
}

fn by(id: &str, epoch: u64, seq: u64) -> Option<Producer> {
    Some(Producer { id: id.to_owned(), epoch, seq })
}

/// Decides and folds, as a shard does.
fn run(stream: &mut Option<Stream>, command: &Command, now: Millis) -> Result<Option<Outcome>, Rejection> {
    let decision = decide(stream.as_ref(), command, now)?;
    for effect in &decision.effects {
        *stream = fold(stream.take(), effect, now);
    }
    Ok(decision.outcome)
}

fn open_stream() -> Option<Stream> {
    let mut stream = None;
    run(&mut stream, &Command::Create(create(1)), 0).unwrap_or_else(|e| panic!("{e}"));
    stream
}

#[test]
fn creating_twice_is_idempotent_and_a_difference_is_named() {
    let mut stream = open_stream();
    let again = run(&mut stream, &Command::Create(create(2)), 1);
    assert!(again.is_ok_and(|o| o.is_some_and(|o| !o.fresh && o.tail.incarnation == incarnation(1))));
    let other_type = Create { content_type: ContentType::default(), ..create(2) };
    let other_life = Create { lifetime: Lifetime::Ttl(5), ..create(2) };
    let closed = Create { closed: true, ..create(2) };
    for (command, what) in [(other_type, "content type"), (other_life, "lifetime"), (closed, "closure status")] {
        assert_eq!(run(&mut stream, &Command::Create(command), 1), Err(Rejection::Exists { what }));
    }
}

#[test]
fn a_stream_can_be_created_closed_with_its_whole_content() {
    let mut stream = None;
    let command = Create { closed: true, body: body("all"), ..create(1) };
    let outcome = run(&mut stream, &Command::Create(command), 0).ok().flatten();
    assert!(outcome.is_some_and(|o| o.fresh && o.closed && o.tail.position == 3));
    assert!(stream.is_some_and(|s| s.closed.is_some() && s.tail == 3));
}

#[test]
fn closed_comes_before_content_type_and_content_type_before_seq() {
    let mut stream = open_stream();
    let seq = |s: &str| Some(Arc::from(s));
    assert!(run(&mut stream, &Command::Append(Append { seq: seq("b"), ..append("x") }), 1).is_ok());
    let wrong = Append { content_type: Some(ContentType::default()), seq: seq("a"), ..append("x") };
    assert!(matches!(run(&mut stream, &Command::Append(wrong.clone()), 1), Err(Rejection::ContentTypeMismatch { .. })));
    let regress = run(&mut stream, &Command::Append(Append { seq: seq("b"), ..append("x") }), 1);
    assert_eq!(regress, Err(Rejection::SeqRegression { last: "b".to_owned() }));
    assert!(run(&mut stream, &Command::Append(Append { close: true, content_type: None, ..append("") }), 1).is_ok());
    assert!(matches!(run(&mut stream, &Command::Append(wrong), 1), Err(Rejection::Closed { .. })));
}

#[test]
fn seqs_are_compared_as_bytes() {
    let mut stream = open_stream();
    for (seq, ok) in [("2", true), ("10", false), ("B", true), ("a", true), ("B", false)] {
        let command = Append { seq: Some(Arc::from(seq)), ..append("x") };
        assert_eq!(run(&mut stream, &Command::Append(command), 1).is_ok(), ok, "{seq}");
    }
}

#[test]
fn a_close_repeats_only_for_who_closed() {
    let mut stream = open_stream();
    let close = Append { producer: by("p", 1, 0), close: true, ..append("end") };
    assert!(run(&mut stream, &Command::Append(close.clone()), 1).is_ok_and(|o| o.is_some_and(|o| o.fresh)));
    assert!(run(&mut stream, &Command::Append(close), 1).is_ok_and(|o| o.is_some_and(|o| !o.fresh && o.closed)));
    let bare = Append { close: true, content_type: None, ..append("") };
    assert!(run(&mut stream, &Command::Append(bare), 1).is_ok());
    for producer in [by("p", 1, 1), by("q", 0, 0)] {
        let other = Append { producer, close: true, ..append("end") };
        assert!(matches!(run(&mut stream, &Command::Append(other), 1), Err(Rejection::Closed { .. })));
    }
    let zombie = Append { producer: by("p", 0, 7), ..append("late") };
    assert_eq!(run(&mut stream, &Command::Append(zombie), 1), Err(Rejection::StaleEpoch { current: 1 }));
    assert_eq!(stream.map(|s| s.tail), Some(3));
}

#[test]
fn a_duplicate_reports_the_highest_accepted_seq_and_changes_nothing() {
    let mut stream = open_stream();
    for seq in 0..3 {
        assert!(run(&mut stream, &Command::Append(Append { producer: by("p", 0, seq), ..append("x") }), 1).is_ok());
    }
    let before = stream.clone();
    let retry = run(&mut stream, &Command::Append(Append { producer: by("p", 0, 1), ..append("y") }), 2);
    assert!(retry.is_ok_and(|o| o.is_some_and(|o| !o.fresh && o.producer == Some(Accepted { epoch: 0, seq: 2 }))));
    assert_eq!(stream, before);
}

#[test]
fn a_stream_whose_time_is_over_is_gone_and_its_path_free() {
    let mut stream = None;
    let short = Create { lifetime: Lifetime::Ttl(1), ..create(1) };
    assert!(run(&mut stream, &Command::Create(short), 0).is_ok());
    assert_eq!(decide(stream.as_ref(), &Command::Expire, 1000).map(|d| d.effects), Ok(vec![]));
    assert_eq!(run(&mut stream, &Command::Append(append("x")), 5000), Err(Rejection::NotFound));
    assert_eq!(decide(stream.as_ref(), &Command::Touch, 5000).map(|d| d.effects), Ok(vec![]));
    assert!(run(&mut stream, &Command::Create(create(2)), 5000).is_ok());
    assert_eq!(stream.map(|s| s.incarnation), Some(incarnation(2)));
}

#[test]
fn effects_of_another_incarnation_change_nothing() {
    let stream = open_stream();
    let deleted = Effect::Deleted { incarnation: incarnation(9) };
    assert_eq!(fold(stream.clone(), &deleted, 1), stream);
    let touched = Effect::Touched { incarnation: incarnation(9) };
    assert_eq!(fold(stream.clone(), &touched, 1), stream);
}

/// A model of one stream that a random client could keep: the accepted bytes, and each producer's next number.
fn commands() -> impl Strategy<Value = Vec<(u8, u64, u64, bool)>> {
    proptest::collection::vec((0u8..3, 0u64..3, 0u64..6, proptest::bool::weighted(0.02)), 0..80)
}

proptest! {
    #[test]
    fn each_producers_number_is_accepted_exactly_once_and_in_order(script in commands()) {
        let mut stream = open_stream();
        let mut accepted: Vec<(u8, u64, u64)> = Vec::new();
        let mut closed = false;
        for (who, epoch, seq, close) in script {
            let command = Append { producer: by(&who.to_string(), epoch, seq), close, ..append("m") };
            if let Ok(Some(outcome)) = run(&mut stream, &Command::Append(command), 1) && outcome.fresh {
                prop_assert!(!closed, "a closed stream took an append");
                accepted.push((who, epoch, seq));
                closed = close;
            }
        }
        prop_assert_eq!(stream.map(|s| s.tail), Some(accepted.len() as u64));
        for who in 0u8..3 {
            let own: Vec<(u64, u64)> = accepted.iter().filter(|a| a.0 == who).map(|a| (a.1, a.2)).collect();
            for pair in own.windows(2) {
                let next_in_epoch = pair[1] == (pair[0].0, pair[0].1 + 1);
                prop_assert!(next_in_epoch || (pair[1].0 > pair[0].0 && pair[1].1 == 0), "{:?}", pair);
            }
        }
    }
}

#[test]
fn a_stream_remembers_so_many_producers_and_refuses_more() {
    let mut stream = open_stream();
    let mut append_by = |id: usize, seq| {
        let append = Append { producer: by(&id.to_string(), 0, seq), ..append("x") };
        run(&mut stream, &Command::Append(append), 1)
    };
    for id in 0..MAX_PRODUCERS {
        assert!(append_by(id, 0).is_ok());
    }
    assert!(matches!(append_by(MAX_PRODUCERS, 0), Err(Rejection::TooMany { .. })));
    assert!(append_by(7, 1).is_ok(), "those that are known go on");
}
