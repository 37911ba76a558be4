//! Kernel modules in the running kernel.

use std::fmt;

use drover_catalog::{ModuleSpec, PropertyEvent};

use super::{Provider, ProviderError, event};
use crate::host::Host;

/// What must change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {}

impl fmt::Display for Change {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        event("")
    }
}

impl Provider for ModuleSpec {
    type Observed = ();
    type Change = Change;

    async fn observe(&self, _host: &impl Host, _notified: bool) -> Result<(), ProviderError> {
        Err(ProviderError::Refused("this agent does not know this type yet".to_owned()))
    }

    fn diff(&self, (): &()) -> Result<Vec<Change>, ProviderError> {
        Ok(Vec::new())
    }

    async fn apply(&self, _host: &impl Host, _changes: &[Change]) -> Result<(), ProviderError> {
        Ok(())
    }
}
