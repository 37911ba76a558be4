//! What happens to Rollouts: each scenario sets up its objects, plays the people, and waits for its end by watching.
//!
//! People and machines act while nothing can be admitted, because the machine under way has not reported yet: so a run
//! goes the same way each time, and a version that breaks a limit is the operator's.

use anyhow::Context as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    history::Kind,
    world::{App, MOST_MACHINES, PATIENCE, World},
};

/// One of them.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// How many machines there are at its beginning.
    pub(crate) machines: u32,
    /// What runs on the machines.
    pub(crate) app: App,
    /// What is so before it begins: faults come after it.
    pub(crate) before: for<'a> fn(&'a World) -> BoxFuture<'a, anyhow::Result<()>>,
    /// What happens, up to the end.
    pub(crate) play: for<'a> fn(&'a World) -> BoxFuture<'a, anyhow::Result<()>>,
}

macro_rules! scenario {
    ($name:literal, $machines:literal, $app:expr, $play:expr) => {
        scenario!($name, $machines, $app, nothing, $play)
    };
    ($name:literal, $machines:literal, $app:expr, $before:expr, $play:expr) => {
        Scenario {
            name: $name,
            machines: $machines,
            app: $app,
            before: |world| Box::pin($before(world)),
            play: |world| Box::pin($play(world)),
        }
    };
}

/// All of them.
pub(crate) const ALL: &[Scenario] = &[
    scenario!("success", 3, App::Spread, success),
    scenario!("own-cordon", 2, App::None, cordon_one, own_cordon),
    scenario!("gate-failure", 2, App::None, gate_failure),
    scenario!("drain-blocked", 2, App::Stubborn, drain_blocked),
    scenario!("pause-resume", 2, App::None, pause_resume),
    scenario!("delete", 2, App::None, delete),
    scenario!("membership", 2, App::None, membership),
    scenario!("supersede", 2, App::None, supersede),
    scenario!("rivals", 2, App::None, rivals),
    scenario!("rollback", 2, App::None, first_revision, rollback),
    scenario!("abort", 2, App::None, abort),
    scenario!("dependency", 2, App::None, dependency),
    scenario!("hooks", 2, App::None, tasks, hooks),
    scenario!("one-by-one", 3, App::None, one_by_one),
];

#[allow(clippy::unused_async, reason = "others of its kind prepare something")]
async fn nothing(_: &World) -> anyhow::Result<()> {
    Ok(())
}

/// Everything at once: batches, two machines at a time, load balancer, drain, a gate.
async fn success(world: &World) -> anyhow::Result<()> {
    // The machines of the second batch are under way at the same time.
    world.agents.hold([world.machine(2), world.machine(3)]);
    config(world, "base", "one").await?;
    let spec = json!({
        "strategy": {
            "maxParallel": 2, "maxUnavailable": 2,
            "batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": "100%"}],
        },
        "disruption": service(60),
        "gates": {"host": [{"nodeReady": {}}]},
    });
    rollout(world, "base", spec).await?;
    until_step(world, 2, "Apply").await?;
    until_step(world, 3, "Apply").await?;
    world.agents.let_go();
    until_phase(world, "base", "Complete").await
}

async fn cordon_one(world: &World) -> anyhow::Result<()> {
    world.patch(Kind::Node, &world.machine(2), json!({"spec": {"unschedulable": true}})).await?;
    Ok(())
}

/// An administrator's cordon stays.
async fn own_cordon(world: &World) -> anyhow::Result<()> {
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"strategy": {"maxUnavailable": 2}, "disruption": service(60)})).await?;
    until_phase(world, "base", "Complete").await
}

/// Nobody answers the gate.
async fn gate_failure(world: &World) -> anyhow::Result<()> {
    config(world, "base", "one").await?;
    let gate = json!({"http": {"port": 1}, "timeoutSeconds": 1, "periodSeconds": 1});
    rollout(world, "base", json!({"disruption": service(60), "gates": {"host": [gate]}})).await?;
    until_phase(world, "base", "Failed").await
}

/// A budget does not let the pod go.
async fn drain_blocked(world: &World) -> anyhow::Result<()> {
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(1)})).await?;
    until_phase(world, "base", "Failed").await
}

/// Paused while a machine is under way, and resumed.
async fn pause_resume(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(60)})).await?;
    until_step(world, 1, "Apply").await?;
    world.patch(Kind::Rollout, "base", json!({"spec": {"paused": true}})).await?;
    world.agents.let_go();
    until_phase(world, "base", "Paused").await?;
    world.patch(Kind::Rollout, "base", json!({"spec": {"paused": false}})).await?;
    until_phase(world, "base", "Complete").await
}

