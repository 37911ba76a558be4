//! Stands between one operator process and the API server: counts its writes, and strikes at one of them.
//!
//! The operator speaks plain HTTP on loopback; the credentials and TLS are this side's. Each process has a proxy of its own,
//! so it is known whose request each is.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{Method, Request, Response, StatusCode, Uri, request::Parts},
    serve::ListenerExt as _,
};
use kube::Client;
use rustix::process::Signal;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    process::Target,
    stale::{Stale, spoil},
};

/// What happens at which write, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strike {
    /// The process is killed before the write reaches the API server.
    Before(usize),
    /// The process is killed when the API server has answered, and does not hear the answer.
    After(usize),
    /// The process is stopped and the write held back, until both are let go.
    Stop(usize),
}

impl Strike {
    pub(crate) fn at(self) -> usize {
        match self {
            Self::Before(at) | Self::After(at) | Self::Stop(at) => at,
        }
    }
}

/// What came of the strike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Struck {
    /// The write it struck.
    pub(crate) write: Option<String>,
    /// What the API server said to a write that was held back, once it was let go.
    pub(crate) answer: Option<u16>,
}

/// The way of one operator process to the API server.
pub(crate) struct Proxy {
    upstream: Client,
    /// The Nodes that this operator gets to see, so that several worlds share a control plane.
    node_label: String,
    pub(crate) process: Target,
    strike: Option<Strike>,
    stale: Stale,
    counting: AtomicBool,
    dead: AtomicBool,
    writes: Mutex<Vec<String>>,
    old_lists: Mutex<BTreeSet<String>>,
    pub(crate) struck: watch::Sender<Struck>,
    /// Lets go of a write that is held back.
    pub(crate) go: Notify,
}

/// A proxy that serves.
pub(crate) struct Serving {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) port: u16,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts to serve on a free port of loopback.
    pub(crate) async fn serve(
        upstream: Client,
        node_label: &str,
        strike: Option<Strike>,
        stale: Stale,
    ) -> anyhow::Result<Serving> {
        let proxy = Arc::new(Self {
            upstream,
            node_label: node_label.to_owned(),
            process: Target::default(),
            strike,
            stale,
            counting: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            writes: Mutex::default(),
            old_lists: Mutex::default(),
            struck: watch::channel(Struck::default()).0,
            go: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // Or each answer waits 40 ms for an acknowledgement.
        let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
        let router = Router::new().fallback(handle).with_state(Arc::clone(&proxy));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Serving { proxy, port, task: serving })
    }

    /// Writes count from now on.
    pub(crate) fn count(&self) {
        self.counting.store(true, Ordering::SeqCst);
    }

    /// The writes so far.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lists that asked for any state, however old (`resourceVersion=0`).
    pub(crate) fn old_lists(&self) -> BTreeSet<String> {
        self.old_lists.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn kill(&self) {
        // First nothing more is passed on, then it dies: no other request of it slips through meanwhile.
        self.dead.store(true, Ordering::SeqCst);
        self.process.signal(Signal::KILL);
    }

    fn note(&self, write: &str) -> Option<usize> {
        if !self.counting.load(Ordering::SeqCst) {
            return None;
        }
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.push(write.to_owned());
        Some(writes.len())
    }

    async fn forward(&self, parts: Parts, body: Bytes) -> Response<Body> {
        let mut request = Request::from_parts(parts, kube::client::Body::from(body));
        // The client adds its own.
        request.headers_mut().remove("host");
        match self.upstream.send(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(error) => failure(&error.to_string()),
        }
    }
}

fn failure(why: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(why.to_owned()));
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

async fn handle(State(proxy): State<Arc<Proxy>>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return failure("the request broke off");
    };
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let number = if writes(&parts.method, &path) { proxy.note(&format!("{} {path}", parts.method)) } else { None };
    let strike = proxy.strike.filter(|strike| Some(strike.at()) == number);
    if proxy.dead.load(Ordering::SeqCst) {
        return failure("nobody waits for this answer");
    }
    if parts.method == Method::GET && query.split('&').any(|part| part == "resourceVersion=0") {
        proxy.old_lists.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
    }
    if path == "/api/v1/nodes" {
        let narrowed = format!("{path}?labelSelector={}&{query}", proxy.node_label.replace('=', "%3D"));
        parts.uri = narrowed.parse().unwrap_or_else(|_| Uri::from_static("/api/v1/nodes"));
    }
    let description = Some(format!("{} {path}", parts.method));
    match strike {
        None => {
            let answer = proxy.forward(parts, body).await;
            if query.split('&').any(|part| part == "watch=true") { spoil(&proxy.stale, &path, answer) } else { answer }
        }
        Some(Strike::Before(_)) => {
            proxy.kill();
            proxy.struck.send_replace(Struck { write: description, answer: None });
            failure("killed before")
        }
        Some(Strike::After(_)) => {
            let answer = proxy.forward(parts, body).await;
            // The whole answer is there: what it says is committed.
            let status = answer.status().as_u16();
            let _ = to_bytes(answer.into_body(), usize::MAX).await;
            proxy.kill();
            proxy.struck.send_replace(Struck { write: description, answer: Some(status) });
            failure("killed after")
        }
        Some(Strike::Stop(_)) => {
            proxy.process.signal(Signal::STOP);
            proxy.struck.send_replace(Struck { write: description.clone(), answer: None });
            proxy.go.notified().await;
            let answer = proxy.forward(parts, body).await;
            proxy.struck.send_replace(Struck { write: description, answer: Some(answer.status().as_u16()) });
            answer
        }
    }
}

/// Whether a request changes something. Leases are the election's and renewed by the clock; events are for people.
fn writes(method: &Method, path: &str) -> bool {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    changes && !path.contains("/leases") && !path.contains("/events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_from_reads_leases_and_events() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/nodes", false),
            (Method::PATCH, "/api/v1/nodes/a", true),
            (Method::PUT, "/apis/drover.dev/v1alpha1/namespaces/x/rollouts/base/status", true),
            (Method::POST, "/api/v1/namespaces/x/pods/a/eviction", true),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/x/events", false),
            (Method::PATCH, "/apis/coordination.k8s.io/v1/namespaces/x/leases/drover-operator", false),
        ] {
            assert_eq!(writes(&method, path), expected, "{method} {path}");
        }
    }
}
