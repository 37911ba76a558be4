//! The hand-over of masters from one authority to the next, as everybody sees it: agents who ask all along, a caller whose
//! connection stays open, what objects say when, and what masters really serve.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use drover_crds::{MasterPool, MasterPoolStatus, condition};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    ResourceExt as _,
    api::{LogParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Cluster, Fleet, NODES,
    fleet::{NAMESPACE, Part},
    masters::{Master, token},
    record::Record,
    wait::{LATER, SOON, eventually, until},
};

/// The pool, what its agents read, and what its masters use.
const POOL: &str = "masters";
const DIRECTIONS: &str = "drover-masters";
const SERVED: &str = "drover-masters-tls";

/// How long stories let an old and a new authority overlap: longer than a mounted object takes to each pod (7.5 s where kubelets
/// sync each 5 s) and masters to look at it (10 s).
pub const OVERLAP: Duration = Duration::from_secs(25);

/// How a pool's condition `CertificateReady` is, as `True Current`.
pub fn certificate_ready(status: &MasterPoolStatus) -> String {
    let found = condition::find(&status.conditions, "CertificateReady");
    found.map(|condition| format!("{} {}", condition.status, condition.reason)).unwrap_or_default()
}

/// Whom agents are told to trust: certificates as PEM.
pub async fn told(fleet: &Fleet) -> Vec<String> {
    certificates(&fleet.api::<ConfigMap>().get(DIRECTIONS).await.unwrap())
}

fn certificates(map: &ConfigMap) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let bundle = map.data.as_ref().and_then(|data| data.get("ca.crt")).map(String::as_str).unwrap_or_default();
    bundle.split_inclusive(END).filter(|text| text.contains(END)).map(|text| text.trim().to_owned()).collect()
}

/// Which of the masters that serve show a certificate that this authority signed, to somebody who comes now.
pub async fn serve_under(fleet: &Fleet, authority: &str) -> Vec<bool> {
    join_all(Master::all(fleet, authority).await.iter().map(Master::is_trusted)).await
}

