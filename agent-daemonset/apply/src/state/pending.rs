//! Notifications that are owed: who must still be told, by whom, and whether in its turn or at the end of a run.
//!
//! They are written down *before* the change that they announce, and struck out only *after* the one who was told has
//! done its part. A crash anywhere between leaves one too many, never one too few.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::ResourceId;

use super::{StateDir, StateError};

const IN_TURN: &str = "notifications.json";
const AT_END: &str = "notifications-at-end.json";

/// The notifications that are owed on a machine.
#[derive(Debug)]
pub struct Pending<'a> {
    in_turn: Owed<'a>,
    at_end: Owed<'a>,
}

impl<'a> Pending<'a> {
    /// What earlier runs left owed. From now on each change is written down at once.
    pub fn load(state: &'a StateDir) -> Result<Self, StateError> {
        Ok(Self { in_turn: Owed::load(state, IN_TURN)?, at_end: Owed::load(state, AT_END)? })
    }

    /// The same, forgetting what this run adds or strikes out.
    pub fn load_for_noop(state: &'a StateDir) -> Result<Self, StateError> {
        let mut pending = Self::load(state)?;
        pending.in_turn.state = None;
        pending.at_end.state = None;
        Ok(pending)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.in_turn.sources.is_empty() && self.at_end.sources.is_empty()
    }

    /// Those who notified a resource, to be told in its turn. A resource that notified itself has not yet made its change
    /// take effect.
    pub(crate) fn sources<'s>(&'s self, target: &ResourceId) -> impl Iterator<Item = &'s ResourceId> + use<'s> {
        self.in_turn.sources.get(target).into_iter().flatten()
    }

    /// Those who notified a resource, to be told at the end.
    pub(crate) fn sources_at_end<'s>(&'s self, target: &ResourceId) -> impl Iterator<Item = &'s ResourceId> + use<'s> {
        self.at_end.sources.get(target).into_iter().flatten()
    }

    /// Adds a notification of each target by a source, in its turn.
    pub(crate) fn owe(&mut self, source: &ResourceId, targets: &[ResourceId]) -> Result<(), StateError> {
        self.in_turn.add(source, targets)
    }

    /// Adds a notification of each target by a source, at the end.
    pub(crate) fn owe_at_end(&mut self, source: &ResourceId, targets: &[ResourceId]) -> Result<(), StateError> {
        self.at_end.add(source, targets)
    }

    /// Strikes out what a target was told in its turn, except by some sources.
    pub(crate) fn settle(
        &mut self,
        target: &ResourceId,
        still_owed: impl Fn(&ResourceId) -> bool,
    ) -> Result<(), StateError> {
        self.in_turn.strike_out(target, still_owed)
    }

    /// Strikes out what a target was told at the end, except by some sources.
    pub(crate) fn settle_at_end(
        &mut self,
        target: &ResourceId,
        still_owed: impl Fn(&ResourceId) -> bool,
    ) -> Result<(), StateError> {
        self.at_end.strike_out(target, still_owed)
    }

    /// Strikes out what is owed to resources that are no more.
    pub(crate) fn forget_all_but(&mut self, exists: impl Fn(&ResourceId) -> bool) -> Result<(), StateError> {
        self.in_turn.forget_all_but(&exists)?;
        self.at_end.forget_all_but(&exists)
    }
}

/// By who must be told, those who told it; in one file.
#[derive(Debug)]
struct Owed<'a> {
    /// `None` for a run that changes nothing.
    state: Option<&'a StateDir>,
    file: &'static str,
    sources: BTreeMap<ResourceId, BTreeSet<ResourceId>>,
}

impl<'a> Owed<'a> {
    fn load(state: &'a StateDir, file: &'static str) -> Result<Self, StateError> {
        Ok(Self { state: Some(state), file, sources: state.read_json(file)?.unwrap_or_default() })
    }

    fn add(&mut self, source: &ResourceId, targets: &[ResourceId]) -> Result<(), StateError> {
        let mut grew = false;
        for target in targets {
            grew |= self.sources.entry(target.clone()).or_default().insert(source.clone());
        }
        if grew { self.write_down() } else { Ok(()) }
    }

    fn strike_out(&mut self, target: &ResourceId, still_owed: impl Fn(&ResourceId) -> bool) -> Result<(), StateError> {
        let Some(sources) = self.sources.get_mut(target) else {
            return Ok(());
        };
        sources.retain(still_owed);
        self.sources.retain(|_, sources| !sources.is_empty());
        self.write_down()
    }

    fn forget_all_but(&mut self, exists: impl Fn(&ResourceId) -> bool) -> Result<(), StateError> {
        let before = self.sources.len();
        self.sources.retain(|target, _| exists(target));
        if self.sources.len() < before { self.write_down() } else { Ok(()) }
    }

    fn write_down(&self) -> Result<(), StateError> {
        let Some(state) = self.state else { return Ok(()) };
        if self.sources.is_empty() {
            return state.remove(self.file);
        }
        state.write_json(self.file, &self.sources)
    }
}
