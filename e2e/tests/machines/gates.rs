//! Order of operations: a migration before the machines, one tier before the other, a smoke test after each batch.

use std::collections::BTreeMap;

use drover_crds::{Rollout, RolloutPhase, keys};
use drover_e2e::{Fleet, NODES, cluster::delete, fleet::NAMESPACE, machine::FOLDER, story, web::Web};
use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::{Pod, Service},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::{Value, json};

use crate::{everywhere, file, files};

/// A CronJob that never runs by itself, whose Job runs this script.
async fn template(fleet: &Fleet, name: &str, script: &str) {
    let container = json!({
        "name": name, "image": "localhost/herd-web:dev", "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/busybox", "sh", "-c", script],
    });
    let pod = json!({"restartPolicy": "Never", "containers": [container]});
    let object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {
            "backoffLimit": 0, "template": {"spec": pod},
        }}},
    });
    fleet.cluster.apply(&fleet.api::<CronJob>(), &object).await;
}

/// The Jobs that were made for a Rollout, by the name of their first container, in the order in which they were made.
async fn jobs(fleet: &Fleet, rollout: &str) -> Vec<(String, Job)> {
    let labels = format!("{}={rollout}", keys::ROLLOUT_LABEL);
    let mut jobs = fleet.api::<Job>().list(&ListParams::default().labels(&labels)).await.unwrap().items;
    jobs.sort_by_key(|job| (job.metadata.creation_timestamp.clone().map(|time| time.0), job.name_any()));
    let container = |job: &Job| job.spec.as_ref()?.template.spec.as_ref()?.containers.first().map(|c| c.name.clone());
    jobs.into_iter().map(|job| (container(&job).unwrap_or_default(), job)).collect()
}

/// How many Jobs there are of each template.
async fn made(fleet: &Fleet, rollout: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (template, _) in jobs(fleet, rollout).await {
        *counts.entry(template).or_default() += 1;
    }
    counts
}

async fn log_of(fleet: &Fleet, job: &Job) -> String {
    let pods = fleet.api::<Pod>();
    let labels = format!("batch.kubernetes.io/job-name={}", job.name_any());
    let pod = pods.list(&ListParams::default().labels(&labels)).await.unwrap().items.remove(0);
    pods.logs(&pod.name_any(), &LogParams::default()).await.unwrap()
}

