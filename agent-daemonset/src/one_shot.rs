//! `drover-agent apply`: one run of NodeConfigs from files, or of a catalog that comes as a file or by standard input, as
//! SSH Jobs send it.
//!
//! The same rules hold for a catalog as for one from a master: it is whole, and not a step back. A machine that a master
//! keeps is not changed from files: the two would undo each other's work. What changes is printed.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, bail};
use drover_apply::{Difference, LocalHost, Mode, Run, StateDir};
use drover_catalog::{Catalog, Outcome, Report, ResourceStatus, Totals};
use drover_core::explain::explain;
use tokio::sync::watch;

use crate::{
    admission,
    cli::{ApplyOptions, Exit, Output},
    local,
    memory::Memory,
    run_report,
    shutdown::Signals,
};

/// Whether the machine at a root runs; otherwise it is an image.
pub(crate) fn is_booted(root: &Path) -> bool {
    root == Path::new("/") || LocalHost::runs_systemd(root)
}

/// Applies the catalog once.
pub(crate) async fn run(options: ApplyOptions) -> anyhow::Result<Exit> {
    let mode = if options.noop { Mode::Noop } else { Mode::Apply };
    let state = StateDir::new(&options.root, &options.state_dir)?;
    let memory = Memory(&state);
    if let Some(name) = &options.explain {
        let catalog = explained(&options, &state, memory.catalog()?).await?;
        print(&explain(&catalog, name)?)?;
        return Ok(Exit::Ok);
    }
    let catalog = wanted(&options, &state, mode, memory.catalog()?).await?;
    let lock = match mode {
        Mode::Noop => None,
        Mode::Apply => match state.try_lock()? {
            Some(lock) => Some(lock),
            None => bail!("another run is under way on this machine; try again when it has ended"),
        },
    };
    if mode == Mode::Apply {
        memory.keep_catalog(&catalog)?;
        memory.begin_run()?;
    }
    let (stop, stopping) = watch::channel(false);
    let signals = Signals::listen().context("could not listen for signals")?;
    let host = LocalHost::open(&options.root, is_booted(&options.root))?.with_digests(&state);
    let started = Instant::now();
    let run = Run { host: &host, state: &state, mode, differences: options.noop, stop: &|| *stopping.borrow() };
    let mut result = tokio::select! {
        result = run.apply(&catalog) => result?,
        () = signals.watch(stop) => return Ok(Exit::Failed),
    };
    if result.interrupted {
        bail!("it was asked to end before the last resource; run it again for the rest");
    }
    if mode == Mode::Apply {
        host.keep_digests(&state);
        memory.end_run()?;
    }
    drop(lock);
    let differences = std::mem::take(&mut result.differences);
    let report = run_report::of_run(&catalog, result, started.elapsed(), &options.root);
    match options.output {
        Output::Table => print(&table(&report, &differences, mode))?,
        Output::Json => print(&serde_json::to_string(&report).context("could not write the report as JSON")?)?,
    }
    Ok(exit(&report))
}

/// The catalog that is to be applied, if it may be applied to this machine.
async fn wanted(
    options: &ApplyOptions,
    state: &StateDir,
    mode: Mode,
    kept: Option<Catalog>,
) -> anyhow::Result<Catalog> {
    if let Some(path) = &options.catalog {
        let catalog = read(path)?;
        admission::admit(&catalog, kept.as_ref(), None).with_context(|| format!("{} is refused", path.display()))?;
        return Ok(catalog);
    }
    if let Some(kept) = kept.filter(|kept| mode == Mode::Apply && !local::is_local(kept)) {
        bail!(
            "a master keeps this machine (Host {}, generation {}): change its NodeConfig in the cluster; \
             --noop works all the same",
            kept.host.name,
            kept.generation
        );
    }
    local::catalog(options, state).await
}

/// The catalog whose resources are to be explained.
async fn explained(options: &ApplyOptions, state: &StateDir, kept: Option<Catalog>) -> anyhow::Result<Catalog> {
    match (kept, options.catalog.is_none() && options.files.is_empty()) {
        (Some(kept), true) => Ok(kept),
        (None, true) => bail!("this machine has no catalog yet; name NodeConfigs by -f"),
        (kept, false) => wanted(options, state, Mode::Noop, kept).await,
    }
}

/// Writes a line to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end()).context("could not write to standard output")
}

fn read(path: &Path) -> anyhow::Result<Catalog> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text))
    };
    read.with_context(|| format!("could not read the catalog {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        // Where it is wrong, but never the text: it may hold secrets.
        let (line, column) = (error.line(), error.column());
        anyhow::anyhow!("{} is no catalog: see line {line}, column {column}", path.display())
    })
}

fn exit(report: &Report) -> Exit {
    match report.outcome {
        Outcome::Failed => Exit::Failed,
        Outcome::Converged if report.totals.changed + report.totals.corrected + report.totals.pending > 0 => {
            Exit::Changed
        }
        Outcome::Converged => Exit::Ok,
    }
}

/// What is not unchanged, a line each with the differences below it, and the counts.
fn table(report: &Report, differences: &[Difference], mode: Mode) -> String {
    let rows = report.resources.iter();
    let width = rows.clone().map(|r| r.id.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:<9} {:<width$}  {}", word(row.status, mode), row.id.as_str(), row.message);
        for difference in differences.iter().filter(|difference| difference.id == row.id) {
            text.push_str(&difference.text);
        }
    }
    let Totals { unchanged, changed, corrected, pending, failed, skipped, deferred, flapping: _ } = report.totals;
    let done = match mode {
        Mode::Noop => format!("{pending} would change"),
        Mode::Apply => {
            let seldom = [(corrected, "corrected"), (pending, "differ")]
                .map(|(count, word)| if count > 0 { format!(", {count} {word}") } else { String::new() });
            format!("{changed} changed{}", seldom.concat())
        }
    };
    let _ = write!(text, "{done}, {unchanged} unchanged, {deferred} deferred, {failed} failed, {skipped} skipped");
    text
}

fn word(status: ResourceStatus, mode: Mode) -> &'static str {
    match status {
        ResourceStatus::Unchanged => "unchanged",
        ResourceStatus::Pending if mode == Mode::Noop => "would be",
        ResourceStatus::Pending => "differs",
        ResourceStatus::Changed => "changed",
        ResourceStatus::Failed => "FAILED",
        ResourceStatus::Skipped => "skipped",
        ResourceStatus::Deferred => "deferred",
    }
}
