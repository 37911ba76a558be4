//! Kills the operator before and after each of its writes, stops it and lets it go on too late, and shows it stale watches.
//!
//! Each scenario runs once without a fault, which counts the operator's writes and shows the end that is expected. Then it
//! runs once for each fault: from an empty world, with the real binary against a real API server, up to the same end. An
//! independent watcher reads every version of every object and judges them by the design's invariants.

mod agents;
mod end;
mod history;
mod plan;
mod process;
mod proxy;
mod run;
mod scenarios;
mod stale;
mod watcher;
mod world;

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use futures::future::try_join_all;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    plan::{Case, Tally},
    process::Program,
    run::{Fault, Outcome, run},
    scenarios::{ALL, Scenario},
    world::World,
};

/// Disturbs the operator at every write, and judges what comes of it.
#[derive(Debug, Parser)]
struct Options {
    /// The operator
    #[arg(long)]
    operator: PathBuf,
    /// The administrator's kubeconfig, of a control plane of this program's own
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where logs go
    #[arg(long)]
    folder: PathBuf,
    /// How many runs go on at the same time
    #[arg(long, default_value_t = 4)]
    worlds: usize,
    /// Take every N-th fault only, in turn over the scenarios
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Only these scenarios
    #[arg(long)]
    scenario: Vec<String>,
    /// Only faults of these kinds: `before`, `after`, `stop`, `freeze`, `lose`
    #[arg(long)]
    kind: Vec<String>,
    /// Only this fault, as a failure names it: `before:12`, `stop:3`, `freeze:hosts`
    #[arg(long)]
    fault: Option<Fault>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Operators end with what owns them, so it must not be torn away.
    tokio::select! {
        finished = disturb(options) => finished,
        _ = terminated.recv() => Ok(ExitCode::from(143)),
        _ = interrupted.recv() => Ok(ExitCode::from(130)),
    }
}

async fn disturb(options: Options) -> anyhow::Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client_for(&options, true).await?;
    // What the API server says goes to the operator as it is, refusals included.
    let upstream = client_for(&options, false).await?;
    std::fs::create_dir_all(&options.folder)?;
    let program = Program { operator: options.operator.canonicalize()?, folder: options.folder.clone() };
    let scenarios: Vec<&Scenario> = ALL
        .iter()
        .filter(|it| options.scenario.is_empty() || options.scenario.iter().any(|name| name == it.name))
        .collect();
    let began = Instant::now();
    let worlds = try_join_all((0..options.worlds).map(|index| World::start(&client, &upstream, index))).await?;

    let first = scenarios.iter().map(|scenario| Case { scenario, fault: Fault::None, expected: None }).collect();
    let undisturbed = all(&worlds, &program, first).await?;
    let mut tally = Tally::default();
    let mut cases = vec![];
    for (case, outcome, took) in undisturbed {
        let mut faults = match &options.fault {
            Some(fault) => vec![fault.clone()],
            None => plan::faults(outcome.writes.len()),
        };
        let is_wanted = |fault: &Fault| options.kind.iter().any(|kind| fault.to_string().starts_with(kind.as_str()));
        faults.retain(|fault| options.kind.is_empty() || is_wanted(fault));
        let expected = Arc::new(outcome.end.clone());
        cases.push(
            faults
                .into_iter()
                .map(|fault| Case { scenario: case.scenario, fault, expected: Some(Arc::clone(&expected)) })
                .collect::<Vec<_>>(),
        );
        tally.add(&case, &outcome, took);
    }
    let cases = plan::sample(cases, options.stride);
    for (case, outcome, took) in all(&worlds, &program, cases.into()).await? {
        tally.add(&case, &outcome, took);
    }
    for line in tally.lines() {
        say(&line);
    }
    say(&format!("{} faults, {} violations, in {} s", tally.faults(), tally.violations(), began.elapsed().as_secs()));
    Ok(if tally.violations() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes all runs, as many at a time as there are worlds.
async fn all(
    worlds: &[World],
    program: &Program,
    cases: VecDeque<Case>,
) -> anyhow::Result<Vec<(Case, Outcome, Duration)>> {
    let total = cases.len();
    let (waiting, done) = (Mutex::new(cases), Mutex::new(vec![]));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = async |world: &World| {
        while let Some(case) = next() {
            let began = Instant::now();
            let outcome = run(world, program, case.scenario, &case.fault, case.expected.as_deref()).await;
            let outcome = match outcome {
                Err(error) if case.expected.is_some() => Outcome::broken(&error),
                other => other.with_context(|| format!("{} without a fault", case.scenario.name))?,
            };
            tell(world, program, &case, &outcome);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((case, outcome, began.elapsed()));
            if done.len() % 100 == 0 {
                say(&format!("{} of {total}", done.len()));
            }
        }
        anyhow::Ok(())
    };
    try_join_all(worlds.iter().map(work)).await?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Says what was wrong, at once, and how to see it again.
fn tell(world: &World, program: &Program, case: &Case, outcome: &Outcome) {
    if outcome.violations.is_empty() {
        return;
    }
    let name = case.scenario.name;
    let log = process::keep(&program.log(&world.namespace), &format!("{name}-{}.log", case.fault));
    let struck = outcome.struck.as_deref().unwrap_or("no write");
    say(&format!(
        "FAILED: --scenario {name} --fault {}, at {struck}; the operators' log is {}",
        case.fault,
        log.display()
    ));
    for violation in &outcome.violations {
        say(&format!("  {violation}"));
    }
}

async fn client_for(options: &Options, retries: bool) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = retries;
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn say(text: &str) {
    println!("{text}");
}
