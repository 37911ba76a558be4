//! What the DisruptionBudgets of the namespace say of themselves. That they are kept is the Rollouts' matter: each looks at
//! them before it claims a machine.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drover_core::rollout::{Ledger, NodeView, summarise_budget};
use drover_crds::{DisruptionBudget, Host, Rollout};
use futures::FutureExt as _;
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::ObjectRef,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, now},
    objects,
    rollout::gather::node_view,
};

const MANAGER: &str = "drover-disruption-budget";

/// How often a budget is looked at when no Rollout changes: its windows open and close, and Nodes come and go.
const AGAIN: Duration = Duration::from_secs(60);

/// Why a budget's status is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot list Rollouts")]
    Rollouts(#[source] kube::Error),
    #[error("cannot write the status of DisruptionBudget {0}")]
    WriteStatus(String, #[source] kube::Error),
}

/// Runs until the token is cancelled.
pub(crate) async fn control(context: Context, stop: CancellationToken) {
    let (client, namespace) = (context.client.clone(), context.namespace.clone());
    // A status follows Rollouts, which write much; so it is brought up to date at most every two seconds.
    let controller =
        Controller::new(Api::<DisruptionBudget>::namespaced(client.clone(), &namespace), objects::watching())
            .with_config(controller::Config::default().debounce(Duration::from_secs(2)).concurrency(1));
    let budgets = controller.store();
    let stream = controller
        .watches(Api::<Rollout>::namespaced(client, &namespace), objects::watching(), move |_| {
            budgets.state().iter().map(|budget| ObjectRef::from_obj(&**budget)).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |budget, context| reconcile(budget, context).boxed(),
            |budget, _, context| Action::requeue(context.backoff.failed(&key(&budget))),
            Arc::new(context),
        );
    objects::drain("disruption-budget", stream).await;
}

fn key(budget: &DisruptionBudget) -> String {
    format!("disruption-budget/{}", budget.name_any())
}

async fn reconcile(budget: Arc<DisruptionBudget>, context: Arc<Context>) -> Result<Action, Error> {
    if budget.metadata.deletion_timestamp.is_some() || !context.leadership.is_held() {
        return Ok(Action::await_change());
    }
    let (client, namespace) = (|| context.client.clone(), &context.namespace);
    let rollouts: Api<Rollout> = Api::namespaced(client(), namespace);
    let rollouts = rollouts.list(&ListParams::default()).await.map_err(Error::Rollouts)?;
    let nodes: BTreeMap<String, NodeView> =
        context.fleet.nodes.all().iter().map(|node| (node.name_any(), node_view(node))).collect();
    let hosts = context.fleet.hosts.all();
    let node = |host: &Host| nodes.get(&host.spec.node_ref.name).filter(|node| node.uid == host.spec.node_ref.uid);
    let ledgers: Vec<Ledger> = rollouts.iter().map(Ledger::of).collect();
    let status = summarise_budget(&budget, hosts.iter().map(AsRef::as_ref), &ledgers, &node, now());
    if budget.status.as_ref() != Some(&status) {
        let name = budget.name_any();
        let api: Api<DisruptionBudget> = Api::namespaced(client(), namespace);
        let written = objects::apply_status(&api, &*budget, MANAGER, &status).await;
        if !written.map_err(|error| Error::WriteStatus(name, error))? {
            return Ok(Action::requeue(objects::LOOK_AGAIN));
        }
    }
    context.backoff.reset(&key(&budget));
    Ok(Action::requeue(AGAIN))
}
