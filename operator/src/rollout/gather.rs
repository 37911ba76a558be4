//! What a decision looks at, kept up to date while one decision follows the other.
//!
//! Machines under way are decided on from memory: what the watches told, and what each write of ours was answered with. That
//! can be behind, and then the write that is decided on it is refused, because it names the version that it was decided on;
//! that object is read again. Where nothing would refuse it (one more machine is begun), everything is read from the API
//! server first, and the decision is taken again on that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use drover_core::rollout::{
    GateEvidence, Ledger, NodeView, PodKey, PodView, Request, RolloutJob, RolloutView, Snapshot, asked_of_run,
};
use drover_crds::{Claim, ClaimStep, DisruptionBudget, Host, InFlightHost, NodeConfig, Rollout, StageStep, keys};
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Node};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;

use super::{
    drain::{self, Drains},
    gates::{Gates, Target},
    jobs,
};
use crate::{
    context::{Context, now},
    fleet::{Change, Changes},
    host::is_ready,
    objects,
};

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Rollout {0}")]
    Rollout(String, #[source] kube::Error),
    #[error("cannot read NodeConfig {0}")]
    NodeConfig(String, #[source] kube::Error),
    #[error("cannot read Host {0}")]
    Host(String, #[source] kube::Error),
    #[error("cannot read Node {0}")]
    Node(String, #[source] kube::Error),
    #[error("cannot list the Jobs of Rollout {0}")]
    Jobs(String, #[source] kube::Error),
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
    #[error("cannot read {0} {1}")]
    Read(&'static str, String, #[source] kube::Error),
}

/// How many objects one answer of the API server holds at most.
const PAGE: u32 = 500;
/// How long the Rollout and its NodeConfig are not looked at while machines are under way: what people ask for by
/// annotations is heard within this time.
const LISTEN: Duration = Duration::from_secs(1);
/// How long the pods of a node are not looked at again; longer where many nodes are drained at once.
const PODS: Duration = Duration::from_secs(2);
const PODS_PER_NODE: Duration = Duration::from_millis(20);
/// How long the Rollout's Jobs are not listed again, unless one was made.
const JOBS: Duration = Duration::from_millis(500);
/// How long a node that is verified is not read again.
const NODES: Duration = Duration::from_secs(1);
/// How many nodes are asked about at once, and of how many the pods are listed between two decisions.
const LISTS: usize = 8;
const LISTS_BETWEEN: usize = 32;
/// How many times as long as it takes to read everything lies between two such readings.
const READ_TIMES: u32 = 4;

/// What is remembered of a Rollout from one reconciliation to the next. All of it can be lost.
#[derive(Default)]
pub(super) struct Memory {
    kept: Option<Kept>,
    /// When it was last worked out what changes cost the machines that wait.
    pub(super) weighed: Option<Instant>,
    /// When it was last written how far it is.
    pub(super) reported: Option<Timestamp>,
    /// When volumes of drained nodes were last listed.
    volumes: Option<Instant>,
    /// The pods of nodes that are drained, and when they were listed.
    pods: BTreeMap<String, (Instant, Vec<PodView>)>,
    /// When the nodes of machines that are verified were read.
    nodes: BTreeMap<String, Instant>,
    /// The Rollout's Jobs, and when they were listed.
    jobs: Option<(Instant, BTreeMap<String, RolloutJob>)>,
    /// When everything was last read, and how long that took.
    read: Option<(Instant, Duration)>,
}

/// The object that a request is about.
#[derive(Debug)]
pub(super) enum About {
    Rollout,
    Host(String),
    Node(String),
    Pod(PodKey),
    LoadBalancer,
    Job,
}

impl About {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::AddFinalizer | Request::RemoveFinalizer | Request::WriteRollout(_) => Self::Rollout,
            Request::WriteHost { host, .. } => Self::Host(host.clone()),
            Request::PatchNode { node, .. } => Self::Node(node.clone()),
            Request::Evict(pod) | Request::DeletePod(pod) => Self::Pod(pod.clone()),
            Request::TellLoadBalancer { .. } => Self::LoadBalancer,
            Request::CreateJob(_) | Request::StartJob { .. } | Request::DeleteJob { .. } => Self::Job,
        }
    }
}

/// The state of the world, as far as one Rollout is concerned.
pub(super) struct View<'a> {
    context: &'a Context,
    gates: &'a Gates,
    pub(super) memory: &'a mut Memory,
    pub(super) snapshot: Snapshot,
    changes: FleetChanges,
    listened: Instant,
    /// What others have entered was read after this Rollout was last written.
    heard_others: bool,
    /// Everything was read from the API server, and nothing was written since.
    is_fresh: bool,
    /// Until when that is good enough to begin machines although some of those under way were written since.
    fresh_until: Option<Instant>,
}

/// What happened to machines.
struct FleetChanges {
    hosts: Changes,
    nodes: Changes,
}

/// A view that waits for the next reconciliation: what happened meanwhile is told by its changes.
struct Kept {
    snapshot: Snapshot,
    changes: FleetChanges,
    listened: Instant,
    heard_others: bool,
}

impl Kept {
    /// What is known of a Rollout that nothing is kept of yet; `None` when it is gone.
    async fn first(context: &Context, name: &str) -> Result<Option<Self>, Error> {
        // Before what is known is copied, so that no change falls between the two.
        let changes = FleetChanges { hosts: context.fleet.hosts.changes(), nodes: context.fleet.nodes.changes() };
        let Some(Heard { rollout, node_config, revisions, budgets, ledgers }) = listen(context, name).await? else {
            return Ok(None);
        };
        let snapshot = Snapshot {
            rollout,
            node_config,
            revisions,
            hosts: context.fleet.hosts.all().into_iter().collect(),
            nodes: context.fleet.nodes.all().iter().map(|node| (node.name_any(), node_view(node))).collect(),
            own_node: context.own_node.clone(),
            costs: BTreeMap::new(),
            budgets,
            ledgers,
            pods: BTreeMap::new(),
            volumes: BTreeMap::new(),
            load_balancers: BTreeMap::new(),
            refused_evictions: BTreeMap::new(),
            gates: BTreeMap::new(),
            run_gates: vec![],
            jobs: BTreeMap::new(),
            refused_jobs: BTreeMap::new(),
            other_rollouts: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            reported: None,
        };
        let listened = Instant::now();
        Ok(Some(Self { snapshot, changes, listened, heard_others: true }))
    }
}

impl<'a> View<'a> {
    /// What is known, or `None` when the Rollout is gone. `rollout` is the Rollout as its watch told it.
    pub(super) async fn of(
        context: &'a Context,
        gates: &'a Gates,
        memory: &'a mut Memory,
        rollout: &Rollout,
    ) -> Result<Option<Self>, Error> {
        // Something happened that may be about a Job.
        memory.jobs = None;
        memory.reported.get_or_insert_with(now);
        let Some(mut kept) = memory.kept.take() else {
            let first = Kept::first(context, &rollout.name_any()).await?;
            return Ok(first.map(|first| Self::from(context, gates, memory, first)));
        };
        kept.snapshot.refused_evictions.clear();
        kept.snapshot.refused_jobs.clear();
        let is_known = kept.snapshot.rollout.resource_version() == rollout.resource_version();
        let mut view = Self::from(context, gates, memory, kept);
        let is_there = is_known || view.listen().await?;
        Ok(is_there.then_some(view))
    }

    fn from(context: &'a Context, gates: &'a Gates, memory: &'a mut Memory, kept: Kept) -> Self {
        let Kept { snapshot, changes, listened, heard_others } = kept;
        let (is_fresh, fresh_until) = (false, None);
        Self { context, gates, memory, snapshot, changes, listened, heard_others, is_fresh, fresh_until }
    }

    /// Keeps what is known for the next time.
    pub(super) fn keep(self) {
        let Self { memory, snapshot, changes, listened, heard_others, .. } = self;
        memory.kept = Some(Kept { snapshot, changes, listened, heard_others });
    }

    /// For how long the Rollout and its NodeConfig need not be looked at again, since this moment: none where that was done
    /// since then.
    pub(super) fn listens_within(&self, began: Instant) -> Option<Duration> {
        (self.listened < began).then(|| LISTEN.saturating_sub(self.listened.elapsed()))
    }

    /// Takes in what happened since; false when the Rollout is gone.
    pub(super) async fn refresh(&mut self) -> Result<bool, Error> {
        if self.listened.elapsed() >= LISTEN && !self.listen().await? {
            return Ok(false);
        }
        self.take_changes();
        self.snapshot.reported = self.memory.reported;
        let (mut drained, mut detached, mut verified) = (vec![], vec![], vec![]);
        let drains = self.snapshot.rollout.spec.drain().is_some();
        let ledger = self.snapshot.rollout.status.iter().flat_map(|status| &status.in_flight);
        for host in ledger.filter_map(|entry| self.snapshot.hosts.get(&entry.host)) {
            let Some(claim) = claim_of(&self.snapshot.rollout, host) else { continue };
            let node = &host.spec.node_ref.name;
            match claim.step {
                ClaimStep::Claim | ClaimStep::Drain if drains => drained.push(node.clone()),
                ClaimStep::DetachVolumes => detached.push(node.clone()),
                ClaimStep::Verify => {
                    verified.push((host.name_any(), claim.token.clone(), claim.step_started_at.0, node.clone()));
                }
                _ => {}
            }
        }
        self.list_pods(&drained).await?;
        self.list_volumes(&detached).await?;
        self.read_nodes(verified.iter().map(|(.., node)| node.clone()).collect()).await?;
        self.ask_gates(verified).await;
        self.list_jobs().await?;
        self.snapshot.other_rollouts = other_rollouts(self.context, &self.snapshot.rollout).await?;
        Ok(true)
    }

    /// Asks the gates of machines (name, token, since when, node), and those of the run that are asked where it is.
    async fn ask_gates(&mut self, verified: Vec<(String, String, Timestamp, String)>) {
        let known = &self.context.fleet.nodes;
        let target = |(host, place, since, node): (String, String, Timestamp, String)| {
            let node = known.get(&node).map(|node| (*node).clone());
            Target { place, host: Some(host), since, node }
        };
        let targets: Vec<Target> = verified.into_iter().map(target).collect();
        let (at, rollout, gates) = (now(), &self.snapshot.rollout, self.gates);
        gates.forget();
        let machines = targets.iter().map(|target| gates.ask(rollout.spec.host_gates(), target, at));
        let (run, machines) = tokio::join!(ask_run(rollout, gates, at), join_all(machines));
        let asked = targets.iter().filter_map(|target| target.host.clone());
        self.snapshot.gates = asked.zip(machines).collect();
        self.snapshot.run_gates = run;
    }

    async fn list_jobs(&mut self) -> Result<(), Error> {
        let rollout = &self.snapshot.rollout;
        if !rollout.spec.has_jobs() {
            return Ok(());
        }
        if self.memory.jobs.as_ref().is_none_or(|(listed, _)| listed.elapsed() >= JOBS) {
            let listed = jobs::list(self.context, rollout).await;
            let listed = listed.map_err(|error| Error::Jobs(rollout.name_any(), error))?;
            self.memory.jobs = Some((Instant::now(), listed));
        }
        self.snapshot.jobs = self.memory.jobs.iter().flat_map(|(_, jobs)| jobs.clone()).collect();
        Ok(())
    }

    /// Whether this request must be decided on what was read for it: it begins machines.
    pub(super) fn must_be_fresh(&self, request: &Request) -> bool {
        let Request::WriteRollout(next) = request else { return false };
        let known = self.snapshot.rollout.status.iter().flat_map(|status| &status.in_flight);
        let known: BTreeSet<&str> = known.map(|entry| entry.token.as_str()).collect();
        let is_fresh = self.is_fresh || self.fresh_until.is_some_and(|end| Instant::now() <= end);
        !is_fresh && next.in_flight.iter().any(|entry| !known.contains(entry.token.as_str()))
    }

    /// Whether this request claims a machine under a budget, and what other Rollouts have entered is not known well enough.
    pub(super) fn must_hear_others(&self, request: &Request) -> bool {
        let Request::WriteHost { host, status } = request else { return false };
        let is_held = |host: &Host| host.status.as_ref().is_some_and(|status| status.claim.is_some());
        let claims = status.claim.is_some() && !self.snapshot.hosts.get(host).is_some_and(is_held);
        claims && !self.snapshot.budgets.is_empty() && !self.heard_others
    }

    /// For how long everything is not read again: reading takes from the API server what machines under way need. The fewer
    /// there are of those that may be, the sooner.
    pub(super) fn reads_after(&self) -> Option<Duration> {
        let (ended, took) = self.memory.read?;
        let rollout = &self.snapshot.rollout;
        let busy = rollout.status.iter().flat_map(|status| &status.in_flight);
        let busy = u32::try_from(busy.filter(|entry| self.is_under_way(entry)).count()).unwrap_or(u32::MAX);
        let may = rollout.spec.resolved_max_parallel(self.snapshot.hosts.count());
        let wait = took.saturating_mul(READ_TIMES).saturating_mul(busy) / u32::try_from(may).unwrap_or(u32::MAX).max(1);
        wait.checked_sub(ended.elapsed()).filter(|left| !left.is_zero())
    }

    /// Whether the machine of an entry of the ledger is held.
    fn is_under_way(&self, entry: &InFlightHost) -> bool {
        let host = self.snapshot.hosts.get(&entry.host);
        host.is_some_and(|host| claim_of(&self.snapshot.rollout, host).is_some_and(|claim| claim.token == entry.token))
    }

    /// Reads everything from the API server; false when the Rollout is gone.
    pub(super) async fn read(&mut self) -> Result<bool, Error> {
        let began = Instant::now();
        let Context { fleet, client, namespace, .. } = self.context;
        fleet.read(client, namespace).await.map_err(|error| Error::List("Hosts and Nodes", error))?;
        let (ended, took) = (Instant::now(), began.elapsed());
        tracing::debug!(
            hosts = fleet.hosts.count(),
            ?took,
            "Made sure of all Hosts and Nodes before machines are begun"
        );
        self.memory.read = Some((ended, took));
        let is_there = self.listen().await?;
        self.take_changes();
        self.is_fresh = true;
        // What was read first is as old by now as it took to read the rest; this allows as much again, for the machines under
        // way that have something to do before others are begun. What is written for them is known by its answers.
        self.fresh_until = Some(ended + took);
        Ok(is_there)
    }

    /// Something was written.
    pub(super) fn wrote(&mut self, about: &About, rollout: Option<Rollout>) {
        self.is_fresh = false;
        if let Some(rollout) = rollout {
            self.fresh_until = None;
            self.snapshot.rollout = rollout;
            self.heard_others = false;
        }
        if let About::Pod(pod) = about {
            self.memory.pods.retain(|_, (_, pods)| pods.iter().all(|other| other.key != *pod));
        }
        if let About::Job = about {
            self.memory.jobs = None;
        }
    }

    /// Reads the object again that a write was refused for.
    pub(super) async fn read_again(&mut self, about: &About) -> Result<bool, Error> {
        let Context { fleet, client, namespace, .. } = self.context;
        match about {
            About::Rollout => return self.listen().await,
            About::Host(name) => {
                let hosts: Api<Host> = Api::namespaced(client.clone(), namespace);
                match hosts.get_opt(name).await.map_err(|error| Error::Host(name.clone(), error))? {
                    Some(host) => fleet.observe_host(host),
                    None => fleet.hosts.forget(name),
                }
            }
            About::Node(name) => {
                let nodes: Api<Node> = Api::all(client.clone());
                match nodes.get_opt(name).await.map_err(|error| Error::Node(name.clone(), error))? {
                    Some(node) => fleet.observe_node(node),
                    None => fleet.nodes.forget(name),
                }
            }
            About::Pod(_) | About::LoadBalancer | About::Job => self.wrote(about, None),
        }
        Ok(true)
    }

    /// Whether the API server itself says that the machine of this pod is still held for its drain.
    pub(super) async fn is_still_drained(&mut self, pod: &PodKey) -> Result<bool, Error> {
        let node = self.snapshot.pods.iter().find(|(_, pods)| pods.iter().any(|other| other.key == *pod));
        let host = node.and_then(|(node, _)| self.snapshot.hosts.iter().find(|host| host.spec.node_ref.name == **node));
        let Some(host) = host else { return Ok(false) };
        let (name, claim) = (host.name_any(), claim_of(&self.snapshot.rollout, host).cloned());
        self.read_again(&About::Host(name.clone())).await?;
        let now = self.context.fleet.hosts.get(&name);
        let now = now.as_ref().and_then(|host| claim_of(&self.snapshot.rollout, host));
        Ok(claim.is_some()
            && now.map(|claim| (&claim.token, claim.step)) == claim.as_ref().map(|claim| (&claim.token, claim.step)))
    }

    pub(super) async fn listen(&mut self) -> Result<bool, Error> {
        let Some(heard) = listen(self.context, &self.snapshot.rollout.name_any()).await? else {
            return Ok(false);
        };
        self.listened = Instant::now();
        self.heard_others = true;
        let snapshot = &mut self.snapshot;
        (snapshot.rollout, snapshot.node_config, snapshot.revisions) =
            (heard.rollout, heard.node_config, heard.revisions);
        (snapshot.budgets, snapshot.ledgers) = (heard.budgets, heard.ledgers);
        Ok(true)
    }

    fn take_changes(&mut self) {
        let fleet = &self.context.fleet;
        while let Some(change) = self.changes.hosts.next_now() {
            match change {
                Change::Of(name) => match fleet.hosts.get(&name) {
                    Some(host) => self.snapshot.hosts.put(host),
                    None => self.snapshot.hosts.remove(&name),
                },
                Change::Everything => self.snapshot.hosts = fleet.hosts.all().into_iter().collect(),
            }
        }
        while let Some(change) = self.changes.nodes.next_now() {
            match change {
                Change::Of(name) => match fleet.nodes.get(&name) {
                    Some(node) => self.snapshot.nodes.put(name, node_view(&node)),
                    None => self.snapshot.nodes.remove(&name),
                },
                Change::Everything => {
                    let all = fleet.nodes.all();
                    self.snapshot.nodes = all.iter().map(|node| (node.name_any(), node_view(node))).collect();
                }
            }
        }
    }

    /// Reads the nodes that are verified: what is shown for a gate is no memory.
    async fn read_nodes(&mut self, verified: BTreeSet<String>) -> Result<(), Error> {
        self.memory.nodes.retain(|node, _| verified.contains(node));
        let is_due = |node: &String| self.memory.nodes.get(node).is_none_or(|read| read.elapsed() >= NODES);
        let due: Vec<String> = verified.into_iter().filter(is_due).collect();
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let read: Vec<(String, Option<Node>)> =
            stream::iter(due).map(|name| read_node(nodes.clone(), name)).buffer_unordered(LISTS).try_collect().await?;
        let (now, known) = (Instant::now(), &self.context.fleet.nodes);
        for (name, node) in read {
            match node {
                Some(node) => self.context.fleet.observe_node(node),
                None => known.forget(&name),
            }
            self.memory.nodes.insert(name, now);
        }
        Ok(())
    }

    /// Lists the pods of the nodes that are drained, those first that were not looked at for longest.
    async fn list_pods(&mut self, drained: &[String]) -> Result<(), Error> {
        self.memory.pods.retain(|node, _| drained.contains(node));
        let every = PODS.max(PODS_PER_NODE * u32::try_from(drained.len()).unwrap_or(u32::MAX));
        let mut due: Vec<(Option<Instant>, String)> = drained
            .iter()
            .map(|node| (self.memory.pods.get(node).map(|(listed, _)| *listed), node.clone()))
            .filter(|(listed, _)| listed.is_none_or(|listed| listed.elapsed() >= every))
            .collect();
        due.sort();
        if !due.is_empty() {
            let drains = &Drains::read(self.context, &self.snapshot.rollout.spec).await?;
            let listed: Vec<(String, Vec<PodView>)> = stream::iter(due.into_iter().take(LISTS_BETWEEN))
                .map(|(_, node)| drains.pods(node))
                .buffer_unordered(LISTS)
                .try_collect()
                .await?;
            let now = Instant::now();
            self.memory.pods.extend(listed.into_iter().map(|(node, pods)| (node, (now, pods))));
        }
        self.snapshot.pods = self.memory.pods.iter().map(|(node, (_, pods))| (node.clone(), pods.clone())).collect();
        Ok(())
    }

    /// Lists the volumes of drained nodes, none more often than its pods.
    async fn list_volumes(&mut self, drained: &[String]) -> Result<(), Error> {
        let is_known = |node: &String| self.snapshot.volumes.contains_key(node);
        let is_due = self.memory.volumes.is_none_or(|listed| listed.elapsed() >= PODS);
        if drained.is_empty() {
            self.snapshot.volumes.clear();
        } else if is_due || !drained.iter().all(is_known) {
            self.snapshot.volumes = drain::volumes(self.context, drained).await?;
            self.memory.volumes = Some(Instant::now());
        }
        Ok(())
    }

    /// Whether the API server itself says that a machine is still held with this token.
    pub(super) async fn is_still_held(&mut self, token: &str) -> Result<bool, Error> {
        let holds = |host: &&Host| claim_of(&self.snapshot.rollout, host).is_some_and(|claim| claim.token == token);
        let Some(name) = self.snapshot.hosts.iter().find(holds).map(ResourceExt::name_any) else { return Ok(false) };
        let before = self.snapshot.hosts.get(&name).and_then(ResourceExt::resource_version);
        self.read_again(&About::Host(name.clone())).await?;
        let now = self.context.fleet.hosts.get(&name);
        Ok(now.is_some_and(|now| now.resource_version() == before))
    }
}

/// What is read of the API server itself now and then, and before it matters.
struct Heard {
    rollout: Rollout,
    node_config: Option<NodeConfig>,
    /// The revisions that are kept.
    revisions: BTreeSet<String>,
    budgets: Vec<DisruptionBudget>,
    /// What other Rollouts have entered, where there are budgets.
    ledgers: Vec<Ledger>,
}

async fn listen(context: &Context, name: &str) -> Result<Option<Heard>, Error> {
    let (client, namespace) = (|| context.client.clone(), &context.namespace);
    let rollouts: Api<Rollout> = Api::namespaced(client(), namespace);
    let Some(rollout) = rollouts.get_opt(name).await.map_err(|error| Error::Rollout(name.to_owned(), error))? else {
        return Ok(None);
    };
    let reference = &rollout.spec.node_config_ref;
    let configs: Api<NodeConfig> = Api::namespaced(client(), namespace);
    let node_config =
        configs.get_opt(&reference.name).await.map_err(|error| Error::NodeConfig(reference.name.clone(), error))?;
    let revisions = match reference.revision {
        Some(_) => revisions(&Api::namespaced(client(), namespace), &reference.name).await?,
        None => BTreeSet::new(),
    };
    let (all, budgets) = (ListParams::default(), Api::<DisruptionBudget>::namespaced(client(), namespace));
    let budgets = budgets.list(&all).await.map_err(|error| Error::List("DisruptionBudgets", error))?.items;
    // After the Rollout itself: what it has entered was written before it was read, so of two Rollouts that race the later
    // one sees the other.
    let ledgers = if budgets.is_empty() {
        vec![]
    } else {
        let all = rollouts.list(&all).await.map_err(|error| Error::List("Rollouts", error))?;
        all.iter().filter(|other| other.uid() != rollout.uid()).map(Ledger::of).collect()
    };
    Ok(Some(Heard { rollout, node_config, revisions, budgets, ledgers }))
}

/// What the gates of the run itself answered that are asked where it is now.
async fn ask_run(rollout: &Rollout, gates: &Gates, now: Timestamp) -> Vec<GateEvidence> {
    match asked_of_run(rollout, now) {
        Some(asked) => {
            let target = Target { place: asked.place, host: None, node: None, since: asked.since };
            gates.ask(asked.gates, &target, now).await
        }
        None => vec![],
    }
}

/// The other Rollouts, while this one waits for some of them.
async fn other_rollouts(context: &Context, rollout: &Rollout) -> Result<BTreeMap<String, RolloutView>, Error> {
    let step = rollout.status.as_ref().and_then(|status| status.stage.as_ref()).map(|stage| stage.step);
    if rollout.spec.depends_on.is_empty() || step.is_some_and(|step| step != StageStep::BeforeRun) {
        return Ok(BTreeMap::new());
    }
    let (client, namespace, all) = (|| context.client.clone(), &context.namespace, ListParams::default());
    let configs = Api::<NodeConfig>::namespaced(client(), namespace).list(&all).await;
    let configs = configs.map_err(|error| Error::List("NodeConfigs", error))?.items;
    let rollouts = Api::<Rollout>::namespaced(client(), namespace).list(&all).await;
    let rollouts = rollouts.map_err(|error| Error::List("Rollouts", error))?.items;
    let newest = |name: &str| {
        let config = configs.iter().find(|config| config.name_any() == name)?;
        config.status.as_ref()?.revision.clone()
    };
    Ok(rollouts.iter().map(|other| (other.name_any(), rollout_view(other, &newest))).collect())
}

fn rollout_view(rollout: &Rollout, newest: &dyn Fn(&str) -> Option<String>) -> RolloutView {
    let reference = &rollout.spec.node_config_ref;
    let status = rollout.status.as_ref();
    RolloutView {
        depends_on: rollout.spec.depends_on.iter().map(|other| other.name.clone()).collect(),
        phase: status.and_then(|status| status.phase),
        is_observed: status.and_then(|status| status.observed_generation) == rollout.metadata.generation,
        revision: status.and_then(|status| status.run.as_ref()).map(|run| run.revision.clone()),
        wanted: reference.revision.clone().or_else(|| newest(&reference.name)),
    }
}

/// The Rollout's claim on a Host, if it has one.
fn claim_of<'a>(rollout: &Rollout, host: &'a Host) -> Option<&'a Claim> {
    let claim = host.status.as_ref()?.claim.as_ref()?;
    (Some(&claim.rollout_uid) == rollout.metadata.uid.as_ref()).then_some(claim)
}

