//! Visits the resources of a catalog in their order, once.
//!
//! - A resource is skipped when one that it requires failed or was skipped.
//! - A notification is written down before the change that it announces ([`Pending`]) and struck out when the one who
//!   was told has done its part, in this run or in a later one.
//! - One failure does not stop the others.
//!
//! What a resource means is its provider's; when a run starts, and who hears of its result, is the agent's.

mod order;

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{Catalog, Resource, ResourceId, ResourceKind, ResourceReport, ResourceStatus};
pub use order::OrderError;
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::{
    host::{Host, HostError},
    providers::{Provider, ProviderError},
    state::{Pending, StateDir, StateError},
};

/// A message's limit by the contract of [`ResourceReport`].
const MESSAGE_LIMIT: usize = 1000;

/// Whether a run changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Apply,
    /// It says what it would change.
    Noop,
}

/// One run over a machine.
pub struct Run<'a, H> {
    /// The machine.
    pub host: &'a H,
    /// What the machine remembers between runs.
    pub state: &'a StateDir,
    /// Whether it changes anything.
    pub mode: Mode,
    /// Asked before each resource: whether to leave the rest to a later run.
    pub stop: &'a dyn Fn() -> bool,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// One entry for each resource that was visited, in order.
    pub resources: Vec<ResourceReport>,
    /// Whether it was told to stop before the last one.
    pub interrupted: bool,
}

/// Why a run could not go on. What a single resource fails on is in its report instead.
#[derive(Debug, Error)]
pub enum RunError {
    /// The catalog contradicts itself. Masters never send such a one.
    #[error("the catalog cannot be applied: {0}")]
    Order(#[from] OrderError),
    /// A notification could not be written down, and without that no change is safe.
    #[error("could not remember a notification: {0}")]
    State(#[from] StateError),
}

impl<H: Host> Run<'_, H> {
    /// Makes the machine what the catalog says.
    pub async fn apply(&self, catalog: &Catalog) -> Result<RunResult, RunError> {
        order::check(&catalog.resources)?;
        let pending = match self.mode {
            Mode::Apply => Pending::load(self.state)?,
            Mode::Noop => Pending::load_for_noop(self.state)?,
        };
        let mut visit = Visit { host: self.host, mode: self.mode, pending, ended: BTreeMap::new() };
        if self.mode == Mode::Apply {
            visit.remove_leftovers(&catalog.resources);
        }
        let mut result = RunResult { resources: Vec::with_capacity(catalog.resources.len()), interrupted: false };
        for resource in &catalog.resources {
            if (self.stop)() {
                result.interrupted = true;
                return Ok(result);
            }
            let report = visit.resource(resource).await?;
            announce(&report, self.mode);
            visit.ended.insert(&resource.id, report.status);
            result.resources.push(report);
        }
        visit.pending.forget_all_but(|target| visit.ended.contains_key(target))?;
        Ok(result)
    }
}

/// A run on its way through a catalog.
struct Visit<'a, H> {
    host: &'a H,
    mode: Mode,
    pending: Pending<'a>,
    ended: BTreeMap<&'a ResourceId, ResourceStatus>,
}

