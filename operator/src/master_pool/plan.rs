//! When the machines run that the masters serve, and what that asks of them.

use std::collections::BTreeMap;

use drover_core::slots::{Capacity, Group, Plan, by_interval, plan};
use drover_crds::{Host, NodeConfig, PlannedPeriod, PoolPlan};
use kube::ResourceExt as _;

/// The machines by the interval at which they run: the shortest that a NodeConfig asks for which is assigned to them.
fn groups<'a>(hosts: impl Iterator<Item = &'a Host>, configs: &[NodeConfig]) -> Vec<Group<'a>> {
    let intervals: BTreeMap<String, u32> =
        configs.iter().map(|config| (config.name_any(), config.spec.resolved_interval_seconds())).collect();
    let interval = |host: &'a Host| {
        let assigned = host.status.iter().flat_map(|status| &status.assigned);
        let shortest = assigned.filter_map(|assignment| intervals.get(&assignment.node_config)).min()?;
        Some((host.metadata.uid.as_deref()?, *shortest))
    };
    by_interval(hosts.filter_map(interval))
}

/// A plan, and how many machines run at each interval.
pub(super) struct Planning {
    plan: Plan,
    sizes: BTreeMap<u32, usize>,
}

impl Planning {
    pub(super) fn of<'a>(hosts: impl Iterator<Item = &'a Host>, configs: &[NodeConfig]) -> Self {
        let groups = groups(hosts, configs);
        let sizes = groups.iter().map(|group| (group.interval, group.hosts.len())).collect();
        Self { plan: plan(&groups), sizes }
    }

    /// Seconds of compiling in a second of the fullest slot, if each run asks for a new catalog.
    pub(super) fn peak(&self, seconds_per_run: f64) -> f64 {
        self.plan.capacity(1, seconds_per_run).peak_utilisation
    }

    /// Seconds of compiling in a second, on average.
    pub(super) fn average(&self, seconds_per_run: f64) -> f64 {
        self.plan.capacity(1, seconds_per_run).utilisation
    }

    /// What the status says, for so many masters that compile so many catalogs at once each.
    pub(super) fn told(&self, masters: i32, slots: u32, seconds_per_run: f64) -> PoolPlan {
        let servers = u32::try_from(masters).unwrap_or(1).saturating_mul(slots).max(1);
        let Capacity { utilisation, peak_utilisation, peak_concurrency, fits } =
            self.plan.capacity(servers, seconds_per_run);
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let period = |(interval, period): (&u32, &u32)| PlannedPeriod {
            interval_seconds: i32::try_from(*interval).unwrap_or(i32::MAX),
            period_seconds: i32::try_from(*period).unwrap_or(i32::MAX),
            hosts: self.sizes.get(interval).copied().map_or(0, number),
        };
        PoolPlan {
            hosts: number(self.plan.slots.len()),
            periods: self.plan.periods.iter().map(period).collect(),
            slot_seconds: i32::try_from(self.plan.width).unwrap_or(i32::MAX),
            fullest_slot: i32::try_from(self.plan.fullest).unwrap_or(i32::MAX),
            utilization_percent: percent(utilisation),
            peak_utilization_percent: percent(peak_utilisation),
            peak_concurrency: i32::try_from(peak_concurrency).unwrap_or(i32::MAX),
            fits,
        }
    }
}

/// Rounded up, so that nothing is shown as nothing that is something.
#[allow(clippy::cast_possible_truncation, reason = "clamped")]
fn percent(share: f64) -> i32 {
    (share * 100.0).ceil().clamp(0.0, 1_000_000.0) as i32
}

#[cfg(test)]
mod tests {
    use drover_crds::{Assignment, HostSpec, HostStatus, NodeRef};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_runs_at_the_shortest_interval_of_what_is_assigned_to_it() {
        let config = |name: &str, seconds: u32| {
            let spec = json!({"resources": [], "drift": {"intervalSeconds": seconds}});
            NodeConfig::new(name, serde_json::from_value(spec).unwrap())
        };
        let configs = [config("base", 1800), config("web", 600)];
        let host = |name: &str, assigned: &[&str]| {
            let mut host = Host::new(name, HostSpec { node_ref: NodeRef::default() });
            host.metadata.uid = Some(name.into());
            let one = |config: &&str| Assignment { node_config: (*config).into(), revision: format!("{config}-1") };
            host.status = Some(HostStatus { assigned: assigned.iter().map(one).collect(), ..HostStatus::default() });
            host
        };
        let hosts = [host("a", &["base", "web"]), host("b", &["base"]), host("c", &[]), host("d", &["gone"])];
        let planning = Planning::of(hosts.iter(), &configs);
        let told = planning.told(2, 4, 0.01);
        let periods: Vec<_> =
            told.periods.iter().map(|of| (of.interval_seconds, of.period_seconds, of.hosts)).collect();
        assert_eq!(periods, [(600, 600, 1), (1800, 1200, 1)]);
        assert!(told.fits && told.hosts == 2, "{told:?}");
        assert!(!planning.told(1, 1, 700.0).fits);
    }
}
