//! The whole master, over TLS, against an API server that has nothing.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Request, Response};
use kube::{Client, client::Body};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::json;
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use tower_test::mock::{Handle, pair};

use super::{Config, GRACE, serve};
use crate::testing::{AGENT, review, write_certificate};

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Connects as an agent would: it trusts this certificate alone.
fn connect(address: SocketAddr, certificate: &[u8]) -> io::Result<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    Ok(StreamOwned::new(connection, TcpStream::connect(address)?))
}

/// Sends a request and reads the answer to the end of the connection.
fn ask(mut connection: Connection, head: &str) -> io::Result<String> {
    write!(connection, "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Answers lists with nothing, reviews with yes, and keeps watches open. Tells of the first review.
async fn empty_api(mut api: Handle<Request<Body>, Response<Body>>, reviewed: oneshot::Sender<()>) {
    let mut watches = vec![];
    let mut reviewed = Some(reviewed);
    while let Some((request, send)) = api.next_request().await {
        let body = if request.uri().path().ends_with("tokenreviews") {
            reviewed.take().map(|reviewed| reviewed.send(()));
            review("a")
        } else if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            watches.push(send);
            continue;
        } else {
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
        };
        send.send_response(Response::new(Body::from(serde_json::to_vec(&body).unwrap())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_over_tls_and_ends_in_peace() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let certificate = std::fs::read(folder.path().join("tls.crt")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config {
        namespace: "drover-system".into(),
        listen: address,
        tls_dir: folder.path().to_owned(),
        agent_service_account: AGENT.into(),
        max_open_requests: 10,
        compile_slots: 1,
        metrics_listen: None,
    };
    let (service, handle) = pair();
    let (reviewed, polling) = oneshot::channel();
    tokio::spawn(empty_api(handle, reviewed));
    let client = Client::new(service, "drover-system");
    let shutdown = CancellationToken::new();
    let ends = shutdown.clone();
    let master = tokio::spawn(async move { serve(&config, client, listener, ends).await });

    let trusted = certificate.clone();
    let asked = certificate.clone();
    let ready = spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = ask(connect(address, &asked).unwrap(), "GET /readyz HTTP/1.1").unwrap();
            if answer.starts_with("HTTP/1.1 200") || Instant::now() > deadline {
                return answer;
            }
        }
    });
    assert!(ready.await.unwrap().starts_with("HTTP/1.1 200"));

    // A poll that would wait for five minutes is answered when the master closes, and then the master ends.
    let poll = "GET /v1/catalog HTTP/1.1\r\nAuthorization: Bearer a\r\nPrefer: wait=300\r\nIf-None-Match: \"1-x\"";
    let poll = spawn_blocking(move || ask(connect(address, &certificate).unwrap(), poll).unwrap());
    polling.await.unwrap();
    // Who has a connection is still served when the master is told to end, and told not to use it again.
    let kept = spawn_blocking(move || {
        let mut kept = connect(address, &trusted).unwrap();
        write!(kept, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ready\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        (kept, String::from_utf8_lossy(&answer).into_owned())
    });
    let (mut kept, answer) = kept.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
    shutdown.cancel();
    let last = spawn_blocking(move || {
        write!(kept, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = kept.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let last = last.await.unwrap();
    assert!(last.starts_with("HTTP/1.1 503") && last.contains("connection: close"), "{last}");
    assert!(matches!(timeout(GRACE * 2, master).await, Ok(Ok(Ok(())))));
    let answer = poll.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}
