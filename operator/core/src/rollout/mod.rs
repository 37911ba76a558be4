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
//! - `cost`: what a change costs a machine
//! - `gate`: how answers are counted; `hook`: Jobs that are made once; `depends`: Rollouts that come first
//! - `admission`: whether a further machine may be begun, and which
//! - `steps`: what is next for a machine under way; `drain`: while its pods leave it;
//!   `load_balancer`: while it leaves load balancers
//! - `schedule`: whether the Rollout's windows let machines be begun
//! - `budget`: whether the namespace's budgets let it
//! - `deadline`: whether it makes no progress for too long
//! - `estimate`: when the run will be done
//! - `preview`: what the run will do to its machines
//! - `report`: the status that people read

mod admission;
mod budget;
mod checks;
mod cost;
mod deadline;
mod decide;
mod depends;
mod drain;
mod estimate;
mod gate;
mod hook;
mod load_balancer;
mod people;
mod population;
mod preview;
mod report;
mod request;
mod schedule;
pub mod snapshot;
mod stage;
mod steps;

#[cfg(test)]
mod simulation;

pub use budget::summarise_budget;
pub use cost::{admitted, answer, target, waiting};
pub use decide::{Decision, decide};
pub use gate::{AskedGates, GateAnswer, GateEvidence, asked_of_run};
pub use hook::{JobView, RolloutJob, Wanted, label_value};
pub use preview::{Preview, preview};
pub use request::{NodeChange, Request};
pub use snapshot::{
    BudgetView, Hosts, Ledger, LoadBalancerAction, LoadBalancerAnswer, LoadBalancerCall, NodeView, Nodes, PodKeeper,
    PodKey, PodView, RolloutView, Snapshot,
};
