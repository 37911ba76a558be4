//! What a master knows of its fleet, in memory: Hosts and revisions as the API server last told them, and who waits for
//! a change of which host.
//!
//! It is fed by the watches, and by the answers to the master's own writes, so that a master reads what it wrote. It goes
//! on answering from memory when the API server is away. A waiting request wakes exactly when an input of its host's
//! catalog changed: its assignment, labels or facts, or the arrival of a revision that it waits for.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use drover_catalog::{Digest, Facts, HostCommand, HostIdentity, Locality, RevisionRef, SensitiveBytes};
use drover_core::{
    compile::{Prepared, facts_from_status},
    revision::Stored,
};
use drover_crds::{
    AppliedReport, Assignment, ClaimCommand, Host, condition,
    keys::{NODE_CONFIG_LABEL, REGION_LABEL, ZONE_LABEL},
};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

use crate::catalogs::Known;

/// How many requests of one node may wait at once: one, and a few whose connection broke without a word.
const MAX_POLLS_PER_NODE: usize = 4;

/// The conditions of a Host that masters write.
pub(crate) const APPLIED: &str = "Applied";
pub(crate) const DRIFTED: &str = "Drifted";

/// A Node by name and UID, as a token proves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeIdentity {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The part of a Host that a master needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostView {
    pub(crate) identity: HostIdentity,
    pub(crate) node: NodeIdentity,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) facts: Option<Facts>,
    pub(crate) assigned: Vec<Assignment>,
    pub(crate) generation: i64,
    /// The boot during which the machine may reboot.
    pub(crate) reboot: Option<String>,
    /// The commands that a Rollout wants to be run once.
    pub(crate) commands: Vec<HostCommand>,
    pub(crate) active: Option<AppliedReport>,
    pub(crate) applied: Option<Condition>,
    pub(crate) drifted: Option<Condition>,
    /// The MasterPool that serves it. It is no input of its catalog.
    pub(crate) pool: Option<String>,
    /// The digest of all that its catalog is made of; revisions are immutable, so their names stand for them.
    pub(crate) inputs: Digest,
    version: Option<u64>,
}

impl HostView {
    /// `None` for an object that the API server has not accepted yet.
    pub(crate) fn of(host: Host) -> Option<Self> {
        let Host { metadata, spec, status } = host;
        let status = status.unwrap_or_default();
        let mut view = Self {
            identity: HostIdentity { name: metadata.name?, uid: metadata.uid? },
            node: NodeIdentity { name: spec.node_ref.name, uid: spec.node_ref.uid },
            labels: metadata.labels.unwrap_or_default(),
            facts: status.facts.as_ref().and_then(facts_from_status),
            assigned: status.assigned,
            generation: status.assigned_generation,
            reboot: status.claim.as_ref().and_then(|claim| claim.reboot.clone()),
            commands: status.claim.into_iter().flat_map(|claim| claim.commands).map(command).collect(),
            active: status.active,
            applied: condition::find(&status.conditions, APPLIED).cloned(),
            drifted: condition::find(&status.conditions, DRIFTED).cloned(),
            pool: status.master_pool,
            inputs: Digest::of(b""),
            // Versions of one object can be compared since Kubernetes 1.35 (KEP-5504); before, they were etcd's
            // revisions, which grow as well.
            version: metadata.resource_version.and_then(|version| version.parse().ok()),
        };
        let Self { identity, node, labels, facts, assigned, generation, reboot, commands, .. } = &view;
        let inputs = (identity, &node.name, labels, facts, assigned, generation, reboot, commands);
        view.inputs = Digest::of_json(&inputs).ok()?;
        Some(view)
    }

    /// Which masters it goes to.
    pub(crate) fn locality(&self) -> Locality {
        let label = |key: &str| self.labels.get(key).cloned();
        Locality { pool: self.pool.clone(), zone: label(ZONE_LABEL), region: label(REGION_LABEL) }
    }
}

/// A command, as the catalog has it.
fn command(wish: ClaimCommand) -> HostCommand {
    let ClaimCommand { token, argv, timeout_seconds } = wish;
    HostCommand { token, argv, timeout_seconds: u32::try_from(timeout_seconds).unwrap_or(1) }
}

