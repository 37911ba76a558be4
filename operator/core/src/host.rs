//! How a Host is, in a word and a sentence, and what a new one is assigned.

use std::borrow::Borrow;

use drover_crds::{
    Assignment, Host, HostDisplay, HostStatus, NodeConfig,
    condition::{self, Summary},
};
use jiff::Timestamp;

use crate::selector;

/// What is said of a Host.
struct Outlook {
    phase: &'static str,
    summary: Summary,
    message: String,
}

/// The part of a Host's status that summarises the rest: phase, message, display, and the conditions `Ready`,
/// `Reconciling` and `Stalled`. The fields of others are left out, so that it can be applied beside them.
pub fn summarise(host: &Host, node_ready: bool, now: Timestamp) -> HostStatus {
    let status = host.status.clone().unwrap_or_default();
    let Outlook { phase, summary, message } = outlook(&status, node_ready);
    let generation = host.metadata.generation;
    let ours = [condition::READY, condition::RECONCILING, condition::STALLED];
    let mut conditions = status.conditions;
    conditions.retain(|c| ours.contains(&c.type_.as_str()));
    condition::summarise(&mut conditions, summary, phase, &message, generation, now);
    let revisions = status
        .active
        .as_ref()
        .map(|active| active.revisions.iter().map(|revision| revision.revision.as_str()).collect::<Vec<_>>().join(","));
    HostStatus {
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        message: Some(message),
        display: Some(HostDisplay { revisions }),
        conditions,
        ..HostStatus::default()
    }
}

fn outlook(status: &HostStatus, node_ready: bool) -> Outlook {
    let applied = condition::find(&status.conditions, "Applied");
    let active = status.active.as_ref().filter(|active| active.generation == status.assigned_generation);
    if let Some(claim) = &status.claim {
        let waiting = claim.waiting_for.as_ref().map(|what| format!(", {what}")).unwrap_or_default();
        let message = format!("Rollout {} is at step {}{waiting}", claim.rollout, claim.step.as_str());
        return Outlook { phase: "Updating", summary: Summary::Working, message };
    }
    if !node_ready {
        return Outlook { phase: "NotReady", summary: Summary::Working, message: "the node is NotReady".to_owned() };
    }
    if status.assigned.is_empty() {
        let message = if status.facts.is_some() {
            "no revision is assigned: a Rollout assigns one"
        } else {
            "no revision is assigned, and the agent has not called yet"
        };
        return Outlook { phase: "Unassigned", summary: Summary::Ready, message: message.to_owned() };
    }
    match (active, applied) {
        (Some(active), _) if active.converged => Outlook {
            phase: "UpToDate",
            summary: Summary::Ready,
            message: format!("{} resources are as assigned", active.resources),
        },
        (Some(active), _) => Outlook {
            phase: "Failed",
            summary: Summary::Stalled,
            message: active.message.clone().unwrap_or_else(|| format!("{} resources failed", active.failed)),
        },
        (None, Some(applied)) if applied.reason == "CompileFailed" => {
            Outlook { phase: "Failed", summary: Summary::Stalled, message: applied.message.clone() }
        }
        (None, _) => Outlook {
            phase: "Pending",
            summary: Summary::Working,
            message: "the agent has not reported on what is assigned yet".to_owned(),
        },
    }
}

