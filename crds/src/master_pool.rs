use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A pool of masters.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "MasterPool",
    namespaced,
    status = "MasterPoolStatus",
    derive = "PartialEq",
    category = "drover",
    shortname = "mpool",
    doc = "A pool of masters: they compile the catalogs of the machines and serve them to the agents. They are equal and \
           keep nothing: any of them may die at any time.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Masters", type_ = "string", json_path = ".status.masters"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct MasterPoolSpec {
    /// How many masters run. Two survive the loss of one. Left out: 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[x_kube(validation = ("self >= 1 && self <= 100", "write how many masters run, from 1 to 100; agents keep enforcing their last good catalog only while they have one, so a pool is never empty"))]
    pub replicas: Option<i32>,
}

/// How the pool is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MasterPoolStatus {
    /// The generation of the MasterPool that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed_generation: Option<i64>,
    /// One word: `Starting`, `Ready`, `Degraded`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub phase: Option<String>,
    /// One line about the phase.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Masters that serve, of those wanted: `2/2`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub masters: Option<String>,
    /// Where agents reach the pool: the address and port of its Service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl MasterPoolSpec {
    /// How many masters run.
    pub fn resolved_replicas(&self) -> i32 {
        self.replicas.unwrap_or(2)
    }
}