/// A revision in the two halves that it is stored in, until both are there.
enum Revision {
    /// Secret values are missing.
    Half(Stored),
    Whole(Arc<Known>),
}

#[derive(Default)]
struct State {
    hosts: HashMap<String, Arc<HostView>>,
    by_node: HashMap<NodeIdentity, BTreeSet<String>>,
    revisions: HashMap<RevisionRef, Revision>,
    secrets: HashMap<RevisionRef, BTreeMap<String, SensitiveBytes>>,
    waiting: HashMap<NodeIdentity, watch::Sender<()>>,
    listed_hosts: HashSet<String>,
    listed_revisions: HashSet<RevisionRef>,
    listed_secrets: HashSet<RevisionRef>,
}

/// What a master knows of its fleet.
#[derive(Default)]
pub(crate) struct Fleet {
    state: Mutex<State>,
    hosts_listed: AtomicBool,
    revisions_listed: AtomicBool,
    secrets_listed: AtomicBool,
}

impl Fleet {
    /// Whether everything was listed once. It stays so: old knowledge serves better than none.
    pub(crate) fn is_filled(&self) -> bool {
        [&self.hosts_listed, &self.revisions_listed, &self.secrets_listed]
            .iter()
            .all(|flag| flag.load(Ordering::Acquire))
    }

    /// The Host of a Node.
    pub(crate) fn host_of(&self, node: &NodeIdentity) -> Option<Arc<HostView>> {
        let state = self.lock();
        // There is one; were there two, each master should choose the same.
        let name = state.by_node.get(node)?.first()?;
        state.hosts.get(name).cloned()
    }

    /// The contents of the revisions that are assigned to a host, or the first that is not known yet.
    pub(crate) fn contents(&self, assigned: &[Assignment]) -> Result<Vec<(RevisionRef, Arc<Known>)>, RevisionRef> {
        let state = self.lock();
        let content = |assignment: &Assignment| {
            let revision = reference(assignment);
            match state.revisions.get(&revision) {
                Some(Revision::Whole(known)) => Ok((revision, Arc::clone(known))),
                Some(Revision::Half(_)) | None => Err(revision),
            }
        };
        assigned.iter().map(content).collect()
    }

    /// Of each pool, of each machine that has something assigned to it, by the Host's UID: the interval at which it runs, in
    /// seconds. It is left out while it is not known.
    pub(crate) fn intervals(&self) -> BTreeMap<Option<String>, BTreeMap<String, u32>> {
        let state = self.lock();
        let of = |assignment: &Assignment| match state.revisions.get(&reference(assignment)) {
            Some(Revision::Whole(known)) => Some(known.prepared().content().interval_seconds),
            Some(Revision::Half(_)) | None => None,
        };
        let interval = |host: &Arc<HostView>| {
            let shortest = host.assigned.iter().map(of).collect::<Option<Vec<u32>>>()?.into_iter().min()?;
            Some((host.pool.clone(), host.identity.uid.clone(), shortest))
        };
        let mut pools: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (pool, uid, interval) in state.hosts.values().filter_map(interval) {
            pools.entry(pool).or_default().insert(uid, interval);
        }
        pools
    }

    /// Starts to wait for changes of a Node's host. `None` when too many requests of this Node wait already.
    pub(crate) fn wait_for(self: &Arc<Self>, node: &NodeIdentity) -> Option<Wait> {
        let mut state = self.lock();
        let sender = state.waiting.entry(node.clone()).or_insert_with(|| watch::Sender::new(()));
        (sender.receiver_count() < MAX_POLLS_PER_NODE).then(|| Wait {
            fleet: Arc::clone(self),
            node: node.clone(),
            receiver: sender.subscribe(),
        })
    }

    /// Takes in what the watch of Hosts tells.
    pub(crate) fn hosts(&self, event: Event<Host>) {
        let mut state = self.lock();
        match event {
            Event::Init => state.listed_hosts.clear(),
            Event::InitApply(host) => {
                if let Some(view) = HostView::of(host) {
                    state.listed_hosts.insert(view.identity.name.clone());
                    state.put_host(view);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut state.listed_hosts);
                let gone: Vec<String> = state.hosts.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                for name in &gone {
                    state.remove_host(name);
                }
                self.hosts_listed.store(true, Ordering::Release);
            }
            Event::Apply(host) => state.observe(host),
            Event::Delete(host) => state.remove_host(&host.name_any()),
        }
    }

