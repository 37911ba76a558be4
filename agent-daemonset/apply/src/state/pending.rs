//! Notifications that are owed: who must still be told, and by whom.
//!
//! They are written down *before* the change that they announce, and struck out only *after* the one who was told has
//! done its part. A crash anywhere between leaves one too many, never one too few.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use drover_catalog::ResourceId;

use super::{StateDir, StateError};

const FILE: &str = "notifications.json";

/// The notifications that are owed on a machine, by who must be told, with those who told it.
#[derive(Debug)]
pub struct Pending<'a> {
    /// `None` for a run that changes nothing.
    state: Option<&'a StateDir>,
    owed: BTreeMap<ResourceId, BTreeSet<ResourceId>>,
}

impl<'a> Pending<'a> {
    /// What earlier runs left owed. From now on each change is written down at once.
    pub fn load(state: &'a StateDir) -> Result<Self, StateError> {
        let owed = match state.read(FILE)? {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_slice(&text)
                .map_err(|error| StateError::Damaged { name: FILE, source: io::Error::from(error) })?,
        };
        Ok(Self { state: Some(state), owed })
    }

    /// The same, forgetting what this run adds or strikes out.
    pub fn load_for_noop(state: &'a StateDir) -> Result<Self, StateError> {
        Ok(Self { state: None, ..Self::load(state)? })
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Those who notified a resource.
    pub(crate) fn sources<'s>(&'s self, target: &ResourceId) -> impl Iterator<Item = &'s ResourceId> + use<'s> {
        self.owed.get(target).into_iter().flatten()
    }

    /// Adds a notification of each target by a source.
    pub(crate) fn owe(&mut self, source: &ResourceId, targets: &[ResourceId]) -> Result<(), StateError> {
        let mut grew = false;
        for target in targets {
            grew |= self.owed.entry(target.clone()).or_default().insert(source.clone());
        }
        if grew { self.write_down() } else { Ok(()) }
    }

    /// Strikes out what a target was told, except by some sources.
    pub(crate) fn settle(
        &mut self,
        target: &ResourceId,
        still_owed: impl Fn(&ResourceId) -> bool,
    ) -> Result<(), StateError> {
        let Some(sources) = self.owed.get_mut(target) else {
            return Ok(());
        };
        sources.retain(still_owed);
        self.owed.retain(|_, sources| !sources.is_empty());
        self.write_down()
    }

    /// Strikes out what is owed to resources that are no more.
    pub(crate) fn forget_all_but(&mut self, exists: impl Fn(&ResourceId) -> bool) -> Result<(), StateError> {
        let before = self.owed.len();
        self.owed.retain(|target, _| exists(target));
        if self.owed.len() < before { self.write_down() } else { Ok(()) }
    }

    fn write_down(&self) -> Result<(), StateError> {
        let Some(state) = self.state else { return Ok(()) };
        if self.owed.is_empty() {
            return state.remove(FILE);
        }
        let text = serde_json::to_vec(&self.owed)
            .map_err(|error| StateError::Damaged { name: FILE, source: io::Error::from(error) })?;
        state.write(FILE, &text)
    }
}
