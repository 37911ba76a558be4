//! What must be seen before a run, a batch or a machine goes on.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hook::JobTemplateRef;

/// What must be seen before a run begins, before a machine counts as updated, and before a batch counts as done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Asked before a run begins, when no machine was touched yet. One that does not pass fails nothing: the run waits for it,
    /// and the message says what it answered; its `timeoutSeconds`, `failureLimit` and `inconclusiveLimit` say nothing here.
    /// It has the kinds of gates that need no machine.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16), transform = without_machines)]
    pub preflight: Vec<Gate>,
    /// Asked for each machine after its agent converged.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub host: Vec<Gate>,
    /// Asked after each batch, the last one as well, when it has soaked; and at the end of a run that had no machine to change.
    /// One that fails stops the run as `strategy.failure.onExceeded` says. One that can not be answered does not: the run
    /// waits for an answer, or for a person. It has the kinds of gates that need no machine.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16), transform = without_machines)]
    pub batch: Vec<Gate>,
}

/// One thing that must be seen. Exactly one kind is given, such as `nodeReady` or `http`.
///
/// Each answer is one of three: passed, failed, or inconclusive: there was no answer, or none that could be judged. No answer
/// is no success. Answers are counted in the operator's memory: one that starts again counts from zero, and deadlines go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.nodeReady), has(self.nodeConditions), has(self.podsReady), has(self.http), has(self.tcp), has(self.object), has(self.prometheus), has(self.job), has(self.command)].filter(x, x).size() == 1",
    "a gate has exactly one kind, such as nodeReady, http or prometheus; write each check as a gate of its own"
))]
pub struct Gate {
    /// Names the gate in messages. Left out: what it asks for, in a few words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// The node's condition `Ready` is `True`. Write `nodeReady: {}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_ready: Option<NodeReadyGate>,
    /// The node has these conditions, such as those of the node problem detector: `{type: KernelDeadlock, status: "False"}`. A
    /// condition that the node does not have is inconclusive.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub node_conditions: Vec<NodeConditionGate>,
    /// The pods on the machine are ready. Finished pods do not count. Write `podsReady: {}` for all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pods_ready: Option<PodsReadyGate>,
    /// An HTTP request is answered with a 2xx status. Redirections are not followed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpGate>,
    /// The machine accepts a TCP connection.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tcp: Option<TcpGate>,
    /// A CEL expression over an object of the cluster is true. An object that is not there has failed; an expression in error,
    /// such as one that reads a field that is not there, is inconclusive: ask with `has()`.
    ///
    /// The operator reads Drover's kinds, ConfigMaps, Services, Deployments, ControllerRevisions, CronJobs and Jobs of its
    /// namespace, and Nodes and Pods everywhere. To let it read others, bind a Role with the verb `get` on them to its
    /// ServiceAccount `drover-operator`. Secrets are not read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<ObjectGate>,
    /// The one value that a Prometheus query gives is within bounds. No value, more than one, and NaN are inconclusive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prometheus: Option<PrometheusGate>,
    /// A Job succeeds. It is made once for each place where the gate is asked, and its end is the answer: what it retries is its
    /// template's `backoffLimit`, and the counts and limits below say nothing here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job: Option<JobGate>,
    /// A command exits with 0 on the machine, where its agent runs it as root, after it made the machine what its catalog says. It
    /// is run once for each hold on the machine, and its end is the answer; the counts and limits below say nothing here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<CommandGate>,
    /// How long to wait before it is first asked, in seconds. It counts against `timeoutSeconds`. Left out: 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 86400))]
    pub initial_delay_seconds: Option<i32>,
    /// How often it is asked, in seconds. Left out: 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
    /// How long the gate may take to pass, in seconds. Then it has failed, or is inconclusive if its last answer was. For a Job it
    /// is the Job's `activeDeadlineSeconds`. Left out: 120.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// How many times in a row it must pass. Left out: 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 1000))]
    pub success_threshold: Option<i32>,
    /// How many times it may fail: one more, and the gate has failed. Left out: as often as `timeoutSeconds` allows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i32>,
    /// How many times it may be inconclusive: one more, and the gate is. For a machine that is a failure; a run waits for a
    /// person, and goes on if the gate passes after all. Left out: as often as `timeoutSeconds` allows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 1000))]
    pub inconclusive_limit: Option<i32>,
    /// True: it is asked and told of, and decides nothing: of a batch or a run in `status.dryRunGates`, of a machine in its Host's
    /// condition `Verified`. A Job is made and not waited for. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dry_run: Option<bool>,
}