    /// Takes in a Host that the API server answered to a write: a master reads what it wrote.
    pub(crate) fn observe(&self, host: Host) {
        self.lock().observe(host);
    }

    /// Takes in what the watch of `ControllerRevision`s tells.
    pub(crate) fn revisions(&self, event: Event<ControllerRevision>) {
        let mut state = self.lock();
        match event {
            Event::Init => state.listed_revisions.clear(),
            Event::InitApply(object) => {
                if let Some(revision) = labelled(&object) {
                    state.put_revision(&revision, object);
                    state.listed_revisions.insert(revision);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut state.listed_revisions);
                state.revisions.retain(|revision, _| listed.contains(revision));
                self.revisions_listed.store(true, Ordering::Release);
            }
            Event::Apply(object) => {
                if let Some(revision) = labelled(&object) {
                    state.put_revision(&revision, object);
                }
            }
            Event::Delete(object) => {
                if let Some(revision) = labelled(&object) {
                    state.revisions.remove(&revision);
                }
            }
        }
    }

    /// Takes in what the watch of the revisions' Secrets tells.
    pub(crate) fn secrets(&self, event: Event<Secret>) {
        let mut state = self.lock();
        match event {
            Event::Init => state.listed_secrets.clear(),
            Event::InitApply(object) => {
                if let Some(revision) = labelled(&object) {
                    state.put_secret(&revision, object);
                    state.listed_secrets.insert(revision);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut state.listed_secrets);
                state.secrets.retain(|revision, _| listed.contains(revision));
                self.secrets_listed.store(true, Ordering::Release);
            }
            Event::Apply(object) => {
                if let Some(revision) = labelled(&object) {
                    state.put_secret(&revision, object);
                }
            }
            Event::Delete(object) => {
                if let Some(revision) = labelled(&object) {
                    state.secrets.remove(&revision);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change below is complete before anything that could panic, so a poisoned lock still holds a true state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn observe(&mut self, host: Host) {
        let Some(view) = HostView::of(host) else { return };
        // An answer to a write may come before the watch tells older states. A list is always believed, because it may
        // tell of a restored backup.
        let older = self.hosts.get(&view.identity.name).is_some_and(|known| {
            known.identity == view.identity && known.version.zip(view.version).is_some_and(|(known, new)| new < known)
        });
        if !older {
            self.put_host(view);
        }
    }

    fn put_host(&mut self, view: HostView) {
        let name = view.identity.name.clone();
        let new = Arc::new(view);
        let old = self.hosts.insert(name.clone(), Arc::clone(&new));
        if let Some(old) = old.as_ref().filter(|old| old.node != new.node) {
            self.forget_node(&old.node, &name);
            self.wake(&old.node);
        }
        self.by_node.entry(new.node.clone()).or_default().insert(name);
        if old.is_none_or(|old| old.inputs != new.inputs) {
            self.wake(&new.node);
        }
    }

    fn remove_host(&mut self, name: &str) {
        if let Some(old) = self.hosts.remove(name) {
            self.forget_node(&old.node, name);
            self.wake(&old.node);
        }
    }

    fn forget_node(&mut self, node: &NodeIdentity, host: &str) {
        if let Some(names) = self.by_node.get_mut(node) {
            names.remove(host);
            if names.is_empty() {
                self.by_node.remove(node);
            }
        }
    }

    fn put_revision(&mut self, revision: &RevisionRef, object: ControllerRevision) {
        // Revisions never change: their name is the digest of their content.
        if matches!(self.revisions.get(revision), Some(Revision::Whole(_))) {
            return;
        }
        let Some(data) = object.data else {
            tracing::error!(
                revision = revision.revision,
                "the ControllerRevision has no data; delete it, and the operator makes it again"
            );
            return;
        };
        // One of a later release is read as far as this one knows it, which is not far enough.
        if let Some(stored) = serde_json::from_value::<Stored>(data.0).ok().filter(Stored::is_known) {
            self.revisions.insert(revision.clone(), Revision::Half(stored));
            self.join(revision);
        } else {
            // Without the error's text, which may quote the content.
            tracing::error!(
                revision = revision.revision,
                "the ControllerRevision's data can not be read; is this master older than the operator?"
            );
        }
    }

    fn put_secret(&mut self, revision: &RevisionRef, object: Secret) {
        let data = object.data.unwrap_or_default().into_iter();
        let values = data.map(|(key, value)| (key, SensitiveBytes::new(value.0))).collect();
        self.secrets.insert(revision.clone(), values);
        self.join(revision);
    }

    /// Makes a revision whole when both of its halves are there, and wakes who waits for it.
    fn join(&mut self, revision: &RevisionRef) {
        let Some(Revision::Half(stored)) = self.revisions.get(revision) else {
            return;
        };
        let none = BTreeMap::new();
        let Some(content) = stored.clone().restore(self.secrets.get(revision).unwrap_or(&none)) else {
            return;
        };
        let prepared = Prepared::new(&revision.node_config, Cow::Owned(content));
        self.revisions.insert(revision.clone(), Revision::Whole(Arc::new(Known::new(prepared))));
        let waits = |node: &&NodeIdentity| {
            let names = self.by_node.get(*node).into_iter().flatten();
            let mut hosts = names.filter_map(|name| self.hosts.get(name));
            hosts.any(|host| host.assigned.iter().any(|assignment| reference(assignment) == *revision))
        };
        for node in self.waiting.keys().filter(waits) {
            self.wake(node);
        }
    }

    fn wake(&self, node: &NodeIdentity) {
        if let Some(sender) = self.waiting.get(node) {
            sender.send_replace(());
        }
    }
}

/// A request that waits for changes of a Node's host.
pub(crate) struct Wait {
    fleet: Arc<Fleet>,
    node: NodeIdentity,
    receiver: watch::Receiver<()>,
}

impl Wait {
    /// Returns when something changed since this was made, or since it last returned.
    pub(crate) async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender is in the fleet as long as this waits, so it is not dropped.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.fleet.lock();
        // This receiver still counts.
        if state.waiting.get(&self.node).is_some_and(|sender| sender.receiver_count() <= 1) {
            state.waiting.remove(&self.node);
        }
    }
}

fn reference(assignment: &Assignment) -> RevisionRef {
    RevisionRef { node_config: assignment.node_config.clone(), revision: assignment.revision.clone() }
}

/// Which revision an object holds a part of: its name, and the NodeConfig of its label.
fn labelled(object: &impl ResourceExt) -> Option<RevisionRef> {
    let node_config = object.labels().get(NODE_CONFIG_LABEL)?.clone();
    Some(RevisionRef { node_config, revision: object.name_any() })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::testing::{assigned, content, host, node, stored};

    fn woke(wait: &mut Wait) -> bool {
        wait.changed().now_or_never().is_some()
    }

    #[test]
    fn a_request_wakes_when_an_input_changes_and_only_then() {
        let fleet = Arc::new(Fleet::default());
        let mut wait = fleet.wait_for(&node("a")).unwrap();
        let mut other = fleet.wait_for(&node("b")).unwrap();
        fleet.hosts(Event::Apply(host("a")));
        assert!(woke(&mut wait) && !woke(&mut wait));

        let mut changed = host("a");
        changed.status.get_or_insert_default().message = Some("news that no catalog knows".into());
        fleet.hosts(Event::Apply(changed.clone()));
        assert!(!woke(&mut wait));

        changed.metadata.labels.get_or_insert_default().insert("zone".into(), "b".into());
        fleet.hosts(Event::Apply(changed.clone()));
        assert!(woke(&mut wait));

        let changed = assigned(changed, &content("1"), 1);
        fleet.hosts(Event::Apply(changed.clone()));
        assert!(woke(&mut wait));

        let (revision, _) = stored(&content("2"));
        fleet.revisions(Event::Apply(revision));
        assert!(!woke(&mut wait), "another revision");
        let (revision, secret) = stored(&content("1"));
        fleet.revisions(Event::Apply(revision));
        assert!(!woke(&mut wait), "half of the revision");
        fleet.secrets(Event::Apply(secret));
        assert!(woke(&mut wait));

        fleet.hosts(Event::Delete(changed));
        assert!(woke(&mut wait) && !woke(&mut other));
    }

    #[test]
    fn a_revision_comes_in_two_halves_in_any_order() {
        let content = content("1");
        let wanted = assigned(host("a"), &content, 1).status.unwrap().assigned;
        for secret_first in [true, false] {
            let fleet = Fleet::default();
            let (revision, secret) = stored(&content);
            if secret_first {
                fleet.secrets(Event::Apply(secret.clone()));
                assert!(fleet.contents(&wanted).is_err());
                fleet.revisions(Event::Apply(revision));
            } else {
                fleet.revisions(Event::Apply(revision));
                assert!(fleet.contents(&wanted).is_err());
                fleet.secrets(Event::Apply(secret.clone()));
            }
            assert_eq!(*fleet.contents(&wanted).unwrap()[0].1.prepared().content(), content);
            // Nobody changes a revision under its name.
            let mut forged = secret;
            forged.data = None;
            fleet.secrets(Event::Apply(forged));
            assert_eq!(*fleet.contents(&wanted).unwrap()[0].1.prepared().content(), content);
        }
    }

    #[test]
    fn a_revision_belongs_to_the_node_config_of_its_label() {
        let fleet = Fleet::default();
        let (mut revision, mut secret) = stored(&content("1"));
        for labels in [&mut revision.metadata.labels, &mut secret.metadata.labels] {
            labels.get_or_insert_default().insert(NODE_CONFIG_LABEL.into(), "other".into());
        }
        fleet.revisions(Event::Apply(revision));
        fleet.secrets(Event::Apply(secret));
        assert!(fleet.contents(&assigned(host("a"), &content("1"), 1).status.unwrap().assigned).is_err());
    }

    #[test]
    fn a_list_takes_away_what_is_gone_and_fills_the_cache() {
        let fleet = Fleet::default();
        fleet.hosts(Event::Apply(host("a")));
        fleet.hosts(Event::Init);
        fleet.hosts(Event::InitApply(host("b")));
        assert!(fleet.host_of(&node("a")).is_some(), "nothing is forgotten before the list is whole");
        fleet.hosts(Event::InitDone);
        assert!(fleet.host_of(&node("a")).is_none() && fleet.host_of(&node("b")).is_some());
        assert!(!fleet.is_filled());
        fleet.revisions(Event::InitDone);
        fleet.secrets(Event::InitDone);
        assert!(fleet.is_filled());
        fleet.hosts(Event::Init);
        assert!(fleet.is_filled(), "a watch that starts again does not end the service");
    }

    #[test]
    fn an_older_state_does_not_follow_a_newer_one_but_a_list_is_believed() {
        let versioned = |version: &str, generation| {
            let mut host = assigned(host("a"), &content("1"), generation);
            host.metadata.resource_version = Some(version.into());
            host
        };
        let fleet = Fleet::default();
        let generation = || fleet.host_of(&node("a")).unwrap().generation;
        fleet.observe(versioned("10", 2));
        fleet.hosts(Event::Apply(versioned("9", 1)));
        assert_eq!(generation(), 2);
        fleet.hosts(Event::Apply(versioned("11", 3)));
        assert_eq!(generation(), 3);
        fleet.hosts(Event::InitApply(versioned("5", 1)));
        assert_eq!(generation(), 1);
        let mut again = versioned("4", 7);
        again.metadata.uid = Some("another".into());
        fleet.hosts(Event::Apply(again));
        assert_eq!(generation(), 7, "another host under the same name");
    }

    #[test]
    fn a_node_made_again_under_its_name_is_another() {
        let fleet = Fleet::default();
        fleet.hosts(Event::Apply(host("a")));
        assert!(fleet.host_of(&NodeIdentity { uid: "other".into(), ..node("a") }).is_none());
    }

    #[test]
    fn one_node_can_not_take_all_places() {
        let fleet = Arc::new(Fleet::default());
        let waits: Vec<_> = (0..MAX_POLLS_PER_NODE).map(|_| fleet.wait_for(&node("a")).unwrap()).collect();
        assert!(fleet.wait_for(&node("a")).is_none() && fleet.wait_for(&node("b")).is_some());
        drop(waits);
        assert!(fleet.wait_for(&node("a")).is_some());
        assert!(fleet.lock().waiting.is_empty(), "who no longer waits leaves nothing behind");
    }
}
