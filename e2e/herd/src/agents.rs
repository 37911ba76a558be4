//! One conversation with a master for each machine, as `drover-agent` leads it: facts up, catalogs down by long poll,
//! reports up. Nothing is applied: each new catalog is reported as applied and converged at once.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use drover_catalog::{Catalog, Facts, Outcome, Report, ResourceReport, ResourceStatus, Totals, routes};
use futures::future::join_all;
use kube::Client;
use reqwest::{Method, StatusCode, header};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject as _};
use serde::Serialize;
use tokio::{sync::Semaphore, time::sleep};

use crate::tokens::{self, AgentPod, Tokens};

/// How long a master may wait for something new, as the agent asks for it.
const LONG_POLL: Duration = Duration::from_secs(55);
/// How long an answer may take, beside that.
const ANSWER: Duration = Duration::from_secs(30);
/// The pause after an answer that is no success.
const PAUSE: Duration = Duration::from_secs(2);
/// How many machines make themselves known at once.
const ARRIVING: usize = 64;

/// What `drover-herd agents` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A folder with ca.crt, server-name and addresses, as the agents' pods mount it.
    #[arg(long, value_name = "FOLDER")]
    masters_dir: PathBuf,
    /// The facts of some machine, as `drover-agent facts` prints them; each machine has them under a name of its own.
    #[arg(long, value_name = "FILE")]
    facts: PathBuf,
    /// Which pods are agents.
    #[arg(long, default_value = "app.kubernetes.io/component=agent")]
    selector: String,
    /// Their service account.
    #[arg(long, default_value = "drover-agent")]
    account: String,
    /// Is made once each machine's facts are known and its request is open.
    #[arg(long, value_name = "FILE")]
    ready_file: PathBuf,
}

/// What all machines have in common.
struct Herd {
    tls: ClientConfig,
    server_name: String,
    addresses: Vec<std::net::SocketAddr>,
    tokens: Tokens,
    facts: Facts,
    arriving: Semaphore,
    arrived: AtomicUsize,
    size: usize,
    ready_file: PathBuf,
}

/// Plays them all.
pub(crate) async fn play(options: &Options, client: Client, namespace: &str) -> anyhow::Result<()> {
    let machines = gather(options, client, namespace).await?.into_iter().map(|machine| tokio::spawn(machine.live()));
    for ended in join_all(machines).await {
        ended??;
    }
    Ok(())
}

