//! Groups, changed by the machine's own `groupadd`, `groupmod` and `groupdel`: they lock the files and keep
//! `/etc/gshadow` right.

use std::{fmt, time::Duration};

use drover_catalog::{GroupSpec, Presence, PropertyEvent};

use super::{Provider, ProviderError, event_of, run_tool};
use crate::{
    account_files::groups,
    host::{Command, Host},
};

/// How long a tool may take; it waits some seconds for a lock.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A group as it is: its number, where it is there.
pub(crate) struct Observed {
    gid: Option<u32>,
}

/// What must change about a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make it.
    Create,
    /// Give it another number. Files keep the old one.
    Gid { from: u32, to: u32 },
    /// Remove it.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("created"),
            Self::Gid { from, to } => write!(f, "gid {from} -> {to}"),
            Self::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Create => event_of("ensure", Some("absent".into()), Some("present".into())),
            Self::Gid { from, to } => event_of("gid", Some(from.to_string()), Some(to.to_string())),
            Self::Remove => event_of("ensure", Some("present".into()), Some("absent".into())),
        }
    }
}

impl Provider for GroupSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let database = host.read_file("/etc/group")?.unwrap_or_default();
        let database = String::from_utf8_lossy(&database);
        Ok(Observed { gid: groups(&database).find(|group| group.name == self.name).map(|group| group.gid) })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        check_name("group", &self.name)?;
        let change = match (self.state, observed.gid) {
            (Presence::Absent, None) => None,
            (Presence::Absent, Some(0)) => {
                return Err(ProviderError::Refused(format!("the group {} is root's, and stays", self.name)));
            }
            (Presence::Absent, Some(_)) => Some(Change::Remove),
            (Presence::Present, None) => Some(Change::Create),
            (Presence::Present, Some(from)) => self.gid.filter(|to| *to != from).map(|to| Change::Gid { from, to }),
        };
        if matches!(change, Some(Change::Gid { from: 0, .. })) {
            return Err(ProviderError::Refused(format!("the group {} is root's, and keeps its number", self.name)));
        }
        Ok(change.into_iter().collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            let mut argv: Vec<String> = Vec::new();
            match change {
                Change::Create => {
                    argv.push("groupadd".into());
                    argv.extend(self.system.then(|| "--system".into()));
                    argv.extend(self.gid.map(|gid| format!("--gid={gid}")));
                }
                Change::Gid { from: _, to } => argv.extend(["groupmod".into(), format!("--gid={to}")]),
                Change::Remove => argv.push("groupdel".into()),
            }
            argv.push(self.name.clone());
            run_tool(host, &Command::of(argv, TIMEOUT)).await?;
        }
        Ok(())
    }
}

/// Refuses a name that the tools would take for an option, or that would break the lines of their files.
pub(super) fn check_name(kind: &str, name: &str) -> Result<(), ProviderError> {
    let breaks = |c: char| matches!(c, ':' | ',' | '/') || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.starts_with(['-', '+', '~']) || name.contains(breaks) {
        let advice = "begin it with a letter, and go on with letters, digits, `-` and `_`";
        return Err(ProviderError::Refused(format!("{name:?} is no name of a {kind}; {advice}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        Access,
        memory::{MemoryHost, apply, check},
    };

    fn host() -> MemoryHost {
        let group = "root:x:0:\nadm:x:4:anna\nusers:x:100:\n";
        MemoryHost::new().file("/etc/group", group, Access { mode: 0o644, user: 0, group: 0 })
    }

    fn spec(name: &str, state: Presence, gid: Option<u32>) -> GroupSpec {
        GroupSpec { name: name.into(), state, gid, system: true }
    }

    #[track_caller]
    fn runs(spec: &GroupSpec, expected: &[&str]) {
        let host = host();
        apply(spec, &host).unwrap();
        assert_eq!(host.ran(), expected);
    }

    #[test]
    fn what_differs_is_changed_and_nothing_else() {
        use Presence::{Absent, Present};
        for (name, state, gid, expected, ran) in [
            ("new", Present, None, "created", vec!["groupadd --system new"]),
            ("new", Present, Some(7), "created", vec!["groupadd --system --gid=7 new"]),
            ("users", Present, None, "", vec![]),
            ("users", Present, Some(100), "", vec![]),
            ("users", Present, Some(101), "gid 100 -> 101", vec!["groupmod --gid=101 users"]),
            ("users", Absent, None, "removed", vec!["groupdel users"]),
            ("use", Absent, None, "", vec![]),
        ] {
            let spec = spec(name, state, gid);
            check(&spec, &host(), expected);
            runs(&spec, &ran);
        }
    }

    #[test]
    fn roots_group_stays_and_a_name_is_never_an_option() {
        check(&spec("root", Presence::Absent, None), &host(), "refused: the group root is root's, and stays");
        let refusal = "refused: the group root is root's, and keeps its number";
        check(&spec("root", Presence::Present, Some(5)), &host(), refusal);
        for name in ["", "--help", "a:b", "a b", "a\nb", "a,b"] {
            assert!(check_name("group", name).is_err(), "{name:?}");
        }
        assert!(check_name("group", "www-data_2").is_ok());
    }

    #[test]
    fn a_tool_that_fails_or_is_missing_says_so() {
        let new = spec("new", Presence::Present, Some(4));
        let refusing = host().command("groupadd", 4, "", "groupadd: GID '4' already exists\n");
        let error = apply(&new, &refusing).unwrap_err().to_string();
        assert_eq!(error, "groupadd exited with 4: groupadd: GID '4' already exists");
        let error = apply(&new, &host().without_program("groupadd")).unwrap_err().to_string();
        assert!(error.starts_with("there is no program groupadd on the machine"), "{error}");
    }

    #[test]
    fn an_event_has_both_numbers() {
        let event = super::super::Change::event(&Change::Gid { from: 1, to: 2 });
        assert_eq!(event, event_of("gid", Some("1".into()), Some("2".into())));
    }
}
