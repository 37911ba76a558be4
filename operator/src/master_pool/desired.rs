//! The objects of a MasterPool, as they should be.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::Digest;
use drover_crds::{IssuerRef, MasterPool, PoolCertificates, PoolZone, condition, keys};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::MasterTemplate;

/// The port that masters serve on, and their Service.
const PORT: i32 = 8443;

/// The port that masters tell their metrics on.
const METRICS_PORT: i32 = 9464;

/// Where the masters of a pool are, as agents read it (`pools.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directions {
    server_name: String,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    zones: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    regions: BTreeMap<String, Vec<String>>,
}

/// Where the masters of all pools are, from the Services that pools have.
pub(super) fn directions(services: &[Service], namespace: &str) -> BTreeMap<String, Directions> {
    let mut pools: BTreeMap<String, Directions> = BTreeMap::new();
    for service in services {
        let label = |key: &str| service.labels().get(key).cloned();
        let (Some(pool), Some(address)) = (label(keys::MASTER_POOL_LABEL), address(service)) else { continue };
        let server_name = server_name(&object_name(&pool), namespace);
        let known = pools.entry(pool).or_insert_with(|| Directions { server_name, ..Directions::default() });
        let list = match (label(keys::MASTER_ZONE_LABEL), label(keys::MASTER_REGION_LABEL)) {
            (Some(zone), _) => known.zones.entry(zone).or_default(),
            (None, Some(region)) => known.regions.entry(region).or_default(),
            (None, None) => &mut known.addresses,
        };
        list.push(address);
    }
    pools
}

/// The name of a pool's objects.
fn object_name(pool: &str) -> String {
    format!("drover-{pool}")
}

/// The name of the ConfigMap that says whom agents trust of a pool.
pub(super) fn authorities_name(pool: &str) -> String {
    format!("{}-authorities", object_name(pool))
}

/// The name in the certificate of a pool's masters.
fn server_name(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc")
}

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

