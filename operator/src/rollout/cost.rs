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
    rollout::{Question, Snapshot, admitted, answer, waiting},
};
use drover_crds::{Assignment, ChangeCost, Host};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Secret};
use kube::{Api, ResourceExt as _, api::ListParams};

use super::gather::Error;
use crate::context::Context;

/// How many Hosts are read one by one rather than all of them.
const FEW: usize = 8;
/// How many Hosts are whole in memory at once.
const PAGE: u32 = 100;
/// How often machines that wait are asked about while others are under way.
const EVERY: Duration = Duration::from_secs(1);

/// Answers that are remembered, and the revisions that they were worked out from.
#[derive(Default)]
pub(super) struct Costs {
    /// By Rollout and Host, by UID.
    known: Mutex<HashMap<(String, String), Known>>,
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
        let questions = admitted(snapshot);
        for question in &questions {
            snapshot.costs.remove(&question.host);
        }
        let costs = self.answer(context, snapshot, questions).await?;
        snapshot.costs.extend(costs);
        if weighed.is_none_or(|weighed| weighed.elapsed() >= EVERY) {
            self.forget_others(&snapshot.rollout.uid().unwrap_or_default(), snapshot);
            let costs = self.answer(context, snapshot, waiting(snapshot)).await?;
            snapshot.costs.extend(costs);
            *weighed = Some(Instant::now());
        }
        Ok(())
    }

    /// What it costs these, by the Host's name; absent where it can not be told.
    async fn answer(
        &self,
        context: &Context,
        snapshot: &Snapshot,
        questions: Vec<Question>,
    ) -> Result<BTreeMap<String, ChangeCost>, Error> {
        let rollout = snapshot.rollout.uid().unwrap_or_default();
        let mut costs = BTreeMap::new();
        let mut unknown = vec![];
        for question in questions {
            let Some(host) = snapshot.hosts.get(&question.host) else { continue };
            match self.remembered(&rollout, host, &question, snapshot) {
                Some(cost) => costs.extend(cost.map(|cost| (question.host, cost))),
                None => unknown.push(question),
            }
        }
        // Those that are remembered of the watch have no facts.
        let api: Api<Host> = Api::namespaced(context.client.clone(), &context.namespace);
        if unknown.len() <= FEW {
            for question in unknown {
                let host = api.get_opt(&question.host).await;
                let host = host.map_err(|error| Error::Host(question.host.clone(), error))?;
                let asked = host.map(|host| (question, host)).into_iter().collect();
                costs.extend(self.answer_of(context, snapshot, asked).await?);
            }
            return Ok(costs);
        }
        let mut unknown: HashMap<String, Question> =
            unknown.into_iter().map(|question| (question.host.clone(), question)).collect();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await.map_err(|error| Error::List("Hosts", error))?;
            let asked = page.items.into_iter().filter_map(|host| Some((unknown.remove(&host.name_any())?, host)));
            costs.extend(self.answer_of(context, snapshot, asked.collect()).await?);
            match page.metadata.continue_.filter(|token| !token.is_empty() && !unknown.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(costs),
            }
        }
    }

    /// What it costs these machines, which were read for it, by the Host's name.
    async fn answer_of(
        &self,
        context: &Context,
        snapshot: &Snapshot,
        asked: Vec<(Question, Host)>,
    ) -> Result<BTreeMap<String, ChangeCost>, Error> {
        let rollout = snapshot.rollout.uid().unwrap_or_default();
        let mut costs = BTreeMap::new();
        let mut open: Vec<(Question, Host, u64)> = vec![];
        for (question, host) in asked {
            match self.same_inputs(&rollout, &host, &question, snapshot) {
                Ok(cost) => costs.extend(cost.map(|cost| (question.host, cost))),
                Err(inputs) => open.push((question, host, inputs)),
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
            let one = |(question, host, inputs): (Question, Host, u64)| {
                let cost = answer(&host, &question.target, &spec, kept);
                let known = Known { version: host.resource_version(), target: question.target, reboots, inputs, cost };
                // A revision that is not there yet may come.
                let lasts = kept(&known.target.revision).is_some();
                (question.host, host.uid().unwrap_or_default(), known, lasts)
            };
            open.into_iter().map(one).collect::<Vec<_>>()
        });
        // It ends early only when the operator ends; what is not known counts as the most.
        for (host, uid, known, lasts) in worked_out.await.unwrap_or_default() {
            costs.extend(known.cost.map(|cost| (host, cost)));
            if lasts {
                lock(&self.known).insert((rollout.clone(), uid), known);
            }
        }
        Ok(costs)
    }

    /// The answer that was worked out before, if the Host is the same since.
    #[allow(clippy::option_option, reason = "that it can not be told is an answer too, and remembered")]
    fn remembered(
        &self,
        rollout: &str,
        host: &Host,
        question: &Question,
        snapshot: &Snapshot,
    ) -> Option<Option<ChangeCost>> {
        let known = lock(&self.known);
        let known = known.get(&(rollout.to_owned(), host.uid().unwrap_or_default()))?;
        let same = known.target == question.target
            && known.reboots == snapshot.rollout.spec.reboots()
            && known.version.is_some()
            && known.version == host.resource_version();
        same.then_some(known.cost)
    }

    /// The answer that was worked out before, if nothing changed since that it depends on; else a digest of that.
    fn same_inputs(
        &self,
        rollout: &str,
        host: &Host,
        question: &Question,
        snapshot: &Snapshot,
    ) -> Result<Option<ChangeCost>, u64> {
        let inputs = inputs_of(host);
        let mut known = lock(&self.known);
        let known = known.get_mut(&(rollout.to_owned(), host.uid().unwrap_or_default()));
        let reboots = snapshot.rollout.spec.reboots();
        let same =
            |known: &&mut Known| known.target == question.target && known.reboots == reboots && known.inputs == inputs;
        let known = known.filter(same).ok_or(inputs)?;
        known.version = host.resource_version();
        Ok(known.cost)
    }

    /// The revisions that are needed for these, as far as they are there.
    async fn contents(
        &self,
        context: &Context,
        open: &[(Question, Host, u64)],
    ) -> Result<HashMap<String, Arc<Content>>, Error> {
        let assigned = open.iter().flat_map(|(_, host, _)| host.status.iter().flat_map(|status| &status.assigned));
        let needed: BTreeSet<String> = assigned
            .chain(open.iter().map(|(question, ..)| &question.target))
            .map(|one| one.revision.clone())
            .collect();
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
    fn forget_others(&self, rollout: &str, snapshot: &Snapshot) {
        let hosts: BTreeSet<String> = snapshot.hosts.iter().filter_map(kube::ResourceExt::uid).collect();
        lock(&self.known).retain(|(of, host), _| of != rollout || hosts.contains(host));
        let targets: BTreeSet<String> = lock(&self.known).values().map(|known| known.target.revision.clone()).collect();
        let assigned: BTreeSet<&String> = snapshot
            .hosts
            .iter()
            .flat_map(|host| host.status.iter().flat_map(|status| &status.assigned))
            .map(|assignment| &assignment.revision)
            .collect();
        lock(&self.contents).retain(|revision, _| targets.contains(revision) || assigned.contains(revision));
    }
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
        let (told, _) =
            server.serve(&[known(&host), one.clone()], costs.answer(&context, &snapshot, waiting(&snapshot))).await;
        assert_eq!(told.unwrap(), BTreeMap::new());
        let (told, _) =
            server.serve(&[known(&host), one, two], costs.answer(&context, &snapshot, waiting(&snapshot))).await;
        assert_eq!(told.unwrap(), restart);
        // Nothing is read again: this would never be answered.
        assert_eq!(costs.answer(&context, &snapshot, waiting(&snapshot)).await.unwrap(), restart);
        // Where the Host was written for another reason, no revision is.
        host.metadata.resource_version = Some("8".into());
        snapshot.hosts.put(Arc::new(host.clone()));
        let (told, _) = server.serve(&[known(&host)], costs.answer(&context, &snapshot, waiting(&snapshot))).await;
        assert_eq!(told.unwrap(), restart);
        // The machine has not what was assigned to it any more; the revisions are known.
        host.metadata.resource_version = Some("9".into());
        host.status.as_mut().unwrap().assigned[0].revision = "base-2".into();
        host.status.as_mut().unwrap().active.as_mut().unwrap().revisions = vec![];
        snapshot.hosts.put(Arc::new(host.clone()));
        let (told, _) = server.serve(&[known(&host)], costs.answer(&context, &snapshot, waiting(&snapshot))).await;
        assert_eq!(told.unwrap(), BTreeMap::from([("node-1".to_owned(), ChangeCost::NoOp)]));
    }
}
