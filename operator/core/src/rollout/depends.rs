//! Which Rollouts come first, and whether they are done.

use std::collections::BTreeMap;

use drover_crds::RolloutPhase;

use super::snapshot::{RolloutView, Snapshot};
use crate::metadata::name;

/// Why a run does not begin yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// It waits for another Rollout.
    Waits(String),
    /// It can never begin: it waits for itself, by this path.
    Cycle(String),
}

/// What the Rollout waits for, if anything.
pub(super) fn unmet(snapshot: &Snapshot) -> Option<Unmet> {
    let own = name(&snapshot.rollout.metadata);
    let wanted: Vec<&str> = snapshot.rollout.spec.depends_on.iter().map(|other| other.name.as_str()).collect();
    if let Some(path) = cycle(own, &wanted, &snapshot.other_rollouts) {
        let path = path.join(" → ");
        return Some(Unmet::Cycle(format!("dependsOn is a circle, so that none of them can begin: {path}")));
    }
    let waits = |other: &&str| match snapshot.other_rollouts.get(*other) {
        None => Some(format!("waits for Rollout {other}: there is none of this name in this namespace")),
        Some(view) => unfinished(view).map(|why| format!("waits for Rollout {other}: {why}")),
    };
    wanted.iter().find_map(waits).map(Unmet::Waits)
}

/// Why the other Rollout is not done, if so.
fn unfinished(view: &RolloutView) -> Option<String> {
    let Some(wanted) = &view.wanted else {
        return Some("its NodeConfig has no revision yet".to_owned());
    };
    if view.revision.as_ref() != Some(wanted) {
        return Some(format!("it has not begun {wanted} yet"));
    }
    match view.phase {
        Some(RolloutPhase::Complete) if view.is_observed => None,
        Some(RolloutPhase::Complete) | None => Some("its last change was not looked at yet".to_owned()),
        Some(phase) => Some(format!("it is {} with {wanted}", phase.as_str())),
    }
}

/// The way from a Rollout back to itself, or into a circle that it can not get past.
fn cycle(own: &str, wanted: &[&str], others: &BTreeMap<String, RolloutView>) -> Option<Vec<String>> {
    fn walk(at: &str, path: &mut Vec<String>, seen: &mut Vec<String>, others: &BTreeMap<String, RolloutView>) -> bool {
        if path.iter().any(|before| before == at) {
            path.push(at.to_owned());
            return true;
        }
        if seen.iter().any(|before| before == at) {
            return false;
        }
        path.push(at.to_owned());
        let next = others.get(at).map_or(&[][..], |view| &view.depends_on);
        if next.iter().any(|next| walk(next, path, seen, others)) {
            return true;
        }
        path.pop();
        seen.push(at.to_owned());
        false
    }
    let mut path = vec![own.to_owned()];
    let mut seen = vec![];
    wanted.iter().any(|next| walk(next, &mut path, &mut seen, others)).then_some(path)
}
