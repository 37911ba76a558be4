//! Keeps the machine as its catalog says: when a new catalog comes, when it is time to look again, and when a run was
//! cut off.
//!
//! It needs no master: what was last assigned is on the machine's own disk.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use drover_apply::{
    Host as _, LocalHost, Mode, Run, RunError, RunResult, StateDir,
    facts::{self, Gatherer},
    state::Pending,
};
use drover_catalog::{Catalog, CommandResult, Digest, Outcome, Report, Slot};
use tokio::{select, sync::watch, time};
use tracing::{error, info, warn};

use crate::{
    admission::{self, Admitted},
    cli::{Exit, RunOptions},
    commands,
    link::Link,
    masters::Masters,
    memory::Memory,
    run_report,
    shutdown::Signals,
};

/// How long a master has at the start to bring something newer than what is on disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// A catalog that asks for more frequent runs is not heeded: each costs the machine something.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
/// How long until a run is tried again that another run held up.
const HELD_UP: Duration = Duration::from_secs(5);
/// How long until a run that finds the machine still up after its reboot was asked for.
const SHUTTING_DOWN: Duration = Duration::from_secs(300);

/// Runs the agent until it is told to end.
pub(crate) async fn run(options: RunOptions) -> anyhow::Result<Exit> {
    let RunOptions { root, masters_dir, token_file, state_dir, host_name, facts_ttl } = options;
    let state = StateDir::new(&root, &state_dir)?;
    let memory = Memory(&state);
    let (stop, stopping) = watch::channel(false);
    let (catalogs, arriving) = watch::channel(None);
    let (reports, leaving) = watch::channel(memory.undelivered_report()?);
    let (slots, slot) = watch::channel(None);
    let keeper = Keeper::new(&root, &state, host_name, reports, (slot, stopping))?;
    let etag = keeper.current.as_ref().map(|catalog| catalog.etag());
    let masters = Masters::new(masters_dir, token_file, own_number(&root), memory.locality()?);
    let facts = Gatherer { root: &root, booted: true, state: &state, ttl: facts_ttl.duration(), refresh: false };
    let link = Link { masters, memory, facts, catalogs, slots, reports: leaving };
    let signals = Signals::listen().context("could not listen for signals")?;
    info!(version = env!("CARGO_PKG_VERSION"), root = %root.display(), "started");
    select! {
        ended = keeper.keep(arriving) => ended.map(|()| Exit::Ok),
        never = link.talk(etag) => match never {},
        () = signals.watch(stop) => Ok(Exit::Failed),
    }
}

/// A number of this machine's own, the same at each start, by which machines spread over the masters.
pub(crate) fn own_number(root: &Path) -> usize {
    let facts = facts::gather(root, true);
    let own = Digest::of(format!("{} {}", facts.machine_id, facts.networking.fqdn).as_bytes());
    usize::from_str_radix(own.short(7), 16).unwrap_or(0)
}

struct Keeper<'a> {
    root: PathBuf,
    state: &'a StateDir,
    memory: Memory<'a>,
    host_name: Option<String>,
    /// What the machine is kept as.
    current: Option<Rc<Catalog>>,
    /// The last report that was handed over in this life. The first run always makes one: versions and boot ids change
    /// with restarts.
    last_report: Option<Report>,
    reports: watch::Sender<Option<Report>>,
    /// When the machine runs by itself, once a master told.
    slot: watch::Receiver<Option<Slot>>,
    stopping: watch::Receiver<bool>,
}

impl<'a> Keeper<'a> {
    fn new(
        root: &Path,
        state: &'a StateDir,
        host_name: Option<String>,
        reports: watch::Sender<Option<Report>>,
        (slot, stopping): (watch::Receiver<Option<Slot>>, watch::Receiver<bool>),
    ) -> anyhow::Result<Self> {
        let memory = Memory(state);
        let current = memory.catalog()?.filter(|kept| {
            let ours = host_name.as_ref().is_none_or(|name| *name == kept.host.name);
            if !ours {
                warn!(kept = kept.host.name, "the catalog on disk is another host's, and is left alone");
            }
            ours
        });
        Ok(Self {
            root: root.to_owned(),
            state,
            memory,
            host_name,
            current: current.map(Rc::new),
            last_report: None,
            reports,
            slot,
            stopping,
        })
    }

