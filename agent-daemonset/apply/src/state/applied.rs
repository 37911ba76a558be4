//! What was applied, by resource: with it, a difference is told to be drift or a new intent, and a resource that changes
//! at each run is found.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{Digest, Resource, ResourceId};
use serde::{Deserialize, Serialize};

use super::{StateDir, StateError};

const FILE: &str = "applied.json";
const SECRET_PATHS: &str = "secret-paths.json";

/// A resource that had to be corrected in so many runs, one after another, flaps.
const FLAPS_AFTER: u32 = 3;

/// What was applied on a machine.
#[derive(Debug)]
pub struct Applied {
    entries: BTreeMap<ResourceId, Entry>,
    changed: bool,
    /// Digests of paths that a secret was written to, by whatever resource: a path may be called by a secret as well.
    secret_paths: BTreeSet<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Of what it had to be.
    digest: Digest,
    /// Whether that held a secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sensitive: bool,
    /// In how many runs, one after another, it had to be corrected.
    #[serde(default, skip_serializing_if = "is_zero")]
    corrections: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Applied {
    /// What earlier runs applied.
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let entries = state.read_json(FILE)?.unwrap_or_default();
        Ok(Self { entries, changed: false, secret_paths: state.read_json(SECRET_PATHS)?.unwrap_or_default() })
    }

    /// The digest of what a resource must be.
    pub(crate) fn digest(resource: &Resource) -> Digest {
        let Resource { parts, finish, .. } = resource;
        Digest::of_json(&(parts, finish)).unwrap_or_else(|_| Digest::of(b""))
    }

    /// Whether exactly this was applied.
    pub(crate) fn is(&self, id: &ResourceId, digest: &Digest) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.digest == *digest)
    }

    /// Whether what was applied held a secret: then what is on the machine may hold it still.
    pub(crate) fn was_sensitive(&self, id: &ResourceId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.sensitive)
    }

    /// Whether a secret was written to a path.
    pub(crate) fn had_secret(&self, path: &str) -> bool {
        !self.secret_paths.is_empty() && self.secret_paths.contains(&Digest::of(path.as_bytes()))
    }

    /// A secret will be written to a path. That is remembered at once, whatever becomes of the run and the resource.
    pub(crate) fn note_secret(&mut self, state: &StateDir, path: &str) -> Result<(), StateError> {
        if self.secret_paths.insert(Digest::of(path.as_bytes())) {
            state.write_json(SECRET_PATHS, &self.secret_paths)?;
        }
        Ok(())
    }

    /// Whether it had to be corrected in each of the last runs.
    pub(crate) fn is_flapping(&self, id: &ResourceId) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.corrections >= FLAPS_AFTER)
    }

    /// A resource was as it must be.
    pub(crate) fn note_unchanged(&mut self, id: &ResourceId, digest: &Digest, sensitive: bool) {
        self.note(id, Entry { digest: digest.clone(), sensitive, corrections: 0 });
    }

    /// A resource was made as it must be; `told`: because another one changed, which says nothing about itself.
    pub(crate) fn note_changed(&mut self, id: &ResourceId, digest: &Digest, sensitive: bool, told: bool) {
        let before = self.entries.get(id).filter(|entry| entry.digest == *digest).map(|entry| entry.corrections);
        let corrections = match before {
            Some(corrections) if told => corrections,
            Some(corrections) => corrections.saturating_add(1).min(FLAPS_AFTER),
            None => 0,
        };
        self.note(id, Entry { digest: digest.clone(), sensitive, corrections });
    }

    /// Forgets resources that are no more.
    pub(crate) fn forget_all_but(&mut self, exists: impl Fn(&ResourceId) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|id, _| exists(id));
        self.changed |= self.entries.len() < before;
    }

    /// Writes it down, if there is something new.
    pub(crate) fn keep(&self, state: &StateDir) -> Result<(), StateError> {
        if !self.changed {
            return Ok(());
        }
        state.write_json(FILE, &self.entries)
    }

    fn note(&mut self, id: &ResourceId, entry: Entry) {
        if self.entries.get(id) != Some(&entry) {
            self.entries.insert(id.clone(), entry);
            self.changed = true;
        }
    }
}
