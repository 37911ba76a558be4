//! Tells what changes cost machines, before a decision looks at it. The answer takes two catalogs, so it is remembered for
//! as long as nothing changed that it depends on, and worked out beside the runtime.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drover_catalog::SensitiveBytes;
use drover_core::{
    revision::{Content, Stored},
    rollout::{Snapshot, admitted, answer, target, waiting},
};
use drover_crds::{Assignment, ChangeCost, Host};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Secret};
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};

use super::gather::Error;
use crate::{context::Context, objects};

/// How many Hosts are read one by one rather than all of them.
const FEW: usize = 8;
/// How many Hosts are whole in memory at once.
const PAGE: u32 = 100;
/// How often machines that wait are asked about while others are under way.
const EVERY: Duration = Duration::from_secs(1);

/// Answers that are remembered, and the revisions that they were worked out from.
#[derive(Default)]
pub(super) struct Costs {
    /// By the Rollout's UID, then by the Host's.
    known: Mutex<HashMap<String, HashMap<String, Known>>>,
    /// By the revision's name: what a revision consists of never changes.
    contents: Mutex<HashMap<String, Arc<Content>>>,
}

/// An answer, and what it depends on.
#[derive(Clone)]
struct Known {
    /// The Host as it was read; while it is the same, nothing else is looked at.
    version: Option<String>,
    target: Assignment,
    reboots: bool,
    /// A digest of the rest.
    inputs: u64,
    cost: Option<ChangeCost>,
}

impl Costs {
    /// Puts into the snapshot what its decision may look at: for machines that are to be held always, for those that wait
    /// every now and then.
    pub(super) async fn put_into(
        &self,
        context: &Context,
        snapshot: &mut Snapshot,
        weighed: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let answers = self.look_up(snapshot, admitted(snapshot));
        self.put(context, snapshot, answers).await?;
        if weighed.is_none_or(|weighed| weighed.elapsed() >= EVERY) {
            self.forget_others(snapshot);
            let (revision, waiting) = waiting(snapshot).unwrap_or_default();
            let answers = self.look_up(snapshot, waiting.iter().map(|host| (*host, revision.as_str())));
            let ledger = snapshot.rollout.status.iter().flat_map(|status| &status.in_flight);
            let asked: BTreeSet<String> =
                waiting.iter().map(|host| host.name_any()).chain(ledger.map(|entry| entry.host.clone())).collect();
            snapshot.costs.retain(|host, _| asked.contains(host));
            self.put(context, snapshot, answers).await?;
            *weighed = Some(Instant::now());
        }
        Ok(())
    }

    /// The Rollout is gone.
    pub(super) fn forget(&self, rollout: &str) {
        lock(&self.known).remove(rollout);
    }

