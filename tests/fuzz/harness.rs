//! One kind of input and what must hold for all of its kind.

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// A parser of bytes from outside.
pub trait Target {
    const NAME: &'static str;
    /// The most memory at a time while an input of n bytes is read: `FIXED + EACH * n`.
    const FIXED: u64;
    const EACH: u64;
    type Value: PartialEq + Debug;

    /// `None` if the input is refused.
    fn parse(input: &Bytes) -> Option<Self::Value>;

    /// What must hold for what was accepted.
    fn check(input: &Bytes, value: &Self::Value) -> Result<(), String>;
}

/// What reading an input came to.
pub struct Reading<V> {
    /// `None`: it was refused.
    pub value: Option<V>,
    /// The part of its bound that it took, in hundredths.
    pub memory: u64,
}

/// Reads one input. An error says what must not be.
pub fn read<T: Target>(input: &Bytes) -> Result<Reading<T::Value>, String> {
    let mut parsed = Ok(None);
    let memory = allocation_counter::measure(|| parsed = catch_unwind(AssertUnwindSafe(|| T::parse(input))));
    let value = parsed.map_err(|_| "it panics".to_owned())?;
    let (taken, bound) = (memory.bytes_max, T::FIXED + T::EACH * input.len() as u64);
    if taken > bound {
        return Err(format!("it takes {taken} bytes of memory for {} of input; the bound is {bound}", input.len()));
    }
    if let Some(value) = &value {
        let checked = catch_unwind(AssertUnwindSafe(|| T::check(input, value)));
        checked.map_err(|_| "its use panics".to_owned())??;
    }
    Ok(Reading { value, memory: taken * 100 / bound.max(1) })
}

/// Reads inputs of all sorts. Some must be accepted and some refused, or they would show nothing.
pub fn fuzz<T: Target>(inputs: impl Strategy<Value = Bytes>) {
    let (accepted, refused, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let cases = run(T::NAME, 2000, inputs, |input| {
        let reading = read::<T>(input)?;
        let counter = if reading.value.is_some() { &accepted } else { &refused };
        counter.set(counter.get() + 1);
        most.set(most.get().max(reading.memory));
        Ok(())
    });
    let (accepted, refused, most) = (accepted.get(), refused.get(), most.get());
    println!("{}: {cases} inputs, {accepted} accepted, {refused} refused, {most} % of the memory allowed", T::NAME);
    assert!(cases < 200 || (accepted > 0 && refused > 0), "{}: the inputs are all alike", T::NAME);
}

/// Damages valid inputs, checksums left as they were: each must be refused, or be the value that it was.
pub fn damage<T: Target>(pairs: impl Strategy<Value = (Bytes, Bytes)>) {
    let unnoticed = Cell::new(0);
    let name = format!("{}-damaged", T::NAME);
    let joined = pairs.prop_map(|(original, damaged)| Pair { original, damaged });
    let cases = run(&name, 2000, joined, |Pair { original, damaged }| {
        let original = read::<T>(original)?.value.ok_or("the original is refused")?;
        match read::<T>(damaged)?.value {
            Some(value) if value != original => return Err(format!("damage is not noticed: {value:?}")),
            Some(_) => unnoticed.set(unnoticed.get() + 1),
            None => {}
        }
        Ok(())
    });
    println!("{name}: {cases} inputs, {} of them with the same meaning", unnoticed.get());
}

/// What is tried.
pub trait Input: Debug + Clone {
    /// As it can be kept in a file.
    fn to_keep(&self) -> Option<&[u8]> {
        None
    }
}

impl Input for Bytes {
    fn to_keep(&self) -> Option<&[u8]> {
        Some(self)
    }
}

#[derive(Debug, Clone)]
struct Pair {
    original: Bytes,
    damaged: Bytes,
}

impl Input for Pair {
    fn to_keep(&self) -> Option<&[u8]> {
        Some(&self.damaged)
    }
}

/// Tries as many inputs as are asked for: `usual` of them, or that part of `FUZZ_CASES` that `usual` is of 2000.
pub fn run<I: Input>(
    name: &str,
    usual: u32,
    inputs: impl Strategy<Value = I>,
    holds: impl Fn(&I) -> Result<(), String>,
) -> u32 {
    let cases = asked_for().map_or(usual, |asked| (asked * u64::from(usual) / 2000).clamp(1, 1 << 31) as u32);
    let seed = seed();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng(seed, name));
    let result = runner.run(&inputs, |input| holds(&input).map_err(TestCaseError::fail));
    match result {
        Ok(()) => cases,
        Err(TestError::Fail(why, input)) => {
            let kept = input.to_keep().map(|bytes| format!("\nkept in {}", keep(name, bytes).display()));
            panic!("{name}: {why}\nFUZZ_SEED={seed}{}\n{input:?}", kept.unwrap_or_default());
        }
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

fn asked_for() -> Option<u64> {
    std::env::var("FUZZ_CASES").ok().and_then(|text| text.parse().ok())
}

#[allow(clippy::disallowed_methods, reason = "a new seed for each run is what is wanted; it is printed")]
fn seed() -> u64 {
    let given = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(rand::random)
}

fn rng(seed: u64, name: &str) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&hash(name.as_bytes()).to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{:016x}", hash(input)));
    std::fs::write(&path, input).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path
}
