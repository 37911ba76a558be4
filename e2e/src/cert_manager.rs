//! The real cert-manager: its own kinds in the API server, and its controller as a process beside the cluster. Without its webhook
//! nobody checks or completes what is written, and its kinds are of one version.

use std::{fs::File, process::Stdio};

use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::{
    Fleet,
    clean::LABEL,
    cluster::{cache, delete},
    fleet::NAMESPACE,
    wait::{SOON, until_gone},
};

/// It runs until this is dropped.
pub struct CertManager {
    _process: Child,
}

impl CertManager {
    /// Brings its kinds, and starts its controller.
    pub async fn start(fleet: &Fleet) -> Self {
        let folder = cache().join("control-plane");
        let kinds = folder.join("cert-manager-crds");
        let program = folder.join("cert-manager-controller");
        assert!(program.exists(), "{} is missing: `make test` builds it", program.display());
        let kinds = kinds.to_str().expect("a path in UTF-8");
        fleet.cluster.kubectl(&["apply", "--server-side", "-f", kinds]).await;
        fleet.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", kinds]).await;
        let kubeconfig = &fleet.cluster.kubeconfig;
        let log = kubeconfig.with_file_name("cert-manager.log");
        let log = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        // It ends with the story, also where that is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--leader-elect=false", "--metrics-listen-address=127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("cert-manager can be started");
        Self { _process: process }
    }

    /// An issuer with an authority of its own, which signs itself.
    pub async fn authority(&self, fleet: &Fleet, name: &str) {
        let root = format!("{name}-root");
        let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE});
        let object = |kind: &str, name: &str, spec| json!({"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata(name), "spec": spec});
        let certificate = json!({
            "isCA": true, "commonName": name, "secretName": name, "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"name": root, "kind": "Issuer", "group": "cert-manager.io"},
            "secretTemplate": {"labels": {LABEL: "true"}},
        });
        let objects = [
            object("Issuer", &root, json!({"selfSigned": {}})),
            object("Certificate", name, certificate),
            object("Issuer", name, json!({"ca": {"secretName": name}})),
        ];
        for object in objects {
            fleet.cluster.apply_any(&object).await;
        }
    }
}

/// Removes its kinds with all objects of them.
pub(crate) async fn remove(fleet: &Fleet) {
    let kinds: Api<CustomResourceDefinition> = Api::all(fleet.cluster.client.clone());
    let found = kinds.list_metadata(&ListParams::default()).await.unwrap();
    let theirs = found.iter().map(ResourceExt::name_any).filter(|name| name.ends_with("cert-manager.io"));
    join_all(theirs.map(async |name| {
        delete(&kinds, &name).await;
        until_gone(&kinds, &name, SOON).await;
    }))
    .await;
}
