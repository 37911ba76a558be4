//! A NodeConfig's newest content, tried out on each machine that it is for, before it may become a revision: whether it
//! compiles beside what the machine has, who claims the same things, and what it would cost.

use std::collections::BTreeMap;

use drover_catalog::{Catalog, Disruption, HostIdentity, RevisionRef};
use drover_crds::{
    ClaimConflict, EffectiveDisruption, Host, NodeConfig, NodeConfigStatus, PendingCost, condition,
    condition::Status as ConditionStatus,
};
use jiff::Timestamp;

use crate::{
    compile::{self, CompileError, Subject},
    disruption, metadata,
    revision::Content,
    selector,
};

/// The condition of two NodeConfigs that claim one thing of a Host.
pub const CONFLICT: &str = "Conflict";

/// Conflicts that a status names.
const MAX_CONFLICTS: usize = 20;
/// Resources of one disruption that a status names.
const MAX_NAMES: usize = 50;

/// What is known of a content that compiles everywhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// What a change of each resource costs, on the machine where it costs most.
    pub effective: BTreeMap<String, Disruption>,
    /// What it would cost the machines that do not have it; `None` when all have it.
    pub pending: Option<PendingCost>,
}

/// Why a content becomes no revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It does not compile; in words.
    Invalid(String),
    /// Other NodeConfigs have what it claims.
    Conflict(Vec<ClaimConflict>),
}

/// What is known of a content so far, while it is tried out on one portion of the machines after the other.
#[derive(Debug, Default)]
pub struct Tally {
    trial: Trial,
    pending: PendingCost,
    conflicts: BTreeMap<(String, String), ClaimConflict>,
    /// What a change of each resource costs where no machine tells.
    without_host: BTreeMap<String, Disruption>,
}

/// Tries the content out. `kept` finds the content of a revision.
///
/// Beside it, each machine has what is assigned to it, and the newest content of NodeConfigs that precede this one there: of
/// two NodeConfigs, the one that is assigned to the machine; when both or none are, the one of the higher priority, else the
/// older one, else by name. The one that comes later gives way. A machine whose facts are not known yet can not be tried.
pub fn try_out<'a>(
    config: &NodeConfig,
    content: &'a Content,
    hosts: &[Host],
    configs: &'a [NodeConfig],
    kept: impl Fn(&str) -> Option<&'a Content>,
) -> Result<Trial, Refusal> {
    let mut tally = Tally::of(content)?;
    tally.add(config, content, hosts, configs, kept)?;
    tally.conclude()
}

impl Tally {
    /// Nothing is known yet but what the content says by itself.
    pub fn of(content: &Content) -> Result<Self, Refusal> {
        let without_host = compile::check(content).map_err(|error| Refusal::Invalid(error.to_string()))?;
        Ok(Self { without_host: without_host.into_iter().collect(), ..Self::default() })
    }

