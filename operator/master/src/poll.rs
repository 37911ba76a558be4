//! `GET` of the catalog, as a long poll.
//!
//! A request looks at the host's state; when that gives no answer that is news to the caller, it waits for a change of
//! the host's inputs and looks again, until the time that the caller gave is over. It never looks by the clock.

use std::time::Duration;

use axum::{
    Extension,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use drover_catalog::routes::{LOCALITY_HEADER, SLOT_HEADER};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    answer::Problem,
    catalogs::{Body, Compiled},
    fleet::{HostView, NodeIdentity},
    now,
    server::App,
    status,
};

/// The longest wait that is granted.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// How long a request waits for a revision that is assigned but not known yet, also when it would not wait at all: the
/// two travel on different watches.
const REVISION_WAIT: Duration = Duration::from_secs(2);
/// How long an answer waits for a write about it.
const TELL: Duration = Duration::from_secs(2);

/// What the caller has, and how long it waits for something else.
struct Wanted {
    etag: Option<String>,
    wait: Duration,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        Self {
            etag: headers.get(IF_NONE_MATCH).and_then(text).map(|etag| etag.trim().to_owned()),
            wait: headers.get_all("prefer").iter().filter_map(text).find_map(|value| wait(&value)).unwrap_or_default(),
        }
    }

    /// The generation in the caller's entity tag, `"<generation>-<digest>"`.
    fn generation(&self) -> Option<i64> {
        self.etag.as_ref()?.strip_prefix('"')?.split_once('-')?.0.parse().ok()
    }
}

/// `wait=SECONDS` of a Prefer header (RFC 7240), no longer than [`MAX_WAIT`].
fn wait(prefer: &str) -> Option<Duration> {
    prefer.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds).min(MAX_WAIT))
    })
}

/// What a look at the host's state gives.
enum Look {
    /// This, now.
    Answer(Response),
    /// This when nothing changes until the caller's time is over.
    Otherwise(Response),
    /// The same, and something is on its way.
    Soon(Response),
}

