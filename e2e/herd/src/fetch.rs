//! Requests at a fixed rate over connections that are made once: how long the answers take, and whether they are what was asked for.
//!
//! It knows no protocol but HTTPS: what is sent stands in a file, so masters of any kind are measured alike. Each request has its time, and
//! its answer's time counts from then: one that has to wait as others are late is late itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use drover_catalog::routes;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use kube::Client;
use reqwest::{Method, StatusCode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::tokens::{self, Tokens};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(120);
/// How many tokens are asked for at once.
const AT_ONCE: usize = 16;

/// What `drover-herd requests` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Which pods are agents.
    #[arg(long, default_value = "app.kubernetes.io/component=agent")]
    selector: String,
    /// Their service account.
    #[arg(long, default_value = "drover-agent")]
    account: String,
}

/// What `drover-herd fetch` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is sent: a request as JSON on each line, with method, path, headers and body. After the last comes the first again.
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Whom it is sent to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: std::net::SocketAddr,
    /// The name in its certificate.
    #[arg(long)]
    server_name: String,
    /// Who vouches for that.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The client's own certificate, where it needs one.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// How many requests in all.
    #[arg(long)]
    count: usize,
    /// How many of them in a second; left out: each connection sends the next once it has its answer.
    #[arg(long)]
    rate: Option<u32>,
    /// Over so many connections.
    #[arg(long)]
    connections: usize,
    /// The answers' status.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Resources of these types are counted in each answer; left out: answers are no catalogs.
    #[arg(long = "type", value_name = "TYPE", requires = "resources")]
    types: Vec<String>,
    /// There must be so many.
    #[arg(long, default_value_t = 0)]
    resources: usize,
}

/// One request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body: String,
}

/// How it went. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Fetched {
    requests: usize,
    seconds: f64,
    p50: f64,
    p99: f64,
    longest: f64,
    /// The length of the longest answer, in bytes.
    bytes: usize,
}

/// The part of an answer that is counted.
#[derive(Deserialize)]
struct Answer {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    type_name: String,
}

