//! Visitors of the application, from outside of the cluster, through a load balancer that does what those of clouds do: it
//! sends each request to a node's port of the Service, leaves out the nodes that carry the label for that, and takes one
//! back when it answers a probe. It tries nothing a second time, so each request that fails is one that a visitor lost.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::join_all};
use k8s_openapi::api::core::v1::Node;
use kube::{
    ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use tokio::task::JoinHandle;

use crate::{
    Fleet, NODES,
    fleet::is_excluded,
    wait::{SOON, eventually},
};

/// How many visitors there are, and how long each looks at the answer.
const VISITORS: usize = 3;
const PACE: Duration = Duration::from_millis(25);

/// Visitors who come until they are told to stop.
pub struct Visitors {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<()>,
    visiting: Vec<JoinHandle<Tally>>,
}

/// What came of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were answered, by the node that they were sent to.
    pub answered: BTreeMap<String, usize>,
    /// Those that were not, in words.
    pub lost: Vec<String>,
}

/// The nodes that the load balancer knows, by name.
type Pool = Arc<Mutex<BTreeMap<String, Backend>>>;

#[derive(Clone, Debug)]
struct Backend {
    url: String,
    left_out: bool,
}

impl Visitors {
    /// Visitors come from now on, to this port of each node.
    pub async fn come(fleet: &Fleet, port: i32) -> Self {
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(3))
            .build()
            .expect("a client can be made");
        let pool = Pool::default();
        let nodes = watcher(fleet.nodes(), watcher::Config::default()).default_backoff();
        let watching = tokio::spawn(follow(nodes.applied_objects(), pool.clone(), client.clone(), port));
        eventually("all nodes are in the load balancer", SOON, async || {
            let known = in_service(&pool).len();
            if known == NODES.len() { Ok(()) } else { Err(format!("{known} are")) }
        })
        .await;
        let stop = Arc::new(AtomicBool::new(false));
        let visiting =
            (0..VISITORS).map(|first| tokio::spawn(visit(pool.clone(), client.clone(), stop.clone(), first))).collect();
        Self { stop, watching, visiting }
    }

    /// They go home, and tell.
    pub async fn go(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for tally in join_all(self.visiting).await {
            let Tally { answered, lost } = tally.expect("a visitor comes back");
            for (node, count) in answered {
                *all.answered.entry(node).or_default() += count;
            }
            all.lost.extend(lost);
        }
        self.watching.abort();
        all
    }
}

/// Takes nodes out as soon as they carry the label, and back when they do not and answer.
async fn follow(
    nodes: impl futures::Stream<Item = watcher::Result<Node>>,
    pool: Pool,
    client: reqwest::Client,
    port: i32,
) {
    let mut nodes = pin!(nodes);
    while let Some(node) = nodes.next().await {
        let Ok(node) = node else { continue };
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let Some(address) = addresses.into_iter().find(|address| address.type_ == "InternalIP") else { continue };
        let (name, url) = (node.name_any(), format!("http://{}:{port}/", address.address));
        if is_excluded(&node) {
            locked(&pool).insert(name, Backend { url, left_out: true });
        } else if locked(&pool).get(&name).is_none_or(|known| known.left_out)
            && let Ok(answer) = client.get(&url).send().await
            && answer.status().is_success()
        {
            locked(&pool).insert(name, Backend { url, left_out: false });
        }
    }
}

fn locked(pool: &Pool) -> std::sync::MutexGuard<'_, BTreeMap<String, Backend>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_service(pool: &Pool) -> Vec<(String, String)> {
    let pool = locked(pool);
    pool.iter().filter(|(_, backend)| !backend.left_out).map(|(name, b)| (name.clone(), b.url.clone())).collect()
}

/// One visitor after the other, to one node after the other.
async fn visit(pool: Pool, client: reqwest::Client, stop: Arc<AtomicBool>, first: usize) -> Tally {
    let mut tally = Tally::default();
    let mut turn = first;
    while !stop.load(Ordering::Relaxed) {
        let backends = in_service(&pool);
        turn += 1;
        match backends.get(turn % backends.len().max(1)) {
            None => tally.lost.push("no node is in service".to_owned()),
            Some((node, url)) => match ask(&client, url).await {
                Ok(()) => *tally.answered.entry(node.clone()).or_default() += 1,
                Err(why) => tally.lost.push(format!("{node}: {why}")),
            },
        }
        tokio::time::sleep(PACE).await;
    }
    tally
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let answer = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let page = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() && page == "moo\n" { Ok(()) } else { Err(format!("{status}: {page:?}")) }
}