impl<H: Host> Visit<'_, H> {
    async fn resource(&mut self, resource: &Resource) -> Result<ResourceReport, StateError> {
        if let Some((status, message)) = self.blocked(resource) {
            return Ok(report(resource, status, message));
        }
        let settled = match &resource.kind {
            ResourceKind::File(spec) => self.settle(resource, spec).await,
            ResourceKind::Directory(spec) => self.settle(resource, spec).await,
            ResourceKind::Exec(spec) => self.settle(resource, spec).await,
            ResourceKind::Service(spec) => self.settle(resource, spec).await,
            ResourceKind::Package(spec) => self.settle(resource, spec).await,
            ResourceKind::Sysctl(spec) => self.settle(resource, spec).await,
        };
        match settled {
            Ok(changes) if changes.is_empty() => Ok(report(resource, ResourceStatus::Unchanged, String::new())),
            Ok(changes) => Ok(report(resource, ResourceStatus::Changed, changes.join("; "))),
            Err(SettleError::Provider(ProviderError::Host(HostError::Unavailable(why)))) => {
                Ok(report(resource, ResourceStatus::Deferred, why))
            }
            Err(SettleError::Provider(error)) => Ok(report(resource, ResourceStatus::Failed, error.to_string())),
            Err(SettleError::State(error)) => Err(error),
        }
    }

    /// Why a resource is not tried, if something that it requires did not come to be.
    fn blocked(&self, resource: &Resource) -> Option<(ResourceStatus, String)> {
        resource.require.iter().find_map(|required| match self.ended.get(required)? {
            ResourceStatus::Failed => Some((ResourceStatus::Skipped, format!("requires {required}, which failed"))),
            ResourceStatus::Skipped => {
                Some((ResourceStatus::Skipped, format!("requires {required}, which was skipped")))
            }
            ResourceStatus::Deferred => {
                Some((ResourceStatus::Deferred, format!("requires {required}, which was deferred")))
            }
            ResourceStatus::Unchanged | ResourceStatus::Changed => None,
        })
    }

    /// Looks, decides, and changes what must change.
    async fn settle<P: Provider>(&mut self, resource: &Resource, spec: &P) -> Result<Vec<String>, SettleError> {
        // Who announced a change and then failed has perhaps changed something by half: its word is kept for the run
        // in which it succeeds, and does not restart anything now.
        let held: BTreeSet<ResourceId> =
            self.pending.sources(&resource.id).filter(|source| self.failed(source)).cloned().collect();
        let notified = self.pending.sources(&resource.id).any(|source| !held.contains(source));
        let observed = spec.observe(self.host, notified).await?;
        let changes = spec.diff(&observed)?;
        if !changes.is_empty() {
            self.pending.owe(&resource.id, &resource.notify)?;
            if self.mode == Mode::Apply {
                spec.apply(self.host, &changes).await?;
            }
        }
        if notified {
            self.pending.settle(&resource.id, |source| held.contains(source))?;
        }
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn failed(&self, id: &ResourceId) -> bool {
        matches!(self.ended.get(id), Some(ResourceStatus::Failed | ResourceStatus::Skipped))
    }

    /// A killed run may have left half-written files beside the ones that this run looks after.
    fn remove_leftovers(&self, resources: &[Resource]) {
        let folders: BTreeSet<&str> = resources.iter().filter_map(folder_written_to).collect();
        for folder in folders {
            if let Err(error) = self.host.remove_leftovers(folder) {
                warn!(folder, %error, "could not tidy up after an earlier run");
            }
        }
    }
}

#[derive(Debug, Error)]
enum SettleError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    State(#[from] StateError),
}

fn folder_written_to(resource: &Resource) -> Option<&str> {
    match &resource.kind {
        ResourceKind::File(file) => file.path.rsplit_once('/').map(|(folder, _)| folder),
        ResourceKind::Sysctl(_) => Some("/etc/sysctl.d"),
        ResourceKind::Directory(_) | ResourceKind::Exec(_) | ResourceKind::Service(_) | ResourceKind::Package(_) => {
            None
        }
    }
    .map(|folder| if folder.is_empty() { "/" } else { folder })
}

fn report(resource: &Resource, status: ResourceStatus, mut message: String) -> ResourceReport {
    let whole_characters = (0..=MESSAGE_LIMIT.min(message.len())).rev().find(|&end| message.is_char_boundary(end));
    message.truncate(whole_characters.unwrap_or_default());
    ResourceReport { id: resource.id.clone(), status, message }
}

fn announce(report: &ResourceReport, mode: Mode) {
    let ResourceReport { id, status, message } = report;
    let dry = mode == Mode::Noop;
    match status {
        ResourceStatus::Changed if dry => info!(resource = %id, change = message, "would change"),
        ResourceStatus::Changed => info!(resource = %id, change = message, "changed"),
        ResourceStatus::Unchanged => debug!(resource = %id, "unchanged"),
        ResourceStatus::Failed => warn!(resource = %id, reason = message, "failed"),
        ResourceStatus::Skipped => warn!(resource = %id, reason = message, "skipped"),
        ResourceStatus::Deferred => info!(resource = %id, reason = message, "deferred"),
    }
}

#[cfg(test)]
mod tests;