    /// What is remembered of these machines, each with the revision that it is to get.
    fn look_up<'a>(&self, snapshot: &Snapshot, asked: impl Iterator<Item = (&'a Host, &'a str)>) -> Answers {
        let known = lock(&self.known);
        let known = snapshot.rollout.meta().uid.as_ref().and_then(|rollout| known.get(rollout));
        let mut answers = Answers::default();
        for (host, revision) in asked {
            let name = host.name_any();
            let remembered = known.and_then(|known| remembered(known, host, revision, snapshot));
            if remembered.flatten() != snapshot.costs.get(&name).copied() {
                answers.changed.push((name.clone(), remembered.flatten()));
            }
            if remembered.is_none() {
                answers.unknown.insert(name, target(snapshot, revision));
            }
        }
        answers
    }

    /// Puts answers into the snapshot, and works out those that are not known.
    async fn put(&self, context: &Context, snapshot: &mut Snapshot, answers: Answers) -> Result<(), Error> {
        for (host, cost) in answers.changed {
            match cost {
                Some(cost) => snapshot.costs.insert(host, cost),
                None => snapshot.costs.remove(&host),
            };
        }
        let costs = self.work_out(context, snapshot, answers.unknown).await?;
        snapshot.costs.extend(costs);
        Ok(())
    }

    /// What it costs these to get what is written beside them, by the Host's name; absent where it can not be told.
    async fn work_out(
        &self,
        context: &Context,
        snapshot: &Snapshot,
        mut unknown: BTreeMap<String, Assignment>,
    ) -> Result<BTreeMap<String, ChangeCost>, Error> {
        let mut costs = BTreeMap::new();
        if unknown.is_empty() {
            return Ok(costs);
        }
        // Those that are remembered of the watch have no facts.
        let api: Api<Host> = Api::namespaced(context.client.clone(), &context.namespace);
        if unknown.len() <= FEW {
            for (name, target) in unknown {
                let host = api.get_opt(&name).await.map_err(|error| Error::Host(name, error))?;
                let asked = host.map(|host| (host, target)).into_iter().collect();
                costs.extend(self.answer(context, snapshot, asked).await?);
            }
            return Ok(costs);
        }
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await.map_err(|error| Error::List("Hosts", error))?;
            let asked = page.items.into_iter().filter_map(|host| {
                let target = unknown.remove(&host.name_any())?;
                Some((host, target))
            });
            costs.extend(self.answer(context, snapshot, asked.collect()).await?);
            match objects::next_page(&params, &page.metadata) {
                Some(next) if !unknown.is_empty() => params = next,
                _ => return Ok(costs),
            }
        }
    }

    /// What it costs these machines, which were read for it, by the Host's name.
    async fn answer(
        &self,
        context: &Context,
        snapshot: &Snapshot,
        asked: Vec<(Host, Assignment)>,
    ) -> Result<BTreeMap<String, ChangeCost>, Error> {
        let rollout = snapshot.rollout.uid().unwrap_or_default();
        let mut costs = BTreeMap::new();
        let mut open: Vec<(Host, Assignment, u64)> = vec![];
        for (host, target) in asked {
            match self.same_inputs(&rollout, &host, &target, snapshot) {
                Ok(cost) => costs.extend(cost.map(|cost| (host.name_any(), cost))),
                Err(inputs) => open.push((host, target, inputs)),
            }
        }
        if open.is_empty() {
            return Ok(costs);
        }
        let contents = self.contents(context, &open).await?;
        let spec = snapshot.rollout.spec.clone();
        let reboots = spec.reboots();
        let worked_out = tokio::task::spawn_blocking(move || {
            let kept = |revision: &str| contents.get(revision).map(Arc::as_ref);
            let one = |(host, target, inputs): (Host, Assignment, u64)| {
                let cost = answer(&host, &target, &spec, kept);
                // A revision that is not there yet may come.
                let lasts = kept(&target.revision).is_some();
                let known = Known { version: host.resource_version(), target, reboots, inputs, cost };
                (host.name_any(), host.uid().unwrap_or_default(), known, lasts)
            };
            open.into_iter().map(one).collect::<Vec<_>>()
        });
        // It ends early only when the operator ends; what is not known counts as the most.
        for (host, uid, known, lasts) in worked_out.await.unwrap_or_default() {
            costs.extend(known.cost.map(|cost| (host, cost)));
            if lasts {
                lock(&self.known).entry(rollout.clone()).or_default().insert(uid, known);
            }
        }
        Ok(costs)
    }

    /// The answer that was worked out before, if nothing changed since that it depends on; else a digest of that.
    fn same_inputs(
        &self,
        rollout: &str,
        host: &Host,
        target: &Assignment,
        snapshot: &Snapshot,
    ) -> Result<Option<ChangeCost>, u64> {
        let inputs = inputs_of(host);
        let mut known = lock(&self.known);
        let uid = host.meta().uid.as_deref().unwrap_or_default();
        let known = known.get_mut(rollout).and_then(|known| known.get_mut(uid));
        let reboots = snapshot.rollout.spec.reboots();
        let same = |known: &&mut Known| known.target == *target && known.reboots == reboots && known.inputs == inputs;
        let known = known.filter(same).ok_or(inputs)?;
        known.version = host.resource_version();
        Ok(known.cost)
    }

    /// The revisions that are needed for these, as far as they are there.
    async fn contents(
        &self,
        context: &Context,
        open: &[(Host, Assignment, u64)],
    ) -> Result<HashMap<String, Arc<Content>>, Error> {
        let assigned = open.iter().flat_map(|(host, ..)| host.status.iter().flat_map(|status| &status.assigned));
        let needed: BTreeSet<String> =
            assigned.chain(open.iter().map(|(_, target, _)| target)).map(|one| one.revision.clone()).collect();
        let mut contents = HashMap::new();
        for revision in needed {
            let known = lock(&self.contents).get(&revision).cloned();
            let content = match known {
                Some(content) => Some(content),
                None => read(context, &revision).await?.map(Arc::new),
            };
            if let Some(content) = content {
                lock(&self.contents).insert(revision.clone(), Arc::clone(&content));
                contents.insert(revision, content);
            }
        }
        Ok(contents)
    }

    /// What no Host has or gets any more is not kept.
    fn forget_others(&self, snapshot: &Snapshot) {
        let hosts: BTreeSet<&str> = snapshot.hosts.iter().filter_map(|host| host.meta().uid.as_deref()).collect();
        let mut known = lock(&self.known);
        if let Some(known) = snapshot.rollout.meta().uid.as_ref().and_then(|rollout| known.get_mut(rollout)) {
            known.retain(|host, _| hosts.contains(host.as_str()));
        }
        let targets = known.values().flat_map(HashMap::values).map(|known| known.target.revision.as_str());
        let assigned = snapshot.hosts.iter().flat_map(|host| host.status.iter().flat_map(|status| &status.assigned));
        let needed: BTreeSet<&str> = targets.chain(assigned.map(|assignment| assignment.revision.as_str())).collect();
        lock(&self.contents).retain(|revision, _| needed.contains(revision.as_str()));
    }
}

