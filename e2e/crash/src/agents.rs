//! Plays the masters and agents of a world: what a Host is assigned is applied and reported at once, unless a scenario
//! holds the reports back or lets a revision fail.

use std::collections::{BTreeMap, BTreeSet};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::history::{Kind, Log};

/// How agents behave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conduct {
    /// The machines that do not report.
    held: BTreeSet<String>,
    /// The machines that can not be brought to a revision.
    unfit: BTreeSet<(String, String)>,
}

/// Who plays the masters and agents of a world.
pub(crate) struct Agents {
    conduct: watch::Sender<Conduct>,
    playing: JoinHandle<()>,
}

impl Agents {
    /// Begins to play.
    pub(crate) fn start(client: &Client, namespace: &str, log: watch::Receiver<Log>) -> Self {
        let (conduct, told) = watch::channel(Conduct::default());
        let hosts = Kind::Host.api(client.clone(), namespace);
        Self { conduct, playing: tokio::spawn(play(hosts, log, told)) }
    }

    /// From now on these machines do not report.
    pub(crate) fn hold(&self, machines: impl IntoIterator<Item = String>) {
        self.conduct.send_modify(|conduct| conduct.held.extend(machines));
    }

    /// Everybody reports again.
    pub(crate) fn let_go(&self) {
        self.conduct.send_modify(|conduct| conduct.held.clear());
    }

    /// A machine can not be brought to this revision.
    pub(crate) fn fail(&self, machine: String, revision: &str) {
        self.conduct.send_modify(|conduct| _ = conduct.unfit.insert((machine, revision.to_owned())));
    }

    /// Everything works again.
    pub(crate) fn converge(&self) {
        self.conduct.send_replace(Conduct::default());
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

async fn play(
    hosts: Api<kube::api::DynamicObject>,
    mut log: watch::Receiver<Log>,
    mut conduct: watch::Receiver<Conduct>,
) {
    // What was reported, by the Host's UID: the watch may not have told of it yet.
    let mut told: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let now = conduct.borrow_and_update().clone();
        let due: Vec<(String, String, i64, Value)> = {
            let log = log.borrow_and_update();
            let due = log.all(Kind::Host).filter_map(|(name, host)| report(name, host, &now));
            due.filter(|(_, uid, generation, _)| told.get(uid) != Some(generation)).collect()
        };
        for (name, uid, generation, body) in due {
            let params = PatchParams::apply("drover-master-report").force();
            // A Host that is gone by now, or is another one, has no report; what was lost is reported at the next change.
            if hosts.patch_status(&name, &params, &Patch::Apply(body)).await.is_ok() {
                told.insert(uid, generation);
            }
        }
        let changed = tokio::select! {
            changed = log.changed() => changed,
            changed = conduct.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The report that a Host's agent owes, as the masters write it.
fn report(name: &str, host: &Value, conduct: &Conduct) -> Option<(String, String, i64, Value)> {
    let status = &host["status"];
    let generation = status["assignedGeneration"].as_i64().filter(|generation| *generation > 0)?;
    if conduct.held.contains(name) || status["active"]["generation"].as_i64() == Some(generation) {
        return None;
    }
    let uid = host["metadata"]["uid"].as_str()?.to_owned();
    let assigned = status["assigned"].as_array().cloned().unwrap_or_default();
    let unfit = |assignment: &Value| {
        let revision = assignment["revision"].as_str().unwrap_or_default();
        conduct.unfit.contains(&(name.to_owned(), revision.to_owned()))
    };
    let converged = !assigned.iter().any(unfit);
    let condition = |type_: &str, status: bool, reason: &str| {
        json!({
            "type": type_, "status": if status { "True" } else { "False" }, "reason": reason, "message": "",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let body = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Host", "metadata": {"name": name, "uid": uid},
        "status": {
            "active": {
                "generation": generation, "catalog": format!("sha256:{generation}"), "revisions": assigned,
                "converged": converged, "resources": 1, "changed": i32::from(converged), "failed": i32::from(!converged),
                "bootId": "1",
            },
            "conditions": [
                condition("Applied", converged, if converged { "Converged" } else { "ResourcesFailed" }),
                condition("Drifted", false, "InPlace"),
            ],
        },
    });
    Some((name.to_owned(), uid, generation, body))
}
