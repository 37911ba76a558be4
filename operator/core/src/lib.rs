//! Drover's decisions, and nothing that acts on them: a snapshot goes in, a plan comes out, and the time is an argument.
//!
//! - [`sources`]: what a NodeConfig refers to, and the content it makes of that
//! - [`revision`]: what a revision is, and its name
//! - [`data`]: layers of data, merged for one host
//! - [`compile`]: revisions and facts to a catalog for one host
//! - [`disruption`]: what changes cost
//! - [`trial`]: whether newest content may become a revision
//! - [`local`]: a catalog without a master
//! - [`explain`]: why a resource is on a machine
//! - [`host`]: how a host is, and what a new one is assigned
//! - [`logging`]: what may be logged
//! - [`rollout`]: which machine is next, and which step
//! - [`slots`]: when each machine runs
//! - [`pool`]: how many masters there are
//! - [`placement`]: which masters a machine goes to
//! - [`trust`]: whom agents trust
//!
//! No client, no runtime, no clock, no randomness: the operator, the masters, the simulator of the tests and the
//! command-line tools call the same functions.

mod calendar;
pub mod compile;
pub mod data;
pub mod disruption;
pub mod explain;
pub mod host;
pub mod local;
pub mod logging;
pub mod metadata;
pub mod placement;
pub mod pool;
pub mod revision;
pub mod rollout;
pub mod selector;
pub mod slots;
pub mod sources;
pub mod trial;
pub mod trust;