fn of(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(template, count)| ((*template).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_migration_then_the_web_tier_then_a_smoke_test_after_each_batch() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        template(fleet, "migrate", "echo run $DROVER_RUN of $DROVER_ROLLOUT to $DROVER_REVISION").await;
        let service = fleet.cluster.client.clone();
        let service = Api::<Service>::namespaced(service, "default").get("web").await.unwrap().spec.unwrap();
        let (address, port) = (service.cluster_ip.unwrap(), service.ports.unwrap()[0].port);
        let asks = format!("/bin/busybox wget -q -O /dev/null http://{address}:{port}/ && echo batch $DROVER_BATCH");
        template(fleet, "smoke", &asks).await;

        // The web tier comes after the database, which is paused.
        let database = fleet.configure("database", json!([file("schema", "2")])).await;
        let hook = json!([{"name": "migrate", "jobTemplateRef": {"name": "migrate"}}]);
        fleet.roll("database", json!({"paused": true, "hooks": {"beforeRun": hook}})).await;
        let first = fleet.configure("tier", json!([file("tier", "1")])).await;
        let smoke = json!({"name": "smoke", "job": {"templateRef": {"name": "smoke"}}, "timeoutSeconds": 60});
        let deployed = json!({"name": "all serve", "object": {
            "apiVersion": "v1", "kind": "Node", "name": "$(HOST)",
            "expression": "object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')",
        }});
        let agents = json!({"name": "agent", "podsReady": {
            "namespace": NAMESPACE, "selector": {"matchLabels": {"app.kubernetes.io/component": "agent"}}, "atLeast": 1,
        }});
        let kubelet = json!({"tcp": {"port": 10250}, "successThreshold": 2, "periodSeconds": 1});
        let metric = json!({"name": "errors", "dryRun": true, "prometheus": {
            "url": "http://prometheus.invalid:9090", "query": "sum(rate(errors[5m]))", "max": 0.01,
        }});
        let spec = json!({
            "dependsOn": [{"name": "database"}],
            "strategy": {"batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": 2}],
                "failure": {"onExceeded": "Rollback"}},
            "gates": {"host": [deployed, agents, kubelet], "batch": [smoke, metric]},
        });
        fleet.roll("tier", spec).await;
        let waits = |message: &str| message.contains("waits for Rollout database");
        fleet
            .rollout_until("tier", "waiting for the database", |status| status.message.as_deref().is_some_and(waits))
            .await;
        assert_eq!(files(fleet, "tier").await, [None, None, None]);
        assert_eq!(made(fleet, "database").await, of(&[]), "a Rollout that is paused makes no Job");

        fleet.edit_rollout("database", json!({"paused": false})).await;
        let database_done = fleet.completes("database", &database).await;
        let status = fleet.completes("tier", &first).await;
        assert_eq!(files(fleet, "tier").await, everywhere("1"));

        // In which order: the migration ended before the first machine of the database was begun, which was done before the
        // first machine of the web tier.
        assert_eq!(made(fleet, "database").await, of(&[("migrate", 1)]));
        let (_, migration) = jobs(fleet, "database").await.remove(0);
        assert_eq!(log_of(fleet, &migration).await.trim(), format!("run 1 of database to {database}"));
        let migrated = migration.status.unwrap().completion_time.unwrap().0;
        let begun = async |rollout: &str| {
            let mut times = vec![];
            for node in NODES {
                let host = fleet.api::<drover_crds::Host>().get(node).await.unwrap().status.unwrap();
                let record = host.runs.into_iter().find(|record| record.rollout == rollout).unwrap();
                times.push((record.started_at.unwrap().0, record.finished_at.0));
            }
            times.sort();
            times
        };
        let (in_database, in_tier) = (begun("database").await, begun("tier").await);
        assert!(migrated <= in_database[0].0, "{migrated} {in_database:?}");
        assert!(in_database[2].1 <= in_tier[0].0, "{in_database:?} {in_tier:?}");
        assert!(database_done.run.unwrap().finished_at.unwrap().0 <= in_tier[0].0);
        let smokes = jobs(fleet, "tier").await;
        assert_eq!(smokes.len(), 2);
        let between = smokes[0].1.status.as_ref().unwrap().completion_time.clone().unwrap().0;
        assert!(in_tier[0].1 <= between && between <= in_tier[1].0, "{in_tier:?} {between}");
        for (batch, (_, job)) in smokes.iter().enumerate() {
            assert!(log_of(fleet, job).await.trim().ends_with(&format!("batch {batch}")));
        }
        let dry = &status.dry_run_gates[0];
        assert_eq!((dry.gate.as_str(), dry.batch), ("errors", Some(1)));
        assert!(dry.answer.starts_with("inconclusive: "), "{dry:?}");

        // A change that the smoke test does not like goes back, and no second batch is begun.
        template(fleet, "smoke", "echo no; exit 3").await;
        let second = fleet.configure("tier", json!([file("tier", "2")])).await;
        let status = fleet
            .rollout_until("tier", "rolled back", |status| {
                status.phase == Some(RolloutPhase::RolledBack)
                    && status.run.as_ref().is_some_and(|run| run.revision == second)
            })
            .await;
        let message = status.message.unwrap();
        assert!(message.starts_with("gate smoke failed: BackoffLimitExceeded"), "{message}");
        assert_eq!(files(fleet, "tier").await, everywhere("1"));
        assert_eq!(status.counts.unwrap().rolled_back, 1);
        // Those of the run before are gone.
        assert_eq!(made(fleet, "tier").await, of(&[("smoke", 1)]));

        delete(&fleet.api::<Rollout>(), "tier").await;
        for name in ["migrate", "smoke"] {
            delete(&fleet.api::<CronJob>(), name).await;
        }
        drop(web);
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_fails_before_a_machine_leaves_it_in_service_and_unchanged() {
    story(async |fleet| {
        let first = fleet.configure("base", json!([file("motd", "1")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &first).await;

        // Two machines are let go; of the third the hook fails.
        template(fleet, "ask", "echo $DROVER_HOST; [ $DROVER_HOST != node-3 ]").await;
        let hook = |place: &str| (place.to_owned(), json!([{"name": "ask", "jobTemplateRef": {"name": "ask"}}]));
        let hooks: Value = ["beforeHost", "afterHost"].map(hook).into_iter().collect::<serde_json::Map<_, _>>().into();
        let batches = json!([{"hosts": ["node-1", "node-2"]}, {"hosts": ["node-3"]}]);
        fleet.roll("base", json!({"hooks": hooks, "strategy": {"batches": batches}})).await;
        fleet.configure("base", json!([file("motd", "2")])).await;
        let status = fleet.rollout_until("base", "Failed", |status| status.phase == Some(RolloutPhase::Failed)).await;

        let failure = &status.failures[0];
        assert_eq!((status.failures.len(), failure.host.as_str()), (1, "node-3"));
        assert!(
            failure.message.starts_with("hook ask (beforeHost) failed: BackoffLimitExceeded"),
            "{}",
            failure.message
        );
        assert_eq!(files(fleet, "motd").await, ["2", "2", "1"].map(|content| Some(content.to_owned())));
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
        // What succeeded is tidied up; what failed can be looked at.
        assert_eq!(made(fleet, "base").await, of(&[("ask", 1)]));
        delete(&fleet.api::<CronJob>(), "ask").await;
    })
    .await;
}

#[tokio::test]
async fn a_command_on_the_machine_is_a_gate() {
    story(async |fleet| {
        let path = format!("{FOLDER}/motd");
        let counted = format!("echo ran >> {FOLDER}/ran; grep -q good {path}");
        let gate = json!({"name": "motd", "command": {"argv": ["/bin/sh", "-c", counted]}});
        let good = fleet.configure("base", json!([file("motd", "good")])).await;
        fleet.roll("base", json!({"gates": {"host": [gate]}})).await;
        fleet.completes("base", &good).await;
        assert_eq!(files(fleet, "ran").await, everywhere("ran\n"), "once on each");

        let says = json!({"name": "motd", "command": {"argv": ["/bin/sh", "-c", format!("cat {path} >&2; exit 4")]}});
        fleet.roll("base", json!({"gates": {"host": [says]}})).await;
        fleet.configure("base", json!([file("motd", "wrong")])).await;
        let status = fleet.rollout_until("base", "Failed", |status| status.phase == Some(RolloutPhase::Failed)).await;
        assert_eq!((status.failures.len(), status.failures[0].message.as_str()), (1, "gate motd exited with 4: wrong"));
    })
    .await;
}
