//! Calls of agents to the pool of masters, at a steady rate, from a machine and through its kube-proxy. Half of them come over
//! a new connection each, half over connections that are used again and again; half of each speak HTTP/1.1, half HTTP/2.
//! Nothing is tried a second time, so each call that fails is one that an agent lost.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use drover_catalog::{Catalog, TOKEN_AUDIENCE, routes};
use reqwest::{Client, StatusCode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    Fleet, NODES,
    masters::{Directory, token},
};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many calls of one machine are open at once. A master takes four, and the machine's own agent has one. What is due
/// when they are all open is sent as soon as one ends, and none is left out.
const OPEN: usize = 3;

/// Calls that go on until they are told to stop.
pub struct Calls {
    stop: Arc<AtomicBool>,
    calling: thread::JoinHandle<Tally>,
    began: Instant,
}

/// What came of the calls.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were answered with a whole catalog, by the way they went.
    pub answered: BTreeMap<&'static str, usize>,
    /// Those that were not, in words.
    pub lost: Vec<String>,
    /// The longest time from when a call was due until its answer was there.
    pub slowest: Duration,
    /// How long this went on.
    pub lasted: Duration,
}

impl Tally {
    /// How many were answered.
    pub fn all(&self) -> usize {
        self.answered.values().sum()
    }
}

/// What the calls of one machine have in common.
struct Caller {
    node: &'static str,
    token: String,
    open: Arc<Semaphore>,
    ways: [Way; 4],
}

/// How calls go.
struct Way {
    name: &'static str,
    client: Client,
}

impl Calls {
    /// From now on so many calls in a second, sent from this machine, in turn with the tokens of all agents.
    pub async fn begin(fleet: &Fleet, from: &str, per_second: u32) -> Self {
        let directory = Directory::of(fleet).await;
        let address = *directory.addresses.first().expect("the pool has an address");
        let mut callers = vec![];
        for node in NODES {
            let pod = fleet.agent(node).await;
            let token = token(fleet, "drover-agent", TOKEN_AUDIENCE, Some(&pod)).await;
            let ways = ways(&directory, address);
            callers.push(Arc::new(Caller { node, token, open: Arc::new(Semaphore::new(OPEN)), ways }));
        }
        let url = format!("https://{}:{}{}", directory.name, address.port(), routes::CATALOG);
        let network = network_of(fleet, from);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let calling = thread::spawn(move || {
            // Sockets belong to the network of the thread that makes them.
            let link = File::open(&network).unwrap_or_else(|error| panic!("{}: {error}", network.display()));
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(call(&callers, &url, Duration::from_secs(1) / per_second, &stopped))
        });
        Self { stop, calling, began: Instant::now() }
    }

    /// Says something beside what the calls say, with the time since they began.
    pub fn say(&self, what: &str) {
        eprintln!("{:7.2} s  {what}", self.began.elapsed().as_secs_f32());
    }

    /// The last calls are answered, and all is told.
    pub async fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let told = tokio::task::spawn_blocking(|| self.calling.join()).await.expect("the thread is waited for");
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The network of a machine: that of its first process, whose id the testbed keeps.
fn network_of(fleet: &Fleet, node: &str) -> PathBuf {
    let init = fleet.cluster.kubeconfig.with_file_name("machines").join(node).join("init");
    let kept = std::fs::read_to_string(&init).unwrap_or_else(|error| panic!("{}: {error}", init.display()));
    let pid = kept.split_whitespace().next().expect("it begins with a process id");
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

fn ways(directory: &Directory, address: SocketAddr) -> [Way; 4] {
    let client = |idle: usize, version: fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder| {
        let builder = directory.client(address).timeout(DEADLINE).retry(reqwest::retry::never());
        version(builder.pool_max_idle_per_host(idle)).build().expect("a client can be made")
    };
    let (one, two) = (reqwest::ClientBuilder::http1_only, reqwest::ClientBuilder::http2_prior_knowledge);
    [
        Way { name: "HTTP/1.1, new", client: client(0, one) },
        Way { name: "HTTP/1.1, reused", client: client(OPEN, one) },
        Way { name: "HTTP/2, new", client: client(0, two) },
        Way { name: "HTTP/2, reused", client: client(OPEN, two) },
    ]
}

/// One call after the other, each when it is due.
async fn call(callers: &[Arc<Caller>], url: &str, period: Duration, stop: &AtomicBool) -> Tally {
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut calls = JoinSet::new();
    let mut due = began;
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        due += period;
        sleep_until(due).await;
        let caller = Arc::clone(&callers[turn % callers.len()]);
        let place = Arc::clone(&caller.open).acquire_owned().await.expect("it is never closed");
        let url = url.to_owned();
        calls.spawn(async move {
            let way = &caller.ways[turn % caller.ways.len()];
            let sent = Instant::now();
            let answer = ask(&way.client, &url, &caller.token).await;
            drop(place);
            (caller.node, way.name, sent, due.elapsed(), answer)
        });
        while let Some(ended) = calls.try_join_next() {
            tally.count(began, ended.expect("a call ends"));
        }
    }
    while let Some(ended) = calls.join_next().await {
        tally.count(began, ended.expect("a call ends"));
    }
    tally.lasted = began.elapsed();
    tally
}

/// A call that ended: of whom, how, when it was sent, how long after it was due it ended, and with what.
type Ended = (&'static str, &'static str, Instant, Duration, Result<(), String>);

impl Tally {
    fn count(&mut self, began: Instant, (node, way, sent, took, answer): Ended) {
        self.slowest = self.slowest.max(took);
        match answer {
            Ok(()) => *self.answered.entry(way).or_default() += 1,
            Err(why) => {
                let at = sent.duration_since(began).as_secs_f32();
                let told = format!("{at:7.2} s  {node} ({way}), after {} ms: {why}", took.as_millis());
                eprintln!("{told}");
                self.lost.push(told);
            }
        }
    }
}

/// Fetches a catalog.
async fn ask(client: &Client, url: &str, token: &str) -> Result<(), String> {
    let answer = client.get(url).bearer_auth(token).send().await.map_err(|error| explain(&error))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|error| explain(&error))?;
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    let catalog: Catalog = serde_json::from_slice(&body).map_err(|error| format!("no catalog: {error}"))?;
    if catalog.is_intact() { Ok(()) } else { Err("the catalog is not whole".to_owned()) }
}

/// All causes in one line: the outermost says nothing.
fn explain(error: &reqwest::Error) -> String {
    let mut reasons = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    reasons.join(": ")
}
