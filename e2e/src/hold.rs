//! Holds agents in the middle of a run for as long as a story wants, so that something can happen just then.

use serde_json::{Value, json};

use crate::{
    Fleet,
    machine::FOLDER,
    wait::{SOON, eventually},
};

/// A resource that holds the agent while the file `hold` is in the stories' folder; once for each `mark`.
pub fn resource(mark: &str) -> Value {
    let script = format!(
        ": > {FOLDER}/holding-{mark}; while [ -e {FOLDER}/hold ]; do sleep 0.1; done; : > {FOLDER}/passed-{mark}"
    );
    json!({"name": format!("hold-{mark}"), "exec": {
        "command": ["sh", "-c", script], "creates": format!("{FOLDER}/passed-{mark}"), "timeoutSeconds": 120,
    }})
}

/// From now on agents are held, on all machines.
pub async fn hold(fleet: &Fleet) {
    fleet.on_all(&format!(": > {FOLDER}/hold")).await;
}

/// Waits until the agent of a node is held.
pub async fn is_held(fleet: &Fleet, node: &str, mark: &str) {
    let machine = fleet.machine(node);
    eventually(&format!("the agent of {node} is held"), SOON, async || {
        machine.read(&format!("{FOLDER}/holding-{mark}")).await.map(drop).ok_or_else(|| "it is not".to_owned())
    })
    .await;
}

/// Lets the agent of a node go, now and later.
pub async fn let_go(fleet: &Fleet, node: &str) {
    fleet.machine(node).run(&format!("rm -f {FOLDER}/hold")).await;
}

/// Lets all agents go.
pub async fn let_all_go(fleet: &Fleet) {
    fleet.on_all(&format!("rm -f {FOLDER}/hold")).await;
}
