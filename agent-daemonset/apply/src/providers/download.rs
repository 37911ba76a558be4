//! Files from a URL, by their digest. The digest is what says whether a file is the wanted one; nothing is asked of the
//! server while it is.

use std::{fmt, time::Duration};

use drover_catalog::{Digest, DownloadSpec, PropertyEvent};

use super::{Provider, ProviderError, access_changes, event, event_of, wanted_access};
use crate::host::{Access, Download, Entry, EntryKind, Host};

/// How many characters of a digest people are shown.
const SHORT: usize = 12;

/// A file as it is.
pub(crate) struct Observed {
    entry: Option<Entry>,
    /// Of a regular file.
    digest: Option<Digest>,
    wanted: Access,
}

/// What must change about a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Fetch it.
    Fetch {
        /// In words.
        reason: String,
        /// The digest of what is there.
        from: Option<Digest>,
        /// The wanted one.
        to: Digest,
        access: Access,
    },
    /// Give it to somebody else, or another mode.
    Access {
        /// In words.
        reason: String,
        access: Access,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch { reason, .. } | Self::Access { reason, .. } => f.write_str(reason),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Fetch { from, to, .. } => {
                event_of("sha256", from.as_ref().map(Digest::to_string), Some(to.to_string()))
            }
            Self::Access { .. } => event("access"),
        }
    }
}

impl Provider for DownloadSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let entry = host.entry(&self.path)?;
        let is_file = entry.is_some_and(|entry| entry.kind == EntryKind::File);
        let digest = if is_file { host.file_digest(&self.path)? } else { None };
        Ok(Observed { entry, digest, wanted: wanted_access(host, self.mode, &self.owner, &self.group)? })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Observed { entry, digest, wanted: access } = observed;
        let (access, to) = (*access, self.sha256.clone());
        let fetch = |reason: String, from| vec![Change::Fetch { reason, from, to, access }];
        let Some(entry) = entry else { return Ok(fetch("fetched".to_owned(), None)) };
        let found = match entry.kind {
            EntryKind::SymbolicLink => return Ok(fetch("fetched in place of a symbolic link".to_owned(), None)),
            EntryKind::File => None,
            EntryKind::Directory => Some("a directory"),
            EntryKind::Special => Some("a device, a socket or a pipe"),
        };
        if let Some(found) = found {
            let path = &self.path;
            return Err(ProviderError::Refused(format!("{path} is {found}; move it away, or choose another path")));
        }
        let access_changes = access_changes(entry.access, access);
        if digest.as_ref() != Some(&self.sha256) {
            let old = digest.as_ref().map_or("nothing", |digest| digest.short(SHORT));
            let content = format!("fetched anew, {old} -> {}", self.sha256.short(SHORT));
            let reasons: Vec<String> = [content].into_iter().chain(access_changes).collect();
            return Ok(fetch(reasons.join(", "), digest.clone()));
        }
        if access_changes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Change::Access { reason: access_changes.join(", "), access }])
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            // A file that is right is copied beside itself, so that it has its owner and mode before it appears.
            let itself = reqwest::Url::from_file_path(&self.path).map(String::from);
            let (url, access) = match (change, &itself) {
                (Change::Access { access, .. }, Ok(itself)) => (itself.as_str(), *access),
                (Change::Access { access, .. } | Change::Fetch { access, .. }, _) => (self.url.as_str(), *access),
            };
            let timeout = Duration::from_secs(u64::from(self.timeout_seconds));
            host.download(&Download { url, sha256: &self.sha256, path: &self.path, access, timeout }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::{MemoryHost, apply, check};

    const URL: &str = "https://dl.example/tool";
    const WANTED: Access = Access { mode: 0o755, user: 0, group: 4 };

    fn tool() -> DownloadSpec {
        DownloadSpec {
            url: URL.into(),
            sha256: Digest::of(b"moo"),
            path: "/usr/local/bin/tool".into(),
            mode: 0o755,
            owner: "root".into(),
            group: "adm".into(),
            timeout_seconds: 60,
        }
    }

    fn with(content: &str, access: Access) -> MemoryHost {
        MemoryHost::new().file("/usr/local/bin/tool", content, access)
    }

    #[test]
    fn says_what_changes() {
        check(&tool(), &MemoryHost::new(), "fetched");
        check(&tool(), &with("moo", WANTED), "");
        let (old, new) = (Digest::of(b"baa"), Digest::of(b"moo"));
        let anew = format!("fetched anew, {} -> {}", old.short(12), new.short(12));
        check(&tool(), &with("baa", WANTED), &anew);
        let private = Access { mode: 0o700, ..WANTED };
        check(&tool(), &with("baa", private), &format!("{anew}, mode 0700 -> 0755"));
        check(&tool(), &with("moo", private), "mode 0700 -> 0755");
        check(&tool(), &MemoryHost::new().link("/usr/local/bin/tool", "x"), "fetched in place of a symbolic link");
        let refusal = "refused: /usr/local/bin/tool is a directory; move it away, or choose another path";
        check(&tool(), &MemoryHost::new().directory("/usr/local/bin/tool", WANTED), refusal);
    }

    #[test]
    fn a_mode_needs_no_server() {
        let private = Access { mode: 0o700, ..WANTED };
        let host = with("moo", private);
        apply(&tool(), &host).unwrap();
        check(&tool(), &host, "");
        // Content does.
        let host = with("baa", WANTED);
        apply(&tool(), &host).unwrap_err();
        let host = host.url(URL, b"moo");
        apply(&tool(), &host).unwrap();
        check(&tool(), &host, "");
    }
}