/// The node's condition `Ready` is `True`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReadyGate {}

/// A condition of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConditionGate {
    /// The condition's type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// The status that it must have: `True`, `False` or `Unknown`.
    #[schemars(length(min = 1, max = 16))]
    pub status: String,
}

/// The pods on the machine are ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodsReadyGate {
    /// Pods of this namespace only. Left out: of all namespaces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Pods with these labels only. Left out: all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<LabelSelector>,
    /// How many of them there must be at least. Left out: 0, so that a machine without such pods passes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 1000))]
    pub at_least: Option<i32>,
}

/// An HTTP request: to the machine's own address, with `port`, or to a `url`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.port) ? !has(self.url) : has(self.url) && !has(self.path) && !has(self.scheme)",
    "an http gate has a port of the machine, with path and scheme if need be, or a whole url"
))]
pub struct HttpGate {
    /// The port, on the node's InternalIP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The path, with its query. Left out: `/`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^/[!-~]*$')", "write a path that begins with a slash, without spaces; other characters as %20"))]
    pub path: Option<String>,
    /// `HTTP`, or `HTTPS`, whose certificate is not verified. Left out: `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scheme: Option<HttpScheme>,
    /// A whole URL, asked from where the operator runs. Of an `https` URL the certificate is verified. In a gate of machines
    /// `$(HOST)` stands for the Host's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://[!-~]+$')", "write a URL that begins with http:// or https://, without spaces"))]
    pub url: Option<String>,
}

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpScheme {
    /// Plain.
    Http,
    /// TLS, not verified.
    Https,
}

/// The machine accepts a TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpGate {
    /// The port, on the node's InternalIP.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A CEL expression over an object of the cluster is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.apiVersion != 'v1' || self.kind != 'Secret'", "a gate reads no Secrets"))]
pub struct ObjectGate {
    /// The object's API version, such as `apps/v1`.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// Its kind, such as `Deployment`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name. In a gate of machines `$(HOST)` stands for the Host's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, if its kind has one. Left out: the Rollout's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The expression, over `object`, which is also `self`: `object.status.readyReplicas == object.spec.replicas`. It has the
    /// functions of CEL in Kubernetes for strings, lists, sets, quantities and regular expressions, and at most four loops
    /// (`all`, `exists`, `map`, `filter`), two in one another.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
}

/// The one value that a Prometheus query gives is within bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.max) || has(self.min)", "a prometheus gate has a max or a min"))]
pub struct PrometheusGate {
    /// Where Prometheus, or what speaks as it does, is: `http://prometheus.monitoring:9090`. `/api/v1/query` is added to it.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://[!-~]+$')", "write a URL that begins with http:// or https://, without spaces"))]
    pub url: String,
    /// The query, which gives one value, now: `sum(rate(http_requests_total{code=~"5.."}[5m]))`. In a gate of machines `$(HOST)`
    /// stands for the Host's name.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The value may be this at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max: Option<f64>,
    /// The value must be this at least.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min: Option<f64>,
    /// A Secret of this namespace, each of whose keys is a header that is sent, such as `Authorization`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers_from: Option<HeadersFrom>,
}

/// A Secret of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadersFrom {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A command exits with 0 on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandGate {
    /// The program and its arguments, such as `[/usr/sbin/nginx, -t]`. No shell is started. Arguments are no place for secrets, nor
    /// is what it prints: the last 256 bytes are told in the Host's status.
    #[schemars(length(min = 1, max = 64), inner(length(max = 1024)))]
    pub argv: Vec<String>,
    /// How long it may take, in seconds; then it is killed, and the gate has failed. Left out: 30.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: Option<i32>,
}

/// A Job succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobGate {
    /// The CronJob of this namespace that the Job is made from, as a hook's.
    pub template_ref: JobTemplateRef,
}