/// Deleted while a machine is out of service.
async fn delete(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(60)})).await?;
    until_step(world, 1, "Apply").await?;
    world.delete(Kind::Rollout, "base").await?;
    world
        .history
        .until("the Rollout is gone", PATIENCE, |log| log.get(Kind::Rollout, "base").is_none().then_some(()))
        .await?;
    world.agents.let_go();
    Ok(())
}

/// The machine under way is made again, another one as well, and one joins.
async fn membership(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(60)})).await?;
    until_step(world, 1, "Apply").await?;
    made_again(world, 2).await?;
    world.add_machine(3).await?;
    until_host(world, 3).await?;
    made_again(world, 1).await?;
    world.agents.let_go();
    until_phase(world, "base", "Complete").await?;
    // A machine that joins late is part of it, too.
    let all =
        |log: &crate::history::Log| (log.get(Kind::Rollout, "base")?["status"]["counts"]["updated"] == 3).then_some(());
    world.history.until("all three are updated", PATIENCE, all).await?;
    until_phase(world, "base", "Complete").await
}

/// A newer revision comes while a machine is under way to one that fails.
async fn supersede(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(60)})).await?;
    until_step(world, 1, "Apply").await?;
    let first = until_revision(world, "base", "").await?;
    world.agents.fail(world.machine(1), &first);
    config(world, "base", "two").await?;
    let second = until_revision(world, "base", &first).await?;
    world.agents.let_go();
    let done = |log: &crate::history::Log| {
        let status = &log.get(Kind::Rollout, "base")?["status"];
        (status["phase"] == "Complete" && status["run"]["revision"] == second.as_str()).then_some(())
    };
    world.history.until("the second revision is everywhere", PATIENCE, done).await
}

/// Two Rollouts want the same machines.
async fn rivals(world: &World) -> anyhow::Result<()> {
    for name in ["first", "second"] {
        config(world, name, "one").await?;
        rollout(world, name, json!({"strategy": {"maxParallel": 2, "maxUnavailable": 2}})).await?;
    }
    until_phase(world, "first", "Complete").await?;
    until_phase(world, "second", "Complete").await
}

fn everybody(world: &World) -> impl Iterator<Item = String> {
    (1..=MOST_MACHINES).map(|number| world.machine(number))
}

async fn first_revision(world: &World) -> anyhow::Result<()> {
    config(world, "base", "one").await?;
    let spec = json!({
        "strategy": {"maxUnavailable": 2, "failure": {"onExceeded": "Rollback"}}, "disruption": service(60),
    });
    rollout(world, "base", spec).await?;
    until_phase(world, "base", "Complete").await?;
    let known = |log: &crate::history::Log| {
        (!log.get(Kind::NodeConfig, "base")?["status"]["completedRevision"].is_null()).then_some(())
    };
    world.history.until("the first revision is known to be complete", PATIENCE, known).await
}

/// The second machine fails, and the first one gets back what it had.
async fn rollback(world: &World) -> anyhow::Result<()> {
    let first = until_revision(world, "base", "").await?;
    world.agents.hold(everybody(world));
    config(world, "base", "two").await?;
    let second = until_revision(world, "base", &first).await?;
    world.agents.fail(world.machine(2), &second);
    world.agents.let_go();
    until_phase(world, "base", "RolledBack").await
}

/// Aborted by a person while a machine is under way.
async fn abort(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"disruption": service(60)})).await?;
    until_step(world, 1, "Apply").await?;
    world.patch(Kind::Rollout, "base", json!({"metadata": {"annotations": {"drover.dev/abort": "1"}}})).await?;
    let stopped = |log: &crate::history::Log| {
        (!log.get(Kind::Rollout, "base")?["status"]["run"]["stopped"].is_null()).then_some(())
    };
    world.history.until("the run is stopped", PATIENCE, stopped).await?;
    world.agents.let_go();
    until_phase(world, "base", "Aborted").await
}

/// One Rollout comes after another one, which comes into being later.
async fn dependency(world: &World) -> anyhow::Result<()> {
    world.agents.hold(everybody(world));
    config(world, "web", "one").await?;
    rollout(world, "web", json!({"dependsOn": [{"name": "database"}]})).await?;
    let waits = |log: &crate::history::Log| {
        (log.get(Kind::Rollout, "web")?["status"]["display"]["blocked"] == "Rollout").then_some(())
    };
    world.history.until("Rollout web waits for the other one", PATIENCE, waits).await?;
    config(world, "database", "one").await?;
    rollout(world, "database", json!({})).await?;
    until_step(world, 1, "Apply").await?;
    world.agents.let_go();
    until_phase(world, "database", "Complete").await?;
    until_phase(world, "web", "Complete").await
}

