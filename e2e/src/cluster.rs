//! The API server, as the administrator. It needs no machines.

use std::{
    env,
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Once,
};

use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PropagationPolicy, TypeMeta,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::process::Command;

/// The field manager of what stories apply.
const MANAGER: &str = "drover-e2e";
/// Where the administrator's kubeconfig is.
pub(crate) const KUBECONFIG: &str = "DROVER_E2E_KUBECONFIG";

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The administrator's client.
    pub client: Client,
    pub(crate) kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that `make test` has started.
    pub async fn connect() -> Self {
        // Two providers are linked in some builds of the workspace, so rustls can not choose by itself.
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let kubeconfig = PathBuf::from(required(KUBECONFIG));
        let read = Kubeconfig::read_from(&kubeconfig)
            .unwrap_or_else(|error| panic!("{KUBECONFIG} is {}: {error}", kubeconfig.display()));
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap(), kubeconfig }
    }

    /// Server-side apply of one object, taking over what others wrote to its fields.
    pub async fn apply<K>(&self, api: &Api<K>, object: &Value) -> K
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let name = object["metadata"]["name"].as_str().expect("an object has a name");
        let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
        applied.unwrap_or_else(|error| panic!("could not apply {name}: {error}"))
    }

    /// Server-side apply of one object of whatever kind.
    pub async fn apply_any(&self, object: &Value) {
        let text = |key: &str| object[key].as_str().expect("an object has a kind and a version").to_owned();
        let types = TypeMeta { api_version: text("apiVersion"), kind: text("kind") };
        let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(types).expect("a version is one"));
        let namespace = object["metadata"]["namespace"].as_str().expect("it is in a namespace");
        self.apply(&Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &kind), object).await;
    }

    /// What `kubectl` prints; it must succeed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let printed = self.try_kubectl(arguments).await;
        printed.unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// What `kubectl` prints; or, where it failed, all that it printed, with its errors.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(cache().join("control-plane/kubectl"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .await
            .expect("kubectl can be run; `make test` builds it");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }
}

/// Deletes an object, and what it owns; that it is not there is as good.
pub async fn delete<K: Clone + DeserializeOwned + Debug>(api: &Api<K>, name: &str) {
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("could not delete {name}: {error}"),
    }
}

/// The objects of a file of this repository, by its path from the root.
pub fn objects_of(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An environment variable that `make test` sets.
pub(crate) fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: these tests need a cluster. Run `make test`, which starts one and sets it.")
    })
}

/// The folder that the testbed keeps its binaries in.
pub(crate) fn cache() -> PathBuf {
    let set = |variable| env::var_os(variable).map(PathBuf::from);
    set("DROVER_CACHE").unwrap_or_else(|| {
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        caches.expect("HOME is set").join("drover")
    })
}
