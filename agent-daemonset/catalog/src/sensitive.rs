use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that may hold a secret: it travels and is written where it belongs, and is never printed.
///
/// `Debug` shows its length only, and there is no `Display`; read it with [`Sensitive::expose`], which is easy to find
/// in a review.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        assert_eq!(format!("{:?}", Sensitive::new("hunter2")), "(7 bytes, not shown)");
    }
}
