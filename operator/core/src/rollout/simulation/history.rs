//! Random histories, each from a seed: `DROVER_SEED=123 cargo test -p drover-core schedules` plays one again and prints it.

use std::{collections::BTreeMap, env, panic};

use drover_crds::{ChangeCost, RolloutPhase, RunOutcome};
use fastrand::Rng;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    super::{decide::decide, request::Request, snapshot::Snapshot},
    world::{Luck, World, drained},
};
use crate::metadata::name;

/// How many schedules a test run plays.
const SCHEDULES: u64 = 10_000;

/// Whatever happens in whatever order: no limit is exceeded, no mark is left, and in quiet times it ends.
#[test]
fn the_invariants_hold_in_ten_thousand_schedules() {
    if let Some(seed) = env::var("DROVER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Schedule::new(seed, true).play();
        return;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first..SCHEDULES).step_by(usize::try_from(threads).unwrap()) {
                    let played = panic::catch_unwind(|| Schedule::new(seed, false).play());
                    assert!(played.is_ok(), "schedule {seed} failed; play it again with DROVER_SEED={seed}");
                }
            });
        }
    });
}

/// One history.
struct Schedule {
    random: Rng,
    world: World,
    /// Nodes that an administrator has cordoned.
    foreign: BTreeMap<String, bool>,
    /// What an operator saw that has not looked since.
    older: Snapshot,
    hosts: usize,
    joined: usize,
    /// Whether old snapshots are decided on: then limits that only a fresh look can keep are not checked any more.
    stale: bool,
    tell: bool,
}

fn spec(random: &mut Rng) -> Value {
    let mut spec = drained();
    let strategy = &mut spec["strategy"];
    let limit = |random: &mut Rng| {
        if random.bool() { json!(random.u32(1..4)) } else { json!(format!("{}%", random.u32(1..5) * 25)) }
    };
    strategy["maxParallel"] = limit(random);
    strategy["maxUnavailable"] = limit(random);
    let on_exceeded = random.choice(["Pause", "Abort", "Rollback"]).unwrap();
    strategy["failure"] = json!({"maxFailed": random.u32(0..3), "onExceeded": on_exceeded});
    strategy["batches"] = match random.u32(0..4) {
        0 => json!([]),
        1 => json!([{"name": "canary", "size": 1, "soakSeconds": 60}, {"name": "rest", "size": "50%"}]),
        2 => json!([{"name": "some", "hosts": ["node-2", "node-4"]}]),
        _ => json!([{"size": 1}, {"name": "all", "size": "100%", "approval": "Required"}]),
    };
    if random.bool() {
        spec.as_object_mut().unwrap().remove("disruption");
    }
    if random.u32(0..4) == 0 {
        spec["strategy"]["progressDeadlineSeconds"] = json!(random.u32(60..900));
    }
    if random.u32(0..4) == 0 {
        let window = if random.bool() {
            json!({"kind": "Allow", "schedule": "*/10 * * * *", "durationSeconds": 300})
        } else {
            json!({"kind": "Deny", "schedule": "*/7 * * * *", "durationSeconds": 120})
        };
        let on_close = random.choice(["FinishHosts", "FinishBatch", "FinishRun"]).unwrap();
        spec["schedule"] = json!({"windows": [window], "onClose": on_close});
    }
    spec
}

const ANNOTATIONS: [&str; 7] = ["pause", "hold", "approve", "abort", "retry", "undo", "skip"];

impl Schedule {
    fn new(seed: u64, tell: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let hosts = random.usize(1..5);
        let mut world = World::new(hosts, spec(&mut random));
        world.strict = true;
        // From a seed of their own, so that the rest of a schedule is the same as without them.
        let mut costs = Rng::with_seed(!seed);
        for host in 1..=hosts {
            use ChangeCost::{Drain, NoOp, None, Reboot, Reload, Restart};
            let known = costs.choice([NoOp, None, Reload, Restart, Drain, Reboot]).filter(|_| costs.bool());
            world.costs.extend(known.map(|cost| (format!("node-{host}"), cost)));
        }
        let older = world.snapshot(0);
        let stale = seed.is_multiple_of(2);
        Self { random, world, foreign: BTreeMap::new(), older, hosts, joined: 100, stale, tell }
    }