/// Waits until the agents of all nodes have this to read, and nothing else, as whom to trust.
pub async fn reaches_agents(fleet: &Fleet, authority: &str) {
    for node in NODES {
        let uid = fleet.agent(node).await.uid().unwrap();
        let path = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~configmap/masters/ca.crt");
        eventually(&format!("the new authority alone reaches {node}"), SOON, async || {
            let text = fleet.machine(node).read(&path).await.unwrap_or_default();
            if text.trim() == authority { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

/// What objects say while a hand-over goes on, and when.
pub struct Handover {
    told: Record<(Instant, Vec<String>)>,
    used: Record<(Instant, String)>,
}

impl Handover {
    /// It is watched from now on.
    pub async fn watch(fleet: &Fleet) -> Self {
        let labels = "drover.dev/master-pool=masters";
        let told = Record::start(fleet.api(), labels, |maps: &BTreeMap<String, ConfigMap>| {
            (Instant::now(), maps.get(DIRECTIONS).map(certificates).unwrap_or_default())
        });
        let used = Record::start(fleet.api(), labels, |secrets: &BTreeMap<String, Secret>| {
            let served = secrets.get(SERVED).and_then(|secret| secret.annotations().get("drover.dev/authority"));
            (Instant::now(), served.cloned().unwrap_or_default())
        });
        Self { told: told.await, used: used.await }
    }

    /// It is over, from one authority to the other. How long agents knew the new one before masters used it, and the old one after.
    pub async fn is_over(self, before: &str, after: &str) -> (Duration, Duration) {
        let told = self.told.until("agents know the new authority alone", |(_, bundle)| *bundle == [after]).await;
        let first = self.used.first();
        let used = self.used.until("masters use another certificate", |(_, authority)| *authority != first.1).await;
        let used = used.last().unwrap().0;
        let knows = |bundle: &[String], authority: &str| bundle.iter().any(|known| known == authority);
        let is_new =
            told.iter().find(|(_, bundle)| knows(bundle, after)).expect("agents are told of the new authority").0;
        let is_gone = told.iter().find(|(_, bundle)| !knows(bundle, before)).expect("the old authority goes").0;
        let (ahead, behind) = (used.saturating_duration_since(is_new), is_gone.saturating_duration_since(used));
        eprintln!(
            "agents knew the new authority {ahead:.1?} before masters used it, and the old one {behind:.1?} after"
        );
        (ahead, behind)
    }
}

/// Agents' clients on all nodes, and one caller on a connection that stays open.
pub struct Callers {
    stop: Arc<AtomicBool>,
    pinging: Vec<JoinHandle<Tally>>,
    calling: JoinHandle<Tally>,
    since: Instant,
}

/// What came of the questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were answered.
    pub answered: usize,
    /// Those that were not, in words.
    pub lost: Vec<String>,
}

impl Callers {
    /// They ask from now on, each agent with a new connection every few seconds. `before` is the authority of now.
    pub async fn come(fleet: &Fleet, before: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut pinging = vec![];
        for node in NODES {
            let pod = fleet.agent(node).await.name_any();
            pinging.push(tokio::spawn(ping(fleet.cluster.clone(), pod, stop.clone())));
        }
        let agent = fleet.agent(NODES[0]).await;
        let token = token(fleet, "drover-agent", drover_catalog::TOKEN_AUDIENCE, Some(&agent)).await;
        let master = Master::all(fleet, before).await.remove(0);
        let (status, body) = master.catalog(Some(&token)).await;
        assert!(status.is_success(), "{status}: {body}");
        let calling = tokio::spawn(call(master, token, stop.clone()));
        Self { stop, pinging, calling, since: Instant::now() }
    }

    /// They go, and tell: of the agents, and of the open connection. Whatever the agents themselves log as trouble is lost, too.
    pub async fn go(self, fleet: &Fleet) -> (Tally, Tally) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for pinging in self.pinging {
            let Tally { answered, lost } = pinging.await.expect("a caller comes back");
            all.answered += answered;
            all.lost.extend(lost);
        }
        all.lost.extend(troubles(fleet, self.since.elapsed()).await);
        let open = self.calling.await.expect("the caller comes back");
        eprintln!("{} questions of agents, and {} on one open connection", all.answered, open.answered);
        (all, open)
    }
}

/// Asks with the agent's own client, from its pod, a hundred times on a connection. It asks once more when it is told to stop.
async fn ping(cluster: Cluster, pod: String, stop: Arc<AtomicBool>) -> Tally {
    let arguments = ["-n", NAMESPACE, "exec", &pod, "--", "/drover-agent", "ping", "--count", "100", "--every", "50"];
    let mut tally = Tally::default();
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        match cluster.try_kubectl(&arguments).await {
            Ok(printed) if printed.starts_with("answered 100 of 100,") => tally.answered += 100,
            Ok(printed) | Err(printed) => tally.lost.push(format!("{pod}: {printed}")),
        }
        if is_last {
            return tally;
        }
    }
}

/// Asks on a connection that is open already.
async fn call(master: Master, token: String, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        match master.try_catalog(Some(&token)).await {
            Ok((status, _)) if status.is_success() => tally.answered += 1,
            Ok((status, body)) => tally.lost.push(format!("{status}: {body}")),
            Err(error) => tally.lost.push(format!("{error:?}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tally
}

/// What agents logged in this time that is more than a note, or that a master did not answer.
async fn troubles(fleet: &Fleet, since: Duration) -> Vec<String> {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1);
    let params = LogParams { since_seconds: Some(seconds), ..LogParams::default() };
    let mut troubles = vec![];
    for pod in fleet.pods_of(Part::Agent).await {
        let log = fleet.api::<Pod>().logs(&pod.name_any(), &params).await.unwrap();
        let is_trouble =
            |line: &&str| ["\"WARN\"", "\"ERROR\"", "a master did not answer"].iter().any(|text| line.contains(text));
        troubles.extend(log.lines().filter(is_trouble).map(|line| format!("{}: {line}", pod.name_any())));
    }
    troubles
}

/// Lets the operator's own authority take over from whatever a story left, and waits until that is over.
pub(crate) async fn put_back(fleet: &Fleet) {
    let pools = fleet.api::<MasterPool>();
    let pool = pools.get(POOL).await.unwrap();
    let is_current = pool.status.as_ref().is_some_and(|status| certificate_ready(status) == "True Current");
    let asks_for_nothing = pool.spec.certificates.is_none();
    if !(is_current && asks_for_nothing) {
        let short = json!({"issuerRef": null, "authorityGeneration": null, "overlapSeconds": OVERLAP.as_secs()});
        let patch = Patch::Merge(json!({"spec": {"certificates": short}}));
        let changed = pools.patch(POOL, &PatchParams::default(), &patch).await.unwrap();
        until(&pools, POOL, "at its own authority", LATER, |pool| {
            let status = pool.status.as_ref()?;
            let is_new = status.observed_generation >= changed.metadata.generation;
            (is_new && certificate_ready(status) == "True Current").then_some(())
        })
        .await;
    }
    let patch = Patch::Merge(json!({"spec": {"certificates": null}}));
    pools.patch(POOL, &PatchParams::default(), &patch).await.unwrap();
}