    /// Tries it out on these machines as well, as [`try_out`] does.
    pub fn add<'a>(
        &mut self,
        config: &NodeConfig,
        content: &'a Content,
        hosts: &[Host],
        configs: &'a [NodeConfig],
        kept: impl Fn(&str) -> Option<&'a Content>,
    ) -> Result<(), Refusal> {
        let Self { trial, pending, conflicts, without_host: _ } = self;
        let name = metadata::name(&config.metadata);
        for host in hosts {
            let Some(subject) = subject(host) else { continue };
            let host_name = metadata::name(&host.metadata);
            let beside = others(config, content, host, configs, &kept);
            let trying = Trying { subject: &subject, name, content, before: assigned(host, name).and_then(&kept) };
            let catalog = trying.compile(beside.iter().filter_map(Other::now).collect());
            // What they will have soon counts as well, where they precede; it costs a second look only where it differs.
            let soon = beside.iter().any(|other| other.newest.is_some() && other.assigned.is_some());
            let catalog = match catalog {
                Ok(_) if soon => trying.compile(beside.iter().filter_map(Other::soon).collect()).and(catalog),
                other => other,
            };
            let catalog = match catalog {
                Ok(catalog) => catalog,
                Err(error) => {
                    let Some((other, claim)) = error.conflict(name) else {
                        return Err(Refusal::Invalid(format!("Host {host_name}: {error}")));
                    };
                    let of_this = conflicts.entry((other.to_owned(), claim.to_owned()));
                    let conflict = of_this.or_insert_with(|| ClaimConflict {
                        node_config: other.to_owned(),
                        claim: claim.to_owned(),
                        host: host_name.to_owned(),
                        hosts: 0,
                    });
                    conflict.hosts = conflict.hosts.saturating_add(1);
                    continue;
                }
            };
            for resource in catalog.resources.iter().filter(|resource| resource.id.node_config() == name) {
                let (_, short) = resource.id.as_str().split_once('/').unwrap_or_default();
                let most = trial.effective.entry(short.to_owned()).or_default();
                *most = (*most).max(resource.disruption);
            }
            let active =
                active_revision(host, name).and_then(|revision| kept(revision).map(|content| (revision, content)));
            if active.is_some_and(|(_, active)| active.is_same_as(content)) {
                continue;
            }
            disruption::count(pending, disruption::cost(&now(&subject, name, active), &catalog, name));
        }
        Ok(())
    }

    /// What is known when it was tried out on all machines.
    pub fn conclude(self) -> Result<Trial, Refusal> {
        let Self { mut trial, pending, conflicts, without_host } = self;
        if !conflicts.is_empty() {
            return Err(Refusal::Conflict(conflicts.into_values().take(MAX_CONFLICTS).collect()));
        }
        // What no machine has, because its condition holds nowhere or there is no machine yet, costs what it would.
        for (resource, cost) in without_host {
            trial.effective.entry(resource).or_insert(cost);
        }
        trial.pending = (pending != PendingCost::default()).then_some(pending);
        Ok(trial)
    }
}

/// A machine as templates see it, once its facts are known.
pub fn subject(host: &Host) -> Option<Subject> {
    let status = host.status.as_ref()?;
    Some(Subject {
        host: HostIdentity {
            name: metadata::name(&host.metadata).to_owned(),
            uid: metadata::uid(&host.metadata).to_owned(),
        },
        node_name: host.spec.node_ref.name.clone(),
        labels: host.metadata.labels.clone().unwrap_or_default(),
        facts: compile::facts_from_status(status.facts.as_ref()?)?,
        generation: status.assigned_generation,
        reboot: None,
        commands: vec![],
    })
}

/// The catalog of what a machine has of a NodeConfig now. One that does not compile any more counts as nothing, so that
/// the cost is rather said too high than too low.
fn now(subject: &Subject, name: &str, active: Option<(&str, &Content)>) -> Catalog {
    let reference = |revision: &str| RevisionRef { node_config: name.to_owned(), revision: revision.to_owned() };
    let active: Vec<_> = active.into_iter().map(|(revision, content)| (reference(revision), content)).collect();
    let compiled = compile::compile(subject, &active).or_else(|_: CompileError| compile::compile(subject, &[]));
    compiled.unwrap_or_else(|_| Catalog {
        host: subject.host.clone(),
        generation: subject.generation,
        revisions: Vec::new(),
        interval_seconds: 0,
        resources: Vec::new(),
        reboot: None,
        commands: vec![],
        digest: drover_catalog::Digest::of(b""),
    })
}

fn active_revision<'a>(host: &'a Host, node_config: &str) -> Option<&'a str> {
    let active = host.status.as_ref()?.active.as_ref()?;
    active.revisions.iter().find(|active| active.node_config == node_config).map(|active| active.revision.as_str())
}

/// The revision of a NodeConfig that a machine has to have.
fn assigned<'a>(host: &'a Host, node_config: &str) -> Option<&'a str> {
    let mut all = host.status.iter().flat_map(|status| &status.assigned);
    all.find(|assigned| assigned.node_config == node_config).map(|assigned| assigned.revision.as_str())
}

