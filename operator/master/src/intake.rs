//! What agents tell: facts and reports, each about their own host only.
//!
//! Nothing is kept here. What can not be written to the API server now is refused with 503, and the agent, which keeps
//! it, sends it again.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use drover_catalog::{Facts, Report};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    answer::Problem,
    fleet::{HostView, NodeIdentity},
    now,
    poll::no_host,
    server::App,
    status::{self, Write, WriteError},
};

/// The greatest body of facts.
pub(crate) const MAX_FACTS: usize = Facts::MAX_BYTES;
/// The greatest body of a report.
pub(crate) const MAX_REPORT: usize = 1 << 20;
const TOO_LARGE: &str = "the body is larger than a Host has room for: facts have at most 64 KiB (let /etc/drover/facts.d \
                         say less) and a report 1 MiB";
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes the caller's facts.
pub(crate) async fn facts(
    State(app): State<App>,
    Extension(node): Extension<NodeIdentity>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let facts: Facts = read(request).await?;
    let host = app.fleet.host_of(&node).ok_or_else(|| no_host(&node))?;
    let is_first = host.facts.is_none();
    let saved = save(&app, &host, status::facts(&host, facts)).await?;
    if is_first {
        app.metrics.signed_up();
    }
    Ok(saved)
}

/// Takes the report of the caller's run.
pub(crate) async fn report(
    State(app): State<App>,
    Extension(node): Extension<NodeIdentity>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let report: Report = read(request).await?;
    let mut host = app.fleet.host_of(&node).ok_or_else(|| no_host(&node))?;
    if report.host != host.identity {
        let text = format!(
            "this report is of the host {} ({}), and the caller's is {} ({}); drop it and fetch the catalog anew",
            report.host.name, report.host.uid, host.identity.name, host.identity.uid
        );
        return Err(Problem::new(StatusCode::CONFLICT, text));
    }
    if report.generation > host.generation {
        // Another master may have served an assignment that this one has not heard of yet.
        app.fleet.observe(app.hosts.read(&host.identity).await?);
        host = app.fleet.host_of(&node).ok_or_else(|| no_host(&node))?;
    }
    if report.host != host.identity || report.generation > host.generation {
        let text = format!(
            "this report is of generation {}, and the Host {} is at {}; drop it and fetch the catalog anew",
            report.generation, host.identity.name, host.generation
        );
        return Err(Problem::new(StatusCode::CONFLICT, text));
    }
    save(&app, &host, status::report(&host, &report, now())).await
}

async fn save(app: &App, host: &HostView, write: Option<Write>) -> Result<StatusCode, Problem> {
    if let Some(write) = write {
        match app.hosts.write(&host.identity, &write).await {
            Ok(host) => app.fleet.observe(host),
            // Its own fault, so the agent shall hear it; but it shall not send it again.
            Err(error @ WriteError::Refused(_)) => {
                tracing::warn!(host = host.identity.name, %error, "an agent's message does not fit a Host's status");
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The body as JSON. The routes bound its size.
async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let body = timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE),
            status => Problem::new(status, rejection.body_text()),
        })?;
    serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not what this route takes: {error}"))
    })
}
