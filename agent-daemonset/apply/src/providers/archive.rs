//! Archives, unpacked by their digest.
//!
//! A stamp in the directory, `.drover-archive-<hash of its name>`, says which archive was unpacked and which files it
//! has. It is written last, so a run that was cut off is done again; what a newer archive no longer has goes.

use std::{fmt, time::Duration};

use drover_catalog::{ArchiveSpec, Digest, PropertyEvent};
use serde::{Deserialize, Serialize};

use super::{Provider, ProviderError, event_of};
use crate::host::{Access, Download, EntryKind, Host, Unpack};

/// How many characters of a digest people are shown, and names have.
const SHORT: usize = 12;
/// The archive and its stamp are the agent's alone: whoever could write the stamp could have files removed.
const PRIVATE: Access = Access { mode: 0o600, user: 0, group: 0 };

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    sha256: Digest,
    /// Paths below the directory, with sizes.
    files: Vec<(String, u64)>,
}

/// The directory as it is.
pub(crate) struct Observed {
    stamp: Option<Stamp>,
    /// Files of the stamp that are not there any more as they were unpacked: how many, and the first one.
    wrong: (usize, Option<String>),
    user: u32,
    group: u32,
}

/// What must change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Fetch the archive and unpack it.
    Unpack {
        /// What is there, by the digest of its archive.
        from: Option<Digest>,
        /// The wanted one.
        to: Digest,
        /// Its files.
        replaces: Vec<String>,
        /// How many of them are wrong, and the first one.
        wrong: (usize, Option<String>),
        user: u32,
        group: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpack { from: None, .. } => f.write_str("unpacked"),
            Self::Unpack { from: Some(from), to, .. } if from != to => {
                write!(f, "unpacked anew, {} -> {}", from.short(SHORT), to.short(SHORT))
            }
            Self::Unpack { wrong: (count, first), .. } => {
                write!(f, "unpacked anew: {} is missing or changed", first.as_deref().unwrap_or("a file"))?;
                if *count > 1 { write!(f, ", and {} more", count - 1) } else { Ok(()) }
            }
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let Self::Unpack { from, to, .. } = self;
        event_of("sha256", from.as_ref().map(Digest::to_string), Some(to.to_string()))
    }
}

/// Where the stamp is.
fn stamp_path(spec: &ArchiveSpec) -> String {
    let name = if spec.name.is_empty() { &spec.url } else { &spec.name };
    format!("{}/.drover-archive-{}", spec.into.trim_end_matches('/'), Digest::of(name.as_bytes()).short(SHORT))
}

fn read_stamp(host: &impl Host, path: &str) -> Result<Option<Stamp>, ProviderError> {
    // In a directory of somebody else's, anybody's file may be in its place.
    let is_ours = host.entry(path)?.is_some_and(|entry| entry.kind == EntryKind::File && entry.access == PRIVATE);
    if !is_ours {
        return Ok(None);
    }
    // One that makes no sense is as good as none: the archive is unpacked anew.
    Ok(host.read_file(path)?.and_then(|content| serde_json::from_slice(&content).ok()))
}

