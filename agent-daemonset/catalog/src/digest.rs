use std::{fmt, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some content, in lower-case hexadecimal: 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_hash(&Sha256::digest(bytes))
    }

    /// The digest of all that a reader gives.
    pub fn of_reader(mut reader: impl io::Read) -> io::Result<Self> {
        let mut digester = Digester::default();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(digester.finish()),
                Ok(length) => digester.update(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn of_hash(hash: &[u8]) -> Self {
        // Not by `format!`, which takes as long as the hash of a token: a master makes one for each request.
        let digit = |value: u8| char::from_digit(value.into(), 16);
        Self(hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).flatten().collect())
    }

    /// The digest of a value's JSON form. Two equal values have equal digests when their maps are ordered (`BTreeMap`).
    pub fn of_json<T: Serialize>(value: &T) -> serde_json::Result<Self> {
        let mut digester = Digester::default();
        serde_json::to_writer(&mut digester, value)?;
        Ok(digester.finish())
    }

    /// The first characters, for names that people read; at most 64.
    pub fn short(&self, length: usize) -> &str {
        self.0.get(..length).unwrap_or(&self.0)
    }

    /// All 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The digest of content that comes bit by bit.
#[derive(Clone, Debug, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes that were taken.
    pub fn finish(self) -> Digest {
        Digest::of_hash(&self.0.finalize())
    }
}

impl io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sha256_in_hexadecimal() {
        // The test vector "abc" of FIPS 180-2, appendix B.1.
        let digest = Digest::of(b"abc");
        assert_eq!(digest.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.short(8), "ba7816bf");
        let mut bit_by_bit = Digester::default();
        bit_by_bit.update(b"a");
        bit_by_bit.update(b"bc");
        assert_eq!(bit_by_bit.finish(), digest);
        assert_eq!(Digest::of_reader(b"abc".as_slice()).unwrap(), digest);
    }
}
