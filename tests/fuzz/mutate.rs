//! Mutations of what is valid: they get past the first checks, where arbitrary bytes end.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Numbers at which something may overflow, or memory may be asked for.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xffff,
    1 << 20,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    (1 << 53) - 1,
    1 << 53,
    9_999_999_999_999_999,
    10_000_000_000_000_000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

#[derive(Debug, Clone)]
pub enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, Index),
    /// A piece that is there a second time, somewhere else.
    Repeat(Index, Index, Index),
    Insert(Index, Vec<u8>),
    /// A number as it is written in little-endian formats, in so many bytes.
    Fixed(Index, u64, usize),
    /// LEB128.
    Varint(Index, u64),
    /// In place of some number in a text.
    Digits(Index, String),
}

pub fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<Index>;
    let number = || prop_oneof![2 => select(&NUMBERS[..]), 1 => any::<u64>(), 1 => 0u64..300];
    let digits = prop_oneof![
        number().prop_map(|number| number.to_string()),
        select(&["-1", "1e3", "0.5", "99999999999999999999999", "null", "\"x\"", "[]", "+1", "00", ""][..])
            .prop_map(str::to_owned),
    ];
    let mutation = prop_oneof![
        3 => (at(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), at()).prop_map(|(a, b)| Mutation::Remove(a, b)),
        1 => (at(), at(), at()).prop_map(|(a, b, to)| Mutation::Repeat(a, b, to)),
        1 => (at(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), number(), select(&[1usize, 4, 8][..])).prop_map(|(at, n, width)| Mutation::Fixed(at, n, width)),
        2 => (at(), number()).prop_map(|(at, number)| Mutation::Varint(at, number)),
        3 => (at(), digits).prop_map(|(at, digits)| Mutation::Digits(at, digits)),
    ];
    proptest::collection::vec(mutation, 1..4)
}

/// A mutation of `valid`: of one of its inputs, or the start of one with the end of another.
pub fn mutated<S: Strategy<Value = Bytes> + Clone>(valid: S) -> impl Strategy<Value = Bytes> {
    let spliced = (valid.clone(), valid.clone(), any::<Index>(), any::<Index>());
    let spliced = spliced
        .prop_map(|(a, b, end, start)| [&a[..end.index(a.len() + 1)], &b[start.index(b.len() + 1)..]].concat().into());
    prop_oneof![
        5 => (valid, mutations()).prop_map(|(input, mutations)| apply(&input, &mutations)),
        1 => spliced,
    ]
}

/// An input and a mutation of it.
pub fn damaged<S: Strategy<Value = Bytes>>(valid: S) -> impl Strategy<Value = (Bytes, Bytes)> {
    (valid, mutations()).prop_map(|(input, mutations)| {
        let damaged = apply(&input, &mutations);
        (input, damaged)
    })
}

pub fn noise() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

pub fn apply(input: &[u8], mutations: &[Mutation]) -> Bytes {
    let mut bytes = input.to_vec();
    for mutation in mutations {
        mutate(&mut bytes, mutation);
    }
    Bytes::from(bytes)
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len();
    let place = |at: &Index| at.index(length + 1);
    match mutation {
        Mutation::Flip(at, bit) if length > 0 => bytes[at.index(length)] ^= 1 << bit,
        Mutation::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
        Mutation::Flip(..) | Mutation::Set(..) => {}
        Mutation::Cut(at) => bytes.truncate(place(at)),
        Mutation::Remove(a, b) => drop(bytes.drain(place(a).min(place(b))..place(a).max(place(b)))),
        Mutation::Repeat(a, b, to) => {
            let piece = bytes[place(a).min(place(b))..place(a).max(place(b))].to_vec();
            splice(bytes, place(to), 0, &piece);
        }
        Mutation::Insert(at, piece) => splice(bytes, place(at), 0, piece),
        Mutation::Fixed(at, number, width) => {
            let at = place(at);
            let width = (*width).min(length - at);
            splice(bytes, at, width, &number.to_le_bytes()[..width]);
        }
        Mutation::Varint(at, number) => {
            let at = place(at);
            let old = bytes[at..].iter().take(10).take_while(|byte| **byte >= 0x80).count() + 1;
            splice(bytes, at, old.min(length - at), &varint(*number));
        }
        Mutation::Digits(at, digits) => {
            if let Some((start, end)) = some_number(bytes, place(at)) {
                splice(bytes, start, end - start, digits.as_bytes());
            }
        }
    }
}

fn splice(bytes: &mut Vec<u8>, at: usize, removed: usize, piece: &[u8]) {
    bytes.splice(at..at + removed, piece.iter().copied());
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The first run of digits from `from` on.
fn some_number(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let start = from + bytes[from..].iter().position(u8::is_ascii_digit)?;
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some((start, start + length))
}
