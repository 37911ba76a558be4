//! What a run will do to its machines, before anything moves.

use drover_crds::{ChangeCost, HostPreview, RolloutSpec, RolloutStatus};

use super::{
    decide,
    population::{self, Goal},
    snapshot::Snapshot,
    stage,
};

/// How many machines the status lists.
const MOST_HOSTS: usize = 20;

/// What a run will do from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The revision that the machines get.
    pub revision: String,
    /// Each machine that waits for it, in the order in which they are begun.
    pub hosts: Vec<HostPreview>,
}

/// What the Rollout would do to each machine that does not have the revision yet: that of the run under way, or of the next
/// one. `None` when there is nothing to roll out. What the change costs comes from [`Snapshot::costs`]; a machine that is
/// not there has an unknown cost, which counts as the most.
pub fn preview(snapshot: &Snapshot) -> Option<Preview> {
    let goal = decide::goal(snapshot)?;
    Some(of(snapshot, &goal))
}

pub(super) fn of(snapshot: &Snapshot, goal: &Goal) -> Preview {
    let rollout = &snapshot.rollout;
    let members = population::members(snapshot, goal);
    let this_run =
        rollout.status.as_ref().filter(|status| status.run.as_ref().is_some_and(|run| run.number == goal.run));
    let at_hand = this_run.map_or(0, stage::batch_at_hand);
    let batches = population::batches(rollout, &members, at_hand);
    let waiting = batches.iter().enumerate().flat_map(|(batch, indices)| {
        let name = population::batch_name(rollout, batch, indices.first().map(|index| members[*index].host));
        let waiting = indices.iter().map(|index| &members[*index]).filter(|member| member.standing.waits());
        waiting.map(move |member| (name.clone(), member))
    });
    let hosts = waiting.map(|(batch, member)| {
        let cost = snapshot.costs.get(member.name()).copied();
        HostPreview { host: member.name().to_owned(), batch, cost, steps: steps(&rollout.spec, cost) }
    });
    Preview { revision: goal.target.revision.clone(), hosts: hosts.collect() }
}

impl Preview {
    /// The sums in a line: `would reboot 2, drain 3, restart 40, no-op 957`. `None` when there is no machine.
    pub fn in_words(&self) -> Option<String> {
        in_words(&self.summary())
    }

    /// As the status has it: the sums, and the first machines.
    pub fn summary(&self) -> drover_crds::Preview {
        let count = |cost: Option<ChangeCost>| {
            i32::try_from(self.hosts.iter().filter(|host| host.cost == cost).count()).unwrap_or(i32::MAX)
        };
        drover_crds::Preview {
            revision: self.revision.clone(),
            reboot: count(Some(ChangeCost::Reboot)),
            drain: count(Some(ChangeCost::Drain)),
            restart: count(Some(ChangeCost::Restart)),
            reload: count(Some(ChangeCost::Reload)),
            none: count(Some(ChangeCost::None)),
            noop: count(Some(ChangeCost::NoOp)),
            unknown: count(None),
            first_hosts: self.hosts.iter().take(MOST_HOSTS).cloned().collect(),
        }
    }
}

/// The sums in a line: `would reboot 2, drain 3, restart 40, no-op 957`. `None` when there is no machine.
pub(super) fn in_words(preview: &drover_crds::Preview) -> Option<String> {
    let drover_crds::Preview { revision: _, reboot, drain, restart, reload, none, noop, unknown, first_hosts: _ } =
        preview;
    let all = [
        (reboot, "reboot"),
        (drain, "drain"),
        (restart, "restart"),
        (reload, "reload"),
        (none, "change unnoticed"),
        (noop, "no-op"),
        (unknown, "change at unknown cost"),
    ];
    let said: Vec<String> =
        all.into_iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{what} {count}")).collect();
    (!said.is_empty()).then(|| format!("would {}", said.join(", ")))
}

/// The preview in the status: of what has not begun. Once a machine was begun it stays what it was.
pub(super) fn kept(
    status: &RolloutStatus,
    snapshot: &Snapshot,
    goal: &Goal,
    begun: bool,
) -> Option<drover_crds::Preview> {
    let there = status.preview.as_ref().filter(|preview| preview.revision == goal.target.revision);
    if begun {
        return there.cloned();
    }
    let preview = of(snapshot, goal);
    (!preview.hosts.is_empty()).then(|| preview.summary())
}

/// What is done to a machine that the change costs so much, in words and in order.
fn steps(spec: &RolloutSpec, cost: Option<ChangeCost>) -> Vec<String> {
    let at_least = |least| spec.always_disrupts() || cost.is_none_or(|cost| cost >= least);
    let reboots = spec.reboots() && cost.is_none_or(|cost| cost == ChangeCost::Reboot);
    let all = [
        (spec.excludes_from_load_balancers() && at_least(ChangeCost::Restart), "leaves load balancers"),
        (spec.drain().is_some() && at_least(ChangeCost::Drain), "drained"),
        (cost != Some(ChangeCost::NoOp), "changed"),
        (reboots, if cost.is_none() { "rebooted if it asks for it" } else { "rebooted" }),
    ];
    all.into_iter().filter(|(is_done, _)| *is_done).map(|(_, step)| step.to_owned()).collect()
}