    fn play(mut self) {
        if self.tell {
            eprintln!("{} hosts, {}", self.hosts, serde_json::to_string(&self.world.rollouts[0].spec).unwrap());
        }
        for _ in 0..self.random.usize(1..120) {
            self.happen();
        }
        self.quiet();
    }

    fn machine(&mut self) -> String {
        format!("node-{}", self.random.usize(0..self.hosts) + 1)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tell {
            eprintln!("{} {}", self.world.now, what());
        }
    }

    /// One thing happens.
    fn happen(&mut self) {
        match self.random.u32(0..26) {
            0..9 => {
                let mut snapshot = self.world.snapshot(0);
                self.older = snapshot.clone();
                let at_once = self.random.usize(1..4);
                for request in self.together(&mut snapshot, at_once) {
                    self.tell(|| format!("{request:?}"));
                    self.world.carry_out(0, request, &mut snapshot);
                }
            }
            // An operator that lost its leadership, or a cache that is behind.
            9..11 if !self.stale => {}
            9..11 => {
                self.world.strict = false;
                let mut older = self.older.clone();
                if let Some(request) = decide(&older, self.world.now).request {
                    self.tell(|| format!("stale: {request:?}"));
                    self.world.carry_out(0, request, &mut older);
                }
            }
            11..14 => {
                self.tell(|| "agents".to_owned());
                self.world.agents();
            }
            14..17 => self.world.now += SignedDuration::from_secs(self.random.i64(1..90)),
            17 => self.cordon(),
            18 => {
                let machine = self.machine();
                let node = self.world.nodes.get_mut(&machine).unwrap();
                node.ready = !node.ready;
                self.tell(|| format!("{machine} ready or not"));
            }
            19 => {
                let paused = self.random.bool();
                self.tell(|| format!("spec.paused: {paused}"));
                let version = self.world.bump();
                self.world.rollouts[0].metadata.resource_version = Some(version);
                self.world.rollouts[0].spec.paused = Some(paused);
            }
            20 => {
                let revision = if self.random.bool() { "base-2" } else { "base-1" };
                self.tell(|| revision.to_owned());
                self.world.config.status.as_mut().unwrap().revision = Some(revision.into());
            }
            21 | 22 => self.luck(),
            23 => self.replace(),
            _ => self.annotate(),
        }
    }

    /// What is next, and while Hosts are written what is next for others, in the order in which it arrives.
    fn together(&mut self, snapshot: &mut Snapshot, at_once: usize) -> Vec<Request> {
        let mut requests = vec![];
        while requests.len() < at_once {
            match decide(snapshot, self.world.now).request {
                Some(Request::WriteHost { host, status }) => {
                    assert!(snapshot.unanswered.insert(host.clone()), "{host} is decided on before its answer");
                    requests.push(Request::WriteHost { host, status });
                }
                // Not before all that was sent is answered.
                Some(request) if requests.is_empty() => return vec![request],
                Some(_) | None => break,
            }
        }
        self.random.shuffle(&mut requests);
        requests
    }

    fn cordon(&mut self) {
        let machine = self.machine();
        let version = self.world.bump();
        let node = self.world.nodes.get_mut(&machine).unwrap();
        // An administrator who cordons a node that is cordoned already changes nothing that could be seen.
        if node.cordoned_by.is_none() {
            node.cordoned = !node.cordoned;
            node.resource_version = version;
            let cordoned = node.cordoned;
            self.tell(|| format!("an administrator cordons {machine}: {cordoned}"));
            self.foreign.insert(machine, cordoned);
        }
    }

