//! `drover run`: wires clients, the election and the controllers together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::FutureExt as _;
use kube::{Client, Config};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, MasterTemplate},
    disruption_budget, health, host, leader, master_pool,
    metrics::Metrics,
    node_config, rollout,
};

/// How the operator runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The namespace of the fleet: its Hosts, NodeConfigs, Rollouts and MasterPools.
    #[arg(long, env = "POD_NAMESPACE", default_value = "drover-system")]
    namespace: String,
    /// This operator's name in the election of the one that acts.
    #[arg(long, env = "POD_NAME", default_value = "drover-operator")]
    identity: String,
    /// The Node that this operator runs on: Rollouts take it last.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// The image that masters run.
    #[arg(long, env = "DROVER_MASTER_IMAGE")]
    master_image: String,
    /// When nodes pull that image: `Always`, `IfNotPresent` or `Never`.
    #[arg(long, env = "DROVER_MASTER_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    master_image_pull_policy: String,
    /// Where health is answered.
    #[arg(long, env = "DROVER_HEALTH_LISTEN", default_value = "[::]:8080")]
    health_listen: SocketAddr,
}

/// How long controllers may take to end. They end between two requests; kube's own way to end waits for ever where it
/// begins before a controller's objects are known.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Runs until the token is cancelled or the leadership is lost.
///
/// `log` and `log_format` are how masters log: as the operator was told.
pub(crate) async fn run(
    options: Options,
    (log, log_format): (String, String),
    mut config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // A connection that died without a word is noticed after this time, not after minutes.
    config.read_timeout = Some(Duration::from_secs(300));
    config.connect_timeout = Some(Duration::from_secs(10));
    let client = Client::try_from(config.clone())?;
    config.default_retry = false;
    config.read_timeout = Some(Duration::from_secs(30));
    let once = Client::try_from(config)?;
    let version = client.apiserver_version().await.context("cannot reach the API server")?;
    tracing::info!(namespace = %options.namespace, kubernetes = %version.git_version, "Drover operator starts");

    let metrics = Arc::<Metrics>::default();
    let health = tokio::spawn(health::serve(options.health_listen, Arc::clone(&metrics), shutdown.clone()));
    let election = CancellationToken::new();
    let (mut leadership, released) =
        leader::elect(client.clone(), &options.namespace, &options.identity, election.clone()).await?;

    let acquired = tokio::select! {
        acquired = leadership.acquired() => acquired,
        () = shutdown.cancelled() => false,
    };
    let mut lost = false;
    if acquired {
        let stop = shutdown.child_token();
        let (image, pull_policy) = (options.master_image, options.master_image_pull_policy);
        let master = MasterTemplate { image, pull_policy, log, log_format };
        let mut context = Context::new((client, once), options.namespace, options.identity, leadership.clone(), master);
        context.metrics = metrics;
        context.own_node = options.node_name;
        let fleet = context.clone();
        let mut following = tokio::spawn(async move { fleet.fleet.follow(fleet.client, &fleet.namespace).await });
        let mut controllers = JoinSet::new();
        for control in [
            host::control(context.clone(), stop.clone()).boxed(),
            node_config::control(context.clone(), stop.clone()).boxed(),
            master_pool::control(context.clone(), stop.clone()).boxed(),
            disruption_budget::control(context.clone(), stop.clone()).boxed(),
            rollout::control(context.clone(), stop.clone()).boxed(),
        ] {
            controllers.spawn(once_filled(context.clone(), stop.clone(), control));
        }
        // One that ended is not there for its objects, so the others end as well, and the operator begins anew.
        tokio::select! {
            _ = controllers.join_next() => {}
            _ = &mut following => {}
            () = leadership.lost() => {
                lost = !shutdown.is_cancelled();
                stop.cancel();
            }
            () = shutdown.cancelled() => {}
        }
        if shutdown.is_cancelled() {
            let ended = async { while controllers.join_next().await.is_some() {} };
            // What is cut off is as after a crash: it is gone on with by whoever is next.
            if timeout(STOP_WITHIN, ended).await.is_err() {
                tracing::info!("What is under way takes too long and is left");
            }
        }
        controllers.shutdown().await;
        following.abort();
    }
    election.cancel();
    let _ = released.await;
    if lost {
        anyhow::bail!("the leadership was lost; starting again as a follower");
    }
    if !shutdown.is_cancelled() {
        anyhow::bail!("a controller ended by itself");
    }
    health.await??;
    tracing::info!("Drover operator ends");
    Ok(())
}

/// Starts a controller when Hosts and Nodes are known.
async fn once_filled(context: Context, stop: CancellationToken, control: impl Future<Output = ()>) {
    tokio::select! {
        () = context.fleet.filled() => control.await,
        () = stop.cancelled() => {}
    }
}
