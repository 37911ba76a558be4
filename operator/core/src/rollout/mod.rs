//! Which machine is next, and what is done to it next.
//!
//! [`decide`] looks at a [`Snapshot`] and names at most one [`Request`]. The operator makes that request, takes a new
//! snapshot and asks again, until there is nothing to do but wait. All memory is in the objects themselves, so an
//! operator that dies between any two requests is continued by the next one, which asks the same question.
//!
//! Two records guard every machine, each written by compare-and-swap before anything is done to the machine: first the
//! entry in the Rollout's `status.inFlight` (the ledger: the limits are counted there), then `status.claim` on the Host
//! (one Rollout at a time). They go in the opposite order, after the machine was given back.
//!
//! - [`snapshot`]: what is looked at
//! - `request`: what can be asked for
//! - `decide`: in which order things are looked at
//! - `population`: which machines there are, and where each stands
//! - `people`: what somebody asked for by an annotation
//! - `stage`: where the run is between its machines; `checks`: what is asked there
//! - `admission`: whether a further machine may be begun, and which
//! - `steps`: what is next for a machine under way
//! - `report`: the status that people read

mod admission;
mod checks;
mod decide;
mod people;
mod population;
mod report;
mod request;
pub mod snapshot;
mod stage;
mod steps;

#[cfg(test)]
mod simulation;

pub use decide::{Decision, decide};
pub use request::{NodeChange, Request};
pub use snapshot::{GateEvidence, NodeView, PodKeeper, PodKey, PodView, Snapshot};
