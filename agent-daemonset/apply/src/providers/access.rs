//! The owner and the mode of a file or directory, as two properties.

use std::fmt;

use drover_catalog::PropertyEvent;

use super::event_of;
use crate::host::Access;

/// A change of one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessChange {
    /// User and group.
    Owner { found: (u32, u32), wanted: (u32, u32) },
    /// Permission bits.
    Mode { found: u32, wanted: u32 },
}

impl AccessChange {
    /// What must change.
    pub(crate) fn between(found: Access, wanted: Access) -> impl Iterator<Item = Self> {
        let owners = ((found.user, found.group), (wanted.user, wanted.group));
        let owner = (owners.0 != owners.1).then_some(Self::Owner { found: owners.0, wanted: owners.1 });
        let mode = (found.mode != wanted.mode).then_some(Self::Mode { found: found.mode, wanted: wanted.mode });
        owner.into_iter().chain(mode)
    }

    pub(crate) fn event(self) -> PropertyEvent {
        let owner = |(user, group)| Some(format!("{user}:{group}"));
        match self {
            Self::Owner { found, wanted } => event_of("owner", owner(found), owner(wanted)),
            Self::Mode { found, wanted } => {
                event_of("mode", Some(format!("{found:04o}")), Some(format!("{wanted:04o}")))
            }
        }
    }
}

impl fmt::Display for AccessChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PropertyEvent { property, previous, desired } = self.event();
        write!(f, "{property} {} -> {}", previous.unwrap_or_default(), desired.unwrap_or_default())
    }
}
