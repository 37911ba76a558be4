//! Swap files.

use std::fmt;

use drover_catalog::{PropertyEvent, SwapSpec};

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

impl Provider for SwapSpec {
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
