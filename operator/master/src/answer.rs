//! What a caller is told when it is not served: a status, a sentence, and when to come back.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use crate::{auth::Refusal, catalogs::Busy, status::WriteError};

/// An answer without a catalog.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    text: String,
    retry_after: Option<u64>,
    full: Option<Full>,
}

/// The master is full; when the caller may come back is decided on the way out, where the turns are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full {
    /// Why, for the metrics.
    pub(crate) reason: &'static str,
    /// No sooner than this.
    pub(crate) soonest: Duration,
}

impl Problem {
    /// This will not change by itself.
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None, full: None }
    }

    /// Come back later: after `seconds` or up to twice that. Agents that are sent away together come back apart.
    pub(crate) fn later(status: StatusCode, seconds: u64, text: impl Into<String>) -> Self {
        // Chance from the standard library: the keys of its hash maps.
        let chance = RandomState::new().hash_one(()) % (seconds + 1);
        Self { status, text: text.into(), retry_after: Some(seconds + chance), full: None }
    }

    /// This master is full: come back when it is your turn.
    pub(crate) fn full(reason: &'static str, soonest: Duration, text: impl Into<String>) -> Self {
        let full = Full { reason, soonest };
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into(), retry_after: None, full: Some(full) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, mut text, retry_after, full } = self;
        text.push('\n');
        let mut response = (status, text).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(full) = full {
            response.extensions_mut().insert(full);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoToken | Refusal::BadToken => Self::new(StatusCode::UNAUTHORIZED, text),
            Refusal::OtherAccount | Refusal::NoNode => Self::new(StatusCode::FORBIDDEN, text),
            Refusal::CanNotAsk => Self::full("token", Duration::from_secs(5), text),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Unavailable => Self::later(StatusCode::SERVICE_UNAVAILABLE, 5, text),
            WriteError::Gone(_) => Self::new(StatusCode::CONFLICT, text),
            WriteError::Refused(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
        }
    }
}

impl From<Busy> for Problem {
    fn from(busy: Busy) -> Self {
        Self::full("compile", Duration::from_secs(2), busy.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_sent_away_together_come_back_apart() {
        let times: std::collections::BTreeSet<_> =
            (0..64).map(|_| Problem::later(StatusCode::SERVICE_UNAVAILABLE, 10, "").retry_after.unwrap()).collect();
        assert!(times.iter().all(|seconds| (10..=20).contains(seconds)), "{times:?}");
        assert!(times.len() > 1, "{times:?}");
    }
}
