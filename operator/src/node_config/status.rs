//! What is said of a NodeConfig: the verdict on its newest content, and how the machines are that it is for.

use std::{collections::BTreeSet, sync::Arc};

use drover_core::{disruption, trial};
use drover_crds::{
    AppliedReport, Host, NodeConfig, NodeConfigStatus, Rollout, RolloutPhase, StopAction,
    condition::{self, Summary},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;

use super::Verdict;
use crate::context::now;

/// The status, derived from the verdict and from what the machines say.
pub(super) fn status(
    config: &NodeConfig,
    verdict: &Verdict,
    hosts: &[Arc<Host>],
    configs: &[NodeConfig],
    rollouts: &[Rollout],
) -> NodeConfigStatus {
    let mut status = config.status.clone().unwrap_or_default();
    let name = config.name_any();
    status.pending = None;
    status.conflicts = Vec::new();
    match verdict {
        Verdict::Good(revision, trial) => {
            status.revision = Some(revision.clone());
            status.pending.clone_from(&trial.pending);
            status.disruption = trial::effective_in_status(&trial.effective);
        }
        Verdict::Conflict(conflicts) => status.conflicts.clone_from(conflicts),
        Verdict::Missing(_) | Verdict::Invalid(_) => {}
    }
    status.cost = status.pending.as_ref().map(disruption::in_words);
    let ours = |rollout: &&Rollout| rollout.spec.node_config_ref.name == name;
    if let Some(revision) = completed(rollouts.iter().filter(ours)) {
        status.completed_revision = Some(revision);
    } else if let Some(undone) = undone(rollouts.iter().filter(ours))
        && status.completed_revision.as_deref().is_none_or(|completed| completed == undone)
    {
        status.completed_revision = gone_back_to(&name, undone, hosts);
    }
    let newest = status.revision.clone();
    let active = |wanted: &dyn Fn(&AppliedReport) -> bool| {
        let reports = hosts.iter().filter_map(|host| host.status.as_ref()?.active.as_ref());
        i32::try_from(reports.filter(|active| wanted(active)).count()).ok()
    };
    let has_ours = |active: &AppliedReport| active.revisions.iter().any(|revision| revision.node_config == name);
    status.hosts = i32::try_from(hosts.len()).ok();
    status.updated =
        active(&|active| active.converged && active.revisions.iter().any(|r| Some(&r.revision) == newest.as_ref()));
    status.failed = active(&|active| !active.converged && has_ours(active));
    status.drifted = active(&|active| has_ours(active) && has_drifted(active, &name));

    let generation = config.metadata.generation;
    let (phase, summary, message) = match verdict {
        Verdict::Good(revision, _) if rollouts.iter().any(|rollout| ours(&rollout)) => {
            ("Ready", Summary::Ready, format!("revision {revision} compiles for each of its hosts"))
        }
        Verdict::Good(revision, _) => {
            let hint = "no Rollout refers to this NodeConfig, so it changes no machine";
            ("Ready", Summary::Ready, format!("revision {revision} compiles for each of its hosts; {hint}"))
        }
        Verdict::Missing(what) => ("MissingData", Summary::Stalled, format!("{what}; every host keeps what it has")),
        Verdict::Invalid(why) => ("Invalid", Summary::Stalled, format!("{why}; every host keeps what it has")),
        Verdict::Conflict(conflicts) => {
            let told = conflicts.iter().map(|conflict| {
                format!(
                    "{} on {} is NodeConfig {}'s already",
                    conflict.claim,
                    trial::hosts(conflict),
                    conflict.node_config
                )
            });
            let told = told.collect::<Vec<_>>().join("; ");
            (trial::CONFLICT, Summary::Stalled, format!("{told}; every host keeps what it has"))
        }
    };
    condition::summarise(&mut status.conditions, summary, phase, &message, generation, now());
    trial::conflict_condition(&mut status, config, configs, now());
    status.phase = Some(phase.to_owned());
    status.message = Some(message);
    status.observed_generation = generation;
    status
}

/// The revision that was completed last.
fn completed<'a>(rollouts: impl Iterator<Item = &'a Rollout>) -> Option<String> {
    // A Rollout for some of the hosts says nothing about the others: they keep what they have.
    let for_all =
        |rollout: &&Rollout| rollout.spec.host_selector.as_ref().is_none_or(|s| *s == LabelSelector::default());
    let completed = rollouts.filter(for_all).filter_map(|rollout| {
        let status = rollout.status.as_ref()?;
        // Machines that people leave out do not get it as if they were new.
        let on_all = status.counts.as_ref().is_some_and(|counts| counts.skipped == 0);
        let run = status.run.as_ref().filter(|_| on_all && status.phase == Some(RolloutPhase::Complete))?;
        Some((run.finished_at.as_ref()?.0, run.revision.clone()))
    });
    completed.max().map(|(_, revision)| revision)
}

/// The revision of a run that was undone, or is being so.
fn undone<'a>(mut rollouts: impl Iterator<Item = &'a Rollout>) -> Option<&'a str> {
    rollouts.find_map(|rollout| {
        let run = rollout.status.as_ref()?.run.as_ref()?;
        let stopped = run.stopped.as_ref()?;
        (stopped.action == StopAction::Rollback).then_some(run.revision.as_str())
    })
}

/// What all machines have that have any after they gave this revision back: a new machine gets that. Where they do not have the
/// same it gets nothing until a run is complete.
fn gone_back_to(node_config: &str, undone: &str, hosts: &[Arc<Host>]) -> Option<String> {
    let assigned = hosts.iter().flat_map(|host| host.status.iter().flat_map(|status| &status.assigned));
    let ours = assigned.filter(|assignment| assignment.node_config == node_config);
    let revisions: BTreeSet<&str> = ours.map(|assignment| assignment.revision.as_str()).collect();
    match revisions.first() {
        Some(revision) if revisions.len() == 1 && *revision != undone => Some((*revision).to_owned()),
        _ => None,
    }
}

/// Whether the machine differed by itself from this NodeConfig at its last run.
fn has_drifted(active: &AppliedReport, node_config: &str) -> bool {
    active.drifted_from.iter().any(|config| config == node_config)
}