/// What is known of machines, and what is not.
#[derive(Default)]
struct Answers {
    /// Where what is known is not what the snapshot has, by the Host's name.
    changed: Vec<(String, Option<ChangeCost>)>,
    /// What these are to get, by the Host's name.
    unknown: BTreeMap<String, Assignment>,
}

/// The answer that was worked out before, if the Host is the same since.
#[allow(clippy::option_option, reason = "that it can not be told is an answer too, and remembered")]
fn remembered(
    known: &HashMap<String, Known>,
    host: &Host,
    revision: &str,
    snapshot: &Snapshot,
) -> Option<Option<ChangeCost>> {
    let known = known.get(host.meta().uid.as_deref()?)?;
    let same = known.target.revision == revision
        && known.target.node_config == snapshot.rollout.spec.node_config_ref.name
        && known.reboots == snapshot.rollout.spec.reboots()
        && known.version.is_some()
        && known.version == host.meta().resource_version;
    same.then_some(known.cost)
}

/// A digest of what an answer about this machine depends on, beside the revisions.
fn inputs_of(host: &Host) -> u64 {
    let mut hasher = DefaultHasher::new();
    host.metadata.labels.hash(&mut hasher);
    if let Some(status) = &host.status {
        status.assigned_generation.hash(&mut hasher);
        for Assignment { node_config, revision } in &status.assigned {
            (node_config, revision).hash(&mut hasher);
        }
        let active = status.active.as_ref();
        active.map(|active| (active.generation, active.converged, active.reboot_required.is_empty())).hash(&mut hasher);
        // Maps of JSON are sorted, so equal facts are equal text.
        serde_json::to_vec(&status.facts).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

/// What a revision consists of, if it is there and of a scheme that is known.
async fn read(context: &Context, revision: &str) -> Result<Option<Content>, Error> {
    let revisions: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &context.namespace);
    let found = revisions.get_opt(revision).await;
    let found = found.map_err(|error| Error::Read("ControllerRevision", revision.to_owned(), error))?;
    let Some(data) = found.and_then(|found| found.data) else { return Ok(None) };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let secret = secrets.get_opt(revision).await;
    let secret = secret.map_err(|error| Error::Read("Secret", revision.to_owned(), error))?;
    let values = secret.and_then(|secret| secret.data).unwrap_or_default();
    let values = values.into_iter().map(|(key, value)| (key, SensitiveBytes::new(value.0))).collect();
    let stored: Option<Stored> = serde_json::from_value(data.0).ok();
    Ok(stored.and_then(|stored| stored.restore(&values)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use drover_crds::{HostSpec, NodeConfig, NodeRef, Rollout};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    const HOST: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts/node-1";
    const REVISIONS: &str = "/apis/apps/v1/namespaces/drover-system/controllerrevisions";

    fn revision(name: &str, content: &str) -> Value {
        let resources = json!([
            {"name": "web", "notify": ["nginx"], "file": {"path": "/etc/nginx.conf", "content": content}},
            {"name": "nginx", "service": {"unit": "nginx", "state": "Running"}},
        ]);
        let content = Content { resources: serde_json::from_value(resources).unwrap(), ..Content::default() };
        let (stored, _) = content.store();
        let data = serde_json::to_value(stored).unwrap();
        json!({"metadata": {"name": name}, "revision": 1, "data": data})
    }

    fn snapshot() -> Snapshot {
        let spec = serde_json::from_value(json!({"nodeConfigRef": {"name": "base"}})).unwrap();
        let mut rollout = Rollout::new("base", spec);
        rollout.metadata.uid = Some("0r".into());
        let spec = serde_json::from_value(json!({"resources": []})).unwrap();
        let mut config = NodeConfig::new("base", spec);
        config.status = serde_json::from_value(json!({"revision": "base-2"})).unwrap();
        let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
        host.metadata.uid = Some("1u".into());
        host.metadata.resource_version = Some("7".into());
        let assigned = json!([{"nodeConfig": "base", "revision": "base-1"}]);
        let active = json!({"generation": 0, "catalog": "c", "converged": true, "resources": 2, "changed": 0,
            "failed": 0, "revisions": assigned});
        host.status = serde_json::from_value(json!({"assigned": assigned, "facts": {}, "active": active})).unwrap();
        Snapshot { rollout, node_config: Some(config), hosts: vec![host].into(), ..super::super::tests::snapshot() }
    }

    #[tokio::test]
    async fn it_is_told_from_two_revisions_and_remembered_until_something_changes() {
        let (context, mut server) = testing::context(true);
        let (costs, mut snapshot) = (Costs::default(), snapshot());
        let (one, two) = (format!("{REVISIONS}/base-1"), format!("{REVISIONS}/base-2"));
        let mut host = snapshot.hosts.get("node-1").unwrap().clone();
        let known = |host: &Host| (HOST, serde_json::to_value(host).unwrap());
        let (one, two) = ((one.as_str(), revision("base-1", "a")), (two.as_str(), revision("base-2", "b")));
        let restart = BTreeMap::from([("node-1".to_owned(), ChangeCost::Restart)]);
        // A revision that can not be read yet leaves it open, and is asked for again.
        server.serve(&[known(&host), one.clone()], costs.put_into(&context, &mut snapshot, &mut None)).await.0.unwrap();
        assert_eq!(snapshot.costs, BTreeMap::new());
        server.serve(&[known(&host), one, two], costs.put_into(&context, &mut snapshot, &mut None)).await.0.unwrap();
        assert_eq!(snapshot.costs, restart);
        // Nothing is read again: this would never be answered. What nobody asks for is not kept.
        snapshot.costs.insert("gone".to_owned(), ChangeCost::Reboot);
        costs.put_into(&context, &mut snapshot, &mut None).await.unwrap();
        assert_eq!(snapshot.costs, restart);
        // Where the Host was written for another reason, no revision is.
        host.metadata.resource_version = Some("8".into());
        snapshot.hosts.put(Arc::new(host.clone()));
        server.serve(&[known(&host)], costs.put_into(&context, &mut snapshot, &mut None)).await.0.unwrap();
        assert_eq!(snapshot.costs, restart);
        // It is about to be held, and was written again meanwhile: it is asked for at once.
        host.metadata.resource_version = Some("9".into());
        snapshot.hosts.put(Arc::new(host.clone()));
        let entry = json!({
            "host": "node-1", "uid": "1u", "batch": 0, "token": "t", "revision": "base-2", "since": "2026-01-01T00:00:00Z",
            "step": "Claim",
        });
        snapshot.rollout.status = serde_json::from_value(json!({"inFlight": [entry]})).unwrap();
        server
            .serve(&[known(&host)], costs.put_into(&context, &mut snapshot, &mut Some(Instant::now())))
            .await
            .0
            .unwrap();
        assert_eq!(snapshot.costs, restart);
        // The machine has not what was assigned to it any more; the revisions are known.
        snapshot.rollout.status = None;
        host.metadata.resource_version = Some("10".into());
        host.status.as_mut().unwrap().assigned[0].revision = "base-2".into();
        host.status.as_mut().unwrap().active.as_mut().unwrap().revisions = vec![];
        snapshot.hosts.put(Arc::new(host.clone()));
        server.serve(&[known(&host)], costs.put_into(&context, &mut snapshot, &mut None)).await.0.unwrap();
        assert_eq!(snapshot.costs, BTreeMap::from([("node-1".to_owned(), ChangeCost::NoOp)]));
    }
}
