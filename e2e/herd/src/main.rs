//! A herd without machines: plays the agents of thousands of make-believe nodes over the real protocol, measures a Rollout
//! over them, and sends the same writes again by a bare loop. The benches `e2e/bench-rollout`, `bench-masters` and
//! `bench-catalogs` call it.
//!
//! - `agents`: one conversation with a master for each pod of the agents' `DaemonSet`
//! - `tokens`: what each of them proves itself by
//! - `measure`: a Rollout from its first write to its end, and what it cost
//! - `audit`: who wrote what, from the API server's own records
//! - `fetch`: catalogs at a fixed rate, from masters of any kind
//! - `floor`: the same writes without anybody who thinks

mod agents;
mod audit;
mod fetch;
mod floor;
mod measure;
mod tokens;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Plays the agents of thousands of machines, and measures a Rollout over them.
#[derive(Debug, Parser)]
struct Arguments {
    /// The fleet's namespace.
    #[arg(long, default_value = "drover-system", global = true)]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays an agent for each pod of the agents' DaemonSet, until it is ended.
    Agents(agents::Options),
    /// Lets all agents start at once, once each is known, and prints how that went, as JSON.
    Surge(agents::Options),
    /// Waits until a run of a Rollout is complete, and prints what it cost, as JSON.
    Measure(measure::Options),
    /// Sends the writes of a stretch of the audit log again, and prints how long that took, as JSON. The Hosts and the
    /// Rollout make no sense afterwards.
    Floor(floor::Options),
    /// Prints what each agent sends for its catalog when it has none, for `fetch`: a request as JSON on each line.
    Requests(fetch::Which),
    /// Sends requests at a fixed rate, looks whether catalogs come back, and prints how long that took, as JSON.
    Fetch(fetch::Options),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = kube::Client::try_default;
    let namespace = &arguments.namespace;
    match arguments.command {
        Command::Agents(options) => agents::play(&options, client().await?, namespace).await,
        Command::Surge(options) => print(&agents::surge(&options, client().await?, namespace).await?),
        Command::Measure(options) => print(&measure::measure(&options, client().await?, namespace).await?),
        Command::Floor(options) => print(&floor::send(&options, client().await?, namespace).await?),
        Command::Requests(which) => {
            fetch::requests(&which, client().await?, namespace).await?.iter().try_for_each(print)
        }
        Command::Fetch(options) => print(&fetch::fetch(&options).await?),
    }
}

#[allow(clippy::print_stdout, reason = "the result of this program")]
fn print(result: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

/// A stretch of the API server's audit log.
#[derive(Clone, Debug, clap::Args)]
struct Stretch {
    /// The audit log.
    #[arg(long = "audit", value_name = "FILE")]
    path: PathBuf,
    /// From this byte on.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Up to this byte; 0: to its end.
    #[arg(long, default_value_t = 0)]
    to: u64,
}
