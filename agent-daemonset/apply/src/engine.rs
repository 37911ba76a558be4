//! Visits the resources of a catalog in their order, once.
//!
//! - A resource is skipped when one that it requires failed or was skipped.
//! - A notification is written down before the change that it announces ([`Pending`]) and struck out when the one who
//!   was told has done its part, in this run or in a later one.
//! - What was applied is remembered ([`Applied`]), so that drift is told apart from a new intent.
//! - One failure does not stop the others.
//!
//! What a part means is its provider's; when a run starts, and who hears of its result, is the agent's.

mod difference;
mod order;
mod packages;
mod visit;

use std::collections::BTreeMap;

pub use difference::Difference;
use drover_catalog::{Catalog, ResourceReport, ResourceStatus};
pub use order::OrderError;
use thiserror::Error;
use tracing::{debug, info, warn};

use self::visit::Visit;
use crate::{
    host::Host,
    providers::package::Lists,
    state::{Applied, Pending, StateDir, StateError},
};

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
    /// Whether the differences of files are wanted, for people; never of those that may hold a secret.
    pub differences: bool,
    /// Asked before each resource: whether to leave the rest to a later run.
    pub stop: &'a dyn Fn() -> bool,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunResult {
    /// One entry for each resource that was visited, in order.
    pub resources: Vec<ResourceReport>,
    /// How files differ, where that was asked for.
    pub differences: Vec<Difference>,
    /// Why the machine must reboot; empty when it need not.
    pub reboot_required: Vec<String>,
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
        let mut visit = Visit {
            host: self.host,
            state: self.state,
            mode: self.mode,
            wants_differences: self.differences,
            pending,
            applied: Applied::load(self.state)?,
            ended: BTreeMap::new(),
            differences: Vec::new(),
            lists: Lists::of_run(self.mode == Mode::Noop),
        };
        if self.mode == Mode::Apply {
            visit.remove_leftovers(&catalog.resources);
        }
        let mut reports: Vec<ResourceReport> = Vec::with_capacity(catalog.resources.len());
        let mut left = catalog.resources.as_slice();
        let mut interrupted = false;
        while !left.is_empty() {
            if (self.stop)() {
                interrupted = true;
                break;
            }
            let (now, later) = left.split_at(packages::together(left).max(1));
            left = later;
            let group = match now {
                [one] if one.package().is_none() => vec![visit.resource(one).await?],
                packages => visit.packages(packages).await?,
            };
            for (resource, report) in now.iter().zip(group) {
                announce(&report, self.mode);
                visit.ended.insert(&resource.id, report.status);
                reports.push(report);
            }
        }
        if !interrupted {
            for (resource, report) in catalog.resources.iter().zip(&mut reports) {
                if visit.tell_at_end(resource, report).await? {
                    announce(report, self.mode);
                }
            }
            visit.pending.forget_all_but(|target| visit.ended.contains_key(target))?;
            visit.applied.forget_all_but(|id| visit.ended.contains_key(id));
        }
        if self.mode == Mode::Apply
            && let Err(error) = visit.applied.keep(self.state)
        {
            // The machine is as it should be; only the next run takes drift for intent.
            warn!(%error, "could not remember what was applied");
        }
        let reboot_required = self.host.reboot_reasons().unwrap_or_else(|error| {
            warn!(%error, "could not see whether the machine must reboot");
            Vec::new()
        });
        Ok(RunResult { resources: reports, differences: visit.differences, reboot_required, interrupted })
    }
}

fn announce(report: &ResourceReport, mode: Mode) {
    let ResourceReport { id, status, message, corrective, .. } = report;
    let dry = mode == Mode::Noop;
    match status {
        ResourceStatus::Changed if *corrective => info!(resource = %id, change = message, "corrected drift"),
        ResourceStatus::Changed => info!(resource = %id, change = message, "changed"),
        ResourceStatus::Pending if dry => info!(resource = %id, change = message, "would change"),
        ResourceStatus::Pending => warn!(resource = %id, change = message, "differs, and is left so"),
        ResourceStatus::Unchanged => debug!(resource = %id, "unchanged"),
        ResourceStatus::Failed => warn!(resource = %id, reason = message, "failed"),
        ResourceStatus::Skipped => warn!(resource = %id, reason = message, "skipped"),
        ResourceStatus::Deferred => info!(resource = %id, reason = message, "deferred"),
    }
    if report.flapping {
        warn!(resource = %id, "changes at each run: something else changes it back, or its guard is wrong");
    }
}

#[cfg(test)]
mod tests;