/// All machines, before they say anything.
async fn gather(options: &Options, client: Client, namespace: &str) -> anyhow::Result<Vec<Machine>> {
    let pods =
        tokens::pods(client.clone(), namespace, &options.selector).await.context("cannot list the agents' pods")?;
    let read = |name: &str| {
        let path = options.masters_dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(read("ca.crt")?.as_bytes()) {
        authorities.add(certificate?)?;
    }
    let addresses: Result<Vec<_>, _> = read("addresses")?.lines().map(str::parse).collect();
    let facts = std::fs::read(&options.facts).with_context(|| format!("cannot read {}", options.facts.display()))?;
    let herd = Arc::new(Herd {
        tls: ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth(),
        server_name: read("server-name")?.trim().to_owned(),
        addresses: addresses.context("addresses are written ADDRESS:PORT, one a line")?,
        tokens: Tokens::new(client, namespace, &options.account),
        facts: serde_json::from_slice(&facts).context("these are no facts")?,
        arriving: Semaphore::new(ARRIVING),
        arrived: AtomicUsize::new(0),
        size: pods.len(),
        ready_file: options.ready_file.clone(),
    });
    let machine = |(number, pod)| Machine { number, pod, herd: Arc::clone(&herd), client: None, token: None };
    Ok(pods.into_iter().enumerate().map(machine).collect())
}

/// How it went when all agents started at once.
#[derive(Debug, Serialize)]
pub(crate) struct Surge {
    machines: usize,
    /// Until this share of them had its catalog, in seconds.
    half: f64,
    p99: f64,
    last: f64,
    /// Requests that were sent away with a turn to come back.
    refused: usize,
    /// Requests that failed otherwise: connections, and answers that an agent would call trouble.
    failed: usize,
    /// Connections at once, at most, that were being made or used.
    most_at_once: usize,
}

/// Lets each machine make itself known, one after the other; then all start at once: each tells its facts and fetches its catalog, over
/// a new connection. Says how that went.
pub(crate) async fn surge(options: &Options, client: Client, namespace: &str) -> anyhow::Result<Surge> {
    let known = gather(options, client, namespace).await?.into_iter().map(|mut machine| {
        tokio::spawn(async move {
            let facts = serde_json::to_vec(&machine.facts())?;
            machine.arrive(&facts).await;
            machine.client = None;
            anyhow::Ok((machine, facts))
        })
    });
    let mut machines = vec![];
    for machine in join_all(known).await {
        machines.push(machine??);
    }
    let (began, open, most) = (Instant::now(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = machines.into_iter().map(|(mut machine, facts)| {
        let (open, most) = (Arc::clone(&open), Arc::clone(&most));
        tokio::spawn(async move {
            let (mut refused, mut failed) = (0, 0);
            for (method, path, body) in
                [(Method::PUT, routes::FACTS, Some(facts.as_slice())), (Method::GET, routes::CATALOG, None)]
            {
                loop {
                    most.fetch_max(open.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                    let answer = machine.try_ask(method.clone(), path, None, body).await;
                    open.fetch_sub(1, Ordering::AcqRel);
                    match answer {
                        Ok(Answer { status, .. }) if status.is_success() => break,
                        Ok(Answer { retry_after: Some(turn), .. }) => {
                            refused += 1;
                            sleep(turn).await;
                        }
                        _ => {
                            failed += 1;
                            machine.number += 1;
                            machine.client = None;
                            sleep(PAUSE).await;
                        }
                    }
                }
            }
            (began.elapsed().as_secs_f64(), refused, failed)
        })
    });
    let mut seconds = vec![];
    let (mut refused, mut failed) = (0, 0);
    for machine in join_all(started).await {
        let (took, turns, troubles) = machine?;
        seconds.push(took);
        refused += turns;
        failed += troubles;
    }
    seconds.sort_by(f64::total_cmp);
    let at = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Ok(Surge {
        machines: seconds.len(),
        half: at(50).unwrap_or_default(),
        p99: at(99).unwrap_or_default(),
        last: at(100).unwrap_or_default(),
        refused,
        failed,
        most_at_once: most.load(Ordering::Acquire),
    })
}

/// What a master answered.
struct Answer {
    status: StatusCode,
    etag: Option<String>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// One machine.
struct Machine {
    number: usize,
    pod: AgentPod,
    herd: Arc<Herd>,
    client: Option<reqwest::Client>,
    token: Option<String>,
}

impl Machine {
    async fn live(mut self) -> anyhow::Result<()> {
        let facts = serde_json::to_vec(&self.facts())?;
        self.arrive(&facts).await;
        let mut etag: Option<String> = None;
        let mut generation = 0;
        loop {
            let asked = self.ask(Method::GET, routes::CATALOG, etag.as_deref(), None).await;
            let Some(Answer { status, etag: tag, retry_after, body }) = asked else {
                sleep(PAUSE).await;
                continue;
            };
            match status {
                StatusCode::OK => {
                    let catalog: Catalog = serde_json::from_slice(&body)?;
                    etag = tag.or_else(|| Some(catalog.etag()));
                    // As the agent does: what is stale or not whole is not applied.
                    if catalog.is_intact() && catalog.generation >= generation {
                        generation = catalog.generation;
                        self.deliver(&catalog).await?;
                    }
                }
                StatusCode::NOT_MODIFIED => {}
                StatusCode::PRECONDITION_REQUIRED => {
                    drop(self.ask(Method::PUT, routes::FACTS, None, Some(&facts)).await);
                }
                _ => sleep(retry_after.unwrap_or(PAUSE)).await,
            }
        }
    }

    /// Makes the machine known to the masters.
    async fn arrive(&mut self, facts: &[u8]) {
        let herd = Arc::clone(&self.herd);
        let turn = herd.arriving.acquire().await;
        while !self
            .ask(Method::PUT, routes::FACTS, None, Some(facts))
            .await
            .is_some_and(|answer| answer.status.is_success())
        {
            sleep(PAUSE).await;
        }
        drop(turn);
        if herd.arrived.fetch_add(1, Ordering::AcqRel) + 1 == herd.size {
            let _ = std::fs::write(&herd.ready_file, herd.size.to_string());
        }
    }

    /// Reports that the catalog is applied and all of it was changed.
    async fn deliver(&mut self, catalog: &Catalog) -> anyhow::Result<()> {
        let report = serde_json::to_vec(&converged(catalog))?;
        while !self
            .ask(Method::POST, routes::REPORT, None, Some(&report))
            .await
            .is_some_and(|answer| answer.status.is_success())
        {
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The given facts under the machine's own name and address.
    fn facts(&self) -> Facts {
        let mut facts = self.herd.facts.clone();
        facts.networking.hostname.clone_from(&self.pod.node);
        facts.networking.fqdn.clone_from(&self.pod.node);
        let [_, _, high, low] = u32::try_from(self.number).unwrap_or_default().to_be_bytes();
        facts.networking.ip = format!("10.0.{high}.{low}");
        facts.machine_id = format!("{:032x}", self.number);
        facts
    }

    /// Asks a master; `None` when it did not answer. A token that is refused is replaced for the next time.
    async fn ask(&mut self, method: Method, path: &str, etag: Option<&str>, body: Option<&[u8]>) -> Option<Answer> {
        let asked = self.try_ask(method, path, etag, body).await;
        match asked {
            Ok(Answer { status: StatusCode::UNAUTHORIZED, .. }) => {
                self.token = None;
                None
            }
            Ok(answer) => Some(answer),
            Err(error) => {
                // The next one is asked; a connection that broke is not used again.
                self.number += 1;
                self.client = None;
                #[allow(clippy::print_stderr, reason = "the log of this program")]
                {
                    eprintln!("{}: {error:#}", self.pod.node);
                }
                None
            }
        }
    }

    async fn try_ask(
        &mut self,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: Option<&[u8]>,
    ) -> anyhow::Result<Answer> {
        let token = match self.token.clone() {
            Some(token) => token,
            None => self.token.insert(self.herd.tokens.token(&self.pod).await?).clone(),
        };
        let address = self.herd.addresses.get(self.number % self.herd.addresses.len().max(1)).context("no masters")?;
        let client = match self.client.clone() {
            Some(client) => client,
            // One for each machine: each has connections of its own.
            None => self.client.insert(client(&self.herd, *address)?).clone(),
        };
        let url = format!("https://{}:{}{path}", self.herd.server_name, address.port());
        let wait = method == Method::GET;
        let mut call = client.request(method, url).bearer_auth(token).timeout(LONG_POLL + ANSWER);
        if let Some(etag) = etag {
            call = call.header(header::IF_NONE_MATCH, etag);
        }
        if wait {
            call = call.header("prefer", format!("wait={}", LONG_POLL.as_secs()));
        }
        if let Some(body) = body {
            call = call.header(header::CONTENT_TYPE, "application/json").body(body.to_vec());
        }
        let answer = call.send().await?;
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, etag) = (answer.status(), text(header::ETAG));
        let retry_after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Ok(Answer { status, etag, retry_after, body: answer.bytes().await?.to_vec() })
    }
}

/// A client as the agent has it.
fn client(herd: &Herd, address: std::net::SocketAddr) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(herd.tls.clone())
        .resolve_to_addrs(&herd.server_name, &[address])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .https_only(true)
        .build()
}

/// The report of a run in which everything was changed and nothing failed.
fn converged(catalog: &Catalog) -> Report {
    let resources: Vec<ResourceReport> = catalog
        .resources
        .iter()
        .map(|resource| {
            let message = "content changed".to_owned();
            ResourceReport::new(resource.id.clone(), &resource.type_name, ResourceStatus::Changed, message)
        })
        .collect();
    let mut totals = Totals::default();
    for resource in &resources {
        totals.add(resource);
    }
    Report {
        host: catalog.host.clone(),
        generation: catalog.generation,
        catalog: catalog.digest.clone(),
        revisions: catalog.revisions.clone(),
        outcome: Outcome::Converged,
        totals,
        resources,
        millis_by_type: [("file".to_owned(), 3)].into(),
        duration_millis: 7,
        reboot_required: vec![],
        boot_id: "0d3b1f9e-7a51-4f0e-8a4e-6d1f2c9b7a10".to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        commands: vec![],
    }
}
