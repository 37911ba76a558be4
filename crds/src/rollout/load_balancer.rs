//! How a machine leaves load balancers, and comes back to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Takes a node out of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// True: the node gets the label `node.kubernetes.io/exclude-from-external-load-balancers` while it is out of service.
    /// Left out: true.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exclude: Option<bool>,
    /// How long load balancers get to notice before pods are evicted, in seconds. Left out: 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 3600))]
    pub settle_seconds: Option<i32>,
}