    fn luck(&mut self) {
        let machine = self.machine();
        let all =
            [Luck::Works, Luck::AgentFails, Luck::AgentSilent, Luck::GateFails, Luck::GateSilent, Luck::NeverReboots];
        let luck = *self.random.choice(&all).unwrap();
        self.tell(|| format!("{machine}: {luck:?}"));
        self.world.needs_reboot = luck == Luck::NeverReboots || (self.world.needs_reboot && self.random.bool());
        self.world.luck.insert(machine, luck);
    }

    /// A machine is made again under its name, or another one joins.
    fn replace(&mut self) {
        self.joined += 1;
        let machine = self.machine();
        self.tell(|| format!("{machine} is made again"));
        self.world.hosts.retain(|host| name(&host.metadata) != machine);
        self.world.nodes.remove(&machine);
        self.foreign.remove(&machine);
        self.world.join(&machine, &format!("{}u-x", self.joined));
    }

    fn annotate(&mut self) {
        let action = *self.random.choice(&ANNOTATIONS).unwrap();
        let annotation = format!("drover.dev/{action}");
        let run = self.world.status().run.map_or(1, |run| run.number) - i64::from(self.random.u32(0..4) == 0);
        let value = match action {
            "approve" => format!("{run}/*"),
            "skip" => self.machine(),
            _ => run.to_string(),
        };
        if self.random.bool() {
            self.tell(|| format!("{annotation}={value}"));
            self.world.annotate(&annotation, &value);
        } else {
            self.tell(|| format!("{annotation}-"));
            self.world.remove_annotation(&annotation);
        }
    }

    /// Everything works, nothing is out of service, nobody asks for anything: it ends well.
    fn quiet(mut self) {
        self.tell(|| "quiet".to_owned());
        let world = &mut self.world;
        world.luck.clear();
        world.rollouts[0].spec.paused = None;
        for action in ANNOTATIONS {
            world.remove_annotation(&format!("drover.dev/{action}"));
        }
        for (machine, node) in &mut world.nodes {
            node.ready = true;
            if node.cordoned_by.is_none() && self.foreign.get(machine).copied().unwrap_or(false) {
                node.cordoned = false;
            }
        }
        for _ in 0..600 {
            world.settle(0);
            let status = world.status();
            let run = status.run.as_ref().map_or(0, |run| run.number);
            match status.phase {
                Some(RolloutPhase::Complete) => break,
                Some(RolloutPhase::Failed | RolloutPhase::Aborted | RolloutPhase::RolledBack) => {
                    let generation = world.rollouts[0].metadata.generation.unwrap();
                    world.rollouts[0].metadata.generation = Some(generation + 1);
                }
                _ => {}
            }
            let approval = format!("{run}/*");
            let metadata = &world.rollouts[0].metadata;
            if metadata.annotations.as_ref().and_then(|all| all.get("drover.dev/approve")) != Some(&approval) {
                world.annotate("drover.dev/approve", &approval);
            }
            world.agents();
            world.now += SignedDuration::from_secs(5);
        }
        self.check_end();
    }

    fn check_end(self) {
        let world = &self.world;
        let target = world.config.status.as_ref().unwrap().revision.clone().unwrap();
        let status = world.status();
        assert_eq!(status.phase, Some(RolloutPhase::Complete), "{status:#?}");
        let run = status.run.as_ref().unwrap().number;
        for host in &world.hosts {
            let host = host.status.as_ref().unwrap();
            let revisions: Vec<&str> = host.assigned.iter().map(|assignment| assignment.revision.as_str()).collect();
            assert_eq!(revisions, [target.as_str()]);
            assert!(host.claim.is_none());
            let ended_well =
                |record: &drover_crds::RunRecord| record.outcome == RunOutcome::Succeeded || record.run < run;
            assert!(host.runs.iter().all(ended_well), "{:?}", host.runs);
        }
        for (machine, node) in &world.nodes {
            assert!(!node.cordoned && node.load_balancer_label.is_none(), "{machine} was not given back: {node:?}");
        }
    }
}
