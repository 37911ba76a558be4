//! `drover-agent`: fetches a host's catalog from the masters, keeps the machine so, and reports what it did.
//!
//! Here is the process: arguments, log, runtime and exit codes. What a catalog means on a machine is `drover-apply`'s;
//! there is no Kubernetes in here.

mod admission;
mod backups;
mod cli;
mod commands;
mod facts;
mod keeper;
mod link;
mod local;
mod manifests;
mod masters;
mod memory;
mod one_shot;
mod ping;
mod run_report;
mod shutdown;
mod signature;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Cli, Command, Exit, LogFormat, Logging};
use drover_apply::run_in_root;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do about a closed terminal.
            let _ = error.print();
            // clap would exit with 2, which means "changed" here.
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let cli = match cli {
        // Before anything else: it is about to become another program, and must have one thread until then.
        Cli { command: Command::RunInRoot(options), logging: _ } => {
            let (entrance, argv) = options.into_entrance();
            return match run_in_root::enter(&entrance, &argv) {
                Err(error) => not_entered(&error),
                Ok(never) => match never {},
            };
        }
        other => other,
    };
    // Whoever started the agent may have another; commands count on this one.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    run(cli).map_or_else(|error| fail(&error), ExitCode::from)
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    start_logging(&cli.logging)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the async runtime")?;
    match cli.command {
        Command::Run(options) => runtime.block_on(keeper::run(options)),
        Command::Ping(options) => runtime.block_on(ping::run(options)),
        Command::Apply(options) => runtime.block_on(one_shot::run(options)),
        Command::Backups(options) => backups::run(&options),
        Command::Facts(options) => runtime.block_on(facts::run(options)),
        // Taken care of before.
        Command::RunInRoot(_) => Ok(Exit::Ok),
    }
}

/// The log goes to standard error: standard output is for results.
fn start_logging(logging: &Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(drover_core::logging::filter(&logging.log))
        .with_context(|| format!("--log {:?} is no filter", logging.log))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match logging.log_format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the agent that started this reads it, and takes it for its own")]
fn not_entered(error: &run_in_root::EnterError) -> ExitCode {
    eprintln!("{}{error}", run_in_root::NOT_ENTERED_PREFIX);
    run_in_root::NOT_ENTERED.into()
}

#[expect(clippy::print_stderr, reason = "the log may not have started yet")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("drover-agent: {error:#}");
    Exit::Failed.into()
}
