//! What a revision is: everything of a NodeConfig that a machine or a Rollout can notice, with the content that it refers
//! to. Two equal contents have one name, so a revision that is rolled out is never another one under the same name.
//!
//! Which hosts a NodeConfig selects and how many revisions are kept is not part of it: changing that changes no machine.
//!
//! How it is stored, by which scheme, is the module `stored`'s.

mod stored;

use std::{collections::BTreeMap, fmt};

use drover_catalog::{Digest, Sensitive, SensitiveBytes};
use drover_crds::{ContentSource, DataFormat, DisruptionPolicy, DriftMode, NodeConfigResource};
use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

pub use self::stored::Stored;
use crate::data::{self, Parsed};

/// The scheme of revision names and of [`Stored`], which carries it. A new scheme names new content only: content that is
/// kept already keeps its name (see [`Content::is_same_as`]), so a new release never rolls a fleet by itself.
const SCHEME: u32 = 2;

/// Characters of a hash in a revision's name.
const NAME_LENGTH: usize = 10;

/// What a revision consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Content {
    /// What must be so.
    pub resources: Vec<NodeConfigResource>,
    /// How often agents look again, in seconds.
    pub interval_seconds: u32,
    /// What happens when a machine differs, unless a resource says otherwise.
    pub drift: DriftMode,
    /// What changes cost.
    pub disruption: DisruptionPolicy,
    /// Where it stands among the NodeConfigs of a machine; higher comes first.
    pub priority: i32,
    /// The data that templates read, layer by layer, in the order in which they are written.
    pub layers: Vec<Layer>,
    /// What `contentFrom` and the like of the resources refer to. A list, because JSON has no such keys; sorted.
    #[serde(serialize_with = "as_list")]
    pub references: BTreeMap<ContentSource, SensitiveBytes>,
}

/// One layer of data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// The object that it was read from.
    pub source: Source,
    /// Which machines it is for, by the labels of their Hosts; absent: all.
    pub selector: Option<LabelSelector>,
    /// How the values are read.
    pub format: DataFormat,
    /// The values, as they are in the object.
    pub values: BTreeMap<String, Sensitive>,
    #[serde(skip)]
    parsed: Parsed,
}

impl Layer {
    /// A layer.
    pub fn new(
        source: Source,
        selector: Option<LabelSelector>,
        format: DataFormat,
        values: BTreeMap<String, Sensitive>,
    ) -> Self {
        Self { source, selector, format, values, parsed: Parsed::default() }
    }

    /// The values as templates read them. They are read once.
    pub(crate) fn parsed(&self) -> &Parsed {
        &self.parsed
    }
}

/// The object that data came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// Its name; empty in a revision of scheme 1, which kept the merged data only.
    pub name: String,
}

/// A kind of object that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourceKind {
    /// Anybody who may read NodeConfigs may see its values.
    ConfigMap,
    /// Its values are secret.
    Secret,
}

impl Source {
    /// A ConfigMap.
    pub fn config_map(name: &str) -> Self {
        Self { kind: SourceKind::ConfigMap, name: name.to_owned() }
    }

    /// A Secret.
    pub fn secret(name: &str) -> Self {
        Self { kind: SourceKind::Secret, name: name.to_owned() }
    }

    /// Whether its values are secret.
    pub fn is_secret(&self) -> bool {
        self.kind == SourceKind::Secret
    }
}

/// `ConfigMap site-berlin`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SourceKind::ConfigMap => "ConfigMap",
            SourceKind::Secret => "Secret",
        };
        match self.name.as_str() {
            "" => write!(f, "a {kind} whose name an older release did not keep"),
            name => write!(f, "{kind} {name}"),
        }
    }
}

/// The key of the names of revisions that hold secrets: whoever sees such a name can not try out which secret would
/// make it.
#[derive(Clone)]
pub struct NameKey([u8; Self::LENGTH]);

impl NameKey {
    /// In bytes: as much as the hash gives (RFC 2104, section 3).
    pub const LENGTH: usize = 32;

    /// A key of these bytes.
    pub fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a key, not shown)")
    }
}

impl Content {
    /// Whether it holds values of Secrets.
    pub fn holds_secrets(&self) -> bool {
        self.layers.iter().any(|layer| layer.source.is_secret())
            || self.references.keys().any(|source| source.secret_key_ref.is_some())
    }

    /// The name of the revision: `<node config>-<10 characters>`, from the content's SHA-256; where it holds secrets and a
    /// key is given, from its HMAC-SHA256 (RFC 2104).
    pub fn name(&self, node_config: &str, key: Option<&NameKey>) -> serde_json::Result<String> {
        let all = (SCHEME, self);
        let digest = match key.filter(|_| self.holds_secrets()) {
            None => Digest::of_json(&all)?.short(NAME_LENGTH).to_owned(),
            Some(NameKey(key)) => {
                // A block of HMAC-SHA256 is 64 bytes; a shorter key is filled up with zeros (RFC 2104, section 2).
                let mut block = [0_u8; 64];
                block[..key.len()].copy_from_slice(key);
                let mac = Hmac::<Sha256>::new(&block.into()).chain_update(serde_json::to_vec(&all)?);
                hexadecimal(&mac.finalize().into_bytes()[..NAME_LENGTH / 2])
            }
        };
        Ok(format!("{node_config}-{digest}"))
    }

    /// Whether a machine would notice no difference, so that the one that is kept already may keep its name. A revision
    /// of scheme 1 knows its data merged only, so the data is compared as merged.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let of_scheme_1 = |content: &Self| content.layers.iter().any(|layer| layer.source.name.is_empty());
        // An empty object gives no layer of scheme 1, and no machine anything.
        let with_values = |content: &Self| {
            let layers = content.layers.iter().filter(|layer| !layer.values.is_empty()).cloned().collect();
            Self { layers, ..content.clone() }
        };
        if !of_scheme_1(self) && !of_scheme_1(other) {
            return self == other || with_values(self) == with_values(other);
        }
        let plain = |content: &Self| {
            content.layers.iter().all(|layer| layer.selector.is_none() && layer.format == DataFormat::Text)
        };
        let without_layers = |content: &Self| Self { layers: Vec::new(), ..content.clone() };
        plain(self)
            && plain(other)
            && without_layers(self) == without_layers(other)
            && data::merge(&self.layers, &BTreeMap::new()).is_ok_and(|ours| {
                data::merge(&other.layers, &BTreeMap::new()).is_ok_and(|theirs| ours.has_values_of(&theirs))
            })
    }
}

fn as_list<S: serde::Serializer>(
    references: &BTreeMap<ContentSource, SensitiveBytes>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(references)
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
