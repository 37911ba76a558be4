//! What changes cost those who use a machine: what a policy says of each resource, else what its nature is; and what a
//! catalog would cost a machine that has another one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drover_catalog::{Catalog, Disruption, Part, Resource, ResourceId};
use drover_crds::{DisruptionLevel, DisruptionPolicy, DisruptionRule, PendingCost};

/// As catalogs say it.
pub fn level(level: DisruptionLevel) -> Disruption {
    match level {
        DisruptionLevel::None => Disruption::None,
        DisruptionLevel::Reload => Disruption::Reload,
        DisruptionLevel::Restart => Disruption::Restart,
        DisruptionLevel::Drain => Disruption::Drain,
        DisruptionLevel::Reboot => Disruption::Reboot,
    }
}

/// As the API says it.
pub fn api_level(disruption: Disruption) -> DisruptionLevel {
    match disruption {
        Disruption::None => DisruptionLevel::None,
        Disruption::Reload => DisruptionLevel::Reload,
        Disruption::Restart => DisruptionLevel::Restart,
        Disruption::Drain => DisruptionLevel::Drain,
        Disruption::Reboot => DisruptionLevel::Reboot,
    }
}

/// What a change of each resource of one NodeConfig costs, in their order. `own` has what resources say of themselves.
pub(crate) fn effective(
    resources: &[Resource],
    own: &BTreeMap<ResourceId, DisruptionLevel>,
    policy: &DisruptionPolicy,
) -> Vec<Disruption> {
    let costs = Costs::new(resources, own, policy);
    resources.iter().map(|resource| costs.of(resource)).collect()
}

/// What changes of the resources of one NodeConfig cost.
///
/// The first that says something counts: the resource itself, the first rule that fits, the policy's default, its nature.
/// Where a resource notifies another one of which something is said, that counts as the other one's nature: a file that
/// restarts a kubelet costs what a restart of that kubelet is said to cost.
pub(crate) struct Costs<'a> {
    by_id: HashMap<&'a ResourceId, &'a Resource>,
    own: &'a BTreeMap<ResourceId, DisruptionLevel>,
    policy: &'a DisruptionPolicy,
}

/// What a change of each resource costs by nature alone, in their order.
pub(crate) fn by_nature(resources: &[Resource]) -> Vec<Disruption> {
    effective(resources, &BTreeMap::new(), &DisruptionPolicy::default())
}

impl<'a> Costs<'a> {
    /// `resources` are all that others may notify; `own` has what resources say of themselves.
    pub(crate) fn new(
        resources: impl IntoIterator<Item = &'a Resource>,
        own: &'a BTreeMap<ResourceId, DisruptionLevel>,
        policy: &'a DisruptionPolicy,
    ) -> Self {
        Self { by_id: resources.into_iter().map(|resource| (&resource.id, resource)).collect(), own, policy }
    }

    /// What a change of this resource costs.
    pub(crate) fn of(&self, resource: &Resource) -> Disruption {
        let said = self.said(resource).or(self.policy.default.map(level));
        said.unwrap_or_else(|| self.of_change(resource))
    }

    fn said(&self, resource: &Resource) -> Option<Disruption> {
        let by_rule = || self.policy.rules.iter().find(|rule| fits(rule, resource)).map(|rule| rule.disruption);
        self.own.get(&resource.id).copied().or_else(by_rule).map(level)
    }

    fn of_change(&self, resource: &Resource) -> Disruption {
        let itself = resource.parts.iter().map(of_part).max().unwrap_or_default();
        itself.max(self.of_notifications(resource, &mut BTreeSet::new()))
    }

    /// What follows from the notifications of a change. `seen` ends it where notifications at the end of a run go in a
    /// circle.
    fn of_notifications(&self, resource: &Resource, seen: &mut BTreeSet<ResourceId>) -> Disruption {
        let told = resource.notify.iter().chain(&resource.notify_at_end).filter_map(|id| self.by_id.get(id));
        let mut most = Disruption::None;
        for other in told {
            if !seen.insert(other.id.clone()) {
                continue;
            }
            let acts = other.parts.iter().filter_map(of_notified_part).max();
            let Some(by_nature) = acts else { continue };
            // What acts on a notification counts as changed, and tells others in its turn.
            let onward = self.of_notifications(other, seen);
            most = most.max(self.said(other).unwrap_or(by_nature)).max(onward);
        }
        most
    }
}