    /// Keeps the machine until it is told to stop.
    async fn keep(mut self, mut arriving: watch::Receiver<Option<Rc<Catalog>>>) -> anyhow::Result<()> {
        let mut next_run = time::Instant::now() + if self.has_unfinished_work()? { Duration::ZERO } else { PATIENCE };
        let mut stopping = self.stopping.clone();
        loop {
            select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                changed = arriving.changed() => {
                    changed.context("the conversation with the masters has ended")?;
                    let offered = arriving.borrow_and_update().clone();
                    if !offered.is_some_and(|catalog| self.accept(catalog)) {
                        continue;
                    }
                }
                () = time::sleep_until(next_run), if self.current.is_some() => {}
            }
            next_run = time::Instant::now() + self.run_current().await;
        }
    }

    /// Whether a run was cut off, or something is still owed.
    fn has_unfinished_work(&self) -> anyhow::Result<bool> {
        Ok(self.memory.was_cut_off()? || !Pending::load(self.state)?.is_empty())
    }

    /// Takes a catalog as the machine's own, if it may be; says whether there is something new to do.
    fn accept(&mut self, offered: Rc<Catalog>) -> bool {
        let (generation, digest) = (offered.generation, offered.digest.short(12).to_owned());
        match admission::admit(&offered, self.current.as_deref(), self.host_name.as_deref()) {
            Err(refusal) => {
                warn!(generation, digest, %refusal, "refused a catalog; the one before stays in force");
                return false;
            }
            Ok(Admitted::Same) => return false,
            Ok(Admitted::New) => info!(generation, digest, "a new catalog"),
            Ok(Admitted::NewHost) => {
                warn!(
                    generation,
                    digest,
                    uid = offered.host.uid,
                    "this host was made anew; its generations start again"
                );
            }
        }
        if let Err(error) = self.memory.keep_catalog(&offered) {
            // Applied nevertheless: the machine may be full, and the catalog what empties it.
            error!(%error, "could not keep the catalog on disk; after a restart it must come from a master");
        }
        self.current = Some(offered);
        true
    }

    /// Makes the machine what its catalog says, and says how long until the next time.
    async fn run_current(&mut self) -> Duration {
        let Some(catalog) = self.current.clone() else {
            return PATIENCE;
        };
        let lock = match self.state.try_lock() {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => {
                info!("another run is under way on this machine; waiting for it to end");
                return HELD_UP;
            }
            Err(error) => {
                error!(%error, "could not lock the state folder");
                None
            }
        };
        let started = Instant::now();
        let result = self.apply(&catalog).await;
        drop(lock);
        let report = match result {
            // The marker stays: the next start goes on.
            Ok(result) if result.interrupted => return Duration::ZERO,
            Ok(result) => {
                let mut report = run_report::of_run(&catalog, result, started.elapsed(), &self.root);
                if report.outcome == Outcome::Converged {
                    report.commands = self.run_commands(&catalog).await;
                }
                report
            }
            Err(error) => {
                error!(%error, "the run could not go on");
                run_report::of_failed_run(&catalog, &error, started.elapsed(), &self.root)
            }
        };
        let due = reboot_is_due(&catalog, &report);
        if self.hand_over(report) && due && self.reboot().await {
            return SHUTTING_DOWN;
        }
        let interval = SHORTEST_INTERVAL.max(Duration::from_secs(u64::from(catalog.interval_seconds)));
        until_turn(*self.slot.borrow(), interval, SystemTime::now())
    }

    async fn apply(&self, catalog: &Catalog) -> Result<RunResult, RunError> {
        // A full disk is no reason to stop: this very catalog may be what makes room.
        if let Err(error) = self.memory.begin_run() {
            error!(%error, "could not note on disk that a run begins; if it is cut off, the next start does not hurry");
        }
        // Opened anew for each run: connections to systemd are not kept for hours.
        let host = LocalHost::open(&self.root, true).map_err(drover_apply::StateError::from)?.with_digests(self.state);
        let stop = || *self.stopping.borrow();
        let run = Run { host: &host, state: self.state, mode: Mode::Apply, differences: false, stop: &stop };
        let result = run.apply(catalog).await?;
        if !result.interrupted {
            host.keep_digests(self.state);
            self.memory.end_run()?;
        }
        Ok(result)
    }

    /// Runs the commands that were not run yet, and remembers how they ended.
    async fn run_commands(&self, catalog: &Catalog) -> Vec<CommandResult> {
        if catalog.commands.is_empty() {
            return vec![];
        }
        let known = self.memory.command_results().unwrap_or_default();
        let host = match LocalHost::open(&self.root, true) {
            Ok(host) => host,
            Err(error) => {
                error!(%error, "could not run the commands of a Rollout; the next run tries again");
                return vec![];
            }
        };
        let results = commands::run(&host, catalog, &known).await;
        if results != known
            && let Err(error) = self.memory.keep_command_results(&results)
        {
            error!(%error, "could not note on disk that the commands of a Rollout were run; they are run again");
        }
        results
    }

    /// Hands over a report that is news. Says whether it outlives a restart.
    fn hand_over(&mut self, report: Report) -> bool {
        if !run_report::is_news(&report, self.last_report.as_ref()) {
            return true;
        }
        let kept = self.memory.keep_report(&report);
        if let Err(error) = &kept {
            error!(%error, "could not keep the report on disk; it is lost if no master takes it before a restart");
        }
        self.last_report = Some(report.clone());
        self.reports.send_replace(Some(report));
        kept.is_ok()
    }

    /// Shuts the machine down and starts it again; says whether systemd took the order. If not, the next run tries again.
    async fn reboot(&self) -> bool {
        info!("the machine must reboot, and may: rebooting");
        let asked = async { LocalHost::open(&self.root, true)?.reboot().await };
        match asked.await {
            Ok(()) => true,
            Err(error) => {
                error!(%error, "could not reboot the machine; the next run tries again");
                false
            }
        }
    }
}

