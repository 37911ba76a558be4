use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Edit, Finish, Part};

/// Names one resource of a catalog: `<node config>/<resource name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceId(String);

impl ResourceId {
    /// The id of a resource of a NodeConfig.
    pub fn new(node_config: &str, resource: &str) -> Self {
        Self(format!("{node_config}/{resource}"))
    }

    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The NodeConfig that it is of.
    pub fn node_config(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(node_config, _)| node_config)
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that must be so, as its user wrote it, and the parts that it consists of on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name, unique in the catalog.
    pub id: ResourceId,
    /// Its type, as its user wrote it: `file`, `aptRepository`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// What must be so, in the order of making it so.
    pub parts: Vec<Part>,
    /// What makes a change of the parts take effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish: Vec<Finish>,
    /// These come first, and when one of them fails this one is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<ResourceId>,
    /// These come later, and are told in their turn when this one changed: a service restarts, a `refresh_only` command
    /// runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<ResourceId>,
    /// These are told at the end of the run when this one changed, once for all changes. They may come earlier or later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify_at_end: Vec<ResourceId>,
    /// What happens when the machine differs although the resource is as it was.
    #[serde(default)]
    pub drift: DriftMode,
    /// What a change of it costs those who use the machine.
    #[serde(default)]
    pub disruption: Disruption,
    /// Whether its content holds a secret: then no value of it is in a diff, a report or a backup.
    #[serde(default)]
    pub sensitive: bool,
    /// Whether a secret is in other fields as well, such as in its path: then nothing but its id is shown of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret_names: bool,
    /// Which data its templates and references read, and where each came from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
}

impl Resource {
    /// A resource of some parts, with nothing else said of it.
    pub fn new(id: ResourceId, type_name: &str, parts: Vec<Part>) -> Self {
        Self {
            id,
            type_name: type_name.to_owned(),
            parts,
            finish: Vec::new(),
            require: Vec::new(),
            notify: Vec::new(),
            notify_at_end: Vec::new(),
            drift: DriftMode::default(),
            disruption: Disruption::default(),
            sensitive: false,
            secret_names: false,
            origins: Vec::new(),
        }
    }

    /// The package that it is about, if it is about one: packages of adjacent resources are one transaction.
    pub fn package(&self) -> Option<&crate::PackageSpec> {
        match self.parts.as_slice() {
            [Part::Package(package)] => Some(package),
            _ => None,
        }
    }
}

/// What happens when a machine differs although its catalog did not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriftMode {
    /// It is corrected.
    #[default]
    Correct,
    /// It is reported.
    Report,
    /// Nobody looks.
    Ignore,
}

/// What a change costs those who use a machine, from nothing to most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Disruption {
    /// Nobody notices.
    #[default]
    None,
    /// A service reads its configuration again.
    Reload,
    /// A service restarts.
    Restart,
    /// The machine's work must go elsewhere first.
    Drain,
    /// The machine reboots.
    Reboot,
}

/// Where a value that a resource reads came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// What is read, such as `data.motd`.
    pub key: String,
    /// The layer that it came from, such as `ConfigMap site-berlin`.
    pub source: String,
}

/// Something on a machine that a part takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The thing, such as `path:/etc/motd`.
    pub thing: String,
    /// The part of it, such as one key of a file; `None`: all of it. Two parts of one thing get along.
    pub within: Option<String>,
}

impl Claim {
    /// Whether two resources of one catalog can not both have theirs.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.thing == other.thing && (self.within.is_none() || other.within.is_none() || self.within == other.within)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.within {
            None => f.write_str(&self.thing),
            Some(within) => write!(f, "{} ({within})", self.thing),
        }
    }
}

impl Part {
    /// What it takes for itself on the machine; of keys, each one. A command and a reboot take nothing.
    pub fn claims(&self) -> Vec<Claim> {
        let Self::AuthorizedKeys(spec) = self else { return self.claim().into_iter().collect() };
        let thing = match &spec.path {
            Some(path) => format!("path:{path}"),
            None => format!("authorizedKeys:{}", spec.user),
        };
        if spec.exclusive {
            return vec![Claim { thing, within: None }];
        }
        let key = |line: &String| Claim { thing: thing.clone(), within: Some(key_of(line)) };
        spec.keys.iter().map(key).collect()
    }