/// What each agent sends for its catalog when it has none.
pub(crate) async fn requests(which: &Which, client: Client, namespace: &str) -> anyhow::Result<Vec<Request>> {
    let pods =
        tokens::pods(client.clone(), namespace, &which.selector).await.context("cannot list the agents' pods")?;
    let tokens = &Tokens::new(client, namespace, &which.account);
    stream::iter(pods)
        .map(|pod| async move {
            let headers = [("authorization".to_owned(), format!("Bearer {}", tokens.token(&pod).await?))].into();
            let (method, path) = ("GET".to_owned(), routes::CATALOG.to_owned());
            anyhow::Ok(Request { method, path, headers, body: String::new() })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// Sends them.
pub(crate) async fn fetch(options: &Options) -> anyhow::Result<Fetched> {
    let load = Arc::new(Load::new(options)?);
    let clients = (0..options.connections).map(|_| client(options)).collect::<anyhow::Result<Vec<_>>>()?;
    // Connections are made before the time starts.
    try_join_all(clients.iter().map(|client| client.get(load.url("/")).send())).await.context("cannot connect")?;
    let began = Instant::now();
    let pace = options.rate.map(|rate| Pace { began, rate: f64::from(rate) });
    let due = Arc::new(Semaphore::new(0));
    let sent = clients.into_iter().map(|client| tokio::spawn(Arc::clone(&load).send(client, Arc::clone(&due), pace)));
    let sent = sent.collect::<Vec<_>>();
    // After the last request, each connection has a turn to see that there is no more.
    let (count, connections) = (options.count, options.connections);
    let give = move || {
        for number in 0..count {
            if let Some(pace) = pace {
                std::thread::sleep(pace.at(number).saturating_duration_since(Instant::now()));
            }
            due.add_permits(1);
        }
        due.add_permits(connections);
    };
    // A thread of its own: the runtime's clock has steps of a millisecond.
    std::thread::spawn(give);
    let mut latencies = vec![];
    for sent in sent {
        latencies.extend(sent.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies.get((latencies.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let lengths = load.answers.iter().filter_map(OnceLock::get).map(Vec::len);
    Ok(Fetched {
        requests: latencies.len(),
        seconds,
        p50: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
        longest: at(100).unwrap_or_default(),
        bytes: lengths.max().unwrap_or_default(),
    })
}

/// When each request is sent.
#[derive(Clone, Copy)]
struct Pace {
    began: Instant,
    rate: f64,
}

impl Pace {
    fn at(self, number: usize) -> Instant {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.began + Duration::from_secs_f64(f64::from(number) / self.rate)
    }
}

/// What is sent, and what came back.
struct Load {
    base: String,
    requests: Vec<(Method, Request)>,
    /// The first answer to each request: most of the later ones are the same, and need no more look.
    answers: Vec<OnceLock<Vec<u8>>>,
    next: AtomicUsize,
    count: usize,
    status: StatusCode,
    types: Vec<String>,
    resources: usize,
}

impl Load {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let mut requests = vec![];
        for line in read(&options.requests)?.lines() {
            let request: Request = serde_json::from_str(line).context("this is no request")?;
            requests.push((request.method.parse()?, request));
        }
        ensure!(!requests.is_empty(), "there are no requests in {}", options.requests.display());
        Ok(Self {
            base: format!("https://{}:{}", options.server_name, options.address.port()),
            answers: requests.iter().map(|_| OnceLock::new()).collect(),
            requests,
            next: AtomicUsize::new(0),
            count: options.count,
            status: StatusCode::from_u16(options.status)?,
            types: options.types.clone(),
            resources: options.resources,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// One connection: sends a request for each permit, until there are no more, and says how many milliseconds each took.
    async fn send(
        self: Arc<Self>,
        client: reqwest::Client,
        due: Arc<Semaphore>,
        pace: Option<Pace>,
    ) -> anyhow::Result<Vec<f64>> {
        let mut latencies = vec![];
        loop {
            due.acquire().await?.forget();
            let number = self.next.fetch_add(1, Ordering::AcqRel);
            if number >= self.count {
                return Ok(latencies);
            }
            let began = pace.map_or_else(Instant::now, |pace| pace.at(number));
            let place = number % self.requests.len();
            let (method, request) = self.requests.get(place).context("no such request")?;
            let mut call = client.request(method.clone(), self.url(&request.path)).body(request.body.clone());
            for (name, value) in &request.headers {
                call = call.header(name, value);
            }
            let answer = call.send().await.with_context(|| format!("no answer to {} {}", method, request.path))?;
            let status = answer.status();
            let body = answer.bytes().await?;
            latencies.push(began.elapsed().as_secs_f64() * 1e3);
            self.check(place, status, &body)
                .with_context(|| format!("a wrong answer to {} {}", method, request.path))?;
        }
    }

    /// Whether that is what was asked for: mostly a catalog of as many resources as there should be.
    fn check(&self, place: usize, status: StatusCode, body: &[u8]) -> anyhow::Result<()> {
        ensure!(status == self.status, "{status}: {}", String::from_utf8_lossy(body.get(..500).unwrap_or(body)));
        if self.types.is_empty() {
            return Ok(());
        }
        let known = self.answers.get(place).context("no such request")?;
        if known.get().is_some_and(|known| known == body) {
            return Ok(());
        }
        let answer: Answer = serde_json::from_slice(body)?;
        let found = answer.resources.iter().filter(|resource| self.types.contains(&resource.type_name)).count();
        ensure!(found == self.resources, "it has {found} resources, not {}", self.resources);
        let _ = known.set(body.to_vec());
        Ok(())
    }
}

/// A client with one connection.
fn client(options: &Options) -> anyhow::Result<reqwest::Client> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(read(&options.ca)?.as_bytes()) {
        authorities.add(certificate?)?;
    }
    let tls = ClientConfig::builder().with_root_certificates(authorities);
    let tls = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read(certificate)?.as_bytes()).collect();
            tls.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(read(key)?.as_bytes())?)?
        }
        _ => tls.with_no_client_auth(),
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve_to_addrs(&options.server_name, &[options.address])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(None)
        .https_only(true)
        .build()?;
    Ok(client)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
