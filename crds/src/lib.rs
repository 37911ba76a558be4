//! Drover's custom resources, group `drover.dev`, version `v1alpha1`: one kind a module, with its documentation (it is
//! what `kubectl explain` prints) and its validation (CEL, run by the API server).
//!
//! This crate holds types only. It knows no client, takes no decision and reads no clock.
//!
//! Conventions of all kinds: no defaults in the schema of a `spec` (GitOps tools would show them as drift; the operator
//! resolves them, see `resolved()` functions), optional fields are left out rather than written as null, durations are
//! whole seconds with the unit in the name, lists with a key merge by that key.

#![allow(clippy::duplicated_attributes, reason = "each printer column repeats the names of its parts")]

pub mod condition;
mod disruption_budget;
mod host;
pub mod keys;
mod limit;
mod master_pool;
mod node_config;
mod rollout;

pub use disruption_budget::{DisruptionBudget, DisruptionBudgetSpec, DisruptionBudgetStatus};
pub use host::{
    AppliedReport, Assignment, ChangeCost, Claim, ClaimCommand, ClaimStep, CommandReport, Host, HostDisplay, HostSpec,
    HostStatus, LeftLoadBalancer, NodeRef, Restore, RunOutcome, RunRecord,
};
pub use limit::{Limit, Tolerance};
pub use master_pool::{
    Autoscaling, IssuerRef, MasterPool, MasterPoolSpec, MasterPoolStatus, MinimumWindow, PlannedPeriod,
    PoolCertificates, PoolPlan, PoolScale, PoolZone, PoolZoneStatus, Redundancy,
};
pub use node_config::{
    AptRepository, AptType, Archive, AuthorizedKey, Block, CaCertificate, ClaimConflict, ConfigMapSource,
    ContentSource, Cron, DataFormat, DataSource, Directory, DisruptionLevel, DisruptionPolicy, DisruptionRule,
    Download, Drift, DriftMode, EffectiveDisruption, Ensure, EnvironmentSource, Exec, File, Group, Hostname,
    HostsEntry, Ini, KernelModule, KeyRef, LimitType, Limits, Line, Mount, MountEnsure, NodeConfig, NodeConfigResource,
    NodeConfigSpec, NodeConfigStatus, NotifyAction, Package, PackageEnsure, PasswordHash, PendingCost, ProcessLimit,
    Reboot, SecretSource, Service, ServiceStateWanted, SignedBy, Sudoers, Swap, Symlink, Sysctl, SystemdDropIn,
    SystemdUnit, Timer, Timezone, User, YumRepository,
};
pub use rollout::*;

/// The API group of all kinds.
pub const GROUP: &str = "drover.dev";
/// The API version of all kinds.
pub const VERSION: &str = "v1alpha1";
