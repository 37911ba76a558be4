//! Drover's decisions, and nothing that acts on them: a snapshot goes in, a plan comes out, and the time is an argument.
//!
//! - [`revision`]: what a revision is, and its name
//! - [`compile`]: revisions and facts to a catalog for one host
//! - [`host`]: how a host is, and what a new one is assigned
//! - [`rollout`]: which machine is next, and which step
//!
//! No client, no runtime, no clock, no randomness: the operator, the masters, the simulator of the tests and the
//! command-line tools call the same functions.

pub mod compile;
pub mod host;
pub mod metadata;
pub mod revision;
pub mod rollout;
pub mod selector;