/// Some of a pool's masters that have a Service of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier<'a> {
    /// All of them.
    All,
    /// Those in a region.
    Region(&'a str),
    /// Those in a zone.
    Zone(&'a str),
}

/// The address of the Service with its port, once it has one.
pub(super) fn address(service: &Service) -> Option<String> {
    let ip = service.spec.as_ref()?.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    Some(with_port(&ip, PORT))
}

fn with_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// A name that objects can have, made of one that a zone has: what does not fit is replaced, and a digest tells it from others.
fn fitting(prefix: &str, zone: &str) -> String {
    const LONGEST: usize = 63;
    let plain = zone.to_ascii_lowercase().replace(['.', '_'], "-");
    let whole = format!("{prefix}-{plain}");
    if plain == zone && whole.len() <= LONGEST {
        return whole;
    }
    let digest = Digest::of(format!("{prefix}/{zone}").as_bytes());
    let short: String = whole.chars().take(LONGEST - 9).collect();
    format!("{}-{}", short.trim_end_matches('-'), digest.short(8))
}

impl<'a> Pool<'a> {
    pub(super) fn new(pool: &'a MasterPool, namespace: &'a str, template: &'a MasterTemplate) -> Self {
        Self { name: object_name(&pool.name_any()), object: pool, namespace, template }
    }

    /// The name of the pool's Service, Deployment, budget and ConfigMap.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name of the MasterPool.
    pub(super) fn object_name(&self) -> String {
        self.object.name_any()
    }

    /// Whether the status says this of a condition.
    pub(super) fn was(&self, kind: &str, status: condition::Status) -> bool {
        let conditions = self.object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        condition::find(conditions, kind).is_some_and(|condition| condition.status == status.as_str())
    }

    /// What is asked of its certificates.
    pub(super) fn certificates(&self) -> PoolCertificates {
        self.object.spec.certificates.clone().unwrap_or_default()
    }

    pub(super) fn authority_secret(&self) -> String {
        format!("{}-ca", self.name)
    }

    pub(super) fn server_secret(&self) -> String {
        format!("{}-tls", self.name)
    }

    /// The Secret that cert-manager writes.
    pub(super) fn issued_secret(&self) -> String {
        format!("{}-issued", self.name)
    }

    /// The names that the masters' certificate is for; agents ask for the first.
    pub(super) fn server_names(&self) -> Vec<String> {
        vec![server_name(&self.name, self.namespace)]
    }

    /// All of the pool, and where zones are given each of them and of their regions.
    pub(super) fn tiers(&self) -> Vec<Tier<'a>> {
        let zones = &self.object.spec.zones;
        let regions: BTreeSet<&str> = zones.iter().filter_map(|zone| zone.region.as_deref()).collect();
        let regions = regions.into_iter().map(Tier::Region);
        [Tier::All].into_iter().chain(regions).chain(zones.iter().map(|zone| Tier::Zone(&zone.name))).collect()
    }

    /// The name of a tier's Service, and of a zone's Deployment.
    pub(super) fn tier_name(&self, tier: Tier<'_>) -> String {
        match tier {
            Tier::All => self.name.clone(),
            Tier::Region(region) => fitting(&format!("{}-region", self.name), region),
            Tier::Zone(zone) => fitting(&format!("{}-zone", self.name), zone),
        }
    }

    /// The name of the Service without an address of its own: DNS tells each master, also by SRV records.
    pub(super) fn headless_name(&self, tier: Tier<'_>) -> String {
        match tier {
            Tier::All => format!("{}-each", self.name),
            Tier::Region(region) => fitting(&format!("{}-each-region", self.name), region),
            Tier::Zone(zone) => fitting(&format!("{}-each-zone", self.name), zone),
        }
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

    fn selector(&self, tier: Tier<'_>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([(keys::MASTER_POOL_LABEL.to_owned(), self.object.name_any())]);
        match tier {
            Tier::All => {}
            Tier::Region(region) => {
                labels.insert(keys::MASTER_REGION_LABEL.to_owned(), region.to_owned());
            }
            Tier::Zone(zone) => {
                labels.insert(keys::MASTER_ZONE_LABEL.to_owned(), zone.to_owned());
            }
        }
        labels
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(self.labels()),
            owner_references: self.object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// A certificate with its key, and what else is to be known of it.
    pub(super) fn secret(
        &self,
        name: &str,
        data: BTreeMap<String, ByteString>,
        annotations: BTreeMap<String, String>,
    ) -> Secret {
        let mut metadata = self.metadata(name);
        metadata.annotations = Some(annotations);
        Secret { metadata, type_: Some("kubernetes.io/tls".to_owned()), data: Some(data), ..Secret::default() }
    }

    /// What agents mount: whom to trust, under which name, and where; and the same of all pools and their zones.
    pub(super) fn config_map(&self, bundle: &str, address: &str, pools: &BTreeMap<String, Directions>) -> ConfigMap {
        let server_name = self.server_names().into_iter().next().unwrap_or_default();
        let data = [
            ("ca.crt", bundle.to_owned()),
            ("server-name", server_name),
            ("addresses", format!("{address}\n")),
            ("pools.json", json!(pools).to_string()),
        ];
        ConfigMap {
            metadata: self.metadata(&self.name),
            data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ConfigMap::default()
        }
    }

    /// Whom agents are told to trust of this pool, and since when.
    pub(super) fn authorities(&self, bundle: &str, authorities: &str) -> ConfigMap {
        let data = [("ca.crt", bundle), ("authorities.json", authorities)];
        ConfigMap {
            metadata: self.metadata(&authorities_name(&self.object.name_any())),
            data: Some(data.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ConfigMap::default()
        }
    }

    /// What is asked of cert-manager.
    pub(super) fn certificate(&self, issuer: &IssuerRef) -> Value {
        let name = self.issued_secret();
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": self.metadata(&name),
            "spec": {
                "secretName": name,
                // The label lets the operator see at once what is issued.
                "secretTemplate": {"labels": self.labels()},
                "dnsNames": self.server_names(),
                "usages": ["digital signature", "server auth"],
                "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                "issuerRef": {
                    "name": issuer.name, "kind": issuer.resolved_kind(), "group": issuer.resolved_group(),
                },
            },
        })
    }

    /// The Service of a tier; one without an address of its own where `headless`.
    pub(super) fn service(&self, tier: Tier<'_>, headless: bool) -> Value {
        let name = if headless { self.headless_name(tier) } else { self.tier_name(tier) };
        let mut metadata = self.metadata(&name);
        metadata.labels.get_or_insert_default().extend(self.selector(tier));
        let mut spec = json!({
            "selector": self.selector(tier),
            "ports": [{"name": "https", "port": PORT, "targetPort": "https", "protocol": "TCP"}],
        });
        if headless {
            spec["clusterIP"] = json!("None");
        } else if !self.object.spec.zones.is_empty() {
            // Only where each zone has as many masters as its machines need: kube-proxy does not look at their load. From
            // Kubernetes 1.34 on it is also called PreferSameZone.
            spec["trafficDistribution"] = json!("PreferClose");
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    }

    /// One master at a time may be evicted; a pool of one may be, too, and its agents wait meanwhile.
    pub(super) fn budget(&self) -> Value {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": self.metadata(&self.name),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": self.selector(Tier::All)}},
        })
    }

    /// The Deployments by name: one for each zone with so many masters, or one of all.
    pub(super) fn deployments(&self, replicas: i32, by_zone: &[i32]) -> Vec<(String, Value)> {
        let zones = &self.object.spec.zones;
        if zones.is_empty() {
            return vec![(self.name.clone(), self.deployment(None, replicas))];
        }
        let one = |(zone, replicas): (&PoolZone, &i32)| {
            (self.tier_name(Tier::Zone(&zone.name)), self.deployment(Some(zone), *replicas))
        };
        zones.iter().zip(by_zone).map(one).collect()
    }

    fn deployment(&self, zone: Option<&PoolZone>, replicas: i32) -> Value {
        let tier = zone.map_or(Tier::All, |zone| Tier::Zone(&zone.name));
        let (name, selector) = (self.tier_name(tier), self.selector(tier));
        let mut labels = self.labels();
        labels.extend(selector.clone());
        if let Some(region) = zone.and_then(|zone| zone.region.clone()) {
            labels.insert(keys::MASTER_REGION_LABEL.to_owned(), region);
        }
        let mut metadata = self.metadata(&name);
        metadata.labels = Some(labels.clone());
        let agents = format!("system:serviceaccount:{}:drover-agent", self.namespace);
        let probe = json!({"path": drover_catalog::routes::READY, "port": "https", "scheme": "HTTPS"});
        let spread = |key: &str| {
            json!({
                "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            })
        };
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": selector},
                // Before the next one goes, each kube-proxy has heard of the one that came, and it has not died of its first requests.
                "minReadySeconds": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": labels},
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
        });
        if let Some(zone) = zone {
            deployment["spec"]["template"]["spec"]["nodeSelector"] = json!({keys::ZONE_LABEL: zone.name});
        }
        deployment
    }
}