/// What shall be assigned to a Host that no Rollout holds: what it has, less the NodeConfigs that are gone or select it no
/// more, and the newest completed revision of those that select it and are not assigned yet. `None` when that is what it
/// has.
///
/// A revision that no Rollout completed is never assigned here: only a Rollout moves machines.
pub fn standing_assignment<C: Borrow<NodeConfig>>(host: &Host, configs: &[C]) -> Option<Vec<Assignment>> {
    let none = HostStatus::default();
    let status = host.status.as_ref().unwrap_or(&none);
    if status.claim.is_some() {
        return None;
    }
    let labels = host.metadata.labels.as_ref();
    let selecting: Vec<&NodeConfig> = configs
        .iter()
        .map(Borrow::borrow)
        .filter(|config| selector::matches(config.spec.host_selector.as_ref(), labels))
        .collect();
    let of = |config: &NodeConfig| config.metadata.name.clone().unwrap_or_default();
    let mut wanted: Vec<Assignment> = status
        .assigned
        .iter()
        .filter(|assignment| selecting.iter().any(|config| of(config) == assignment.node_config))
        .cloned()
        .collect();
    for config in selecting {
        let completed = config.status.as_ref().and_then(|status| status.completed_revision.clone());
        let assigned = wanted.iter().any(|assignment| assignment.node_config == of(config));
        if let (Some(revision), false) = (completed, assigned) {
            wanted.push(Assignment { node_config: of(config), revision });
        }
    }
    wanted.sort();
    (wanted != status.assigned).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use drover_crds::{AppliedReport, HostSpec, NodeConfigSpec, NodeConfigStatus, NodeRef};

    use super::*;

    fn host(status: HostStatus) -> Host {
        let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
        host.metadata.labels = Some([("zone".to_owned(), "a".to_owned())].into());
        host.status = Some(status);
        host
    }

    fn assigned(config: &str, revision: &str) -> Assignment {
        Assignment { node_config: config.into(), revision: revision.into() }
    }

    fn config(name: &str, zone: &str, completed: Option<&str>) -> NodeConfig {
        let selector = serde_json::from_value(serde_json::json!({"matchLabels": {"zone": zone}})).unwrap();
        let spec = NodeConfigSpec {
            host_selector: Some(selector),
            resources: vec![],
            priority: None,
            data_from: vec![],
            drift: None,
            disruption: None,
            revision_history_limit: None,
        };
        let mut config = NodeConfig::new(name, spec);
        config.status = Some(NodeConfigStatus { completed_revision: completed.map(Into::into), ..Default::default() });
        config
    }

    #[test]
    fn a_new_host_starts_with_completed_revisions_only() {
        let configs =
            [config("done", "a", Some("done-1")), config("new", "a", None), config("far", "b", Some("far-1"))];
        let wanted = standing_assignment(&host(HostStatus::default()), &configs);
        assert_eq!(wanted, Some(vec![assigned("done", "done-1")]));
    }

    #[test]
    fn an_assignment_is_kept_until_its_node_config_is_gone() {
        let older = HostStatus { assigned: vec![assigned("done", "done-0")], ..Default::default() };
        assert_eq!(standing_assignment(&host(older.clone()), &[config("done", "a", Some("done-1"))]), None);
        assert_eq!(standing_assignment(&host(older.clone()), &[config("done", "b", Some("done-1"))]), Some(vec![]));
        assert_eq!(standing_assignment::<NodeConfig>(&host(older), &[]), Some(vec![]));
    }

    #[test]
    fn the_phase_is_the_first_thing_that_matters() {
        let report = |converged| AppliedReport {
            generation: 1,
            converged,
            message: Some("base/x: no".into()),
            ..Default::default()
        };
        let with = |active: Option<AppliedReport>| HostStatus {
            assigned: vec![assigned("base", "base-1")],
            assigned_generation: 1,
            active,
            ..Default::default()
        };
        for (status, ready, phase) in [
            (HostStatus::default(), true, "Unassigned"),
            (with(None), true, "Pending"),
            (with(Some(report(true))), true, "UpToDate"),
            (with(Some(report(false))), true, "Failed"),
            (with(Some(report(true))), false, "NotReady"),
        ] {
            let summary = summarise(&host(status), ready, Timestamp::UNIX_EPOCH);
            assert_eq!(summary.phase.as_deref(), Some(phase));
            assert!(summary.assigned.is_empty() && summary.active.is_none(), "fields of others are left out");
        }
    }
}
