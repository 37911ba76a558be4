use serde::{Deserialize, Serialize};

use crate::{Digest, HostCommand, Resource};

/// What one machine must look like: the work of a master, for one host and one assignment.
///
/// On its way to a machine it is proven by a [`Signature`](crate::Signature), which ends after a day. Once a machine has
/// taken it, it holds until the next one comes.
///
/// `R` is the form of its resources: a list of them, or one of their JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog<R = Vec<Resource>> {
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
    pub resources: R,
    /// The boot during which the machine may reboot, by the kernel's boot id; absent: it must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<String>,
    /// Commands that are run once, after the machine is what the rest says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<HostCommand>,
    /// The digest of everything above; see [`Catalog::seal`].
    pub digest: Digest,
}

impl<R> Catalog<R> {
    /// The same catalog, with its resources in another form.
    pub fn map<S, E>(self, form: impl FnOnce(R) -> Result<S, E>) -> Result<Catalog<S>, E> {
        let Self { host, generation, revisions, interval_seconds, resources, reboot, commands, digest } = self;
        let resources = form(resources)?;
        Ok(Catalog { host, generation, revisions, interval_seconds, resources, reboot, commands, digest })
    }

    /// The HTTP entity tag, with its quotes: it changes with the assignment and with the content.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.generation, self.digest.short(32))
    }
}

impl<R: Serialize> Catalog<R> {
    /// Computes the digest over all other fields and puts it in place.
    pub fn seal(mut self) -> serde_json::Result<Self> {
        self.digest = self.compute_digest()?;
        Ok(self)
    }

    /// Whether the digest fits the rest.
    pub fn is_intact(&self) -> bool {
        self.compute_digest().is_ok_and(|digest| digest == self.digest)
    }

    fn compute_digest(&self) -> serde_json::Result<Digest> {
        let Self { host, generation, revisions, interval_seconds, resources, reboot, commands, digest: _ } = self;
        if commands.is_empty() {
            // As agents know it that know of no commands.
            return Digest::of_json(&(host, generation, revisions, interval_seconds, resources, reboot));
        }
        Digest::of_json(&(host, generation, revisions, interval_seconds, resources, reboot, commands))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileSpec, Part, ResourceId, SensitiveBytes};

    fn catalog() -> Catalog {
        Catalog {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation: 3,
            revisions: vec![RevisionRef { node_config: "base".into(), revision: "base-1".into() }],
            interval_seconds: 60,
            resources: vec![Resource::new(
                ResourceId::new("base", "motd"),
                "file",
                vec![Part::File(FileSpec {
                    path: "/etc/motd".into(),
                    content: Some(SensitiveBytes::new("moo")),
                    mode: 0o644,
                    owner: "root".into(),
                    group: "root".into(),
                    validate: None,
                })],
            )],
            reboot: None,
            commands: vec![],
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
        let mut forged = sealed.clone();
        forged.commands = vec![HostCommand { token: "a".into(), argv: vec!["reboot".into()], timeout_seconds: 1 }];
        assert!(!forged.is_intact());
        let mut forged = sealed;
        forged.host.uid = "u2".into();
        assert!(!forged.is_intact());
    }

    #[test]
    fn survives_the_wire() {
        let sealed = catalog();
        let text = serde_json::to_string(&sealed).unwrap();
        assert!(text.contains(r#""part":"file""#), "{text}");
        assert_eq!(serde_json::from_str::<Catalog>(&text).unwrap(), sealed);
    }

    #[test]
    fn debug_does_not_show_content() {
        assert!(!format!("{:?}", catalog()).contains("moo"));
    }
}
