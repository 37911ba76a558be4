//! The routes, and what each request goes through before a handler sees it: a span, a place among the open requests, and
//! the proof of who calls. All that comes before the body is read. What is not a route is not there.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, RETRY_AFTER},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use drover_catalog::routes;
use kube::Client;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field};

use crate::{
    answer::{Full, Problem},
    auth::Authenticator,
    catalogs::Catalogs,
    config::Config,
    fleet::Fleet,
    intake::{self, MAX_FACTS, MAX_REPORT},
    metrics::Metrics,
    poll,
    signing::Signer,
    status::Hosts,
    timetable::Timetable,
    turns::Turns,
};

/// When those come back at the soonest who find no place.
const SOON: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(crate) struct Shared {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) catalogs: Catalogs,
    pub(crate) hosts: Hosts,
    pub(crate) signer: Arc<Signer>,
    /// This master is told to end: callers are to go elsewhere, and are served as long as they come.
    draining: CancellationToken,
    /// It closes: who waits is answered.
    pub(crate) closing: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    callers: Authenticator,
    open: Semaphore,
    turns: Turns,
    pub(crate) timetable: Timetable,
}

/// What the handlers share, shared.
pub(crate) type App = Arc<Shared>;

impl Shared {
    /// A master's state; `draining` says that it is to end.
    pub(crate) fn new(
        config: &Config,
        client: &Client,
        fleet: Arc<Fleet>,
        signer: Arc<Signer>,
        draining: CancellationToken,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(config.compile_slots));
        Self {
            fleet,
            catalogs: Catalogs::new(config.compile_slots, Arc::clone(&metrics)),
            metrics,
            turns: Turns::default(),
            timetable: Timetable::default(),
            hosts: Hosts::new(client.clone(), &config.namespace),
            signer,
            draining,
            closing: CancellationToken::new(),
            callers: Authenticator::new(client.clone(), config.agent_service_account.clone()),
            open: Semaphore::new(config.max_open_requests.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }
}

/// The whole interface of a master.
pub(crate) fn router(app: App) -> Router {
    let agents = Router::new()
        .route(routes::CATALOG, get(poll::catalog))
        .route(routes::FACTS, put(intake::facts).layer(DefaultBodyLimit::max(MAX_FACTS)))
        .route(routes::REPORT, post(intake::report).layer(DefaultBodyLimit::max(MAX_REPORT)))
        .layer(from_fn_with_state(Arc::clone(&app), admit));
    let unknown = || async { Problem::new(StatusCode::NOT_FOUND, "there is nothing here").into_response() };
    Router::new()
        .route(routes::READY, get(ready))
        .merge(agents)
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::clone(&app), send_elsewhere))
        .layer(from_fn_with_state(Arc::clone(&app), trace))
        .with_state(app)
}

async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    let not_yet = |text| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
    if app.draining.is_cancelled() {
        not_yet("this master ends")
    } else if !app.fleet.is_filled() {
        not_yet("this master has not read all Hosts and revisions yet")
    } else {
        Ok("ready\n")
    }
}

/// A master that ends says with each answer in HTTP/1.1 that the connection closes after it. If it just closed a connection
/// that is not in use, a request that is on its way would be lost. HTTP/2 has a frame for that, which is sent when the master closes.
async fn send_elsewhere(State(app): State<App>, request: Request, next: Next) -> Response {
    let lasting = request.version() >= Version::HTTP_2;
    let mut response = next.run(request).await;
    if !lasting && app.draining.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Lets in who has proven which Node it is, as long as there is room.
async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let full = |reason, text| Problem::full(reason, SOON, text);
    let place = app.open.try_acquire();
    let _place = place.map_err(|_| full("requests", "this master has as many open requests as it takes"))?;
    let _open = app.metrics.opened();
    let node = app.callers.authenticate(request.headers()).await?;
    Span::current().record("host", &node.name);
    // Before the first list is whole, what is missing may only be unread.
    if !app.fleet.is_filled() {
        return Err(full("starting", "this master has not read all Hosts and revisions yet"));
    }
    app.metrics.called(&node.uid);
    request.extensions_mut().insert(node);
    Ok(next.run(request).await)
}

/// One span a request: no token, no body, and no path that is not ours.
async fn trace(State(app): State<App>, request: Request, next: Next) -> Response {
    const KNOWN: [&str; 4] = [routes::CATALOG, routes::FACTS, routes::REPORT, routes::READY];
    let route = KNOWN.into_iter().find(|route| *route == request.uri().path()).unwrap_or("unknown");
    let span =
        tracing::info_span!("request", method = %request.method(), route, host = field::Empty, status = field::Empty);
    let start = Instant::now();
    let handled = async {
        let mut response = next.run(request).await;
        let status = response.status();
        if let Some(Full { reason, soonest }) = response.extensions().get::<Full>().copied() {
            app.metrics.refused(reason);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(app.turns.take(soonest)));
        }
        if route != routes::READY {
            app.metrics.answered(route, status);
        }
        Span::current().record("status", status.as_u16());
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if status.is_server_error() {
            tracing::warn!(millis, "answered");
        } else {
            tracing::debug!(millis, "answered");
        }
        response
    };
    handled.instrument(span).await
}

#[cfg(test)]
mod tests;