/// What a gate that decides nothing showed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunGate {
    /// The gate.
    pub gate: String,
    /// The run.
    pub run: i64,
    /// The batch that it was asked after, from 0; absent for one that is asked before the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch: Option<i32>,
    /// `Passed`, or what it answered instead.
    pub answer: String,
}

/// Takes out of the schema of a list of gates what needs a machine.
fn without_machines(schema: &mut Schema) {
    let Some(gate) = schema.get_mut("items").and_then(Value::as_object_mut) else { return };
    let Some(kinds) = gate.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for kind in ["nodeReady", "nodeConditions", "podsReady", "tcp", "command"] {
        kinds.remove(kind);
    }
    if let Some(http) = kinds.get_mut("http").and_then(Value::as_object_mut) {
        if let Some(fields) = http.get_mut("properties").and_then(Value::as_object_mut) {
            fields.retain(|field, _| field == "url");
        }
        http.remove("x-kubernetes-validations");
        http.insert("required".to_owned(), json!(["url"]));
    }
    gate.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{
            "rule": "[has(self.http), has(self.object), has(self.prometheus), has(self.job)].filter(x, x).size() == 1",
            "message": "a gate of a run or a batch has exactly one of http, object, prometheus and job",
        }]),
    );
}

/// What a place in a URL or a query is called that the Host's name is put in.
const HOST_PLACE: &str = "$(HOST)";

impl Gates {
    /// Whether any gate is a Job.
    pub(super) fn have_jobs(&self) -> bool {
        [&self.preflight, &self.host, &self.batch].into_iter().flatten().any(|gate| gate.job.is_some())
    }
}

impl Gate {
    /// How long the gate may take to pass, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(120)
    }

    /// How often it is asked, in seconds.
    pub fn resolved_period_seconds(&self) -> i32 {
        self.period_seconds.unwrap_or(2)
    }

    /// How long to wait before it is first asked, in seconds.
    pub fn resolved_initial_delay_seconds(&self) -> i32 {
        self.initial_delay_seconds.unwrap_or(0)
    }

    /// How many times in a row it must pass.
    pub fn resolved_success_threshold(&self) -> u32 {
        u32::try_from(self.success_threshold.unwrap_or(1)).unwrap_or(1).max(1)
    }

    /// Whether it decides nothing.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// The gate in a few words, for messages.
    pub fn describe(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        if let Some(http) = &self.http {
            return http.describe();
        }
        if let Some(command) = &self.command {
            return format!("command {}", command.argv.first().map_or("", String::as_str));
        }
        if let Some(object) = &self.object {
            return format!("{} {}", object.kind, object.name);
        }
        let kinds = BTreeMap::from([
            ("nodeReady", self.node_ready.is_some()),
            ("nodeConditions", !self.node_conditions.is_empty()),
            ("podsReady", self.pods_ready.is_some()),
            ("prometheus", self.prometheus.is_some()),
        ]);
        match (kinds.into_iter().find(|(_, given)| *given), &self.tcp, &self.job) {
            (Some((kind, _)), _, _) => kind.to_owned(),
            (_, Some(tcp), _) => format!("tcp :{}", tcp.port),
            (_, _, Some(job)) => format!("job {}", job.template_ref.name),
            (None, None, None) => "of a kind that this release does not know".to_owned(),
        }
    }
}

impl CommandGate {
    /// How long it may take, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(30)
    }
}

impl HttpGate {
    fn describe(&self) -> String {
        match (&self.url, self.port) {
            (Some(url), _) => format!("http {url}"),
            (None, port) => format!("http :{}{}", port.unwrap_or_default(), self.resolved_path()),
        }
    }

    /// The path.
    pub fn resolved_path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// The scheme.
    pub fn resolved_scheme(&self) -> HttpScheme {
        self.scheme.unwrap_or(HttpScheme::Http)
    }
}

/// The text with the Host's name in its places, if there is a Host.
pub fn with_host(text: &str, host: Option<&str>) -> String {
    host.map_or_else(|| text.to_owned(), |host| text.replace(HOST_PLACE, host))
}
