//! Little-endian and variable-length integers; a reader that never reads past its input nor allocates beyond it.

use bytes::Bytes;

use super::Damaged;

#[derive(Debug, Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// LEB128.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn optional_text(&mut self, text: Option<&str>) {
        self.u8(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    /// Rising numbers, as the differences between them.
    pub fn rising(&mut self, numbers: &[u32]) {
        self.varint(numbers.len() as u64);
        let mut previous = 0;
        for number in numbers {
            self.varint(u64::from(number.wrapping_sub(previous)));
            previous = *number;
        }
    }
}

pub(super) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, length: usize) -> Result<Bytes, Damaged> {
        if length > self.left() {
            return Err(Damaged::new("it ends too early"));
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let taken = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&taken);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn u128(&mut self) -> Result<u128, Damaged> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Only the shortest form of a number is taken: what can be written in one way only can't be changed unnoticed.
    pub fn varint(&mut self) -> Result<u64, Damaged> {
        let too_long = || Damaged::new("a number is too long");
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits << shift;
            if byte < 0x80 {
                let is_shortest = (byte > 0 || shift == 0) && bits << shift >> shift == bits;
                return if is_shortest { Ok(value) } else { Err(too_long()) };
            }
        }
        Err(too_long())
    }

    /// A count of things that take at least `shortest` bytes each, so that a damaged count cannot ask for more memory
    /// than so many things need.
    pub fn count(&mut self, shortest: usize) -> Result<usize, Damaged> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.left() / shortest { Err(Damaged::new("a count is too large")) } else { Ok(count) }
    }

    pub fn text(&mut self) -> Result<String, Damaged> {
        let length = self.count(1)?;
        let taken = self.take(length)?;
        String::from_utf8(taken.to_vec()).map_err(|_| Damaged::new("a text is not UTF-8"))
    }

    pub fn flag(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged::new("a flag is neither 0 nor 1")),
        }
    }

    pub fn optional_text(&mut self) -> Result<Option<String>, Damaged> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }

    pub fn rising(&mut self) -> Result<Vec<u32>, Damaged> {
        let count = self.count(1)?;
        let mut numbers = Vec::with_capacity(count);
        let mut last = 0u32;
        for _ in 0..count {
            let step = u32::try_from(self.varint()?).map_err(|_| Damaged::new("a step is too large"))?;
            last = last.checked_add(step).ok_or_else(|| Damaged::new("numbers do not rise"))?;
            numbers.push(last);
        }
        Ok(numbers)
    }
}
