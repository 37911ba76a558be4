//! Puts the fleet back to how it is after an installation. It runs before each story, too: the one before may have been
//! killed.

use drover_crds::{
    DisruptionBudget, Host, MasterPool, NodeConfig, Rollout,
    keys::{CORDONED_BY_ANNOTATION, EXCLUDE_FROM_LOAD_BALANCERS_LABEL, EXCLUDED_BY_ANNOTATION},
};
use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Node, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    Fleet, NODES, cert_manager, certificates,
    cluster::delete,
    fleet::{is_free, is_touched},
    wait::{LATER, eventually, until_gone},
    web,
};

/// The label of ConfigMaps and Secrets that a story makes.
pub(crate) const LABEL: &str = "drover.dev/e2e";

/// What the stories put on machines: beneath their folder, as units and packages of the name `e2e-…`, and what the
/// samples put there.
const MACHINE: &str = r"
rm -f /srv/e2e/hold
systemctl stop --quiet 'e2e-*.service' 'e2e-*.timer'
systemctl reset-failed 'e2e-*' 2>/dev/null
mountpoint -q /srv/e2e/mnt && umount /srv/e2e/mnt
for user in $(cut -d: -f1 /etc/passwd | grep ^e2e-); do userdel $user 2>/dev/null; done
for group in $(cut -d: -f1 /etc/group | grep ^e2e-); do groupdel $group; done
cp -p /etc/hosts /run/e2e-hosts && sed '/e2e\.example/d' /run/e2e-hosts > /etc/hosts
ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime; echo Etc/UTC > /etc/timezone
! grep -q /srv/e2e/ /etc/fstab || sed -i '\|/srv/e2e/|d' /etc/fstab
[ ! -e /usr/local/share/ca-certificates/e2e-authority.crt ] ||
  { rm /usr/local/share/ca-certificates/e2e-authority.crt; update-ca-certificates --fresh >/dev/null 2>&1; }
rm -rf /etc/sudoers.d/e2e-* /etc/cron.d/e2e-* /etc/security/limits.d/e2e-* /etc/systemd/system/e2e-*.timer \
  /etc/systemd/system/e2e-*.service.d /etc/systemd/system/*.wants/e2e-*
cd /etc/systemd/system
for unit in e2e-*.service herd-beacon.service; do
  [ ! -e $unit ] || { systemctl disable --quiet --now $unit; rm -f $unit; }
done
systemctl daemon-reload
dpkg --purge e2e-hello >/dev/null 2>&1
rm -rf /srv/e2e /srv/herd-beacon /etc/motd.d /etc/sysctl.d/60-drover-* \
  /etc/apt/sources.list.d/e2e* /etc/apt/keyrings/e2e* /var/lib/apt/lists/*e2e*
echo 7200 > /proc/sys/net/ipv4/tcp_keepalive_time
mkdir /srv/e2e
";

/// Puts everything back, and waits until it is so.
pub(crate) async fn clean(fleet: &Fleet) {
    // What holds up an agent is let go first; then hosts are given back, and forget what was assigned to them.
    fleet.on_all("rm -f /srv/e2e/hold").await;
    web::remove(fleet).await;
    certificates::put_back(fleet).await;
    cert_manager::remove(fleet).await;
    remove_all::<Rollout>(fleet, "").await;
    remove_all::<DisruptionBudget>(fleet, "").await;
    remove_all::<NodeConfig>(fleet, "").await;
    remove_all::<ConfigMap>(fleet, LABEL).await;
    remove_all::<Secret>(fleet, LABEL).await;
    join_all(NODES.map(|node| put_back(fleet.nodes(), node))).await;
    let pools = fleet.api::<MasterPool>();
    for pool in fleet.all::<MasterPool>().await.iter().map(ResourceExt::name_any).filter(|name| name != "masters") {
        delete(&pools, &pool).await;
    }
    let spec = json!({"autoscaling": null, "replicas": 2, "zones": null, "certificates": null});
    pools.patch("masters", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    eventually("no Host has anything assigned", LATER, async || {
        let hosts = fleet.all::<Host>().await;
        let held: Vec<String> = hosts.iter().filter(|host| !is_free(host)).map(ResourceExt::name_any).collect();
        if held.is_empty() && hosts.len() == NODES.len() { Ok(()) } else { Err(format!("{held:?} of {}", hosts.len())) }
    })
    .await;
    fleet.on_all(MACHINE).await;
    eventually("all of Drover runs", LATER, async || whole(fleet).await).await;
}

async fn remove_all<K>(fleet: &Fleet, label: &str)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api = fleet.api::<K>();
    let found = api.list(&ListParams::default().labels(label)).await.unwrap();
    join_all(found.iter().map(async |object| {
        delete(&api, &object.name_any()).await;
        until_gone(&api, &object.name_any(), LATER).await;
    }))
    .await;
}

/// Gives a Node back that a story, or a broken Drover, has left out of service.
async fn put_back(nodes: Api<Node>, node: &str) {
    if is_touched(&nodes.get(node).await.unwrap()) {
        let patch = json!({
            "spec": {"unschedulable": null},
            "metadata": {
                "labels": {EXCLUDE_FROM_LOAD_BALANCERS_LABEL: null},
                "annotations": {CORDONED_BY_ANNOTATION: null, EXCLUDED_BY_ANNOTATION: null},
            },
        });
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

/// Whether the operator, the masters and the agents run, in as many pods as they should.
async fn whole(fleet: &Fleet) -> Result<(), String> {
    for deployment in fleet.all::<Deployment>().await {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        if status.available_replicas.unwrap_or(0) != wanted || status.replicas != Some(wanted) {
            return Err(format!("{}: {:?} of {wanted}", deployment.name_any(), status.available_replicas));
        }
    }
    for agents in fleet.all::<DaemonSet>().await {
        let status = agents.status.clone().unwrap_or_default();
        if status.number_ready != status.desired_number_scheduled {
            return Err(format!(
                "{}: {} of {}",
                agents.name_any(),
                status.number_ready,
                status.desired_number_scheduled
            ));
        }
    }
    Ok(())
}
