//! What a change costs each machine: for which machines it is to be known, and what it is for one.
//!
//! To tell it takes two catalogs of the machine, so it is asked for where a decision looks at it, and nowhere else: the
//! operator answers before it decides, and remembers the answers.

use std::collections::BTreeSet;

use drover_catalog::{Catalog, Disruption, RevisionRef};
use drover_crds::{Assignment, ChangeCost, Host, RolloutSpec};

use super::{
    decide,
    population::{self, entry_host},
    snapshot::Snapshot,
};
use crate::{
    compile::{self, Subject},
    disruption,
    metadata::name,
    revision::Content,
    selector, trial,
};

/// The machines that are admitted and not held yet, with the revision that the ledger has for them: what it costs is recorded
/// with the hold.
pub fn admitted(snapshot: &Snapshot) -> impl Iterator<Item = (&Host, &str)> {
    let ledger = snapshot.rollout.status.as_ref().map_or(&[][..], |status| &status.in_flight);
    let open = ledger.iter().filter_map(|entry| Some((entry_host(snapshot, entry)?, entry.revision.as_str())));
    open.filter(|(host, _)| !is_held(host))
}

/// The revision that is rolled out, and the machines that wait for their turn: what it costs them may decide on their order,
/// and is shown before anything moves.
pub fn waiting(snapshot: &Snapshot) -> Option<(String, Vec<&Host>)> {
    let rollout = &snapshot.rollout;
    let (Ok(revision), Some(config)) = (decide::target_revision(snapshot), &snapshot.node_config) else {
        return None;
    };
    let target = target(snapshot, &revision);
    let ledger = rollout.status.as_ref().map_or(&[][..], |status| &status.in_flight);
    let ledger: BTreeSet<&str> = ledger.iter().map(|entry| entry.host.as_str()).collect();
    let waits = |host: &&Host| {
        let labels = host.metadata.labels.as_ref();
        selector::matches(config.spec.host_selector.as_ref(), labels)
            && selector::matches(rollout.spec.host_selector.as_ref(), labels)
            && !is_held(host)
            && !population::is_active(host, &target)
            && !ledger.contains(name(&host.metadata))
    };
    let waiting = snapshot.hosts.iter().filter(waits).collect();
    Some((revision, waiting))
}

/// What machines are assigned when they get this revision.
pub fn target(snapshot: &Snapshot, revision: &str) -> Assignment {
    let node_config = snapshot.rollout.spec.node_config_ref.name.clone();
    Assignment { node_config, revision: revision.to_owned() }
}

fn is_held(host: &Host) -> bool {
    host.status.as_ref().is_some_and(|status| status.claim.is_some())
}

/// What it costs the machine to get the revision; `None` when that can not be told. `kept` finds the content of a revision.
///
/// What the machine has is what is assigned to it, where its agent reported that all of it is so. Where it did not, each
/// resource of the NodeConfig may have to change. A reboot that is due already counts where this Rollout reboots.
pub fn answer<'a>(
    host: &Host,
    target: &Assignment,
    spec: &RolloutSpec,
    kept: impl Fn(&str) -> Option<&'a Content>,
) -> Option<ChangeCost> {
    let status = host.status.as_ref()?;
    let subject = trial::subject(host)?;
    let content = |assignment: &Assignment| {
        let Assignment { node_config, revision } = assignment.clone();
        Some((RevisionRef { node_config, revision }, kept(&assignment.revision)?))
    };
    let is_so = status
        .active
        .as_ref()
        .is_some_and(|active| active.converged && active.generation == status.assigned_generation);
    let others: Vec<&Assignment> =
        status.assigned.iter().filter(|other| other.node_config != target.node_config).collect();
    let current = status.assigned.iter().find(|current| current.node_config == target.node_config).filter(|_| is_so);
    if current == Some(target) {
        return Some(due(host, spec).unwrap_or(ChangeCost::NoOp));
    }
    let catalog = |one: &Assignment| {
        let alone = content(one)?;
        let beside = others.iter().filter_map(|other| content(other)).chain([alone.clone()]).collect::<Vec<_>>();
        compiled(&subject, &beside).or_else(|| compiled(&subject, &[alone]))
    };
    let next = catalog(target)?;
    let now = match current {
        Some(current) => catalog(current).or_else(|| compiled(&subject, &[]))?,
        None => compiled(&subject, &[])?,
    };
    let cost = change_cost(disruption::cost(&now, &next, &target.node_config));
    Some(due(host, spec).map_or(cost, |due| due.max(cost)))
}

fn compiled(subject: &Subject, revisions: &[(RevisionRef, &Content)]) -> Option<Catalog> {
    compile::compile(subject, revisions).ok()
}

/// The reboot that the machine waits for, if this Rollout would bring it about.
fn due(host: &Host, spec: &RolloutSpec) -> Option<ChangeCost> {
    let active = host.status.as_ref()?.active.as_ref()?;
    (spec.reboots() && !active.reboot_required.is_empty()).then_some(ChangeCost::Reboot)
}

