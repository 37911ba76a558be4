//! One resource of a NodeConfig as parts of a catalog: defaults filled in, spellings made one, contents rendered.
//!
//! The API server has validated the fields, but a revision outlives the validation that it was stored under, and a
//! NodeConfig may never have seen an API server. So all that a machine relies on is checked here again: paths, names that
//! become names of files, texts that become lines of a file which others read.
//!
//! - `kind`: which type a resource has
//! - `scope`: what each type's lowering has at hand: checks of fields, errors, contents
//! - one module for each family of types

mod accounts;
mod commands;
mod edits;
mod files;
mod kernel;
mod kind;
mod packages;
mod schedule;
mod scope;
mod services;
mod system;
mod units;

use drover_catalog::{Finish, Part};
use drover_crds::NodeConfigResource;

pub(super) use self::kind::Kind;
use self::scope::Scope;
use super::{CompileError, Inputs};

/// A resource as the agent gets it: its type's name, its parts and what makes them take effect.
#[derive(Debug)]
pub(super) struct Lowered {
    /// As in the NodeConfig: `file`, `aptRepository`.
    pub(super) type_name: &'static str,
    pub(super) parts: Vec<Part>,
    pub(super) finish: Vec<Finish>,
}

/// What one type is made of.
struct Made {
    parts: Vec<Part>,
    finish: Vec<Finish>,
}

impl From<Part> for Made {
    fn from(part: Part) -> Self {
        vec![part].into()
    }
}

impl From<Vec<Part>> for Made {
    fn from(parts: Vec<Part>) -> Self {
        Self { parts, finish: Vec::new() }
    }
}

impl Made {
    fn then(mut self, finish: Finish) -> Self {
        self.finish.push(finish);
        self
    }
}

/// Makes the resource's parts. `label` is how errors call it.
pub(super) fn lower(
    resource: &NodeConfigResource,
    label: &str,
    inputs: &mut dyn Inputs,
) -> Result<Lowered, CompileError> {
    let kind = Kind::of(resource)
        .map_err(|given| CompileError::NotOneKind { resource: label.to_owned(), given: given.to_string() })?;
    let mut scope = Scope::new(&resource.name, label, inputs);
    let scope = &mut scope;
    let Made { parts, finish } = match kind {
        Kind::File(spec) => files::file(spec, scope),
        Kind::Directory(spec) => files::directory(spec, scope),
        Kind::Symlink(spec) => files::symlink(spec, scope),
        Kind::Download(spec) => files::download(spec, scope),
        Kind::Archive(spec) => files::archive(spec, scope),
        Kind::Line(spec) => edits::line(spec, scope),
        Kind::Block(spec) => edits::block(spec, scope),
        Kind::Ini(spec) => edits::ini(spec, scope),
        Kind::Package(spec) => packages::package(spec, scope),
        Kind::AptRepository(spec) => packages::apt_repository(spec, scope),
        Kind::YumRepository(spec) => packages::yum_repository(spec, scope),
        Kind::Service(spec) => services::service(spec, scope),
        Kind::SystemdUnit(spec) => services::unit(spec, scope),
        Kind::SystemdDropIn(spec) => services::drop_in(spec, scope),
        Kind::Timer(spec) => services::timer(spec, scope),
        Kind::Cron(spec) => schedule::cron(spec, scope),
        Kind::User(spec) => accounts::user(spec, scope),
        Kind::Group(spec) => accounts::group(spec, scope),
        Kind::AuthorizedKey(spec) => accounts::authorized_key(spec, scope),
        Kind::Sudoers(spec) => accounts::sudoers(spec, scope),
        Kind::Sysctl(spec) => kernel::sysctl(spec, scope),
        Kind::KernelModule(spec) => kernel::module(spec, scope),
        Kind::Mount(spec) => kernel::mount(spec, scope),
        Kind::Swap(spec) => kernel::swap(spec, scope),
        Kind::Limits(spec) => system::limits(spec, scope),
        Kind::Hostname(spec) => system::hostname(spec, scope),
        Kind::Timezone(spec) => system::timezone(spec, scope),
        Kind::HostsEntry(spec) => system::hosts_entry(spec, scope),
        Kind::CaCertificate(spec) => system::ca_certificate(spec, scope),
        Kind::Exec(spec) => commands::exec(spec, scope),
        Kind::Reboot(spec) => commands::reboot(spec, scope),
    }?;
    Ok(Lowered { type_name: kind.name(), parts, finish })
}

#[cfg(test)]
mod tests;
