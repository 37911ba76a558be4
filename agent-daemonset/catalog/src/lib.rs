//! The wire contract between masters and agents, and nothing else: what a master sends ([`Catalog`]) and proves it by
//! ([`Signature`]), what an agent tells of its machine ([`Facts`]) and of what it did ([`Report`]), and the paths they meet
//! at ([`routes`]).
//!
//! Both sides may be of different releases, so every type ignores unknown fields, and a field that is added later has a
//! default. What a catalog *means* on a machine is `drover-apply`'s; how it is made is `drover-core`'s.

mod catalog;
mod command;
mod digest;
pub mod facts;
mod locality;
mod part;
mod report;
mod resource;
mod sensitive;
mod signature;
mod slot;

pub use catalog::{Catalog, HostIdentity, RevisionRef};
pub use command::{CommandResult, HostCommand};
pub use digest::{Digest, Digester};
pub use facts::{Facts, Memory, Networking, Os, Processors, VolatileFacts};
pub use locality::Locality;
pub use part::{
    ArchiveSpec, AuthorizedKeysSpec, CommandSpec, DirectorySpec, DownloadSpec, Edit, EditSpec, FileSpec, Finish,
    GroupSpec, ModuleSpec, MountSpec, Ownership, PackageSpec, PackageState, Part, Place, Presence, RebootSpec,
    ServiceSpec, ServiceState, SwapSpec, SymlinkSpec, SysctlSpec, UserSpec,
};
pub use report::{Outcome, PropertyEvent, Report, ResourceReport, ResourceStatus, Totals};
pub use resource::{Claim, Disruption, DriftMode, Origin, Resource, ResourceId};
pub use sensitive::{Sensitive, SensitiveBytes};
pub use signature::{CertificateChain, NoCertificateChain, NoSignature, Signature};
pub use slot::{NoSlot, Slot};

/// The paths of a master's HTTPS interface. All want `Authorization: Bearer TOKEN`.
pub mod routes {
    /// `GET`: the caller's catalog. `If-None-Match` with the `ETag` of the one at hand and `Prefer: wait=SECONDS`
    /// make it a long poll: 304 when nothing changed in that time, 404 when nothing is assigned to the host yet.
    pub const CATALOG: &str = "/v1/catalog";
    /// A header of answers of [`CATALOG`]: when the machine runs by itself, as a [`Slot`](crate::Slot).
    pub const SLOT_HEADER: &str = "drover-slot";
    /// A header of answers of [`CATALOG`]: which masters the machine goes to, as a [`Locality`](crate::Locality).
    pub const LOCALITY_HEADER: &str = "drover-locality";
    /// A header of each catalog: the master's [`Signature`](crate::Signature) of it. An agent refuses a catalog without one.
    pub const SIGNATURE_HEADER: &str = "drover-signature";
    /// A header of each catalog: who signed it, as a [`CertificateChain`](crate::CertificateChain).
    pub const CERTIFICATES_HEADER: &str = "drover-certificates";
    /// `PUT`: the caller's facts, as [`Facts`](crate::Facts); 204.
    pub const FACTS: &str = "/v1/facts";
    /// `POST`: what a run did, as [`Report`](crate::Report); 204.
    pub const REPORT: &str = "/v1/report";
    /// `GET`, without a token: 200 while the master serves, 503 while it starts or drains.
    pub const READY: &str = "/readyz";
}

/// The audience that an agent's service account token must be bound to.
pub const TOKEN_AUDIENCE: &str = "drover.dev/master";