fn change_cost(cost: Option<Disruption>) -> ChangeCost {
    match cost {
        None => ChangeCost::NoOp,
        Some(Disruption::None) => ChangeCost::None,
        Some(Disruption::Reload) => ChangeCost::Reload,
        Some(Disruption::Restart) => ChangeCost::Restart,
        Some(Disruption::Drain) => ChangeCost::Drain,
        Some(Disruption::Reboot) => ChangeCost::Reboot,
    }
}

#[cfg(test)]
mod tests {
    use drover_crds::{AppliedReport, HostSpec, HostStatus, NodeRef};
    use serde_json::{Value, json};

    use super::*;

    fn assignment(config: &str, revision: &str) -> Assignment {
        Assignment { node_config: config.into(), revision: revision.into() }
    }

    /// A host whose agent reported that all of this is so.
    fn host(assigned: &[Assignment]) -> Host {
        let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
        host.metadata.uid = Some("1u-x".into());
        host.status = Some(HostStatus {
            facts: Some(serde_json::Map::new()),
            active: Some(AppliedReport { revisions: assigned.to_vec(), converged: true, ..AppliedReport::default() }),
            assigned: assigned.to_vec(),
            ..HostStatus::default()
        });
        host
    }

    fn content(resources: &Value) -> Content {
        Content { resources: serde_json::from_value(resources.clone()).unwrap(), ..Content::default() }
    }

    fn web(motd: &str, config: &str) -> Content {
        content(&json!([
            {"name": "motd", "file": {"path": "/etc/motd", "content": motd}},
            {"name": "web", "notify": ["nginx"], "file": {"path": "/etc/nginx.conf", "content": config}},
            {"name": "nginx", "service": {"unit": "nginx", "state": "Running"}},
        ]))
    }

    fn spec(spec: &Value) -> RolloutSpec {
        let mut all = json!({"nodeConfigRef": {"name": "base"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn it_is_what_changes_between_what_the_machine_has_and_what_it_gets() {
        let (one, other) = (web("a", "x"), content(&json!([{"name": "f", "file": {"path": "/f", "content": ""}}])));
        let variants = [("motd", web("b", "x")), ("web", web("a", "y")), ("same", web("a", "x"))];
        let broken = content(&json!([{"name": "f", "file": {"path": "/f", "template": "{{ facts.nonsense }}"}}]));
        let kept = |revision: &str| match revision {
            "base-1" => Some(&one),
            "other-1" => Some(&other),
            "base-broken" => Some(&broken),
            _ => variants.iter().find(|(name, _)| revision == format!("base-{name}")).map(|(_, content)| content),
        };
        let here = [assignment("base", "base-1"), assignment("other", "other-1")];
        let cost = |host: &Host, revision: &str| answer(host, &assignment("base", revision), &spec(&json!({})), kept);
        let settled = host(&here);
        for (revision, wanted) in [
            ("base-1", Some(ChangeCost::NoOp)),
            ("base-same", Some(ChangeCost::NoOp)),
            ("base-motd", Some(ChangeCost::None)),
            ("base-web", Some(ChangeCost::Restart)),
            ("base-broken", None),
            ("base-gone", None),
        ] {
            assert_eq!(cost(&settled, revision), wanted, "{revision}");
        }
        // Nothing is known to be so: everything may change.
        let mut failed = host(&here);
        failed.status.as_mut().unwrap().active.as_mut().unwrap().converged = false;
        let mut silent = host(&here);
        silent.status.as_mut().unwrap().assigned_generation = 7;
        for uncertain in [failed, silent, host(&[])] {
            assert_eq!(cost(&uncertain, "base-1"), Some(ChangeCost::Restart));
            assert_eq!(cost(&uncertain, "base-motd"), Some(ChangeCost::Restart));
        }
        let mut unknown = host(&here);
        unknown.status.as_mut().unwrap().facts = None;
        assert_eq!(cost(&unknown, "base-motd"), None, "without facts there is no catalog");
    }

    #[test]
    fn a_reboot_that_is_due_counts_where_the_rollout_reboots() {
        let (one, two) = (web("a", "x"), web("b", "x"));
        let kept = |revision: &str| if revision == "base-1" { Some(&one) } else { Some(&two) };
        let mut waiting = host(&[assignment("base", "base-1")]);
        waiting.status.as_mut().unwrap().active.as_mut().unwrap().reboot_required = vec!["a new kernel".into()];
        for (policy, wanted) in [("IfRequired", ChangeCost::Reboot), ("Never", ChangeCost::None)] {
            let spec = spec(&json!({"disruption": {"reboot": policy}}));
            assert_eq!(answer(&waiting, &assignment("base", "base-2"), &spec, kept), Some(wanted));
        }
    }
}
