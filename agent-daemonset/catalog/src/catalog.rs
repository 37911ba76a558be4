use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Digest, Sensitive};

/// What one machine must look like: the work of a master, for one host and one assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The host it is for. An agent refuses another host's.
    pub host: HostIdentity,
    /// The host's assignment generation. An agent refuses an older one than it has, and an equal one with another
    /// digest whose revisions differ.
    pub generation: i64,
    /// The revisions that it was made of, by NodeConfig name.
    pub revisions: Vec<RevisionRef>,
    /// How long until the agent looks at the machine again when nothing new arrives, in seconds.
    pub interval_seconds: u32,
    /// What to do, in an order that already respects `require` and `notify`.
    pub resources: Vec<Resource>,
    /// The digest of everything above; see [`Catalog::seal`].
    pub digest: Digest,
}

impl Catalog {
    /// Computes the digest over all other fields and puts it in place.
    pub fn seal(mut self) -> serde_json::Result<Self> {
        self.digest = self.compute_digest()?;
        Ok(self)
    }

    /// Whether the digest fits the rest.
    pub fn is_intact(&self) -> bool {
        self.compute_digest().is_ok_and(|digest| digest == self.digest)
    }

    /// The HTTP entity tag, with its quotes: it changes with the assignment and with the content.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.generation, self.digest.short(32))
    }

    fn compute_digest(&self) -> serde_json::Result<Digest> {
        let Self { host, generation, revisions, interval_seconds, resources, digest: _ } = self;
        Digest::of_json(&(host, generation, revisions, interval_seconds, resources))
    }
}

/// A host by name and UID: one made again under the same name is another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostIdentity {
    /// The name of the `Host` object.
    pub name: String,
    /// The UID of the `Host` object.
    pub uid: String,
}

/// One revision of one NodeConfig.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevisionRef {
    /// The NodeConfig's name.
    pub node_config: String,
    /// The revision's name, `<node config>-<hash>`.
    pub revision: String,
}

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
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that must be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name, unique in the catalog.
    pub id: ResourceId,
    /// What must be so.
    #[serde(flatten)]
    pub kind: ResourceKind,
    /// These come first, and when one of them fails this one is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<ResourceId>,
    /// These come later, and are told when this one changed: a service restarts, a `refresh_only` command runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<ResourceId>,
}

/// What must be so, by type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "spec", rename_all = "lowercase")]
pub enum ResourceKind {
    /// A file with this content, owner and mode.
    File(FileSpec),
    /// A directory with this owner and mode.
    Directory(DirectorySpec),
    /// A command that runs when its guards say so.
    Exec(ExecSpec),
    /// A systemd unit's state.
    Service(ServiceSpec),
    /// A package of the system's package manager.
    Package(PackageSpec),
    /// A kernel parameter.
    Sysctl(SysctlSpec),
}

impl ResourceKind {
    /// What it claims on the machine: `file:/etc/motd`. Two resources of one catalog never claim the same; a command
    /// claims nothing.
    pub fn claim(&self) -> Option<String> {
        match self {
            Self::File(file) => Some(format!("path:{}", file.path)),
            Self::Directory(directory) => Some(format!("path:{}", directory.path)),
            Self::Exec(_) => None,
            Self::Service(service) => Some(format!("unit:{}", service.unit)),
            Self::Package(package) => Some(format!("package:{}", package.package)),
            Self::Sysctl(sysctl) => Some(format!("sysctl:{}", sysctl.key)),
        }
    }
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// The whole content; absent when the file must not be there.
    pub content: Option<Sensitive>,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
}

/// A directory. Its parents must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySpec {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
}

/// A command. It runs when it is not `refresh_only` or was notified, and no guard says that its work is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments; no shell.
    pub argv: Vec<String>,
    /// Done when this path exists.
    #[serde(default)]
    pub creates: Option<String>,
    /// Done when this command exits with 0.
    #[serde(default)]
    pub unless: Option<Vec<String>>,
    /// Only needed when this command exits with 0.
    #[serde(default)]
    pub only_if: Option<Vec<String>>,
    /// Runs only when another resource notified it.
    #[serde(default)]
    pub refresh_only: bool,
    /// The working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Its environment, beside `PATH`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Ended, with its children, after so many seconds; so is each guard.
    pub timeout_seconds: u32,
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The unit with its suffix, such as `nginx.service`.
    pub unit: String,
    /// Running or stopped; absent: as it is.
    #[serde(default)]
    pub state: Option<ServiceState>,
    /// Started at boot or not; absent: as it is.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// On a notification, reload where the unit can (systemd's reload-or-restart) instead of restart.
    #[serde(default)]
    pub reload_on_notify: bool,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Active.
    Running,
    /// Inactive.
    Stopped,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSpec {
    /// Its name.
    pub package: String,
    /// There or not.
    pub state: PackageState,
    /// Exactly this version; absent: any that is there, else the repository's candidate.
    #[serde(default)]
    pub version: Option<String>,
}

/// Whether a package is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageState {
    /// Installed.
    Present,
    /// Not installed.
    Absent,
}

/// A kernel parameter, live and after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlSpec {
    /// With dots, such as `net.ipv4.ip_forward`; a slash stands for a dot within a name (`net.ipv4.conf.eth0/1.forwarding`).
    pub key: String,
    /// As the kernel takes it; runs of white space count as one when it is compared.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation: 3,
            revisions: vec![RevisionRef { node_config: "base".into(), revision: "base-1".into() }],
            interval_seconds: 60,
            resources: vec![Resource {
                id: ResourceId::new("base", "motd"),
                kind: ResourceKind::File(FileSpec {
                    path: "/etc/motd".into(),
                    content: Some(Sensitive::new("moo")),
                    mode: 0o644,
                    owner: "root".into(),
                    group: "root".into(),
                }),
                require: vec![],
                notify: vec![],
            }],
            digest: Digest::of(b""),
        }
        .seal()
        .unwrap()
    }

    #[test]
    fn a_changed_catalog_is_not_intact() {
        let sealed = catalog();
        assert!(sealed.is_intact());
        let mut forged = sealed.clone();
        forged.generation += 1;
        assert!(!forged.is_intact());
        let mut forged = sealed;
        forged.host.uid = "u2".into();
        assert!(!forged.is_intact());
    }

    #[test]
    fn survives_the_wire() {
        let sealed = catalog();
        let text = serde_json::to_string(&sealed).unwrap();
        assert!(text.contains(r#""type":"file""#), "{text}");
        assert_eq!(serde_json::from_str::<Catalog>(&text).unwrap(), sealed);
    }

    #[test]
    fn debug_does_not_show_content() {
        assert!(!format!("{:?}", catalog()).contains("moo"));
    }
}