/// How long until the machine's next turn. A slot that comes less often than the catalog asks for is of another catalog, and one
/// that is here already is left out.
fn until_turn(slot: Option<Slot>, interval: Duration, now: SystemTime) -> Duration {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let fits = |slot: &Slot| (SHORTEST_INTERVAL..=interval).contains(&Duration::from_millis(slot.period));
    let Some(slot) = slot.filter(fits) else { return interval };
    let left = Duration::from_millis(slot.next(u64::try_from(since_1970.as_millis()).unwrap_or_default()));
    if left < SHORTEST_INTERVAL { left + Duration::from_millis(slot.period) } else { left }
}

/// Whether the machine must reboot and its catalog lets it, in this very boot: after the reboot the same catalog allows none.
fn reboot_is_due(catalog: &Catalog, report: &Report) -> bool {
    let this_boot = Some(&report.boot_id).filter(|id| !id.is_empty());
    !report.reboot_required.is_empty() && this_boot.is_some() && catalog.reboot.as_ref() == this_boot
}

#[cfg(test)]
mod tests {
    use drover_catalog::HostIdentity;

    use super::*;

    #[test]
    fn it_reboots_when_it_must_and_may_in_this_boot_and_no_other() {
        for (reasons, allowed, boot, due) in [
            (&["kernel"][..], Some("b1"), "b1", true),
            (&[], Some("b1"), "b1", false),
            (&["kernel"], None, "b1", false),
            (&["kernel"], Some("b1"), "b2", false),
            // A machine that does not tell its boots apart would reboot for ever.
            (&["kernel"], Some(""), "", false),
            (&["kernel"], None, "", false),
        ] {
            let catalog = Catalog {
                host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
                generation: 1,
                revisions: vec![],
                interval_seconds: 60,
                resources: vec![],
                reboot: allowed.map(str::to_owned),
                commands: vec![],
                digest: Digest::of(b""),
            };
            let result = RunResult {
                reboot_required: reasons.iter().copied().map(str::to_owned).collect(),
                ..RunResult::default()
            };
            let report = run_report::of_run(&catalog, result, Duration::ZERO, Path::new("/"));
            let report = Report { boot_id: boot.to_owned(), ..report };
            assert_eq!(reboot_is_due(&catalog, &report), due, "{reasons:?} {allowed:?} {boot:?}");
        }
    }

    #[test]
    fn a_machine_runs_in_its_slot_and_without_one_at_its_interval() {
        let seconds = Duration::from_secs;
        let at = |now: u64, slot| until_turn(slot, seconds(1800), SystemTime::UNIX_EPOCH + seconds(now));
        let slot = |period: u64, offset: u64| Some(Slot { period: period * 1000, offset: offset * 1000 });
        assert_eq!(at(1_000_000, None), seconds(1800));
        assert_eq!(at(1800 * 9 + 100, slot(1800, 700)), seconds(600));
        assert_eq!(at(1800 * 9 + 695, slot(1800, 700)), seconds(1805), "it ran just now");
        assert_eq!(at(0, slot(3600, 700)), seconds(1800), "that is too seldom");
        assert_eq!(at(0, slot(1, 0)), seconds(1800), "that is too often");
    }

    #[test]
    fn a_report_that_is_not_on_disk_does_not_outlive_a_reboot() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        let (reports, _receiver) = watch::channel(None);
        let (_stop, stopping) = watch::channel(false);
        let mut keeper = Keeper::new(root.path(), &state, None, reports, (watch::channel(None).1, stopping)).unwrap();
        let report = |generation| Report {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation,
            catalog: Digest::of(b""),
            revisions: vec![],
            outcome: drover_catalog::Outcome::Converged,
            totals: drover_catalog::Totals::default(),
            resources: vec![],
            millis_by_type: std::collections::BTreeMap::new(),
            duration_millis: 0,
            reboot_required: vec![],
            commands: vec![],
            boot_id: String::new(),
            agent_version: String::new(),
        };
        assert!(keeper.hand_over(report(1)));
        assert!(keeper.hand_over(report(1)), "no news, and a report is on its way already");
        std::fs::remove_dir_all(root.path().join("state")).unwrap();
        std::fs::write(root.path().join("state"), "in the way").unwrap();
        assert!(!keeper.hand_over(report(2)));
    }

    #[test]
    fn unfinished_work_is_a_run_that_was_cut_off_or_a_notification_that_is_owed() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        let (reports, _) = watch::channel(None);
        let (_stop, stopping) = watch::channel(false);
        let keeper = Keeper::new(root.path(), &state, None, reports, (watch::channel(None).1, stopping)).unwrap();
        assert!(!keeper.has_unfinished_work().unwrap());
        keeper.memory.begin_run().unwrap();
        assert!(keeper.has_unfinished_work().unwrap());
        keeper.memory.end_run().unwrap();
        assert!(!keeper.has_unfinished_work().unwrap());
        state.write("notifications.json", br#"{"base/nginx": ["base/conf"]}"#).unwrap();
        assert!(keeper.has_unfinished_work().unwrap());
    }
}
