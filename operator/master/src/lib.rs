//! Drover's masters: they compile catalogs and serve them to agents over HTTPS, and they alone write what agents tell.
//!
//! - `config`: the flags of `drover master`
//! - `server`, `poll`, `intake`, `answer`: the routes of [`drover_catalog::routes`]
//! - `auth`: which Node calls
//! - `fleet`: Hosts and revisions in memory, and who waits for which host
//! - `catalogs`: catalogs, compiled once for each state of a host
//! - `status`: what is written into Hosts
//! - `turns`: when those come back that were sent away
//! - `timetable`: when each machine runs by itself
//! - `metrics`: what a master measures of itself
//! - `tls`: the certificate
//! - `signing`: what proves a catalog, by the certificate's key
//!
//! A master keeps nothing that others need: any may die at any time, and all answer alike. Without the API server it goes
//! on serving what it knows to whom it knows. Assigning revisions and moving them over the fleet is the operator's work.

mod answer;
mod auth;
mod catalogs;
mod config;
mod fleet;
mod intake;
mod metrics;
mod poll;
mod server;
mod signing;
mod status;
#[cfg(test)]
mod testing;
mod timetable;
mod tls;
mod turns;

use std::{
    fmt::Debug,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum_server::{Handle, accept::NoDelayAcceptor};
use drover_crds::{Host, keys::NODE_CONFIG_LABEL};
use futures::{StreamExt, pin_mut};
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Secret};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::{config::Config, tls::TlsError};
use self::{
    fleet::Fleet,
    server::{Shared, router},
    tls::Certificate,
};

/// How long a master that ends goes on serving. Until all kube-proxies have heard that it ends, new connections come; and in
/// HTTP/1.1 only an answer can say that the connection is not to be used again, so each shall have had one.
const LAST_CALL: Duration = Duration::from_secs(5);
/// How long open requests may take to end after that.
const GRACE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head, and how often a silent HTTP/2 connection is probed.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so many seconds a watch is started again, so that a connection that broke without a word blinds the master for
/// no longer.
const WATCH_SECONDS: u32 = 25;
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Why a master ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no certificate.
    #[error("the master has no certificate to serve with")]
    Tls(#[from] TlsError),
    /// The address can not be served on.
    #[error("can not listen on {address}; is it in use, or not an address of this machine?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server failed.
    #[error("the HTTPS server failed")]
    Serve(#[source] io::Error),
    /// A part of the master ended that never should.
    #[error("a part of the master ended; this is a defect of Drover, please report it")]
    Ended,
}

/// Runs a master until `shutdown`; then it is no longer ready, serves for 5 more seconds, answers all long polls, and ends
/// within 10 seconds.
///
/// In Kubernetes, give the pod a grace period of more than that; it needs no `preStop` hook. The client's own TLS provider must
/// be installed by the caller.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let listener =
        TcpListener::bind(config.listen).map_err(|source| Error::Listen { address: config.listen, source })?;
    serve(&config, client, listener, shutdown).await
}

async fn serve(
    config: &Config,
    client: Client,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let certificate = Certificate::load(&config.tls_dir)?;
    let listen = |source| Error::Listen { address: config.listen, source };
    listener.set_nonblocking(true).map_err(listen)?;
    tracing::info!(address = %config.listen, namespace = config.namespace, "serving");

    let fleet = Arc::new(Fleet::default());
    let app = Arc::new(Shared::new(config, &client, Arc::clone(&fleet), certificate.signer(), shutdown.clone()));
    let closing = app.closing.clone();
    let handle = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, certificate.served()).map_err(listen)?;
    // An answer that does not fill its last segment would wait for the caller's delayed acknowledgement, some 40 ms.
    let mut server = server.map(|tls| tls.acceptor(NoDelayAcceptor)).handle(handle.clone());
    let http = server.http_builder();
    http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(16);

    let mut parts = JoinSet::new();
    if let Some(address) = config.metrics_listen {
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.map_err(|source| Error::Listen { address, source })?;
        let routes = metrics::router(Arc::clone(&app));
        parts.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "metrics are served no more");
            }
        });
    }
    let timed = Arc::clone(&app);
    parts.spawn(async move { timed.timetable.follow(&timed.fleet).await });
    parts.spawn(certificate.follow());
    watch(&mut parts, client, &config.namespace, &fleet);
    let drain = async {
        shutdown.cancelled().await;
        tracing::info!("ending");
        sleep(LAST_CALL).await;
        // First no connection takes another request, then the waiting are answered: so they do not wait here again.
        handle.graceful_shutdown(Some(GRACE));
        closing.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = server.serve(router(app).into_make_service()) => ended.map_err(Error::Serve),
        Some(_) = parts.join_next() => Err(Error::Ended),
        () = drain => Ok(()),
    }
}

/// Feeds the fleet from the API server, for ever.
fn watch(parts: &mut JoinSet<()>, client: Client, namespace: &str, fleet: &Arc<Fleet>) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let revisions = config.clone().labels(NODE_CONFIG_LABEL);
    let hosts = Api::<DeserializeGuard<Host>>::namespaced(client.clone(), namespace);
    let into = Arc::clone(fleet);
    parts.spawn(follow(hosts, config, move |event| {
        if let Some(event) = readable(event) {
            into.hosts(event);
        }
    }));
    let into = Arc::clone(fleet);
    let controller_revisions = Api::<ControllerRevision>::namespaced(client.clone(), namespace);
    parts.spawn(follow(controller_revisions, revisions.clone(), move |event| {
        into.revisions(event);
    }));
    let into = Arc::clone(fleet);
    parts.spawn(follow(Api::<Secret>::namespaced(client, namespace), revisions, move |event| into.secrets(event)));
}

/// One Host that can not be read must not hide the others.
fn readable(event: Event<DeserializeGuard<Host>>) -> Option<Event<Host>> {
    let read = |DeserializeGuard(host): DeserializeGuard<Host>| {
        let told = |error: &kube::core::error_boundary::InvalidObject| {
            tracing::error!(%error, host = error.metadata.name, "a Host can not be read; is this master older than the operator?");
        };
        host.inspect_err(told).ok()
    };
    Some(match event {
        Event::Apply(host) => Event::Apply(read(host)?),
        Event::Delete(host) => Event::Delete(read(host)?),
        Event::InitApply(host) => Event::InitApply(read(host)?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

async fn follow<K>(api: Api<K>, config: watcher::Config, mut take: impl FnMut(Event<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(api, config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => take(event),
            Err(error) => tracing::warn!(%error, "a watch broke and starts again; serving from memory meanwhile"),
        }
    }
}

/// Whether the API server could not answer, as opposed to answering no.
fn unavailable(error: &kube::Error) -> bool {
    match error {
        // A proxy's answer may carry no code at all.
        kube::Error::Api(status) => !(400..500).contains(&status.code) || status.code == 429,
        _ => true,
    }
}

/// Times in statuses and conditions.
#[allow(clippy::disallowed_methods, reason = "the master is a shell: decisions in `status` take the time from here")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
