//! What the stories in `tests/` stand on: a real cluster, its machines, and means to see what really happened there.
//!
//! - `cluster`: the API server, as the administrator; it needs no machines
//! - `fleet`: the cluster with its machines and Drover on it; a story at a time has it to itself
//! - `story`: tells one story: before it and after it everything is as it was; when it fails, says what was going on
//! - `machine`: a look into one machine, past Kubernetes and past Drover
//! - `wait`: until something is so, or a deadline passes; there are no pauses in stories
//! - `record`: everything that a watch told while a story went on, so that "at no moment" can be asserted
//! - `audit`: the same from the API server's own records
//! - `secrets`: looks for a secret where it must not be
//! - `web`: an application that must not notice a Rollout
//! - `hold`: holds an agent in the middle of a run, until it is let go
//! - `agents`: what agents are told that ask their masters
//! - `calls`: agents' calls to the pool of masters, none of which may be lost
//! - `masters`: calls a master as an agent does, or as somebody who should not
//! - `certificates`: callers who must not notice that masters get a certificate of another authority
//! - `cert_manager`: the real one, as a process beside the cluster
//!
//! Nothing in here knows how Drover works; stories see what its users see.

// A harness says what is wrong by panicking: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is test code")]
#![allow(clippy::missing_panics_doc, reason = "everything in here panics when something is not as it should be")]

pub mod agents;
pub mod audit;
pub mod calls;
pub mod cert_manager;
pub mod certificates;
mod clean;
pub mod cluster;
mod diagnose;
pub mod fleet;
pub mod hold;
pub mod machine;
pub mod masters;
pub mod record;
pub mod secrets;
mod story;
pub mod visitors;
pub mod wait;
pub mod web;

pub use cluster::Cluster;
pub use fleet::{Fleet, NODES};
pub use machine::Machine;
pub use story::story;