/// The caller's catalog.
pub(crate) async fn catalog(
    State(app): State<App>,
    Extension(node): Extension<NodeIdentity>,
    headers: HeaderMap,
) -> Response {
    let mut response = answer(&app, &node, &headers).await;
    let Some(host) = app.fleet.host_of(&node) else { return response };
    let slot = app.timetable.slot(&host.identity.uid).map(|slot| slot.to_string());
    for (name, value) in [(SLOT_HEADER, slot), (LOCALITY_HEADER, Some(host.locality().to_string()))] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

async fn answer(app: &App, node: &NodeIdentity, headers: &HeaderMap) -> Response {
    let start = Instant::now();
    let wanted = Wanted::of(headers);
    let Some(mut wait) = app.fleet.wait_for(node) else {
        let text = format!("node {} has too many open requests; one is enough", node.name);
        return Problem::later(StatusCode::TOO_MANY_REQUESTS, 5, text).into_response();
    };
    loop {
        let (otherwise, until) = match look(app, node, &wanted).await {
            Look::Answer(response) => return response,
            Look::Otherwise(response) => (response, start + wanted.wait),
            Look::Soon(response) => (response, start + wanted.wait.max(REVISION_WAIT)),
        };
        tokio::select! {
            biased;
            () = app.closing.cancelled() => return match wanted.etag {
                Some(etag) => not_modified(&etag),
                None => Problem::later(StatusCode::SERVICE_UNAVAILABLE, 1, "this master ends; another one serves").into_response(),
            },
            () = wait.changed() => {}
            () = sleep_until(until) => return otherwise,
        }
    }
}

async fn look(app: &App, node: &NodeIdentity, wanted: &Wanted) -> Look {
    let Some(host) = app.fleet.host_of(node) else {
        return Look::Otherwise(no_host(node).into_response());
    };
    let Some(facts) = &host.facts else {
        let text = "send this machine's facts first, with PUT /v1/facts; templates may read them";
        return Look::Answer(Problem::new(StatusCode::PRECONDITION_REQUIRED, text).into_response());
    };
    // What was assigned once and is no more leads to an empty catalog: the agent stops enforcing the one before.
    if host.assigned.is_empty() && host.generation == 0 {
        let text = format!(
            "nothing is assigned to the Host {} yet; a Rollout of a NodeConfig that selects it does that",
            host.identity.name
        );
        return Look::Otherwise(Problem::new(StatusCode::NOT_FOUND, text).into_response());
    }
    // The caller was served by a master that knew more; the news comes here as well.
    if let (Some(etag), Some(generation)) = (&wanted.etag, wanted.generation())
        && generation > host.generation
    {
        return Look::Otherwise(not_modified(etag));
    }

    let compiled = match app.catalogs.remembered(&host) {
        Some(Compiled::Catalog { etag, .. }) if wanted.etag.as_ref() == Some(&etag) => {
            Compiled::Catalog { etag, body: None }
        }
        Some(compiled @ (Compiled::Failed(_) | Compiled::Catalog { body: Some(_), .. })) => {
            app.metrics.remembered();
            compiled
        }
        Some(Compiled::Catalog { body: None, .. }) | None => {
            let contents = match app.fleet.contents(&host.assigned) {
                Ok(contents) => contents,
                Err(revision) => {
                    let text = format!("this master does not know the revision {} yet; try again", revision.revision);
                    return Look::Soon(Problem::later(StatusCode::SERVICE_UNAVAILABLE, 2, text).into_response());
                }
            };
            match app.catalogs.compile(&host, facts, contents).await {
                Ok(compiled) => compiled,
                Err(busy) => return Look::Answer(Problem::from(busy).into_response()),
            }
        }
    };
    tell(app, &host, &compiled).await;
    match (compiled, &wanted.etag) {
        (Compiled::Catalog { etag, .. }, Some(known)) if *known == etag => Look::Otherwise(not_modified(&etag)),
        (Compiled::Catalog { etag, body: Some(body) }, _) => Look::Answer(signed(app, &host, &etag, body)),
        // Dropped for want of room between the two looks at the cache.
        (Compiled::Catalog { body: None, .. }, _) => Look::Answer(Problem::from(crate::catalogs::Busy).into_response()),
        // The machine keeps its last good catalog.
        (Compiled::Failed(_), Some(known)) => Look::Otherwise(not_modified(known)),
        (Compiled::Failed(why), None) => {
            let text = format!("the catalog of the Host {} does not compile: {why}", host.identity.name);
            Look::Otherwise(Problem::later(StatusCode::SERVICE_UNAVAILABLE, 30, text).into_response())
        }
    }
}

/// The catalog, and the proof that it is a master's.
fn signed(app: &App, host: &HostView, etag: &str, body: Body) -> Response {
    let Body { json, digest, proof } = body;
    match app.signer.prove(&proof, &digest, &host.identity, host.generation, now()) {
        Ok(proof) => (
            StatusCode::OK,
            [header(ETAG, etag), header(CONTENT_TYPE, "application/json"), header(CACHE_CONTROL, "no-store")],
            proof,
            json,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "a catalog can not be signed with the key of this master's certificate");
            let text = "this master can not sign catalogs; its log says why";
            Problem::later(StatusCode::SERVICE_UNAVAILABLE, 30, text).into_response()
        }
    }
}

/// Writes into the Host whether its catalog compiles, when that is news. The catalog waits for it for a moment, so that
/// it does not come after the agent's report; a write that fails is tried again with the next poll.
async fn tell(app: &App, host: &HostView, compiled: &Compiled) {
    let write = match compiled {
        Compiled::Failed(why) => status::compile_failed(host, why, now()),
        Compiled::Catalog { .. } => status::compiled_again(host, now()),
    };
    if let Some(write) = write
        && let Ok(Ok(host)) = timeout(TELL, app.hosts.write(&host.identity, &write)).await
    {
        app.fleet.observe(host);
    }
}

/// There is no Host of this Node.
pub(crate) fn no_host(node: &NodeIdentity) -> Problem {
    let text = format!(
        "there is no Host for the node {} with the UID {} yet; the operator makes one for each node of the cluster",
        node.name, node.uid
    );
    Problem::new(StatusCode::NOT_FOUND, text)
}

fn not_modified(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [header(ETAG, etag)]).into_response()
}

fn header(name: HeaderName, value: &str) -> (HeaderName, HeaderValue) {
    // Entity tags come from a header or consist of digits, letters and a dash.
    (name, HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_wait_of_a_prefer_header() {
        for (text, seconds) in [
            ("wait=60", Some(60)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"7\" ; x=1", Some(7)),
            ("wait=100000", Some(300)),
            ("wait=-1", None),
            ("wait", None),
            ("waits=5", None),
        ] {
            assert_eq!(wait(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn reads_the_generation_of_an_entity_tag() {
        let wanted = |etag: &str| Wanted { etag: Some(etag.into()), wait: Duration::ZERO }.generation();
        assert_eq!(wanted("\"12-abc\""), Some(12));
        assert_eq!((wanted("12-abc"), wanted("\"x-1\""), wanted("*"), wanted("\"7\"")), (None, None, None, None));
    }
}