    fn claim(&self) -> Option<Claim> {
        let whole = |thing: String| Some(Claim { thing, within: None });
        let path = |path: &String| whole(format!("path:{path}"));
        match self {
            Self::File(spec) => path(&spec.path),
            Self::Directory(spec) => path(&spec.path),
            Self::Symlink(spec) => path(&spec.path),
            Self::Download(spec) => path(&spec.path),
            Self::Edit(spec) => Some(Claim { thing: format!("path:{}", spec.path), within: Some(edited(&spec.edit)) }),
            Self::Archive(spec) => {
                Some(Claim { thing: format!("archive:{}", spec.into), within: Some(spec.url.clone()) })
            }
            Self::Package(spec) => whole(format!("package:{}", spec.package)),
            Self::Service(spec) => whole(format!("unit:{}", spec.unit)),
            Self::User(spec) => whole(format!("user:{}", spec.name)),
            Self::Group(spec) => whole(format!("group:{}", spec.name)),
            Self::Sysctl(spec) => whole(format!("sysctl:{}", spec.key)),
            Self::Module(spec) => whole(format!("module:{}", spec.name.replace('-', "_"))),
            Self::Mount(spec) => whole(format!("mount:{}", spec.path)),
            Self::Swap(spec) => path(&spec.path),
            Self::AuthorizedKeys(_) | Self::Command(_) | Self::Reboot(_) => None,
        }
    }
}

/// A line of `authorized_keys` without its options and its comment, as a digest: lines can be long.
fn key_of(line: &str) -> String {
    // Each key's base64 begins with the length of its type's name: three null bytes and more.
    let key = line.split_whitespace().find(|word| word.starts_with("AAAA")).unwrap_or(line);
    format!("the key {}", crate::Digest::of(key.as_bytes()).short(12))
}

/// What an edit is about within its file. No content: claims are shown.
fn edited(edit: &Edit) -> String {
    match edit {
        Edit::Line { line, matching, .. } => match matching {
            Some(pattern) => format!("lines like {pattern}"),
            None => format!("the line {}", crate::Digest::of(line.expose().as_bytes()).short(12)),
        },
        Edit::Block { begin, .. } => format!("the block {begin}"),
        Edit::Ini { section, key, .. } => format!("[{section}] {key}"),
        Edit::Entry { field, key, .. } => format!("the entry {key} by field {field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuthorizedKeysSpec, Presence};

    #[test]
    fn keys_are_claimed_one_by_one_whatever_their_options_and_comments() {
        let claims = |keys: &[&str], exclusive| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            let (user, state) = ("ann".to_owned(), Presence::Present);
            Part::AuthorizedKeys(AuthorizedKeysSpec { user, state, keys, exclusive, path: None }).claims()
        };
        let both = claims(&["ssh-ed25519 AAAAa ann@a", "ssh-ed25519 AAAAb"], false);
        let second = claims(&["no-pty ssh-ed25519 AAAAb bob"], false);
        assert!(both[1].conflicts_with(&second[0]) && !both[0].conflicts_with(&second[0]));
        assert!(claims(&["ssh-ed25519 AAAAc"], true)[0].conflicts_with(&second[0]));
    }

    #[test]
    fn two_parts_of_a_file_get_along_and_the_whole_of_it_with_nobody() {
        let claim = |within: Option<&str>| Claim { thing: "path:/a".into(), within: within.map(str::to_owned) };
        assert!(claim(None).conflicts_with(&claim(None)));
        assert!(claim(None).conflicts_with(&claim(Some("x"))));
        assert!(claim(Some("x")).conflicts_with(&claim(Some("x"))));
        assert!(!claim(Some("x")).conflicts_with(&claim(Some("y"))));
        assert!(!claim(None).conflicts_with(&Claim { thing: "path:/b".into(), within: None }));
    }
}
