//! A run of a Rollout, from its first write to its end, and what it cost.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::watcher::{self, watcher},
};
use serde::Serialize;

use crate::{Stretch, audit};

/// What `drover-herd measure` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The Rollout.
    #[arg(long)]
    rollout: String,
    /// The number of the run that is to be complete.
    #[arg(long)]
    run: i64,
    /// Processes, as NAME=PID.
    #[arg(long = "process", value_name = "NAME=PID", value_parser = process)]
    processes: Vec<(String, u32)>,
    /// Is made once the watch is open: from then on, nothing is missed.
    #[arg(long, value_name = "FILE")]
    ready_file: std::path::PathBuf,
    /// Gives up after so many seconds.
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
    #[command(flatten)]
    audit: Stretch,
}

fn process(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
    Ok((name.to_owned(), pid.parse().map_err(|error| format!("{pid}: {error}"))?))
}

/// What a run cost.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// From the change that began it until the run began.
    seconds_to_revision: f64,
    /// From the beginning of the run until it was complete.
    seconds: f64,
    hosts: usize,
    /// The largest status that was seen, and the largest object, in bytes of JSON.
    largest_status: usize,
    largest_object: usize,
    most_in_flight: usize,
    /// The mean size of the statuses, for the floor.
    mean_in_flight: f64,
    processes: BTreeMap<String, Process>,
    /// How many writes of each kind, by their field manager.
    writes: BTreeMap<String, usize>,
    writes_per_host: f64,
    audit_from: u64,
    audit_to: u64,
}

/// What a process used.
#[derive(Debug, Serialize)]
struct Process {
    /// Processor time during the measurement, user and system.
    cpu_seconds: f64,
    /// The peak of its resident memory since its start, in bytes.
    peak_memory: u64,
}

/// Waits for the run's end.
pub(crate) async fn measure(options: &Options, client: Client, namespace: &str) -> anyhow::Result<Measured> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("drover.dev", "v1alpha1", "Rollout"));
    let rollouts: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
    let audit_from = std::fs::metadata(&options.audit.path)?.len();
    let cpu_before = cpu_of_all(&options.processes)?;
    let events = watcher(rollouts, watcher::Config::default().fields(&format!("metadata.name={}", options.rollout)));
    pin_mut!(events);
    let begun = Instant::now();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(options.timeout);
    let (mut run_began, mut statuses, mut entries) = (None, 0_usize, 0_usize);
    let (mut largest_status, mut largest_object, mut most_in_flight, mut hosts) = (0, 0, 0, 0);
    loop {
        let event = tokio::time::timeout_at(deadline, events.next()).await;
        let Ok(event) = event else { bail!("the run was not complete in time") };
        let object = match event.context("the watch ended")? {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => object,
            Ok(watcher::Event::InitDone) => {
                std::fs::write(&options.ready_file, "")?;
                continue;
            }
            Ok(_) => continue,
            Err(error) => {
                report(&error);
                continue;
            }
        };
        let status = &object.data["status"];
        if status["run"]["number"].as_i64() != Some(options.run) {
            continue;
        }
        run_began.get_or_insert_with(Instant::now);
        let in_flight = status["inFlight"].as_array().map_or(0, Vec::len);
        if in_flight > 0 {
            statuses += 1;
            entries += in_flight;
        }
        largest_status = largest_status.max(serde_json::to_vec(status)?.len());
        largest_object = largest_object.max(serde_json::to_vec(&object)?.len());
        most_in_flight = most_in_flight.max(in_flight);
        let count = |name: &str| status["counts"][name].as_u64().and_then(|count| usize::try_from(count).ok());
        hosts = hosts.max(count("total").unwrap_or(0));
        match status["phase"].as_str() {
            Some("Complete") => break,
            Some("Failed") => bail!("the run failed: {}", status["message"]),
            _ => {}
        }
    }
    let ended = Instant::now();
    let run_began = run_began.unwrap_or(begun);
    let processes = cpu_of_all(&options.processes)?
        .into_iter()
        .map(|(name, (cpu, peak_memory))| {
            let before = cpu_before.get(&name).map_or(0.0, |(cpu, _)| *cpu);
            (name, Process { cpu_seconds: cpu - before, peak_memory })
        })
        .collect();
    let audit_to = std::fs::metadata(&options.audit.path)?.len();
    let writes = audit::writes(&Stretch { from: audit_from, to: audit_to, path: options.audit.path.clone() })?;
    Ok(Measured {
        seconds_to_revision: run_began.duration_since(begun).as_secs_f64(),
        seconds: ended.duration_since(run_began).as_secs_f64(),
        hosts,
        largest_status,
        largest_object,
        most_in_flight,
        mean_in_flight: ratio(entries, statuses),
        processes,
        writes_per_host: ratio(writes.len(), hosts),
        writes: audit::by_kind(&writes),
        audit_from,
        audit_to,
    })
}

#[allow(clippy::print_stderr, reason = "the log of this program")]
fn report(error: &watcher::Error) {
    eprintln!("the watch broke and starts again: {error}");
}

#[allow(clippy::cast_precision_loss, reason = "counts are small")]
fn ratio(of: usize, to: usize) -> f64 {
    of as f64 / to.max(1) as f64
}

type Usage = BTreeMap<String, (f64, u64)>;

/// The processor time and the peak of memory of each process; those of one name count together, and the larger peak.
fn cpu_of_all(processes: &[(String, u32)]) -> anyhow::Result<Usage> {
    let mut usage = Usage::new();
    for (name, pid) in processes {
        let folder = Path::new("/proc").join(pid.to_string());
        let read =
            |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| format!("{name} ({pid}) is gone"));
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("an odd stat file")?;
        // proc_pid_stat(5): utime and stime are fields 14 and 15, in clock ticks of 10 ms.
        let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = read("status")?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let known = usage.entry(name.clone()).or_default();
        known.0 += ticks / 100.0;
        known.1 = known.1.max(peak.unwrap_or_default() * 1024);
    }
    Ok(usage)
}
