//! Makes a machine what its catalog says, and tells what it did.
//!
//! - [`engine`]: visits a catalog's resources in order, carries notifications, and survives being killed.
//! - [`providers`]: one per resource type; each looks first, decides in a pure `diff`, and only then changes.
//! - [`host`]: the seam to a machine. [`LocalHost`] is the one below a folder of this file system.
//! - [`state`]: the folder on the machine in which a run remembers what it still owes.
//! - [`facts`]: what templates may know of the machine.
//! - [`run_in_root`]: the second half of a command that runs inside another root or as another user.
//!
//! It knows no Kubernetes; fetching catalogs and sending reports is `drover-agent`'s.

mod account_files;
pub mod engine;
pub mod facts;
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
mod providers;
pub mod run_in_root;
pub mod state;

pub use engine::{Difference, Mode, Run, RunError, RunResult};
pub use host::{Host, HostError, LocalHost};
pub use state::{RunLock, StateDir, StateError};
