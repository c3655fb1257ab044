//! Pages: where a catch-up response ends (§5.6 leaves the maximum chunk size to the server).
//!
//! A page ends at the first message boundary at or after a multiple of the page size, which depends on the stream's
//! content alone. So readers that started anywhere ask the same URLs after one response, and a cache has few to keep.

/// The multiple of `page_bytes` at or after which a page that starts at `position` ends.
pub fn target(position: u64, page_bytes: u64) -> u64 {
    (position / page_bytes + 1).saturating_mul(page_bytes)
}

/// The page ends that lie in a run of messages which starts at `start` and whose messages end at `start + ends[i]`:
/// for each multiple of `page_bytes` in `(start, end of run]`, the first message end at or after it.
pub fn ends_in(start: u64, ends: &[u32], page_bytes: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut goal = target(start, page_bytes);
    for end in ends.iter().map(|end| start + u64::from(*end)) {
        if end >= goal {
            found.push(end);
            goal = target(end, page_bytes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_ends_at_the_first_boundary_at_or_after_a_multiple() {
        assert_eq!(ends_in(0, &[4, 9, 10, 15, 31, 32], 10), [10, 31]);
        assert_eq!(ends_in(10, &[5, 12], 10), [22]);
        assert_eq!(ends_in(9, &[1], 10), [10]);
        assert_eq!(target(10, 10), 20);
    }

    proptest! {
        #[test]
        fn page_ends_do_not_depend_on_how_a_stream_was_appended(
            lengths in proptest::collection::vec(1u32..40, 1..60), cut in 0usize..60, page in 1u64..50,
        ) {
            let ends_of = |lengths: &[u32]| lengths.iter().scan(0, |sum, n| { *sum += n; Some(*sum) }).collect::<Vec<u32>>();
            let whole = ends_in(0, &ends_of(&lengths), page);
            let cut = cut.min(lengths.len());
            let (head, tail) = lengths.split_at(cut);
            let middle: u64 = head.iter().map(|n| u64::from(*n)).sum();
            let mut parts = ends_in(0, &ends_of(head), page);
            parts.extend(ends_in(middle, &ends_of(tail), page));
            prop_assert_eq!(whole, parts);
        }
    }
}
