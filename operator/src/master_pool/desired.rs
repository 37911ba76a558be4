//! The objects of a MasterPool, as they should be.

use std::collections::BTreeMap;

use drover_crds::{MasterPool, keys};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::NOT_AFTER_ANNOTATION;
use crate::context::MasterTemplate;

/// The port that masters serve on, and their Service.
const PORT: i32 = 8443;

/// The port that masters tell their metrics on.
const METRICS_PORT: i32 = 9464;

/// Where a master tells its load.
pub(super) fn metrics_url(ip: &str) -> String {
    format!("http://{}/load", with_port(ip, METRICS_PORT))
}

/// A pool's wishes.
pub(super) struct Pool<'a> {
    object: &'a MasterPool,
    name: String,
    namespace: &'a str,
    template: &'a MasterTemplate,
}

/// The address of the Service with its port, once it has one.
pub(super) fn address(service: &Service) -> Option<String> {
    let ip = service.spec.as_ref()?.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    Some(with_port(&ip, PORT))
}

fn with_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

impl<'a> Pool<'a> {
    pub(super) fn new(pool: &'a MasterPool, namespace: &'a str, template: &'a MasterTemplate) -> Self {
        Self { name: format!("drover-{}", pool.name_any()), object: pool, namespace, template }
    }

    /// The name of the pool's Service, Deployment, budget and ConfigMap.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn authority_secret(&self) -> String {
        format!("{}-ca", self.name)
    }

    pub(super) fn server_secret(&self) -> String {
        format!("{}-tls", self.name)
    }

    /// The names that the masters' certificate is for; agents ask for the first.
    pub(super) fn server_names(&self) -> Vec<String> {
        vec![format!("{}.{}.svc", self.name, self.namespace)]
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "drover-master"),
            ("app.kubernetes.io/part-of", "drover"),
            ("app.kubernetes.io/managed-by", "drover-operator"),
            (keys::MASTER_POOL_LABEL, &self.object.name_any()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(keys::MASTER_POOL_LABEL.to_owned(), self.object.name_any())])
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(self.labels()),
            owner_references: self.object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// A certificate with its key.
    pub(super) fn secret(&self, name: &str, data: BTreeMap<String, ByteString>, not_after: &Timestamp) -> Secret {
        let mut metadata = self.metadata(name);
        metadata.annotations = Some(BTreeMap::from([(NOT_AFTER_ANNOTATION.to_owned(), not_after.to_string())]));
        Secret { metadata, type_: Some("kubernetes.io/tls".to_owned()), data: Some(data), ..Secret::default() }
    }

    /// What agents mount: whom to trust, under which name, and where.
    pub(super) fn config_map(&self, authority: &str, address: &str) -> ConfigMap {
        let server_name = self.server_names().into_iter().next().unwrap_or_default();
        let data =
            [("ca.crt", authority.to_owned()), ("server-name", server_name), ("addresses", format!("{address}\n"))];
        ConfigMap {
            metadata: self.metadata(&self.name),
            data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ConfigMap::default()
        }
    }

    pub(super) fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": self.metadata(&self.name),
            "spec": {
                "selector": self.selector(),
                "ports": [{"name": "https", "port": PORT, "targetPort": "https", "protocol": "TCP"}],
            },
        })
    }

    /// One master at a time may be evicted; a pool of one may be, too, and its agents wait meanwhile.
    pub(super) fn budget(&self) -> Value {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": self.metadata(&self.name),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": self.selector()}},
        })
    }

    pub(super) fn deployment(&self, replicas: i32) -> Value {
        let agents = format!("system:serviceaccount:{}:drover-agent", self.namespace);
        let probe = json!({"path": drover_catalog::routes::READY, "port": "https", "scheme": "HTTPS"});
        let spread = |key: &str| {
            json!({
                "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": self.selector()},
            })
        };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(&self.name),
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": self.selector()},
                // Before the next one goes, each kube-proxy has heard of the one that came, and it has not died of its first requests.
                "minReadySeconds": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": self.labels()},
                    "spec": {
                        "serviceAccountName": "drover-master",
                        "dnsPolicy": "Default",
                        "priorityClassName": "system-cluster-critical",
                        // It serves for 5 s more and closes within 10 s; no hook is needed.
                        "terminationGracePeriodSeconds": 20,
                        "topologySpreadConstraints": [
                            spread("kubernetes.io/hostname"), spread("topology.kubernetes.io/zone"),
                        ],
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": "master",
                            "image": self.template.image,
                            "imagePullPolicy": self.template.pull_policy,
                            "args": ["master"],
                            "env": [
                                {"name": "DROVER_NAMESPACE", "value": self.namespace},
                                {"name": "DROVER_AGENT_SERVICE_ACCOUNT", "value": agents},
                                {"name": "DROVER_LOG", "value": self.template.log},
                                {"name": "DROVER_LOG_FORMAT", "value": self.template.log_format},
                                {"name": "DROVER_LISTEN", "value": format!("[::]:{PORT}")},
                                {"name": "DROVER_METRICS_LISTEN", "value": format!("[::]:{METRICS_PORT}")},
                            ],
                            "ports": [
                                {"name": "https", "containerPort": PORT, "protocol": "TCP"},
                                {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                            ],
                            "readinessProbe": {"httpGet": probe, "periodSeconds": 2, "failureThreshold": 2},
                            "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [{"name": "tls", "mountPath": "/etc/drover/tls", "readOnly": true}],
                        }],
                        "volumes": [{"name": "tls", "secret": {"secretName": self.server_secret(), "defaultMode": 0o440}}],
                    },
                },
            },
        })
    }
}
