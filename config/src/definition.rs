//! The definitions, as a cluster gets them: what kube derives from the types, and three changes.
//!
//! - The descriptions are written anew from the doc comments, see the module `documentation`.
//! - No field is nullable. kube allows null wherever a field may be left out; then `drain:` without a value would pass for
//!   "no drain". Nothing of ours writes a null.
//! - A status begins with `observedGeneration: -1`. Without it, what waits by the rules of kstatus (Flux, kapp) takes an
//!   object for done that no controller has seen yet.

use anyhow::{Context, Result};
use drover_crds::{
    DisruptionBudget, DisruptionBudgetSpec, DisruptionBudgetStatus, Host, HostSpec, HostStatus, MasterPool,
    MasterPoolSpec, MasterPoolStatus, NodeConfig, NodeConfigSpec, NodeConfigStatus, Rollout, RolloutSpec,
    RolloutStatus,
};
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::documentation::document;

/// A `CustomResourceDefinition`.
#[derive(Clone, Debug)]
pub struct Definition(Value);

/// The definitions of all kinds.
pub fn definitions() -> Result<Vec<Definition>> {
    [
        define::<DisruptionBudget, DisruptionBudgetSpec, DisruptionBudgetStatus>(),
        define::<Host, HostSpec, HostStatus>(),
        define::<MasterPool, MasterPoolSpec, MasterPoolStatus>(),
        define::<NodeConfig, NodeConfigSpec, NodeConfigStatus>(),
        define::<Rollout, RolloutSpec, RolloutStatus>(),
    ]
    .into_iter()
    .collect()
}

impl Definition {
    /// `<plural>.<group>`.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The whole object.
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// The schema of its one version.
    pub fn schema(&self) -> &Value {
        &self.0["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    /// The paths of the columns of `kubectl get`.
    pub fn column_paths(&self) -> Vec<&str> {
        let columns = self.0["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
        columns.into_iter().flatten().filter_map(|column| column["jsonPath"].as_str()).collect()
    }
}

fn define<K: CustomResourceExt, Spec: JsonSchema, Status: JsonSchema>() -> Result<Definition> {
    let crd = K::crd();
    let mut crd = serde_json::to_value(&crd).with_context(|| format!("the definition of {:?}", crd.metadata.name))?;
    // A client-side apply would copy the whole definition into an annotation.
    crd["metadata"]["annotations"] = json!({"argocd.argoproj.io/sync-options": "ServerSideApply=true"});
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    refuse_nulls(schema);
    document::<Spec>(&mut schema["properties"]["spec"]);
    document::<Status>(&mut schema["properties"]["status"]);
    schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    Ok(Definition(crd))
}

fn refuse_nulls(schema: &mut Value) {
    if let Some(node) = schema.as_object_mut() {
        node.remove("nullable");
    }
    for child in children(schema) {
        refuse_nulls(child);
    }
}

/// The schemas right below a schema: of its fields, of its items, of its values.
fn children(schema: &mut Value) -> Vec<&mut Value> {
    let mut children = Vec::new();
    for (keyword, below) in schema.as_object_mut().into_iter().flatten() {
        match (keyword.as_str(), below) {
            ("properties", Value::Object(fields)) => children.extend(fields.iter_mut().map(|(_, field)| field)),
            ("items" | "additionalProperties", below @ Value::Object(_)) => children.push(below),
            _ => {}
        }
    }
    children
}