#[cfg(test)]
mod tests {
    use drover_crds::MasterPoolSpec;

    use super::*;

    fn pool(spec: &Value) -> MasterPool {
        let spec: MasterPoolSpec = serde_json::from_value(spec.clone()).unwrap();
        MasterPool::new("eu", spec)
    }

    fn template() -> MasterTemplate {
        MasterTemplate {
            image: "drover".into(),
            pull_policy: "Never".into(),
            log: "info".into(),
            log_format: "json".into(),
        }
    }

    #[test]
    fn each_zone_has_a_deployment_and_a_service_and_so_have_regions() {
        let zones = json!([
            {"name": "eu-1a", "region": "eu-1"}, {"name": "eu-1b", "region": "eu-1"}, {"name": "EU_2.c"},
        ]);
        let (object, template) = (pool(&json!({"zones": zones})), template());
        let pool = Pool::new(&object, "drover-system", &template);
        let names: Vec<String> = pool.tiers().into_iter().map(|tier| pool.tier_name(tier)).collect();
        assert_eq!(names[..4], ["drover-eu", "drover-eu-region-eu-1", "drover-eu-zone-eu-1a", "drover-eu-zone-eu-1b"]);
        assert!(names[4].starts_with("drover-eu-zone-eu-2-c-"), "{names:?}");

        let deployments = pool.deployments(5, &[3, 1, 1]);
        let spec = |at: usize| deployments[at].1["spec"].clone();
        assert_eq!((deployments.len(), &deployments[0].0), (3, &names[2]));
        assert_eq!((spec(0)["replicas"].clone(), spec(1)["replicas"].clone()), (json!(3), json!(1)));
        let labels = spec(0)["template"]["metadata"]["labels"].clone();
        assert_eq!(labels[keys::MASTER_REGION_LABEL], "eu-1");
        assert_eq!(spec(0)["template"]["spec"]["nodeSelector"], json!({keys::ZONE_LABEL: "eu-1a"}));
        // Each Service finds the masters of its tier, and each Deployment its own.
        for tier in [Tier::All, Tier::Region("eu-1"), Tier::Zone("eu-1a")] {
            for (key, value) in pool.selector(tier) {
                assert_eq!(labels[&key], value, "{tier:?}");
            }
        }
        let service = pool.service(Tier::All, false);
        assert_eq!(service["spec"]["trafficDistribution"], "PreferClose");
        assert_eq!(pool.service(Tier::Zone("eu-1a"), true)["spec"]["clusterIP"], "None");
    }

