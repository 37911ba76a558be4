use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of hosts, or a percentage of them: `2` or `"10%"`.
///
/// A percentage is rounded down, but never below one host, so that "10%" of three hosts still moves. Write `paused: true`
/// to stop; a limit of 0 is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many hosts, at least 1.
    Count(u32),
    /// So many percent of the hosts, 1 to 100.
    Percent(u32),
}

impl Limit {
    /// How many hosts of `total` that is: at least 1.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).max(1),
            Self::Percent(percent) => (total.saturating_mul(percent as usize) / 100).max(1),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wanted = || format!("write a number of hosts or a percentage from 1% to 100%, not {text:?}");
        let percent: u32 = text.strip_suffix('%').ok_or_else(wanted)?.parse().map_err(|_| wanted())?;
        if (1..=100).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(wanted()) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Count(u32),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Count(count) => Ok(Self::Count(count)),
            Raw::Text(text) => Self::parse(&text).map_err(de::Error::custom),
        }
    }
}

/// A number of hosts that may be none, or a percentage of them, rounded down: `0`, `2` or `"10%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tolerance(Limit);

impl Tolerance {
    /// How many hosts of `total` that is.
    pub fn of(self, total: usize) -> usize {
        match self.0 {
            Limit::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Limit::Percent(percent) => total.saturating_mul(percent as usize) / 100,
        }
    }
}

impl JsonSchema for Tolerance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tolerance".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": format!("type(self) == int ? self >= 0 && self <= 100000 : self in [{}]", percentages()),
                "message": "write a number of hosts from 0 to 100000, or a percentage from \"1%\" to \"100%\"",
            }],
        })
    }
}

/// All of them, because the API server can not bound the length of an int-or-string: it takes the cost of a regular
/// expression for too high in a list such as a Rollout's batches.
fn percentages() -> String {
    (1..=100).map(|percent| format!("'{percent}%'")).collect::<Vec<_>>().join(", ")
}

impl JsonSchema for Limit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let percentages = percentages();
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": format!("type(self) == int ? self >= 1 && self <= 100000 : self in [{percentages}]"),
                "message": "write a number of hosts from 1 to 100000, or a percentage from \"1%\" to \"100%\"; to stop, set paused: true",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_down_but_never_to_nothing() {
        for (limit, total, hosts) in [
            (Limit::Percent(10), 1, 1),
            (Limit::Percent(20), 2, 1),
            (Limit::Percent(34), 3, 1),
            (Limit::Percent(67), 3, 2),
            (Limit::Percent(100), 3, 3),
            (Limit::Percent(10), 99, 9),
            (Limit::Count(5), 3, 5),
        ] {
            assert_eq!(limit.of(total), hosts, "{limit} of {total}");
        }
    }

    #[test]
    fn a_tolerance_may_be_nothing() {
        for (text, total, hosts) in [("0", 9, 0), ("2", 9, 2), ("\"10%\"", 9, 0), ("\"10%\"", 30, 3)] {
            assert_eq!(serde_json::from_str::<Tolerance>(text).unwrap().of(total), hosts, "{text} of {total}");
        }
    }

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        for text in ["3", "\"25%\"", "\"100%\""] {
            let limit: Limit = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&limit).unwrap(), text);
        }
        for text in ["\"0%\"", "\"101%\"", "\"ten\"", "-1", "\"3\""] {
            assert!(serde_json::from_str::<Limit>(text).is_err(), "{text}");
        }
    }
}