async fn tasks(world: &World) -> anyhow::Result<()> {
    world.apply_task("task").await
}

/// Jobs before and after the run and each machine.
async fn hooks(world: &World) -> anyhow::Result<()> {
    let hook = |name| json!([{"name": name, "jobTemplateRef": {"name": "task"}}]);
    let hooks = json!({
        "beforeRun": hook("migrate"), "beforeHost": hook("leave"), "afterHost": hook("join"), "afterRun": hook("smoke"),
    });
    config(world, "base", "one").await?;
    rollout(world, "base", json!({"hooks": hooks})).await?;
    until_phase(world, "base", "Complete").await
}

/// The first machine fails, which may be: the next ones go one by one until one succeeds.
async fn one_by_one(world: &World) -> anyhow::Result<()> {
    config(world, "base", "one").await?;
    let revision = until_revision(world, "base", "").await?;
    world.agents.fail(world.machine(1), &revision);
    world.agents.hold([world.machine(2), world.machine(3)]);
    let spec = json!({
        "strategy": {
            "maxParallel": 2, "maxUnavailable": 3, "failure": {"maxFailed": 1},
            "batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": "100%"}],
        },
    });
    rollout(world, "base", spec).await?;
    until_step(world, 2, "Apply").await?;
    world.agents.let_go();
    until_phase(world, "base", "Failed").await
}

/// How machines leave service: load balancer, and a drain that may take this long.
fn service(drain_seconds: u32) -> Value {
    json!({"loadBalancer": {"settleSeconds": 0}, "drain": {"timeoutSeconds": drain_seconds}})
}

async fn config(world: &World, name: &str, content: &str) -> anyhow::Result<()> {
    let file = json!({"name": "motd", "file": {"path": format!("/etc/{name}"), "content": content}});
    let object = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig",
        "metadata": {"name": name, "namespace": world.namespace}, "spec": {"resources": [file]},
    });
    world.apply(Kind::NodeConfig, object).await
}

async fn rollout(world: &World, name: &str, mut spec: Value) -> anyhow::Result<()> {
    spec["nodeConfigRef"] = json!({"name": name});
    let object = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": name, "namespace": world.namespace}, "spec": spec,
    });
    world.apply(Kind::Rollout, object).await
}

async fn until_phase(world: &World, name: &str, phase: &str) -> anyhow::Result<()> {
    let so = |log: &crate::history::Log| (log.get(Kind::Rollout, name)?["status"]["phase"] == phase).then_some(());
    world.history.until(&format!("Rollout {name} is {phase}"), PATIENCE, so).await
}

async fn until_step(world: &World, machine: u32, step: &str) -> anyhow::Result<()> {
    let machine = world.machine(machine);
    let so =
        |log: &crate::history::Log| (log.get(Kind::Host, &machine)?["status"]["claim"]["step"] == step).then_some(());
    world.history.until(&format!("{machine} is at step {step}"), PATIENCE, so).await
}

/// The NodeConfig's newest revision, once it is another one.
async fn until_revision(world: &World, name: &str, old: &str) -> anyhow::Result<String> {
    let newer = |log: &crate::history::Log| {
        let revision = log.get(Kind::NodeConfig, name)?["status"]["revision"].as_str()?;
        (revision != old).then(|| revision.to_owned())
    };
    world.history.until(&format!("NodeConfig {name} has a revision other than '{old}'"), PATIENCE, newer).await
}

/// The machine's Host stands for the Node that is there now.
async fn until_host(world: &World, machine: u32) -> anyhow::Result<()> {
    let machine = world.machine(machine);
    let so = |log: &crate::history::Log| {
        let (host, node) = (log.get(Kind::Host, &machine)?, log.get(Kind::Node, &machine)?);
        (host["spec"]["nodeRef"]["uid"] == node["metadata"]["uid"]).then_some(())
    };
    world.history.until(&format!("{machine} has a Host"), PATIENCE, so).await
}

/// The Node is deleted and comes again under its name, once nobody speaks of the old one any more.
async fn made_again(world: &World, machine: u32) -> anyhow::Result<()> {
    let name = world.machine(machine);
    let old = world.history.log().get(Kind::Host, &name).map(|host| host["metadata"]["uid"].clone());
    let old = old.context("a machine without a Host")?;
    world.remove_machine(machine).await?;
    let gone = |log: &crate::history::Log| {
        let left = log.get(Kind::Host, &name).is_some_and(|host| host["metadata"]["uid"] == old);
        (!left && log.get(Kind::Node, &name).is_none()).then_some(())
    };
    world.history.until(&format!("the Host of {name} is gone"), PATIENCE, gone).await?;
    world.add_machine(machine).await?;
    until_host(world, machine).await
}
