//! What a revision is: everything of a NodeConfig that a machine can notice, with the content that it refers to. Two
//! equal contents have one name, so a revision that is rolled out is never another one under the same name.
//!
//! Which hosts a NodeConfig selects and how many revisions are kept is not part of it: changing that changes no machine.

use std::collections::BTreeMap;

use drover_catalog::{Digest, Sensitive};
use drover_crds::NodeConfigResource;
use serde::{Deserialize, Serialize};

/// The scheme of revision names. A new scheme stamps old content anew; it must never roll a fleet by itself, so
/// [`Stored`] carries it.
const SCHEME: u32 = 1;

/// What a revision consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// What must be so.
    pub resources: Vec<NodeConfigResource>,
    /// How often agents look again, in seconds.
    pub interval_seconds: u32,
    /// The data that templates read, by key, after all layers were merged.
    pub data: BTreeMap<String, DataValue>,
}

/// A value of a template's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataValue {
    /// The value.
    pub value: Sensitive,
    /// Whether it came from a Secret.
    pub secret: bool,
}

/// The part of a revision that is kept in a `ControllerRevision`; values from Secrets are kept in a Secret beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The scheme that the name was made by.
    pub scheme: u32,
    /// What must be so.
    pub resources: Vec<NodeConfigResource>,
    /// How often agents look again, in seconds.
    pub interval_seconds: u32,
    /// The data from ConfigMaps.
    pub data: BTreeMap<String, String>,
    /// The keys of the data from Secrets; empty when there is no Secret beside.
    pub secret_keys: Vec<String>,
}

impl Content {
    /// The name of the revision: `<node config>-<the first 10 characters of the content's SHA-256>`.
    pub fn name(&self, node_config: &str) -> serde_json::Result<String> {
        let Self { resources, interval_seconds, data } = self;
        let digest = Digest::of_json(&(SCHEME, resources, interval_seconds, data))?;
        Ok(format!("{node_config}-{}", digest.short(10)))
    }

    /// What is stored of it, and the values for the Secret beside.
    pub fn store(&self) -> (Stored, BTreeMap<String, Sensitive>) {
        let (secret, plain): (BTreeMap<_, _>, BTreeMap<_, _>) = self.data.iter().partition(|(_, value)| value.secret);
        let stored = Stored {
            scheme: SCHEME,
            resources: self.resources.clone(),
            interval_seconds: self.interval_seconds,
            data: plain.into_iter().map(|(key, v)| (key.clone(), v.value.expose().to_owned())).collect(),
            secret_keys: secret.keys().map(|key| (*key).clone()).collect(),
        };
        (stored, secret.into_iter().map(|(key, v)| (key.clone(), v.value.clone())).collect())
    }
}

impl Stored {
    /// The content again, from what was stored and the values of the Secret beside. `None` when a value is missing.
    pub fn restore(self, secrets: &BTreeMap<String, Sensitive>) -> Option<Content> {
        let plain =
            self.data.into_iter().map(|(key, value)| (key, DataValue { value: Sensitive::new(value), secret: false }));
        let mut data: BTreeMap<String, DataValue> = plain.collect();
        for key in self.secret_keys {
            let value = secrets.get(&key)?.clone();
            data.insert(key, DataValue { value, secret: true });
        }
        Some(Content { resources: self.resources, interval_seconds: self.interval_seconds, data })
    }
}

#[cfg(test)]
mod tests {
    use drover_crds::Sysctl;

    use super::*;

    fn content(value: &str) -> Content {
        let plain = DataValue { value: Sensitive::new("plain"), secret: false };
        let secret = DataValue { value: Sensitive::new("hunter2"), secret: true };
        let sysctl = Sysctl { key: "net.ipv4.ip_forward".into(), value: value.into(), at_boot: None };
        Content {
            resources: vec![NodeConfigResource {
                name: "forward".into(),
                sysctl: Some(sysctl.into()),
                ..Default::default()
            }],
            interval_seconds: 60,
            data: BTreeMap::from([("a".into(), plain), ("b".into(), secret)]),
        }
    }

    #[test]
    fn the_name_follows_the_content_and_nothing_else() {
        assert_eq!(content("1").name("base").unwrap(), content("1").name("base").unwrap());
        assert_ne!(content("1").name("base").unwrap(), content("0").name("base").unwrap());
        let mut other = content("1");
        other.data.get_mut("b").unwrap().value = Sensitive::new("hunter3");
        assert_ne!(content("1").name("base").unwrap(), other.name("base").unwrap());
    }

    #[test]
    fn what_is_stored_comes_back_and_holds_no_secret() {
        let (stored, secrets) = content("1").store();
        assert!(!serde_json::to_string(&stored).unwrap().contains("hunter2"));
        assert_eq!(stored.clone().restore(&BTreeMap::new()), None);
        assert_eq!(stored.restore(&secrets).unwrap(), content("1"));
    }
}