impl Provider for ArchiveSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let into = &self.into;
        match host.entry(into)?.map(|entry| entry.kind) {
            Some(EntryKind::Directory | EntryKind::SymbolicLink) => {}
            Some(_) => return Err(ProviderError::Refused(format!("{into} is no directory; choose another one"))),
            None => {
                let why = format!("there is no directory {into}; add it as a directory resource and require it");
                return Err(ProviderError::Refused(why));
            }
        }
        let (user, group) = (host.user_id(&self.owner)?, host.group_id(&self.group)?);
        let stamp = read_stamp(host, &stamp_path(self))?;
        let mut wrong = (0, None);
        // Those of another archive are unpacked anew in any case.
        if let Some(Stamp { files, .. }) = stamp.as_ref().filter(|stamp| stamp.sha256 == self.sha256) {
            for (path, size) in files {
                let entry = host.entry(&format!("{into}/{path}"))?;
                let is_there = entry.is_some_and(|entry| {
                    matches!(entry.kind, EntryKind::File | EntryKind::SymbolicLink)
                        && (entry.size, entry.access.user, entry.access.group) == (*size, user, group)
                });
                if !is_there {
                    wrong.0 += 1;
                    wrong.1.get_or_insert_with(|| path.clone());
                }
            }
        }
        Ok(Observed { stamp, wrong, user, group })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Observed { stamp, wrong, user, group } = observed;
        if wrong.0 == 0 && stamp.as_ref().is_some_and(|stamp| stamp.sha256 == self.sha256) {
            return Ok(Vec::new());
        }
        let files = stamp.iter().flat_map(|stamp| &stamp.files);
        Ok(vec![Change::Unpack {
            from: stamp.as_ref().map(|stamp| stamp.sha256.clone()),
            to: self.sha256.clone(),
            replaces: files.map(|(path, _)| path.clone()).collect(),
            wrong: wrong.clone(),
            user: *user,
            group: *group,
        }])
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for Change::Unpack { replaces, user, group, .. } in changes {
            // A killed run's is removed as a leftover.
            let archive = format!("{}/.drover-{}-archive.tmp", self.into, self.sha256.short(SHORT));
            let timeout = Duration::from_secs(u64::from(self.timeout_seconds));
            let (url, sha256) = (self.url.as_str(), &self.sha256);
            host.download(&Download { url, sha256, path: &archive, access: PRIVATE, timeout }).await?;
            let unpacked = host
                .unpack(&Unpack {
                    archive: &archive,
                    sha256,
                    into: &self.into,
                    strip_components: self.strip_components,
                    user: *user,
                    group: *group,
                    replaces,
                })
                .await;
            host.remove_file(&archive)?;
            let stamp = Stamp { sha256: sha256.clone(), files: unpacked? };
            let stamp = serde_json::to_vec(&stamp)
                .map_err(|error| ProviderError::Refused(format!("could not write the archive's stamp: {error}")))?;
            host.write_file(&stamp_path(self), &stamp, PRIVATE, None).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::host::memory::{Kill, MemoryHost, apply, check};

    const ACCESS: Access = Access { mode: 0o755, user: 0, group: 0 };
    const OLD: &str = "bin/tool\nlib/old\n";
    const NEW: &str = "bin/tool\nlib/new\n";

    fn url(content: &str) -> String {
        format!("https://dl.example/{}", Digest::of(content.as_bytes()))
    }

    /// In memory, an archive is the names of its files.
    fn tool(content: &str) -> ArchiveSpec {
        ArchiveSpec {
            name: "tool".into(),
            url: url(content),
            sha256: Digest::of(content.as_bytes()),
            into: "/opt/tool".into(),
            strip_components: 0,
            owner: "root".into(),
            group: "adm".into(),
            timeout_seconds: 60,
        }
    }

    fn host() -> MemoryHost {
        MemoryHost::new().directory("/opt/tool", ACCESS).url(&url(OLD), OLD.as_bytes())
    }

    fn serving(host: MemoryHost, content: &str) -> MemoryHost {
        host.url(&url(content), content.as_bytes())
    }

    fn is_there(host: &MemoryHost, path: &str) -> bool {
        host.entry(path).unwrap().is_some()
    }

    #[test]
    fn says_what_changes() {
        check(&tool(OLD), &host(), "unpacked");
        let missing = "refused: there is no directory /opt/tool; add it as a directory resource and require it";
        check(&tool(OLD), &MemoryHost::new(), missing);
        let host = host();
        apply(&tool(OLD), &host).unwrap();
        check(&tool(OLD), &host, "");
        let (old, new) = (Digest::of(OLD.as_bytes()), Digest::of(NEW.as_bytes()));
        check(&tool(NEW), &host, &format!("unpacked anew, {} -> {}", old.short(12), new.short(12)));
        let other = ArchiveSpec { owner: "7".into(), ..tool(OLD) };
        check(&other, &host, "unpacked anew: bin/tool is missing or changed, and 1 more");
        let cut = host.file("/opt/tool/lib/old", "x", Access { group: 4, ..ACCESS });
        check(&tool(OLD), &cut, "unpacked anew: lib/old is missing or changed");
        // Another archive of the same directory is none of this one's business.
        check(&ArchiveSpec { name: "other".into(), ..tool(OLD) }, &cut, "unpacked");
    }

    #[test]
    fn what_the_newer_archive_does_not_have_goes() {
        let host = serving(host(), NEW);
        apply(&tool(OLD), &host).unwrap();
        let kept = host.file("/opt/tool/lib/mine", "", ACCESS);
        apply(&tool(NEW), &kept).unwrap();
        let there =
            ["bin/tool", "lib/new", "lib/old", "lib/mine"].map(|path| is_there(&kept, &format!("/opt/tool/{path}")));
        assert_eq!(there, [true, true, false, true]);
        check(&tool(NEW), &kept, "");
    }

    #[test]
    fn a_stamp_that_somebody_else_wrote_is_none() {
        let stamp = stamp_path(&tool(OLD));
        let content = format!("{{\"sha256\":\"{}\",\"files\":[]}}", tool(OLD).sha256);
        check(&tool(OLD), &host().file(&stamp, &content, PRIVATE), "");
        check(&tool(OLD), &host().file(&stamp, &content, Access { user: 7, ..PRIVATE }), "unpacked");
        check(&tool(OLD), &host().file(&stamp, "{", PRIVATE), "unpacked");
    }

    #[test]
    fn a_kill_at_any_moment_is_made_good_by_the_next_run() {
        for acts in 0..8 {
            for when in [Kill::Before(acts), Kill::After(acts)] {
                let host = serving(host(), NEW);
                apply(&tool(OLD), &host).unwrap();
                host.kill(when);
                let killed = catch_unwind(AssertUnwindSafe(|| apply(&tool(NEW), &host)));
                host.repair();
                let differs = crate::host::memory::changes(&tool(NEW), &host, false);
                assert!(killed.is_err() == (acts < 5), "{when:?}");
                assert!(killed.is_ok() || !differs.is_empty() || when == Kill::After(4), "{when:?}: {differs}");
                apply(&tool(NEW), &host).unwrap();
                check(&tool(NEW), &host, "");
                assert!(!is_there(&host, "/opt/tool/lib/old"), "{when:?}");
            }
        }
    }

    #[test]
    fn a_wrong_archive_leaves_no_stamp() {
        let host = MemoryHost::new().directory("/opt/tool", ACCESS).url(&tool(OLD).url, b"other");
        apply(&tool(OLD), &host).unwrap_err();
        check(&tool(OLD), &host, "unpacked");
        assert!(!is_there(&host, "/opt/tool/bin/tool"));
    }
}
