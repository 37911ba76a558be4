//! One provider per resource type: look, decide, change.
//!
//! A provider decides in [`Provider::diff`], which is pure: what is wanted and what was observed go in, and what must
//! change comes out, in words that people read and that never hold content. Order, `require` and `notify` are the
//! engine's.

mod access;
mod archive;
mod authorized_keys;
mod command;
mod directory;
mod download;
pub(crate) mod edit;
mod file;
mod group;
mod kernel_tables;
mod module;
mod mount;
pub(crate) mod package;
mod reboot;
mod service;
mod swap;
mod symlink;
mod sysctl;
mod unit_name;
mod user;

use std::fmt::Display;

use access::AccessChange;
use drover_catalog::PropertyEvent;
use thiserror::Error;

use crate::host::{Access, Command, Host, HostError};

/// What one part of a resource means on a machine.
pub(crate) trait Provider {
    /// What matters of the machine's present state.
    type Observed;
    /// One thing that must change.
    type Change: Change;

    /// Looks at the machine, and changes nothing. `notified`: a change elsewhere announced itself to this resource.
    async fn observe(&self, host: &impl Host, notified: bool) -> Result<Self::Observed, ProviderError>;

    /// What must change, in the order of doing it.
    fn diff(&self, observed: &Self::Observed) -> Result<Vec<Self::Change>, ProviderError>;

    /// Changes it.
    async fn apply(&self, host: &impl Host, changes: &[Self::Change]) -> Result<(), ProviderError>;

    /// The content that the changes replace or remove, for diffs and backups; asked before they are applied. `None` where
    /// they are about no content.
    fn contents(&self, _host: &impl Host, _changes: &[Self::Change]) -> Result<Option<Contents>, ProviderError> {
        Ok(None)
    }

    /// Whether these changes make a notification needless: a service that starts has read everything new.
    fn absorbs_notification(&self, _changes: &[Self::Change]) -> bool {
        false
    }
}

/// One thing that must change. Its `Display` is a few words for people, and names no content.
pub(crate) trait Change: Display {
    /// The property and its values, for the report. No value that is content.
    fn event(&self) -> PropertyEvent;
}

/// A property event without values.
pub(crate) fn event(property: &str) -> PropertyEvent {
    PropertyEvent { property: property.to_owned(), previous: None, desired: None }
}

/// A property event with values.
pub(crate) fn event_of(property: &str, previous: Option<String>, desired: Option<String>) -> PropertyEvent {
    PropertyEvent { property: property.to_owned(), previous, desired }
}

/// The content of a file before and after a change.
pub(crate) struct Contents {
    /// Which file.
    pub(crate) path: String,
    /// What is there; `None` where nothing is.
    pub(crate) before: Option<Vec<u8>>,
    /// Whether others than its owner and group may read what is there and what will be.
    pub(crate) public: bool,
    /// What will be there; `None` where nothing will be.
    pub(crate) after: Option<Vec<u8>>,
}

/// Why a resource could not be made what it must be.
#[derive(Debug, Error)]
pub(crate) enum ProviderError {
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It would do harm, or cannot be meant.
    #[error("{0}")]
    Refused(String),
    /// A command ran and failed.
    #[error("{program} {failure}")]
    Command {
        /// Its name; its arguments can hold secrets.
        program: String,
        /// How it ended, and after a colon the end of its standard error.
        failure: String,
    },
}

/// Runs a tool of the machine that changes something, and takes any other exit code than 0 for a failure.
async fn run_tool(host: &impl Host, command: &Command) -> Result<(), ProviderError> {
    let output = host.run(command).await?;
    if output.success() {
        return Ok(());
    }
    Err(ProviderError::Command { program: command.program().to_owned(), failure: output.failure() })
}

/// Who shall be able to do what, by the machine's own accounts.
fn wanted_access(host: &impl Host, mode: u32, owner: &str, group: &str) -> Result<Access, HostError> {
    Ok(Access { mode, user: host.user_id(owner)?, group: host.group_id(group)? })
}

/// Words for a change of mode or owner; empty when there is none.
fn access_changes(found: Access, wanted: Access) -> Vec<String> {
    AccessChange::between(found, wanted).map(|change| change.to_string()).collect()
}