    #[test]
    fn a_pool_without_zones_is_one_deployment_anywhere() {
        let (object, template) = (pool(&json!({})), template());
        let pool = Pool::new(&object, "drover-system", &template);
        let deployments = pool.deployments(2, &[]);
        assert_eq!((deployments.len(), deployments[0].0.as_str()), (1, "drover-eu"));
        assert_eq!(deployments[0].1["spec"]["template"]["spec"].get("nodeSelector"), None);
        assert_eq!(pool.service(Tier::All, false)["spec"].get("trafficDistribution"), None);
    }

    #[test]
    fn names_of_objects_fit_and_differ() {
        let long = "z".repeat(63);
        for zone in ["a.b", "a_b", "A-b", long.as_str()] {
            let name = fitting("drover-masters-zone", zone);
            assert!(name.len() <= 63 && name != "drover-masters-zone-a-b", "{name}");
        }
        assert_eq!(fitting("drover-masters-zone", "a-b"), "drover-masters-zone-a-b");
        assert_ne!(fitting("drover-masters-zone", "a.b"), fitting("drover-masters-zone", "a_b"));
    }

    #[test]
    fn agents_are_told_of_all_pools_and_their_tiers() {
        let template = template();
        let mut services = Vec::new();
        for (name, spec) in [("eu", json!({"zones": [{"name": "a", "region": "r"}]})), ("masters", json!({}))] {
            let mut object = pool(&spec);
            object.metadata.name = Some(name.into());
            let pool = Pool::new(&object, "drover-system", &template);
            for tier in pool.tiers() {
                for headless in [false, true] {
                    let mut service = pool.service(tier, headless);
                    if !headless {
                        service["spec"]["clusterIP"] = json!(format!("10.0.0.{}", services.len()));
                    }
                    services.push(serde_json::from_value(service).unwrap());
                }
            }
        }
        let told = json!(directions(&services, "drover-system"));
        let expected = json!({
            "eu": {
                "serverName": "drover-eu.drover-system.svc", "addresses": ["10.0.0.0:8443"],
                "regions": {"r": ["10.0.0.2:8443"]}, "zones": {"a": ["10.0.0.4:8443"]},
            },
            "masters": {"serverName": "drover-masters.drover-system.svc", "addresses": ["10.0.0.6:8443"]},
        });
        assert_eq!(told, expected);
    }
}
