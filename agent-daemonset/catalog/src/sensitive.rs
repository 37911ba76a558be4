use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A text that may hold a secret: it travels and is written where it belongs, and is never printed.
///
/// `Debug` shows its length only, and there is no `Display`; read it with [`Sensitive::expose`], which is easy to find
/// in a review.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sensitive(String);

impl Sensitive {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Never pass it to a log, an error or a report.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes, not shown)", self.0.len())
    }
}

/// Bytes that may hold a secret, by the same rules as [`Sensitive`]: the content of a file.
///
/// Its JSON form is a string where the bytes are UTF-8, else `{"base64": "…"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SensitiveBytes(Vec<u8>);

impl SensitiveBytes {
    /// Wraps a value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The value itself. Never pass it to a log, an error or a report.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&Sensitive> for SensitiveBytes {
    fn from(text: &Sensitive) -> Self {
        Self(text.expose().as_bytes().to_vec())
    }
}

impl fmt::Debug for SensitiveBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes, not shown)", self.0.len())
    }
}

/// The JSON form of bytes that are no text.
#[derive(Serialize, Deserialize)]
struct Encoded {
    base64: String,
}

impl Serialize for SensitiveBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SensitiveBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Encoded(Encoded),
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            // The error must not show what could not be decoded.
            Form::Encoded(Encoded { base64 }) => {
                BASE64_STANDARD.decode(base64).map(Self).map_err(|_| D::Error::custom("content is not valid base64"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        assert_eq!(format!("{:?}", Sensitive::new("hunter2")), "(7 bytes, not shown)");
        assert_eq!(format!("{:?}", SensitiveBytes::new("hunter2")), "(7 bytes, not shown)");
    }

    #[test]
    fn bytes_survive_the_wire() {
        for (bytes, json) in [(&b"moo"[..], r#""moo""#), (&[0xff, 0], r#"{"base64":"/wA="}"#), (b"", r#""""#)] {
            let bytes = SensitiveBytes::new(bytes);
            assert_eq!(serde_json::to_string(&bytes).unwrap(), json);
            assert_eq!(serde_json::from_str::<SensitiveBytes>(json).unwrap(), bytes);
        }
        assert!(serde_json::from_str::<SensitiveBytes>(r#"{"base64":"%"}"#).is_err());
    }
}
