//! Kills the agent at every system call of a run that changes something, and fails each of them with ENOSPC and with EIO.
//!
//! After each fault one more run, which nothing disturbs, must make of the machine exactly what an undisturbed run makes
//! of it. Meanwhile a reader sees no torn file, and afterwards everybody who had to hear of a change has heard of its
//! last state. The kernel does the rest: strace injects the faults, in real runs of the real agent.

mod case;
mod machine;
mod process;
mod reader;
mod strace;
mod table;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use case::{Bed, Outcome};
use clap::Parser;
use strace::{Call, Fault, Injection, Whose};

/// Fewer resources would be no fair test.
const RESOURCES: usize = 40;

/// Kills the agent at every system call that changes something, and fails each of them; all must end well.
#[derive(Debug, Parser)]
struct Options {
    /// The agent
    #[arg(long)]
    agent: PathBuf,
    /// A static busybox, for the machines' commands
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
    /// Where machines are made; a file system in memory is fastest
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
    /// Of each kind of system call take every N-th only; all of those that put a notification in place or strike it out
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Only this case, as a failure names it
    #[arg(long, allow_hyphen_values = true)]
    only: Option<Injection>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("this needs root: it gives files to other users, and runs commands inside other roots");
    }
    let agent = options.agent.canonicalize().with_context(|| format!("no agent at {}", options.agent.display()))?;
    let folder = tempfile::Builder::new().prefix("drover-torture-").tempdir_in(&options.folder)?;
    let rows = table::rows();
    let bed = Bed::make(folder.path(), &agent, &options.busybox, &rows)?;
    if bed.resources < RESOURCES {
        bail!("{} resources are fewer than {RESOURCES}", bed.resources);
    }
    let mut counted = BTreeMap::new();
    for whose in [Whose::Agent, Whose::Commands] {
        counted.insert(whose, bed.count(whose)?);
    }
    let cases = match options.only {
        Some(injection) => vec![injection],
        None => cases(&counted, options.stride),
    };
    let began = Instant::now();
    let results = run_all(&bed, &cases)?;
    let (passed, failed) = print(&bed, &counted, &results);
    say(&format!("{passed} passed, {failed} failed, in {} s", began.elapsed().as_secs()));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn say(text: &str) {
    println!("{text}");
}

/// A case for each fault at each call. Several commands make their N-th call of a name: they share its case.
fn cases(counted: &BTreeMap<Whose, Vec<Call>>, stride: usize) -> Vec<Injection> {
    let mut cases = std::collections::BTreeSet::new();
    let mut seen: BTreeMap<(Whose, &str), usize> = BTreeMap::new();
    for (whose, calls) in counted {
        for Call { name, number, text } in calls {
            let place = seen.entry((*whose, name)).or_default();
            let due =
                place.is_multiple_of(stride.max(1)) || *whose == Whose::Commands || moves_notification(name, text);
            *place += 1;
            if due {
                cases.extend(Fault::ALL.map(|fault| Injection {
                    whose: *whose,
                    name: name.clone(),
                    fault,
                    when: *number,
                }));
            }
        }
    }
    cases.into_iter().collect()
}

/// Whether a call puts a list of notifications in place, or takes it away. With paths left out of the log, the folder
/// tells it.
fn moves_notification(name: &str, text: &str) -> bool {
    (name.starts_with("rename") || name.starts_with("unlink")) && text.contains(machine::STATE)
}

type Results = Vec<(Injection, Outcome)>;

/// Runs the cases on all processors.
fn run_all(bed: &Bed, cases: &[Injection]) -> anyhow::Result<Results> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Results> = Mutex::new(Vec::with_capacity(cases.len()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = |worker: usize| -> anyhow::Result<()> {
        while let Some(injection) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = bed.run(worker, injection).with_context(|| injection.to_string())?;
            if !outcome.wrong.is_empty() {
                say(&format!("FAILED --only '{injection}'\n  {}", outcome.wrong.join("\n").replace('\n', "\n  ")));
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((injection.clone(), outcome));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(ended) => ended,
            Err(_) => bail!("a worker gave up"),
        })
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A line of the table.
#[derive(Default)]
struct Line {
    calls: usize,
    faults: BTreeMap<Fault, usize>,
    not_reached: usize,
    converged: usize,
    failed: usize,
}

fn print(bed: &Bed, counted: &BTreeMap<Whose, Vec<Call>>, results: &Results) -> (usize, usize) {
    let mut lines: BTreeMap<(Whose, &str), Line> = BTreeMap::new();
    for (whose, calls) in counted {
        for call in calls {
            lines.entry((*whose, &call.name)).or_default().calls += 1;
        }
    }
    let mut looks = 0;
    for (injection, outcome) in results {
        let line = lines.entry((injection.whose, &injection.name)).or_default();
        looks += outcome.looks;
        if outcome.reached {
            *line.faults.entry(injection.fault).or_default() += 1;
        } else {
            line.not_reached += 1;
        }
        *if outcome.wrong.is_empty() { &mut line.converged } else { &mut line.failed } += 1;
    }
    let mut total = Line::default();
    say(&format!(
        "{:<10} {:<10} {:>6} {:>6} {:>7} {:>6} {:>12} {:>10} {:>7}",
        "of", "call", "times", "KILL", "ENOSPC", "EIO", "not reached", "converged", "failed"
    ));
    for ((whose, name), line) in &lines {
        say(&row(if *whose == Whose::Agent { "agent" } else { "commands" }, name, line));
        total.calls += line.calls;
        for (fault, count) in &line.faults {
            *total.faults.entry(*fault).or_default() += count;
        }
        total.not_reached += line.not_reached;
        total.converged += line.converged;
        total.failed += line.failed;
    }
    say(&row("all", "", &total));
    say(&format!("{} resources; readers looked {looks} times and saw old or new", bed.resources));
    (total.converged, total.failed)
}

fn row(whose: &str, name: &str, line: &Line) -> String {
    let of = |fault| line.faults.get(&fault).copied().unwrap_or_default();
    let (kill, no_space, io) = (of(Fault::Kill), of(Fault::NoSpace), of(Fault::Io));
    let Line { calls, faults: _, not_reached, converged, failed } = line;
    format!(
        "{whose:<10} {name:<10} {calls:>6} {kill:>6} {no_space:>7} {io:>6} {not_reached:>12} {converged:>10} {failed:>7}"
    )
}
