//! The same writes without anybody who thinks: of the same kinds, in the same order, of the same size, to the same API
//! server. Whoever does them can not be faster, with as many requests open at once.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Stretch,
    audit::{self, Write},
};

/// What `drover-herd floor` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many requests are open at once; those for one object keep their order.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// How many entries the ledger has.
    #[arg(long)]
    in_flight: usize,
    #[command(flatten)]
    audit: Stretch,
}

/// How long it took.
#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    seconds: f64,
    writes: usize,
    at_once: usize,
}

/// Sends them.
pub(crate) async fn send(options: &Options, client: Client, namespace: &str) -> anyhow::Result<Sent> {
    let writes = audit::writes(&options.audit)?;
    let floor = Floor::new(client, namespace, options.in_flight);
    let mut objects = floor.objects().await?;
    // One queue for each object, in the order of their first write.
    let mut queues: Vec<(Option<DynamicObject>, Vec<(usize, Write)>)> = vec![];
    let mut index: HashMap<(String, String), usize> = HashMap::new();
    let mut count = 0;
    for (number, write) in writes.into_iter().enumerate().filter(|(_, write)| write.code < 300) {
        let resource = write.resource.split('/').next().unwrap_or_default().to_owned();
        let key = (resource, write.name.clone());
        let queue = *index.entry(key.clone()).or_insert_with(|| {
            queues.push((objects.remove(&key), vec![]));
            queues.len() - 1
        });
        if let Some(queue) = queues.get_mut(queue) {
            queue.1.push((number, write));
            count += 1;
        }
    }
    let floor = &floor;
    let began = Instant::now();
    if options.at_once <= 1 {
        let mut order: BTreeMap<usize, (usize, Write)> = BTreeMap::new();
        for (queue, (_, writes)) in queues.iter_mut().enumerate() {
            order.extend(writes.drain(..).map(|(number, write)| (number, (queue, write))));
        }
        for (number, (queue, write)) in order {
            if let Some((object, _)) = queues.get_mut(queue) {
                floor.write(&write, object, number).await?;
            }
        }
    } else {
        stream::iter(queues)
            .map(|(mut object, writes)| async move {
                for (number, write) in writes {
                    floor.write(&write, &mut object, number).await?;
                }
                anyhow::Ok(())
            })
            .buffer_unordered(options.at_once)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(Sent { seconds: began.elapsed().as_secs_f64(), writes: count, at_once: options.at_once })
}

struct Floor {
    hosts: Api<DynamicObject>,
    rollouts: Api<DynamicObject>,
    configs: Api<DynamicObject>,
    nodes: Api<DynamicObject>,
    in_flight: usize,
}

impl Floor {
    fn new(client: Client, namespace: &str, in_flight: usize) -> Self {
        let ours = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("drover.dev", "v1alpha1", kind));
        let api = |kind| Api::namespaced_with(client.clone(), namespace, &ours(kind));
        let nodes = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
        Self {
            hosts: api("Host"),
            rollouts: api("Rollout"),
            configs: api("NodeConfig"),
            nodes: Api::all_with(client.clone(), &nodes),
            in_flight,
        }
    }

    /// What is written to, as it is now.
    async fn objects(&self) -> anyhow::Result<HashMap<(String, String), DynamicObject>> {
        let mut found = HashMap::new();
        for (resource, api) in [("hosts", &self.hosts), ("rollouts", &self.rollouts), ("nodeconfigs", &self.configs)] {
            let mut params = ListParams::default().limit(500);
            loop {
                let page = api.list(&params).await.with_context(|| format!("cannot list {resource}"))?;
                found.extend(page.items.into_iter().map(|object| ((resource.to_owned(), object.name_any()), object)));
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(found)
    }

    /// One write. The object becomes what the API server answers. Each changes something, as one that does not is not stored.
    async fn write(&self, write: &Write, object: &mut Option<DynamicObject>, number: usize) -> anyhow::Result<()> {
        let (verb, resource) = (write.verb.as_str(), write.resource.as_str());
        let params = PostParams::default();
        let apply = PatchParams::apply(&write.manager).force();
        let answer = match (verb, resource, object.as_mut()) {
            ("update", "hosts/status", Some(host)) => {
                host.data["status"]["claim"] = claim(&write.name, number);
                self.hosts.replace_status(&write.name, &params, host).await
            }
            ("update", "rollouts/status", Some(rollout)) => {
                let entries = (0..self.in_flight).map(entry).collect::<Vec<_>>();
                rollout.data["status"]["inFlight"] = json!(entries);
                rollout.data["status"]["message"] = json!(format!("write {number}"));
                self.rollouts.replace_status(&write.name, &params, rollout).await
            }
            ("patch", "hosts/status", Some(host)) => {
                let body = json!({"apiVersion": "drover.dev/v1alpha1", "kind": "Host", "status": applied(write, host, number)});
                self.hosts.patch_status(&write.name, &apply, &Patch::Apply(body)).await
            }
            ("patch", "nodeconfigs/status", Some(_)) => {
                let status = json!({"message": format!("write {number}")});
                let body = json!({"apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "status": status});
                self.configs.patch_status(&write.name, &apply, &Patch::Apply(body)).await
            }
            ("patch", "nodes", _) => {
                let body = json!({"metadata": {"annotations": {"drover.dev/floor": number.to_string()}}});
                self.nodes.patch(&write.name, &PatchParams::default(), &Patch::Merge(body)).await
            }
            _ => return Ok(()),
        };
        *object = Some(answer.with_context(|| format!("{} {}", write.kind(), write.name))?);
        Ok(())
    }
}

/// The fields that this manager applies, as they are on the host, but for one word.
fn applied(write: &Write, host: &DynamicObject, number: usize) -> Value {
    let status = &host.data["status"];
    let conditions = |types: &[&str]| {
        let all = status["conditions"].as_array().into_iter().flatten();
        all.filter(|condition| types.iter().any(|type_| condition["type"] == *type_)).cloned().collect::<Vec<_>>()
    };
    match write.manager.as_str() {
        "drover-master-report" => {
            let mut active = status["active"].clone();
            active["message"] = json!(format!("write {number}: content changed; content changed; content changed"));
            json!({"active": active, "conditions": conditions(&["Applied", "Drifted"])})
        }
        _ => json!({
            "observedGeneration": status["observedGeneration"], "phase": status["phase"], "display": status["display"],
            "message": format!("Rollout base is at step {number}"),
            "conditions": conditions(&["Ready", "Reconciling", "Stalled"]),
        }),
    }
}

fn claim(host: &str, number: usize) -> Value {
    json!({
        "rollout": "base", "rolloutUid": "7d9a4a3e-6b3c-4b63-9f1d-3c1c5b1f0001", "run": 1, "batch": 1,
        "token": format!("base.7d9a4a3e.3c1c5b1f.{number}.{host}"), "step": "Apply", "stepStartedAt": "2026-01-01T00:00:00Z",
        "target": {"nodeConfig": "base", "revision": "base-0123456789"},
    })
}

fn entry(number: usize) -> Value {
    json!({
        "host": format!("node-{number}"), "uid": format!("7d9a4a3e-6b3c-4b63-9f1d-{number:012}"), "batch": 1,
        "token": format!("base.7d9a4a3e.3c1c5b1f.1.node-{number}"), "revision": "base-0123456789",
        "since": "2026-01-01T00:00:00Z", "step": "Apply",
    })
}