async fn revisions(api: &Api<ControllerRevision>, node_config: &str) -> Result<BTreeSet<String>, Error> {
    let params = ListParams::default().labels(&format!("{}={node_config}", keys::NODE_CONFIG_LABEL));
    let found = api.list_metadata(&params).await.map_err(|error| Error::List("ControllerRevisions", error))?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

/// All objects, page by page.
pub(super) async fn list<K>(api: &Api<K>, what: &'static str, params: ListParams) -> Result<Vec<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut found = vec![];
    loop {
        let page = api.list(&params).await.map_err(|error| Error::List(what, error))?;
        found.extend(page.items);
        match objects::next_page(&params, &page.metadata) {
            Some(next) => params = next,
            None => return Ok(found),
        }
    }
}

async fn read_node(api: Api<Node>, name: String) -> Result<(String, Option<Node>), Error> {
    let node = api.get_opt(&name).await.map_err(|error| Error::Node(name.clone(), error))?;
    Ok((name, node))
}

/// A Node, as far as decisions are concerned.
pub(crate) fn node_view(node: &Node) -> NodeView {
    let annotation = |key: &str| node.annotations().get(key).cloned();
    NodeView {
        uid: node.uid().unwrap_or_default(),
        resource_version: node.resource_version().unwrap_or_default(),
        address: super::gates::internal_address(node),
        ready: is_ready(node),
        cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        cordoned_by: annotation(keys::CORDONED_BY_ANNOTATION),
        load_balancer_label: node.labels().get(keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL).cloned(),
        excluded_by: annotation(keys::EXCLUDED_BY_ANNOTATION),
        released_by: annotation(keys::RELEASED_BY_ANNOTATION),
    }
}