/// What it costs to make the part so. A service that only starts at boot or not, and a file for itself, cost nothing.
fn of_part(part: &Part) -> Disruption {
    match part {
        Part::Service(service) if service.state.is_some() => Disruption::Restart,
        // Packages restart their services when they are configured.
        Part::Package(_) => Disruption::Restart,
        Part::Reboot(_) => Disruption::Reboot,
        _ => Disruption::None,
    }
}

/// What a notification costs; absent for what takes no notice of it.
fn of_notified_part(part: &Part) -> Option<Disruption> {
    match part {
        Part::Service(service) if service.reload_on_notify => Some(Disruption::Reload),
        Part::Service(_) => Some(Disruption::Restart),
        Part::Reboot(_) => Some(Disruption::Reboot),
        // What a command does is not known; who writes it may say so.
        Part::Command(_) => Some(Disruption::None),
        _ => None,
    }
}

fn fits(rule: &DisruptionRule, resource: &Resource) -> bool {
    let DisruptionRule { resources, types, disruption: _ } = rule;
    let (_, name) = resource.id.as_str().split_once('/').unwrap_or_default();
    (resources.is_empty() || resources.iter().any(|pattern| matches(pattern, name)))
        && (types.is_empty() || types.contains(&resource.type_name))
}

/// Whether the text is like the pattern, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.into_iter().any(|at| matches(after, &rest[at..]))
}

/// What it would cost a machine to get the resources of a NodeConfig as another catalog has them: the most of what
/// changes. `None` when they are the same. A resource that is gone costs nothing: what it made stays, and is no longer looked after.
pub fn cost(now: &Catalog, next: &Catalog, node_config: &str) -> Option<Disruption> {
    let before: BTreeMap<&ResourceId, &Resource> =
        of(now, node_config).map(|resource| (&resource.id, resource)).collect();
    let mut most = None;
    for resource in of(next, node_config) {
        let same = before.get(&resource.id);
        if same.is_some_and(|before| *before == resource) {
            continue;
        }
        // Its place in the order, or what is done about drift, changes no machine.
        let touches = same.is_none_or(|before| before.parts != resource.parts || before.finish != resource.finish);
        most = most.max(Some(if touches { resource.disruption } else { Disruption::None }));
    }
    let after: BTreeSet<&ResourceId> = of(next, node_config).map(|resource| &resource.id).collect();
    if most.is_none() && before.keys().any(|id| !after.contains(id)) {
        most = Some(Disruption::None);
    }
    most
}

fn of<'a>(catalog: &'a Catalog, node_config: &'a str) -> impl Iterator<Item = &'a Resource> {
    catalog.resources.iter().filter(move |resource| resource.id.node_config() == node_config)
}

/// Counts one machine.
pub fn count(pending: &mut PendingCost, cost: Option<Disruption>) {
    let place = match cost {
        None => &mut pending.noop,
        Some(Disruption::None) => &mut pending.none,
        Some(Disruption::Reload) => &mut pending.reload,
        Some(Disruption::Restart) => &mut pending.restart,
        Some(Disruption::Drain) => &mut pending.drain,
        Some(Disruption::Reboot) => &mut pending.reboot,
    };
    *place = place.saturating_add(1);
}

/// `2 Reboot, 1 Restart, 40 None, 957 no-op`.
pub fn in_words(pending: &PendingCost) -> String {
    let PendingCost { reboot, drain, restart, reload, none, noop } = *pending;
    let all = [
        (reboot, "Reboot"),
        (drain, "Drain"),
        (restart, "Restart"),
        (reload, "Reload"),
        (none, "None"),
        (noop, "no-op"),
    ];
    let said = all.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
