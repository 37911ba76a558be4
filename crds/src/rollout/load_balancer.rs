//! How a machine leaves load balancers, and comes back to them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ContentSource, KeyRef};

/// Takes a machine out of load balancers: the cluster's by a label of the node, others by `steps`. It comes back to them
/// when it is given back, in the opposite order, on success and on failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// True: the node gets the label `node.kubernetes.io/exclude-from-external-load-balancers` while it is out of service.
    /// Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exclude: Option<bool>,
    /// How long load balancers get to notice before pods are evicted, in seconds. Where HAProxy alone is told, its server
    /// may be without sessions earlier, and that is enough. Left out: 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 3600))]
    pub settle_seconds: Option<i32>,
    /// Load balancers outside the cluster, told one after the other. Each is recorded in the Host's `status.claim` before it
    /// is told, so that it is told that the machine is back, whatever happens meanwhile. Telling it twice must do no harm:
    /// after a crash of the operator it is told again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<LoadBalancerStep>,
    /// How long it may take until all of `steps` did what was asked, in seconds. One that fails is told again, at longer
    /// and longer intervals; then the machine has failed and is given back unchanged. When it comes back, it is waited for
    /// without a limit, and the status says so. Left out: 300.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
}

/// A load balancer outside the cluster. Exactly one of `http` and `haproxy` is given. `{{ host.name }}` and
/// `{{ host.address }}` (the node's InternalIP) stand for the machine where a field says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.http) != has(self.haproxy)",
    "a step has exactly one of http and haproxy; write each load balancer as a step of its own"
))]
pub struct LoadBalancerStep {
    /// What it is called in messages.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// It is told by HTTP requests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpLoadBalancer>,
    /// It is an HAProxy, told by its runtime API.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub haproxy: Option<Haproxy>,
}

/// A load balancer that is told by HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpLoadBalancer {
    /// Tells it to send nothing to the machine.
    pub leave: HttpCall,
    /// Tells it that the machine is back.
    #[serde(rename = "return")]
    pub return_: HttpCall,
    /// The authorities whose certificate it must have. Left out: those of the operator's own system, of which its container
    /// image has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca_from: Option<ContentSource>,
}

/// An HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCall {
    /// Left out: `POST`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<HttpMethod>,
    /// Where to; `{{ host.name }}` and `{{ host.address }}` stand for the machine. It is shown in messages, so it must not
    /// hold a secret. Redirections are not followed.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://')", "write a URL that begins with http:// or https://"))]
    pub url: String,
    /// What is sent, as `application/json`; `{{ host.name }}` and `{{ host.address }}` stand for the machine. Left out:
    /// nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
    /// Headers whose values are in Secrets of this namespace, such as `Authorization`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 8))]
    pub headers_from: Vec<HeaderFrom>,
    /// The status codes that mean that it was done. Left out: 200 to 299.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 16), inner(range(min = 100, max = 599)))]
    pub expect_status: Vec<i32>,
}

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Reads only, by convention.
    Get,
    /// Does something.
    Post,
    /// Sets something.
    Put,
    /// Changes part of something.
    Patch,
    /// Removes something.
    Delete,
}

/// A header whose value is in a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFrom {
    /// The header's name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9-]+$')", "write the name of a header, such as Authorization"))]
    pub name: String,
    /// Its value: a key of a Secret of this namespace.
    pub secret_key_ref: KeyRef,
}

/// A server of an HAProxy. Its runtime API must be reachable by TCP with `level admin`; it knows no passwords, so keep the
/// address to those who may use it. A server that somebody set to `drain` or `maint` before stays so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Haproxy {
    /// The runtime API (`stats socket` in its configuration), as `host:port`.
    #[schemars(length(min = 3, max = 261))]
    #[x_kube(validation = (
        r"self.matches(r'^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$')",
        "write host:port, such as lb-1.example.com:9999, an IPv6 address in brackets"
    ))]
    pub address: String,
    /// The backend's name.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9_.:-]+$')", "write the name of a backend as HAProxy's configuration has it"))]
    pub backend: String,
    /// The server's name in the backend; `{{ host.name }}` and `{{ host.address }}` stand for the machine. Left out:
    /// `{{ host.name }}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 200))]
    pub server: Option<String>,
    /// True: it is set to `drain`, and sessions that are open go on until they end or `settleSeconds` are over. False: it is
    /// set to `maint`, which ends health checks and stickiness as well. Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drain: Option<bool>,
}

impl Haproxy {
    /// The server's name, as a template.
    pub fn resolved_server(&self) -> &str {
        self.server.as_deref().unwrap_or("{{ host.name }}")
    }

    /// Whether sessions that are open go on.
    pub fn resolved_drain(&self) -> bool {
        self.drain.unwrap_or(true)
    }
}