type Revision<'a> = (RevisionRef, &'a Content);

/// Another NodeConfig, as a machine has it.
struct Other<'a> {
    /// What is assigned.
    assigned: Option<Revision<'a>>,
    /// What will be, when it precedes the one that is tried.
    newest: Option<Revision<'a>>,
    precedes: bool,
}

impl<'a> Other<'a> {
    /// What counts now, and whether it precedes.
    fn now(&self) -> Option<(Revision<'a>, bool)> {
        self.assigned.as_ref().or(self.newest.as_ref()).map(|revision| (revision.clone(), self.precedes))
    }

    /// What counts when it has its newest revision.
    fn soon(&self) -> Option<(Revision<'a>, bool)> {
        self.newest.as_ref().or(self.assigned.as_ref()).map(|revision| (revision.clone(), self.precedes))
    }
}

/// The other NodeConfigs of a machine.
fn others<'a>(
    config: &NodeConfig,
    content: &Content,
    host: &Host,
    configs: &'a [NodeConfig],
    kept: &impl Fn(&str) -> Option<&'a Content>,
) -> Vec<Other<'a>> {
    let name = metadata::name(&config.metadata);
    let ours = (assigned(host, name).is_none(), rank(config, content.priority));
    let one = |other: &'a NodeConfig| {
        let node_config = metadata::name(&other.metadata);
        let revision = |revision: &str| {
            let reference = RevisionRef { node_config: node_config.to_owned(), revision: revision.to_owned() };
            Some((reference, kept(revision)?))
        };
        let assigned = assigned(host, node_config).and_then(revision);
        let selects = selector::matches(other.spec.host_selector.as_ref(), host.metadata.labels.as_ref());
        let status = other.status.as_ref().filter(|status| selects && status.conflicts.is_empty());
        let newest = status.and_then(|status| revision(status.revision.as_deref()?));
        let (_, theirs) = newest.as_ref().or(assigned.as_ref())?;
        let precedes = (assigned.is_none(), rank(other, theirs.priority)) < ours;
        Some(Other { assigned, newest: newest.filter(|_| precedes), precedes })
    };
    configs.iter().filter(|other| metadata::name(&other.metadata) != name).filter_map(one).collect()
}

/// A content that is tried on one machine.
struct Trying<'a> {
    subject: &'a Subject,
    name: &'a str,
    content: &'a Content,
    /// What the machine has of the same NodeConfig.
    before: Option<&'a Content>,
}

