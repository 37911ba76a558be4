//! When each machine runs by itself. Every master works it out for itself from what it knows of the fleet, and all come to the same
//! because a plan depends on nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drover_catalog::Slot;
use drover_core::slots::{by_interval, plan};

use crate::fleet::Fleet;

/// How often it is looked whether the fleet is another.
const LOOK: Duration = Duration::from_secs(10);

/// The machines' slots, by the Host's UID.
#[derive(Debug, Default)]
pub(crate) struct Timetable(Mutex<Arc<HashMap<String, Slot>>>);

impl Timetable {
    /// When this machine runs, once that is known.
    pub(crate) fn slot(&self, uid: &str) -> Option<Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    /// Follows the fleet, for ever.
    pub(crate) async fn follow(&self, fleet: &Fleet) {
        let mut known = BTreeMap::new();
        loop {
            let runs = fleet.intervals();
            if runs != known {
                known = runs.clone();
                // For fifty thousand machines it takes a fraction of a second, but no request waits for it.
                let planned = move || {
                    // Each pool's masters have the runs of their own machines to bear.
                    let pools = runs.values().map(|runs| plan(&by_interval(machines(runs))).slots);
                    pools.flatten().collect::<HashMap<String, Slot>>()
                };
                if let Ok(slots) = tokio::task::spawn_blocking(planned).await {
                    tracing::debug!(hosts = slots.len(), "machines have their slots");
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(slots);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn machines(runs: &BTreeMap<String, u32>) -> impl Iterator<Item = (&str, u32)> {
    runs.iter().map(|(host, interval)| (host.as_str(), *interval))
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::testing::{assigned, content, host, node, stored};

    #[tokio::test(start_paused = true)]
    async fn each_machine_has_a_slot_when_its_revision_is_known() {
        let fleet = Fleet::default();
        fleet.hosts(Event::Apply(assigned(host("a"), &content("1"), 1)));
        fleet.hosts(Event::Apply(host("b")));
        let table = Timetable::default();
        let uid = fleet.host_of(&node("a")).unwrap().identity.uid.clone();
        let wait = async {
            tokio::time::sleep(LOOK / 2).await;
            assert_eq!(table.slot(&uid), None, "its interval is part of the revision");
            let (revision, secret) = stored(&content("1"));
            fleet.revisions(Event::Apply(revision));
            fleet.secrets(Event::Apply(secret));
            while table.slot(&uid).is_none() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = table.follow(&fleet) => {}
            () = wait => {}
        }
        let slot = table.slot(&uid).unwrap();
        assert_eq!(slot.period, u64::from(content("1").interval_seconds) * 1000);
        assert_eq!(table.slot("host-b"), None, "nothing is assigned to it");
    }
}
