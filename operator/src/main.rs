//! `drover`: the operator and the masters in one binary. This file reads the command line and starts what it names.

mod backoff;
mod certificates;
mod context;
mod disruption_budget;
mod fleet;
mod health;
mod host;
mod leader;
mod master_pool;
mod metrics;
mod node_config;
mod objects;
mod rollout;
mod run;
#[cfg(test)]
mod testing;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Drover moves a herd of machines, in order and at a steady pace.
#[derive(Debug, Parser)]
#[command(name = "drover", version, about)]
struct Arguments {
    /// What is logged, as a filter: `info`, `debug`, `drover=debug,warn`.
    #[arg(long, env = "DROVER_LOG", default_value = "info", global = true)]
    log: String,
    /// How it is logged.
    #[arg(long, env = "DROVER_LOG_FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator: it turns Rollouts, NodeConfigs, Hosts and MasterPools into actions.
    Run(run::Options),
    /// Runs a master: it compiles the catalogs of machines and serves them to agents.
    Master(drover_master::Config),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_log(&arguments)?;
    // One provider for everything that speaks TLS here, chosen before anything does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shutdown = on_signal()?;
    let config = kube::Config::infer().await?;
    match arguments.command {
        Command::Run(options) => {
            let format = match arguments.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            };
            run::run(options, (arguments.log, format.to_owned()), config, shutdown).await
        }
        Command::Master(options) => Ok(drover_master::run(options, kube::Client::try_from(config)?, shutdown).await?),
    }
}

fn start_log(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(drover_core::logging::filter(&arguments.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().with_span_list(false).init(),
    }
    Ok(())
}

/// A token that is cancelled by the first SIGTERM or SIGINT.
fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let trigger = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Stopping");
        trigger.cancel();
    });
    Ok(token)
}
