use super::*;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = StreamName> {
    "[a-c]{1,3}".prop_map(|text| StreamName::new(&text).unwrap_or_else(|e| panic!("{e}")))
}

fn incarnations() -> impl Strategy<Value = Incarnation> {
    (1u64..10_000_000_000_000_000).prop_map(|n| Incarnation::new(n).unwrap_or(Incarnation::ANY))
}

fn body() -> impl Strategy<Value = Body> {
    let inline = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 0..4).prop_map(|messages| {
        let ends = messages.iter().scan(0, |sum, m| {
            *sum += m.len() as u32;
            Some(*sum)
        });
        Body { ends: ends.collect(), data: Data::Inline(Bytes::from(messages.concat())) }
    });
    let chunk = (any::<u128>(), 1u32..100)
        .prop_map(|(nonce, len)| Body { ends: vec![len], data: Data::Chunk { nonce, len: len.into() } });
    prop_oneof![3 => inline, 1 => chunk]
}

fn effect() -> impl Strategy<Value = Effect> {
    let lifetime = prop_oneof![
        Just(Lifetime::Forever),
        (0u64..99).prop_map(Lifetime::Ttl),
        any::<u64>().prop_map(Lifetime::Until)
    ];
    let producer =
        proptest::option::of(("[a-z]{1,5}", any::<u64>(), any::<u64>()).prop_map(|(id, epoch, seq)| Producer {
            id,
            epoch,
            seq,
        }));
    let appended = (incarnations(), 0u64..1 << 50, body(), proptest::option::of("[a-z]{0,5}"), producer, any::<bool>())
        .prop_map(|(incarnation, start, body, seq, producer, close)| {
            Effect::Appended(Appended { incarnation, start, body, seq: seq.map(Into::into), producer, close })
        });
    prop_oneof![
        1 => (incarnations(), lifetime).prop_map(|(incarnation, lifetime)| Effect::Created {
            incarnation,
            content_type: ContentType::default(),
            lifetime
        }),
        2 => appended,
        1 => incarnations().prop_map(|incarnation| Effect::Deleted { incarnation }),
        1 => incarnations().prop_map(|incarnation| Effect::Touched { incarnation }),
    ]
}

fn header() -> Header {
    Header { shard: 3, position: 42, id: 7, prev: 6, writer: 5, at: 1_700_000_000_000 }
}

fn encoded(records: &[(StreamName, Effect)]) -> Bytes {
    encode(&header(), records.iter().map(|(name, effect)| (name, effect)))
}

proptest! {
    #[test]
    fn entries_round_trip_and_each_streams_bytes_lie_together(records in proptest::collection::vec((name(), effect()), 0..12)) {
        let object = encoded(&records);
        let entry = decode(&object).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(entry.header, header());
        let back: Vec<_> = entry.records.iter().map(|p| (p.record.name.clone(), p.record.effect.clone())).collect();
        prop_assert_eq!(&back, &records);
        let mut next: HashMap<StreamName, u32> = HashMap::new();
        for placed in &entry.records {
            let Effect::Appended(Appended { body: Body { data: Data::Inline(bytes), .. }, .. }) = &placed.record.effect else { continue };
            prop_assert_eq!(&object[placed.data_at as usize..placed.data_at as usize + bytes.len()], &bytes[..]);
            if let Some(expected) = next.get(&placed.record.name) {
                prop_assert_eq!(placed.data_at, *expected);
            }
            next.insert(placed.record.name.clone(), placed.data_at + bytes.len() as u32);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed(records in proptest::collection::vec((name(), effect()), 0..4), at: prop::sample::Index, bit in 0u8..8) {
        let object = encoded(&records);
        let mut flipped = object.to_vec();
        flipped[at.index(object.len())] ^= 1 << bit;
        prop_assert!(decode(&Bytes::from(flipped)).is_err());
        prop_assert!(decode(&object.slice(..at.index(object.len()))).is_err());
    }

    #[test]
    fn bytes_with_a_right_checksum_never_cause_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), header_intact: bool) {
        if header_intact {
            let mut start = encoded(&[])[..73].to_vec();
            start.append(&mut bytes);
            bytes = start;
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let _ = decode(&Bytes::from(bytes));
    }
}

#[test]
fn the_format_has_not_changed() {
    // An old object, kept as it was written by version 1. Add to these; never change one.
    let name = StreamName::new("s").unwrap_or_else(|e| panic!("{e}"));
    let incarnation = Incarnation::new(9).unwrap_or(Incarnation::ANY);
    let created = Effect::Created { incarnation, content_type: ContentType::default(), lifetime: Lifetime::Ttl(60) };
    let appended = Appended {
        incarnation,
        start: 0,
        body: Body { data: Data::Inline(Bytes::from_static(b"hello")), ends: vec![5] },
        seq: Some("a".into()),
        producer: Some(Producer { id: "p".to_owned(), epoch: 1, seq: 2 }),
        close: true,
    };
    let records = [(name.clone(), created), (name, Effect::Appended(appended))];
    let golden = include_str!("../../tests/golden/entry-v1.hex");
    let hex: String = encoded(&records).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, golden.trim());
}
