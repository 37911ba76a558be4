//! What must be seen before a run, a batch or a machine goes on.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What must be seen before a machine counts as updated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Asked for each machine after its agent converged. All must pass.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16))]
    pub host: Vec<Gate>,
}

/// One thing that must be seen. Exactly one of `nodeReady` and `http` is given. No answer is no success.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.nodeReady) != has(self.http)", "a gate has exactly one of nodeReady and http; write each check as a gate of its own"))]
pub struct Gate {
    /// The node's condition `Ready` is `True`. Write `nodeReady: {}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node_ready: Option<NodeReadyGate>,
    /// An HTTP request to the machine is answered with a 2xx status.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpGate>,
    /// How long the gate may take to pass, in seconds; then the machine has failed. Left out: 120.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
    /// How often it is asked, in seconds. Left out: 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
}

/// The node's condition `Ready` is `True`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReadyGate {}

/// An HTTP request to the machine's own address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGate {
    /// The port, on the node's InternalIP.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path, with its query. Left out: `/`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^/[!-~]*$')", "write a path that begins with a slash, without spaces; other characters as %20"))]
    pub path: Option<String>,
    /// `HTTP`, or `HTTPS`, whose certificate is not verified. Left out: `HTTP`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scheme: Option<HttpScheme>,
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

impl Gate {
    /// How long the gate may take to pass, in seconds.
    pub fn resolved_timeout_seconds(&self) -> i32 {
        self.timeout_seconds.unwrap_or(120)
    }

    /// How often it is asked, in seconds.
    pub fn resolved_period_seconds(&self) -> i32 {
        self.period_seconds.unwrap_or(2)
    }

    /// The gate in a few words, for messages.
    pub fn describe(&self) -> String {
        match (&self.node_ready, &self.http) {
            (_, Some(http)) => http.describe(),
            (Some(_), None) => "nodeReady".to_owned(),
            (None, None) => "an empty gate".to_owned(),
        }
    }
}

impl HttpGate {
    fn describe(&self) -> String {
        format!("http :{}{}", self.port, self.resolved_path())
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
