use std::{convert::Infallible, fmt, str::FromStr};

/// Whose a machine is among the masters: an agent goes to those of its pool that are nearest, and to others when none of them
/// answers. Masters tell each machine, because it can not know by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// The MasterPool that serves it.
    pub pool: Option<String>,
    /// Its Host's label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Its Host's label `topology.kubernetes.io/region`.
    pub region: Option<String>,
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, zone, region } = self;
        let mut separator = "";
        for (key, value) in [("pool", pool), ("zone", zone), ("region", region)] {
            if let Some(value) = value {
                write!(f, "{separator}{key}={value}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl FromStr for Locality {
    type Err = Infallible;

    /// What is not known is left out, and so is what is no name: it might become part of a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_name = |value: &&str| {
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let value = |name: &str| {
            let mut found = text.split(',').filter_map(|part| part.trim().split_once('='));
            found.find(|(key, _)| *key == name).map(|(_, value)| value).filter(is_name).map(str::to_owned)
        };
        Ok(Self { pool: value("pool"), zone: value("zone"), region: value("region") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let locality = |text: &str| text.parse::<Locality>().unwrap();
        for text in ["", "pool=masters", "pool=eu, zone=eu-1a, region=eu-1", "zone=a_1.b"] {
            assert_eq!(locality(text).to_string(), text);
        }
        assert_eq!(locality("zone=a/b, region=, pool=x, more=1").to_string(), "pool=x");
    }
}