impl Trying<'_> {
    /// The machine's catalog with the content and these others, each with whether it precedes. Others that are at odds
    /// among themselves, or do not compile, are no fault of this one: what comes last of them is left out.
    fn compile(&self, mut others: Vec<(Revision<'_>, bool)>) -> Result<Catalog, CompileError> {
        let mut alone = false;
        loop {
            let error = match self.with(self.content, &others) {
                Ok(catalog) => return Ok(catalog),
                Err(error) => error,
            };
            let place = |node_config: &str| others.iter().position(|((other, _), _)| other.node_config == node_config);
            let left_out = match (error.conflict(self.name), error.claimants()) {
                // Who comes later does not take what it never had; but what both have, it must give.
                (Some((other, _)), _) => {
                    place(other).filter(|at| others.get(*at).is_some_and(|other| !other.1 && self.were_at_odds(other)))
                }
                (None, Some((first, second))) => place(second).max(place(first)),
                (None, None) => None,
            };
            match left_out {
                Some(at) => drop(others.remove(at)),
                None if error.conflict(self.name).is_some() || alone => return Err(error),
                None => {
                    alone = true;
                    others.retain(|((other, content), _)| {
                        compile::compile(self.subject, &[(other.clone(), content)]).is_ok()
                    });
                }
            }
        }
    }

    /// Whether what the machine has of both claims the same thing already.
    fn were_at_odds(&self, other: &(Revision<'_>, bool)) -> bool {
        let with = |before| self.with(before, std::slice::from_ref(other));
        self.before.is_some_and(|before| with(before).is_err_and(|error| error.conflict(self.name).is_some()))
    }

    fn with(&self, content: &Content, others: &[(Revision<'_>, bool)]) -> Result<Catalog, CompileError> {
        let ours = RevisionRef { node_config: self.name.to_owned(), revision: "newest".to_owned() };
        let others = others.iter().map(|((other, content), _)| (other.clone(), *content));
        compile::compile(self.subject, &others.chain([(ours, content)]).collect::<Vec<_>>())
    }
}

/// Which of two NodeConfigs comes first where both are as new on a machine: the lower rank.
fn rank(config: &NodeConfig, priority: i32) -> (std::cmp::Reverse<i32>, Timestamp, &str) {
    let created = config.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
    (std::cmp::Reverse(priority), created, metadata::name(&config.metadata))
}

/// The policy for a status: from most to nothing, each with the names of its resources.
pub fn effective_in_status(effective: &BTreeMap<String, Disruption>) -> Vec<EffectiveDisruption> {
    let mut by_cost: BTreeMap<Disruption, Vec<&String>> = BTreeMap::new();
    for (resource, cost) in effective {
        by_cost.entry(*cost).or_default().push(resource);
    }
    let one = |(cost, names): (Disruption, Vec<&String>)| EffectiveDisruption {
        disruption: disruption::api_level(cost),
        count: i32::try_from(names.len()).unwrap_or(i32::MAX),
        resources: names.into_iter().take(MAX_NAMES).cloned().collect(),
    };
    by_cost.into_iter().rev().map(one).collect()
}

/// Sets or takes away the condition `Conflict`, for both sides: `status.conflicts` has what this NodeConfig does not get,
/// the others' have what they do not get because of it.
pub fn conflict_condition(status: &mut NodeConfigStatus, config: &NodeConfig, configs: &[NodeConfig], now: Timestamp) {
    let name = metadata::name(&config.metadata);
    let others = configs.iter().filter(|other| metadata::name(&other.metadata) != name).flat_map(|other| {
        let theirs = other.status.iter().flat_map(|status| &status.conflicts);
        theirs
            .filter(|conflict| conflict.node_config == name)
            .map(|conflict| (metadata::name(&other.metadata), conflict))
    });
    let ours = status.conflicts.iter().map(|conflict| {
        let ClaimConflict { node_config, claim, .. } = conflict;
        format!(
            "{claim} on {} is NodeConfig {node_config}'s already; nothing of the newest content is applied",
            hosts(conflict)
        )
    });
    let theirs = others.map(|(other, conflict)| {
        format!("NodeConfig {other} claims {} on {} as well, and is not applied", conflict.claim, hosts(conflict))
    });
    let told: Vec<String> = ours.chain(theirs).collect();
    let generation = config.metadata.generation;
    if told.is_empty() {
        condition::remove(&mut status.conditions, CONFLICT);
        return;
    }
    let hint = "keep it in one of the two, or let their hostSelectors select different Hosts";
    let message = format!("{}; {hint}", told.join("; "));
    condition::set(&mut status.conditions, CONFLICT, ConditionStatus::True, "Claimed", message, generation, now);
}

/// `Host node-1 (and 3 more)`.
pub fn hosts(conflict: &ClaimConflict) -> String {
    match conflict.hosts {
        ..=1 => format!("Host {}", conflict.host),
        several => format!("Host {} (and {} more)", conflict.host, several - 1),
    }
}

/// Whether a change of one NodeConfig may be news for another's condition `Conflict`.
pub fn concerns(changed: &NodeConfig, other: &NodeConfig) -> bool {
    let name = metadata::name(&other.metadata);
    let conditions = other.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    metadata::name(&changed.metadata) != name
        && (condition::is_true(conditions, CONFLICT)
            || changed.status.iter().flat_map(|status| &status.conflicts).any(|conflict| conflict.node_config == name))
}

#[cfg(test)]
mod tests;
