use super::*;
use http_body::Body as _;
use http_body_util::BodyExt;

const PATIENCE: Duration = Duration::from_secs(30);

fn watched(inner: Body) -> (Watched, Arc<Progress>) {
    let progress = Arc::<Progress>::default();
    (Watched { inner, last: Bytes::new(), progress: Some(Arc::clone(&progress)) }, progress)
}

async fn next(body: &mut Watched) -> Option<Piece> {
    body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok())
}

#[tokio::test]
async fn the_last_byte_goes_by_itself() {
    let (mut body, _) = watched(Body::from("all but one"));
    let mut pieces = Vec::new();
    while let Some(piece) = next(&mut body).await {
        let left = body.size_hint().exact();
        pieces.push((String::from_utf8_lossy(piece.chunk()).into_owned(), left, body.is_end_stream()));
    }
    assert_eq!(pieces, [("all but on".to_owned(), Some(1), false), ("e".to_owned(), Some(0), true)]);
    assert!(watched(Body::empty()).0.is_end_stream());
    let (mut one, _) = watched(Body::from("1"));
    assert_eq!(next(&mut one).await.map(|piece| piece.remaining()), Some(1));
    assert!(one.is_end_stream());
}

#[tokio::test]
async fn a_response_outside_of_an_http2_stream_is_sent_as_it_is() {
    let mut body = watch(Response::new(Body::from("whole"))).into_body();
    let piece = next(&mut body).await;
    assert_eq!(piece.map(|piece| piece.bytes.clone()), Some(Bytes::from_static(b"whole")));
    assert!(body.is_end_stream());
}

/// Whether it stalls within as much time.
async fn stalls(progress: &Progress, within: Duration) -> bool {
    tokio::time::timeout(within, is_past(PATIENCE, || progress.lock().moved)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_in_time_does_not_stall() {
    let (mut body, progress) = watched(Body::from(vec![0; STEP * 4]));
    assert!(!stalls(&progress, PATIENCE * 10).await, "nothing was sent yet");
    let mut piece = next(&mut body).await.unwrap_or_else(|| panic!("no piece"));
    for _ in 0..3 {
        assert!(!stalls(&progress, PATIENCE * 9 / 10).await);
        piece.advance(STEP);
    }
    drop(piece);
    assert!(!stalls(&progress, PATIENCE * 10).await, "nothing is on its way");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_or_only_byte_by_byte_stalls() {
    let (mut body, progress) = watched(Body::from(vec![0; STEP * 4]));
    let mut piece = next(&mut body).await.unwrap_or_else(|| panic!("no piece"));
    let since = Instant::now();
    for _ in 0..3 {
        assert!(!stalls(&progress, PATIENCE / 4).await);
        piece.advance(1);
    }
    assert!(stalls(&progress, PATIENCE).await);
    assert_eq!(since.elapsed().as_secs(), PATIENCE.as_secs());
}
