//! What can be wrong between an agent and its masters, told once and with what to do.

use std::{mem::discriminant, time::Duration};

use drover_catalog::TOKEN_AUDIENCE;
use http::StatusCode;
use tracing::{info, warn};

use crate::{
    masters::{Answer, MastersError},
    signature::Distrust,
};

/// What is wrong.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No master answers.
    Unreachable(MastersError),
    /// Nothing is assigned to this host yet; no trouble of ours.
    Unassigned,
    /// 401: the token counts for nothing.
    Unauthenticated,
    /// 403: the token is good, and this host is not known by it.
    Forbidden,
    /// 503: full, starting or leaving.
    Busy(Option<Duration>),
    /// What was sent as a catalog is none.
    NoCatalog {
        /// Where in the text it goes wrong.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// What was sent is a catalog, and not proven to be a master's.
    Distrusted {
        /// The generation that it claims.
        generation: i64,
        /// What is wrong with it.
        distrust: Distrust,
    },
    /// An answer that no master should give.
    Unexpected(StatusCode, Option<Duration>),
}

impl Trouble {
    /// What an answer that is no success means.
    pub(super) fn of(answer: &Answer) -> Self {
        match answer.status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Self::Busy(answer.retry_after),
            status => Self::Unexpected(status, answer.retry_after),
        }
    }

    /// How long the master asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy(retry_after) | Self::Unexpected(_, retry_after) => *retry_after,
            _ => None,
        }
    }

    fn tell(&self) {
        match self {
            Self::Unreachable(error) => warn!(%error, "cannot reach the masters; the last catalog stays in force"),
            Self::Unassigned => info!("nothing is assigned to this host yet; does a NodeConfig select it?"),
            Self::Unauthenticated => warn!(
                "the masters do not accept this agent's token (401); \
                 is it a service account token for audience {TOKEN_AUDIENCE}, and not expired?"
            ),
            Self::Forbidden => warn!(
                "the masters know this agent's token, but not this host (403); \
                 is there a Host for this node, with the node's present UID?"
            ),
            Self::Busy(_) => info!("the masters are busy; trying again when they asked to"),
            Self::NoCatalog { line, column } => {
                warn!(line, column, "what a master sent is no catalog; is it of another release?");
            }
            Self::Distrusted { generation, distrust } => {
                warn!(generation, %distrust, "refused a catalog; the one before stays in force");
            }
            Self::Unexpected(status, _) => warn!(%status, "a master gave an unexpected answer; see its log"),
        }
    }
}

/// The present trouble, if any.
#[derive(Debug, Default)]
pub(super) struct Log(Option<Trouble>);

impl Log {
    /// Tells of trouble that is new, or of another kind.
    pub(super) fn note(&mut self, found: Trouble) {
        if self.is_new(&found) {
            found.tell();
            self.0 = Some(found);
        }
    }

    /// Tells that it is over, if there was any.
    pub(super) fn over(&mut self) {
        match self.0.take() {
            None | Some(Trouble::Unassigned) => {}
            Some(_) => info!("the masters answer again"),
        }
    }

    fn is_new(&self, found: &Trouble) -> bool {
        self.0.as_ref().is_none_or(|known| match (known, found) {
            (Trouble::Distrusted { distrust: known, .. }, Trouble::Distrusted { distrust: found, .. }) => {
                discriminant(known) != discriminant(found)
            }
            _ => discriminant(known) != discriminant(found),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_or_changes() {
        let mut log = Log::default();
        assert!(log.is_new(&Trouble::Forbidden));
        log.note(Trouble::Forbidden);
        assert!(!log.is_new(&Trouble::Forbidden));
        assert!(log.is_new(&Trouble::Unauthenticated));
        log.note(Trouble::Busy(None));
        assert!(!log.is_new(&Trouble::Busy(Some(Duration::from_secs(9)))));
        log.over();
        assert!(log.is_new(&Trouble::Busy(None)));
        let distrusted = |distrust| Trouble::Distrusted { generation: 7, distrust };
        log.note(distrusted(Distrust::Forged));
        assert!(!log.is_new(&distrusted(Distrust::Forged)));
        assert!(log.is_new(&distrusted(Distrust::Altered)), "another reason is news");
    }
}
