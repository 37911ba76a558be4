//! The world: what is there, how the API server, the agents and the nodes behave, and what must always be so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use drover_crds::{
    AppliedReport, ChangeCost, ClaimStep, DisruptionBudget, Host, HostSpec, HostStatus, InFlightHost, LoadBalancerStep,
    NodeConfig, NodeConfigSpec, NodeConfigStatus, NodeRef, OnClose, Rollout, RolloutPhase, RolloutSpec, RolloutStatus,
    RunOutcome, RunRecord, StageStep, StopAction,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::super::{
    decide::{Decision, decide},
    gate::{GateAnswer, GateEvidence},
    hook::{JobView, RolloutJob},
    request::{NodeChange, Request},
    snapshot::{
        BudgetView, Ledger, LoadBalancerAction, LoadBalancerAnswer, LoadBalancerCall, NodeView, PodKeeper, PodKey,
        PodView, RolloutView, Snapshot,
    },
};
use crate::{
    calendar::{At, Calendar},
    metadata::{name, uid},
};

#[derive(Clone)]
pub(super) struct Pod {
    pub(super) view: PodView,
    pub(super) node: String,
    /// The budget that protects it, by name.
    pub(super) budget: Option<&'static str>,
    /// Budgets as they are shown, beside that one.
    pub(super) shown: Vec<BudgetView>,
}

/// What the agent on a machine does with a new catalog, and what the machine's gates show after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Luck {
    Works,
    AgentFails,
    AgentSilent,
    GateFails,
    GateSilent,
    NeverReboots,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) version: u64,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) config: NodeConfig,
    pub(super) revisions: BTreeSet<String>,
    pub(super) hosts: Vec<Host>,
    pub(super) nodes: BTreeMap<String, NodeView>,
    pub(super) pods: Vec<Pod>,
    /// How many evictions each budget still allows; a pod that is evicted takes one, and gives it back when it runs again.
    pub(super) budgets: BTreeMap<&'static str, i32>,
    /// The servers that a load balancer outside the cluster sends nothing to, by its name and the server's.
    pub(super) out: BTreeSet<(String, String)>,
    /// What it answers instead of doing what it is asked.
    pub(super) answer: Option<LoadBalancerAnswer>,
    /// What it answered since there was last nothing to do.
    pub(super) answers: BTreeMap<LoadBalancerCall, LoadBalancerAnswer>,
    /// The evictions that were refused since there was last nothing to do.
    pub(super) refused: BTreeMap<PodKey, String>,
    /// The Jobs as well.
    pub(super) refused_jobs: BTreeMap<String, String>,
    /// The volumes that are attached, by Node.
    pub(super) attached: BTreeMap<String, Vec<String>>,
    /// The pods that were deleted rather than evicted, by name.
    pub(super) deleted: Vec<String>,
    /// The pod that does not end when it is evicted.
    pub(super) slow: Option<&'static str>,
    pub(super) luck: BTreeMap<String, Luck>,
    /// What the change costs each machine.
    pub(super) costs: BTreeMap<String, ChangeCost>,
    pub(super) disruption_budgets: Vec<DisruptionBudget>,
    /// Whether what the agents apply asks for a reboot.
    pub(super) needs_reboot: bool,
    /// What the gates of the run show.
    pub(super) run_gates: Vec<GateEvidence>,
    pub(super) jobs: BTreeMap<String, RolloutJob>,
    /// The CronJobs that Jobs are made from.
    pub(super) templates: BTreeSet<&'static str>,
    /// Every Job that began, in order: template, and the Host that it was for.
    pub(super) made: Vec<(String, Option<String>)>,
    /// The same of each Job that was made, by name.
    purposes: BTreeMap<String, (String, Option<String>)>,
    pub(super) other_rollouts: BTreeMap<String, RolloutView>,
    pub(super) own_node: Option<String>,
    /// Whether the NodeConfig is there.
    pub(super) has_config: bool,
    pub(super) writes: usize,
    /// Whether what only one operator can promise is checked: not after a write that was decided on an old snapshot.
    pub(super) strict: bool,
}

pub(super) fn rollout(spec: &serde_json::Value) -> Rollout {
    let mut all = json!({"nodeConfigRef": {"name": "base"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: RolloutSpec = serde_json::from_value(all).unwrap();
    let mut rollout = Rollout::new("base", spec);
    rollout.metadata.uid = Some("0r-base".into());
    rollout.metadata.generation = Some(1);
    rollout
}

pub(super) fn drained() -> serde_json::Value {
    json!({
        "strategy": {"maxUnavailable": 1, "batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": "50%"}]},
        "disruption": {"drain": {"timeoutSeconds": 300}, "loadBalancer": {"settleSeconds": 10}},
        "gates": {"host": [{"http": {"port": 80}, "timeoutSeconds": 60}]},
    })
}

impl World {
    #[allow(clippy::needless_pass_by_value, reason = "a test writes its spec in place")]
    pub(super) fn new(hosts: usize, spec: serde_json::Value) -> Self {
        let mut config = NodeConfig::new(
            "base",
            NodeConfigSpec {
                host_selector: None,
                resources: vec![],
                priority: None,
                data_from: vec![],
                drift: None,
                disruption: None,
                revision_history_limit: None,
            },
        );
        config.status = Some(NodeConfigStatus { revision: Some("base-1".into()), ..Default::default() });
        let mut world = Self {
            now: Timestamp::from_second(1_000_000).unwrap(),
            version: 1,
            rollouts: vec![rollout(&spec)],
            config,
            revisions: ["base-1".into(), "base-2".into()].into(),
            hosts: vec![],
            nodes: BTreeMap::new(),
            pods: vec![],
            budgets: BTreeMap::new(),
            costs: BTreeMap::new(),
            disruption_budgets: vec![],
            out: BTreeSet::new(),
            answer: None,
            answers: BTreeMap::new(),
            refused: BTreeMap::new(),
            refused_jobs: BTreeMap::new(),
            attached: BTreeMap::new(),
            deleted: vec![],
            slow: None,
            luck: BTreeMap::new(),
            needs_reboot: false,
            run_gates: vec![],
            jobs: BTreeMap::new(),
            templates: BTreeSet::new(),
            made: vec![],
            purposes: BTreeMap::new(),
            other_rollouts: BTreeMap::new(),
            own_node: None,
            has_config: true,
            writes: 0,
            strict: true,
        };
        for index in 1..=hosts {
            world.join(&format!("node-{index}"), &format!("{index}u-x"));
        }
        world
    }

    /// A machine joins.
    pub(super) fn join(&mut self, machine: &str, id: &str) {
        let spec = HostSpec { node_ref: NodeRef { name: machine.into(), uid: format!("n{id}") } };
        let mut host = Host::new(machine, spec);
        host.metadata = ObjectMeta { name: Some(machine.into()), uid: Some(id.into()), ..Default::default() };
        host.status = Some(HostStatus::default());
        self.hosts.push(host);
        let node = NodeView { uid: format!("n{id}"), ready: true, resource_version: "1".into(), ..Default::default() };
        self.nodes.insert(machine.into(), node);
        let key = PodKey { namespace: "kube-system".into(), name: format!("agent-{machine}"), uid: format!("a{id}") };
        let view = PodView { key, keeper: PodKeeper::DaemonSet, ready: true, ..PodView::default() };
        self.pods.push(Pod { view, node: machine.into(), budget: None, shown: vec![] });
    }

    pub(super) fn pod(&mut self, pod: &str, node: &str, budget: Option<&'static str>, managed: bool) {
        let key = PodKey { namespace: "default".into(), name: pod.into(), uid: format!("p-{pod}") };
        let keeper = if managed { PodKeeper::Controller } else { PodKeeper::Nobody };
        let view = PodView { key, keeper, ready: true, ..PodView::default() };
        self.pods.push(Pod { view, node: node.into(), budget, shown: vec![] });
    }

    pub(super) fn snapshot(&self, index: usize) -> Snapshot {
        let mut pods: BTreeMap<String, Vec<PodView>> = self.nodes.keys().map(|node| (node.clone(), vec![])).collect();
        for pod in &self.pods {
            let mut view = pod.view.clone();
            view.budgets = pod.budget.into_iter().filter_map(|budget| self.budget(budget)).collect();
            view.budgets.extend(pod.shown.iter().cloned());
            pods.entry(pod.node.clone()).or_default().push(view);
        }
        let gates = self.hosts.iter().map(|host| {
            let shown = match self.luck(name(&host.metadata)) {
                Luck::GateFails => GateEvidence::of(GateAnswer::Failed("connection refused".into())),
                Luck::GateSilent => GateEvidence::default(),
                _ => GateEvidence::of(GateAnswer::Passed),
            };
            (name(&host.metadata).to_owned(), vec![shown])
        });
        Snapshot {
            rollout: self.rollouts[index].clone(),
            node_config: self.has_config.then(|| self.config.clone()),
            revisions: self.revisions.clone(),
            own_node: self.own_node.clone(),
            volumes: self.nodes.keys().map(|node| (node.clone(), self.volumes(node))).collect(),
            load_balancers: self.answers.clone(),
            reported: None,
            costs: self.costs.clone(),
            budgets: self.disruption_budgets.clone(),
            ledgers: self
                .rollouts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .map(|(_, r)| Ledger::of(r))
                .collect(),
            hosts: self.hosts.clone().into(),
            nodes: self.nodes.clone().into_iter().collect(),
            pods,
            refused_evictions: BTreeMap::new(),
            gates: gates.collect(),
            run_gates: self.run_gates.clone(),
            jobs: self.jobs.clone(),
            refused_jobs: BTreeMap::new(),
            other_rollouts: self.other_rollouts.clone(),
            unanswered: BTreeSet::new(),
        }
    }

    /// A budget, as its status says.
    fn budget(&self, name: &str) -> Option<BudgetView> {
        let allowed = *self.budgets.get(name)?;
        Some(BudgetView { name: name.into(), allowed, needs: 2, has: 2 + allowed, unhealthy_may_go: false })
    }

    fn tell_load_balancer(&mut self, call: &LoadBalancerCall, step: &LoadBalancerStep) -> LoadBalancerAnswer {
        let server = match (&step.haproxy, &step.http) {
            (Some(haproxy), _) => haproxy.resolved_server().to_owned(),
            (None, Some(http)) => http.leave.url.rsplit('/').next().unwrap_or_default().to_owned(),
            (None, None) => String::new(),
        };
        let place = (step.name.clone(), server);
        let failed = matches!(self.answer, Some(LoadBalancerAnswer::Failed(_)));
        let answer = self.answer.clone();
        match call.action {
            LoadBalancerAction::Look if self.out.contains(&place) => LoadBalancerAnswer::Out,
            LoadBalancerAction::Look => LoadBalancerAnswer::Done,
            _ if failed => answer.unwrap_or(LoadBalancerAnswer::Done),
            LoadBalancerAction::Leave => {
                let recorded = self.hosts.iter().filter_map(|host| host.status.as_ref()?.claim.as_ref());
                let ours = recorded.filter(|claim| claim.token == call.token);
                let is_recorded = ours.flat_map(|claim| &claim.left_load_balancers).any(|left| left.step == *step);
                assert!(is_recorded || !self.strict, "told before it is recorded");
                self.out.insert(place);
                answer.unwrap_or(LoadBalancerAnswer::Done)
            }
            LoadBalancerAction::Return => {
                self.out.remove(&place);
                LoadBalancerAnswer::Done
            }
        }
    }

    fn volumes(&self, node: &str) -> Vec<String> {
        self.attached.get(node).cloned().unwrap_or_default()
    }

    pub(super) fn luck(&self, host: &str) -> Luck {
        self.luck.get(host).copied().unwrap_or(Luck::Works)
    }

    pub(super) fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Carries out a request as the API server would. False: refused with a conflict.
    #[allow(clippy::too_many_lines, reason = "one arm for each request")]
    pub(super) fn carry_out(&mut self, index: usize, request: Request, seen: &mut Snapshot) -> bool {
        let same = |a: &ObjectMeta, b: &ObjectMeta| a.resource_version == b.resource_version && a.uid == b.uid;
        match request {
            Request::AddFinalizer | Request::RemoveFinalizer | Request::WriteRollout(_) => {
                if !same(&self.rollouts[index].metadata, &seen.rollout.metadata) {
                    return false;
                }
                let version = self.bump();
                let before = self.rollouts[index].clone();
                let rollout = &mut self.rollouts[index];
                rollout.metadata.resource_version = Some(version);
                match request {
                    Request::AddFinalizer => rollout.metadata.finalizers = Some(vec!["drover.dev/rollout".into()]),
                    Request::RemoveFinalizer => rollout.metadata.finalizers = None,
                    Request::WriteRollout(status) => rollout.status = Some(*status),
                    _ => unreachable!(),
                }
                self.check_admission(&before, index);
            }
            Request::WriteHost { host, status } => {
                let version = self.bump();
                let read = seen.hosts.iter().find(|other| name(&other.metadata) == host).unwrap();
                let Some(host) = self.hosts.iter_mut().find(|other| same(&other.metadata, &read.metadata)) else {
                    return false;
                };
                host.metadata.resource_version = Some(version);
                let step = |status: Option<&HostStatus>| Some(status?.claim.as_ref()?.step);
                let begins = step(host.status.as_ref()) != step(Some(&status));
                if let Some(claim) = status.claim.as_ref().filter(|claim| begins && claim.step == ClaimStep::Reboot) {
                    // What was seen when it was decided on: an administrator may uncordon it at any moment after.
                    let out = seen.nodes.get(&host.spec.node_ref.name).is_some_and(|node| node.cordoned);
                    let drains = self.rollouts[index].spec.drain().is_some();
                    assert!(!drains || (claim.drained_for.is_some() && out), "reboots undrained: {claim:?}");
                }
                let claim = status.claim.as_ref();
                let before = host.status.as_ref().map(|status| status.assigned.clone());
                assert!(
                    before.is_none_or(|before| before == status.assigned)
                        || claim.is_some_and(|claim| claim.step == ClaimStep::Apply),
                    "assigned without being at the step Apply"
                );
                host.status = Some(*status);
            }
            Request::PatchNode { node, resource_version, change } => {
                let version = self.bump();
                let Some(node) = self.nodes.get_mut(&node).filter(|node| node.resource_version == resource_version)
                else {
                    return false;
                };
                node.resource_version = version;
                match change {
                    NodeChange::Cordon(token) => (node.cordoned, node.cordoned_by) = (true, Some(token)),
                    NodeChange::Uncordon(token) => {
                        (node.cordoned, node.cordoned_by, node.released_by) = (false, None, Some(token));
                    }
                    NodeChange::ExcludeFromLoadBalancers(token) => {
                        (node.load_balancer_label, node.excluded_by) = (Some(String::new()), Some(token));
                    }
                    NodeChange::IncludeInLoadBalancers(token) => {
                        (node.load_balancer_label, node.excluded_by, node.released_by) = (None, None, Some(token));
                    }
                    NodeChange::Release(token) => node.released_by = Some(token),
                }
            }
            Request::CreateJob(wanted) => {
                if !self.templates.contains(wanted.template.as_str()) {
                    seen.refused_jobs.insert(wanted.name, format!("there is no CronJob {}", wanted.template));
                    return true;
                }
                if self.jobs.contains_key(&wanted.name) {
                    return false;
                }
                let label = |key| wanted.labels.iter().find(|(label, _)| *label == key).map(|(_, value)| value.clone());
                let host = label(drover_crds::keys::HOST_LABEL);
                let version = self.bump();
                self.purposes.insert(wanted.name.clone(), (wanted.template, host.clone()));
                let job = RolloutJob {
                    state: JobView::Made { suspended: false },
                    uid: format!("j-{version}"),
                    resource_version: version,
                    run: label(drover_crds::keys::RUN_LABEL).and_then(|run| run.parse().ok()),
                    of_host: host.is_some(),
                    token: wanted.token,
                };
                self.jobs.insert(wanted.name, job);
            }
            Request::StartJob { name, uid, resource_version, suspended: _ } => {
                let version = self.bump();
                let Some(job) = self.jobs.get_mut(&name) else { return false };
                if (&job.uid, &job.resource_version) != (&uid, &resource_version) {
                    return false;
                }
                (job.state, job.resource_version) = (JobView::Running, version);
                self.made.extend(self.purposes.get(&name).cloned());
            }
            Request::DeleteJob { name, uid } => {
                assert_eq!(self.jobs.remove(&name).map(|job| job.uid), Some(uid));
            }
            Request::Evict(key) => {
                if let Some(position) = self.pods.iter().position(|pod| pod.view.key == key) {
                    let allowed = self.pods[position].budget.and_then(|budget| self.budgets.get(budget));
                    if allowed.is_some_and(|allowed| *allowed <= 0) {
                        seen.refused_evictions.insert(key, "the budget needs 2 healthy pods and has 2".into());
                        return true;
                    }
                    if self.slow == Some(key.name.as_str()) {
                        self.pods[position].view.terminating = true;
                    } else {
                        self.pods.remove(position);
                    }
                }
            }
            Request::TellLoadBalancer { call, step } => {
                let answer = self.tell_load_balancer(&call, &step);
                seen.load_balancers.insert(call.clone(), answer.clone());
                self.answers.insert(call, answer);
            }
            Request::DeletePod(key) => {
                self.deleted.push(key.name.clone());
                self.pods.retain(|pod| pod.view.key != key);
            }
        }
        self.writes += 1;
        self.check();
        true
    }

    /// The agents of the machines work.
    pub(super) fn agents(&mut self) {
        for index in 0..self.hosts.len() {
            let luck = self.luck(name(&self.hosts[index].metadata));
            let version = self.bump();
            let host = &mut self.hosts[index];
            let status = host.status.get_or_insert_default();
            let reported = status.active.as_ref().is_some_and(|active| active.generation == status.assigned_generation);
            let booted = status.active.as_ref().and_then(|active| active.boot_id.clone()).unwrap_or("boot-0".into());
            let may_reboot = status.claim.as_ref().is_some_and(|claim| claim.reboot.as_ref() == Some(&booted));
            if status.assigned.is_empty() || (reported && !may_reboot) || luck == Luck::AgentSilent {
                continue;
            }
            if may_reboot && luck == Luck::NeverReboots {
                continue;
            }
            host.metadata.resource_version = Some(version);
            status.active = Some(AppliedReport {
                generation: status.assigned_generation,
                revisions: status.assigned.clone(),
                converged: luck != Luck::AgentFails,
                message: (luck == Luck::AgentFails).then(|| "base/web: exit code 1".into()),
                failed: i32::from(luck == Luck::AgentFails),
                resources: 3,
                reboot_required: if self.needs_reboot && !may_reboot { vec!["a new kernel".into()] } else { vec![] },
                boot_id: Some(if may_reboot { format!("{booted}+") } else { booted }),
                ..Default::default()
            });
        }
    }

    /// Asks once and carries it out; or how long to wait.
    pub(super) fn step(&mut self, index: usize) -> Option<Duration> {
        let mut snapshot = self.snapshot(index);
        std::mem::swap(&mut snapshot.refused_evictions, &mut self.refused);
        std::mem::swap(&mut snapshot.refused_jobs, &mut self.refused_jobs);
        let Decision { request, look_again } = decide(&snapshot, self.now);
        let Some(request) = request else {
            self.refused.clear();
            self.refused_jobs.clear();
            self.answers.clear();
            return Some(look_again);
        };
        self.carry_out(index, request, &mut snapshot);
        self.refused = snapshot.refused_evictions;
        self.refused_jobs = snapshot.refused_jobs;
        None
    }

    /// Asks and carries out until there is nothing to do but wait.
    pub(super) fn settle(&mut self, index: usize) -> Duration {
        for _ in 0..500 {
            if let Some(look_again) = self.step(index) {
                return look_again;
            }
        }
        panic!("no rest after 500 requests: {:?}", self.rollouts[index].status);
    }

    /// Lets time pass until the Rollout says that it is at this phase.
    pub(super) fn until(&mut self, phase: RolloutPhase) {
        for _ in 0..2_000 {
            let wait = self.settle(0);
            if self.status().phase == Some(phase) {
                return;
            }
            self.agents();
            self.now += SignedDuration::try_from(wait.clamp(Duration::from_secs(1), Duration::from_secs(20))).unwrap();
        }
        panic!("never {phase:?}: {:#?}", self.status());
    }

    /// Lets time pass until the Rollout says this.
    pub(super) fn until_message(&mut self, message: &str) {
        for _ in 0..500 {
            self.settle(0);
            if self.status().message.as_deref() == Some(message) {
                return;
            }
            self.agents();
            self.now += SignedDuration::from_secs(5);
        }
        panic!("never {message:?}: {:#?}", self.status());
    }

    pub(super) fn annotate(&mut self, annotation: &str, value: &str) {
        let version = self.bump();
        let metadata = &mut self.rollouts[0].metadata;
        metadata.resource_version = Some(version);
        metadata.annotations.get_or_insert_default().insert(annotation.into(), value.into());
    }

    pub(super) fn remove_annotation(&mut self, annotation: &str) {
        let version = self.bump();
        let metadata = &mut self.rollouts[0].metadata;
        metadata.resource_version = Some(version);
        metadata.annotations.get_or_insert_default().remove(annotation);
    }

    pub(super) fn status(&self) -> RolloutStatus {
        self.rollouts[0].status.clone().unwrap_or_default()
    }

    pub(super) fn claimed(&self) -> Vec<&Host> {
        self.hosts.iter().filter(|host| host.status.as_ref().is_some_and(|status| status.claim.is_some())).collect()
    }

    /// Everything that must be so at every moment.
    pub(super) fn check(&self) {
        let total = self.hosts.len();
        for rollout in &self.rollouts {
            let status = rollout.status.clone().unwrap_or_default();
            let ours = |host: &&&Host| {
                host.status
                    .as_ref()
                    .and_then(|s| s.claim.as_ref())
                    .is_some_and(|c| c.rollout_uid == uid(&rollout.metadata))
            };
            let claimed = self.claimed();
            let held: Vec<_> = claimed.iter().filter(ours).collect();
            assert!(held.len() <= rollout.spec.resolved_max_parallel(total), "claims exceed maxParallel");
            if let Some(counts) = &status.counts {
                assert_eq!(
                    counts.total,
                    counts.pending
                        + counts.in_flight
                        + counts.updated
                        + counts.failed
                        + counts.skipped
                        + counts.rolled_back,
                    "{counts:?}"
                );
                assert!(
                    status.phase != Some(RolloutPhase::Complete)
                        || (counts.total > 0 && counts.total == counts.updated + counts.skipped)
                );
            }
        }
        for (machine, node) in &self.nodes {
            let held = self.claimed().into_iter().any(|host| name(&host.metadata) == machine);
            assert!(
                held || !self.strict || (node.cordoned_by.is_none() && node.excluded_by.is_none()),
                "{machine} is marked but not held"
            );
        }
    }

    /// A machine was begun: were the limits respected?
    pub(super) fn check_admission(&self, before: &Rollout, index: usize) {
        let ledger = |rollout: &Rollout| rollout.status.clone().map_or(vec![], |status| status.in_flight);
        let after = &self.rollouts[index];
        let in_flight = ledger(after);
        let new: Vec<_> = in_flight.iter().filter(|e| ledger(before).iter().all(|old| old.token != e.token)).collect();
        // What the ledger had lost and was found in a claim is not begun.
        let begun = |entry: &&&InFlightHost| {
            let claim = self.claimed().into_iter().find(|host| uid(&host.metadata) == entry.uid);
            claim.is_none_or(|host| host.status.as_ref().unwrap().claim.as_ref().unwrap().token != entry.token)
        };
        let new: Vec<_> = new.iter().filter(begun).collect();
        if new.is_empty() {
            return;
        }
        let (status, earlier) = (after.status.as_ref().unwrap(), before.status.as_ref().unwrap());
        assert!(in_flight.len() <= after.spec.resolved_max_parallel(self.hosts.len()));
        assert!(!after.spec.paused.unwrap_or(false), "begun although paused");
        self.check_windows(after);
        let annotations = after.metadata.annotations.clone().unwrap_or_default();
        for annotation in ["drover.dev/pause", "drover.dev/hold"] {
            assert!(!annotations.contains_key(annotation), "begun although there is {annotation}");
        }
        let run = status.run.as_ref().unwrap();
        for entry in &new {
            let stage = earlier.stage.as_ref().map(|stage| (stage.step, stage.batch));
            match &run.stopped {
                None => assert_eq!(stage, Some((StageStep::Hosts, entry.batch)), "begun outside the batch at hand"),
                Some(stopped) => {
                    assert_eq!(stopped.action, StopAction::Rollback, "begun although the run was stopped");
                    assert_ne!(entry.revision, run.revision, "a rollback to the revision that is rolled back");
                }
            }
        }
        if !self.strict {
            return;
        }
        let records = self.hosts.iter().flat_map(|host| &host.status.as_ref().unwrap().runs);
        let newest = |failed: bool| {
            let of = |record: &&RunRecord| {
                record.run == run.number
                    && match record.outcome {
                        RunOutcome::Failed => failed,
                        RunOutcome::Succeeded | RunOutcome::RolledBack => !failed,
                        RunOutcome::Withdrawn | RunOutcome::Skipped => false,
                    }
            };
            records.clone().filter(of).map(|record| record.finished_at.0).max()
        };
        if newest(true) > newest(false) {
            assert_eq!(in_flight.len(), 1, "more than one canary while a failure is fresh");
        }
        let unavailable = self.nodes.iter().filter(|(machine, node)| {
            node.cordoned || !node.ready || in_flight.iter().any(|entry| entry.host == **machine)
        });
        let may = after.spec.resolved_max_unavailable(self.hosts.len());
        let (count, added) = (unavailable.count(), new.len());
        // A machine that is out of service anyway makes it no worse.
        let anyway = new.iter().filter(|e| self.nodes.get(&e.host).is_some_and(|node| node.cordoned || !node.ready));
        assert!(count <= may || anyway.count() == added, "maxUnavailable exceeded");
    }

    /// A machine was begun: was a window open? A rollback needs none, and what may overrun is told in stories.
    fn check_windows(&self, after: &Rollout) {
        let Some(schedule) = &after.spec.schedule else { return };
        let run = after.status.as_ref().and_then(|status| status.run.as_ref());
        if run.is_some_and(|run| run.stopped.is_some()) {
            return;
        }
        let overruns = schedule.resolved_on_close() != OnClose::FinishHosts;
        match Calendar::of(&schedule.windows, self.now).expect("begun by a schedule that can not be read").at(self.now)
        {
            At::Closed { denied: false, .. } if overruns => {}
            At::Closed { message, .. } => panic!("begun although {message}"),
            At::Open { .. } => {}
        }
    }

    /// Nodes are as they were before.
    pub(super) fn assert_given_back(&self, before: &BTreeMap<String, NodeView>) {
        for (machine, node) in &self.nodes {
            let was = &before[machine];
            assert_eq!(
                (node.cordoned, &node.load_balancer_label),
                (was.cordoned, &was.load_balancer_label),
                "{machine}"
            );
            assert_eq!((&node.cordoned_by, &node.excluded_by), (&None, &None), "{machine}");
        }
        assert!(self.claimed().is_empty());
    }
}
