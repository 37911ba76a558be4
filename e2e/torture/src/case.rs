//! One case: a run with a fault, then a run without; and everything that must hold afterwards.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, bail};

use crate::{
    machine::{self, Found, LOGS},
    process::{Ended, apply},
    reader::{self, Seen, Watched},
    strace::{self, Call, Fault, Injection, Whose},
    table::{self, Row},
};

/// What all cases share: the machine before, and after a run that nothing disturbed.
pub(crate) struct Bed {
    folder: PathBuf,
    agent: PathBuf,
    catalog: PathBuf,
    before: PathBuf,
    manifest: BTreeMap<String, Found>,
    /// By log, its last line.
    heard: BTreeMap<String, String>,
    watched: Vec<Watched>,
    pub(crate) resources: usize,
}

/// What came of a case.
pub(crate) struct Outcome {
    /// Whether the fault came about: another run may have fewer calls.
    pub(crate) reached: bool,
    pub(crate) looks: u64,
    /// What does not hold; empty when all is well.
    pub(crate) wrong: Vec<String>,
}

impl Bed {
    /// Applies the first catalog, then the second, and sees to it that each row of the table changes something.
    pub(crate) fn make(folder: &Path, agent: &Path, busybox: &Path, rows: &[Row]) -> anyhow::Result<Self> {
        let (before, after) = (folder.join("before"), folder.join("after"));
        machine::make(&before, busybox).context("could not make a machine")?;
        let mut catalogs = Vec::new();
        for generation in [1, 2] {
            let path = folder.join(format!("catalog-{generation}.json"));
            fs::write(&path, serde_json::to_vec(&table::catalog(rows, generation)?)?)?;
            catalogs.push(path);
        }
        let [first, second] = catalogs.as_slice() else { bail!("there are two catalogs") };
        expect(&apply(agent, first, folder, &before, None)?, 2, "the first catalog")?;
        for row in rows {
            if let table::Before::Made(make) = row.before {
                make(&before).with_context(|| format!("{} could not be made", row.name))?;
            }
        }
        machine::copy(&before, &after)?;
        expect(&apply(agent, second, folder, &after, None)?, 2, "the second catalog")?;
        expect(&apply(agent, second, folder, &after, None)?, 0, "the second catalog, again")?;

        let (old, manifest) = (machine::manifest(&before)?, machine::manifest(&after)?);
        let at = |manifest: &BTreeMap<String, Found>, path: &str| {
            manifest.get(path.trim_start_matches('/')).cloned().unwrap_or(Found::Nothing)
        };
        let mut watched = Vec::new();
        for row in rows {
            for path in &row.paths {
                let (old, new) = (at(&old, path), at(&manifest, path));
                if old == new {
                    bail!("{} changes nothing at {path}, so it tests nothing", row.name);
                }
                if row.at_once {
                    watched.push(Watched { path: path.clone(), old, new });
                }
            }
        }
        let mut heard = BTreeMap::new();
        for listener in table::listeners(rows) {
            let line = machine::last_line(&after, &listener.log);
            // What a listener says of the machine as it is now must be what it heard last.
            let now = std::process::Command::new("chroot").arg(&after).args(listener.argv()).status();
            if !now.context("could not run chroot")?.success() || line != machine::last_line(&after, &listener.log) {
                bail!("{} did not see the end of an undisturbed run: {line}", listener.log);
            }
            heard.insert(listener.log, line);
        }
        let resources = table::catalog(rows, 2)?.resources.len();
        let (folder, agent, catalog) = (folder.to_owned(), agent.to_owned(), second.clone());
        Ok(Self { folder, agent, catalog, before, manifest, heard, watched, resources })
    }

    /// The calls of an undisturbed run that change something.
    pub(crate) fn count(&self, whose: Whose) -> anyhow::Result<Vec<Call>> {
        let folder = self.folder.join("count");
        let (log, root) = self.fresh(&folder)?;
        let ended = apply(&self.agent, &self.catalog, &folder, &root, Some(&strace::arguments(&log, whose, None)))?;
        expect(&ended, 2, "the second catalog under strace")?;
        Ok(strace::calls(&fs::read_to_string(log)?, whose))
    }

    /// A folder for a case, with the machine as it is before.
    fn fresh(&self, folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir(folder)?;
        let root = folder.join("root");
        machine::copy(&self.before, &root).context("could not copy the machine")?;
        Ok((folder.join("strace"), root))
    }

    /// Runs a case in the folder of a worker.
    pub(crate) fn run(&self, worker: usize, injection: &Injection) -> anyhow::Result<Outcome> {
        let folder = self.folder.join(format!("worker-{worker}"));
        let (log, root) = self.fresh(&folder)?;
        let stop = AtomicBool::new(false);
        let arguments = strace::arguments(&log, injection.whose, Some(injection));
        let (runs, seen) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| reader::read(&root, &self.watched, &stop));
            let runs = [Some(arguments.as_slice()), None]
                .map(|strace| apply(&self.agent, &self.catalog, &folder, &root, strace));
            stop.store(true, Ordering::Release);
            let gave_up = |_| Seen { wrong: ["the reader gave up".to_owned()].into(), ..Seen::default() };
            (runs, reader.join().unwrap_or_else(gave_up))
        });
        let [disturbed, again] = runs;
        let (disturbed, again) = (disturbed?, again?);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let hit = text.lines().find(|line| line.contains("(INJECTED)"));
        let reached = match injection.fault {
            Fault::Kill => text.contains("killed by SIGKILL"),
            Fault::NoSpace | Fault::Io => hit.is_some(),
        };

        let mut wrong: Vec<String> = seen.wrong.into_iter().collect();
        if !(disturbed.was_killed() && reached) {
            wrong.extend(disturbed.objection().map(|why| format!("the disturbed run: {why}")));
        }
        if let Some(call) = hit
            && injection.whose == Whose::Agent
            && is_silent(&disturbed, call, &root)
        {
            let said = format!("{}{}", disturbed.stdout, disturbed.stderr);
            wrong.push(format!("nobody was told of the error of {call}\n{said}"));
        }
        match again.objection() {
            Some(why) => wrong.push(format!("the next run: {why}")),
            None if again.status.code() == Some(1) => {
                wrong.push(format!("the next run failed:\n{}{}", again.stdout, again.stderr));
            }
            None => {}
        }
        wrong.extend(machine::differences(&self.manifest, &machine::manifest(&root)?));
        for (log, expected) in &self.heard {
            let found = machine::last_line(&root, log);
            if found != *expected {
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let (heard, is) = (words(&found), words(expected));
                let only = |these: &[String], those: &[String]| {
                    these.iter().filter(|word| !those.contains(word)).cloned().collect::<Vec<_>>().join(" ")
                };
                let (heard, is) = (only(&heard, &is), only(&is, &heard));
                wrong.push(format!(
                    "{LOGS}/{log} was not told of the last change; it heard {heard:?} of what is {is:?}"
                ));
            }
        }
        Ok(Outcome { reached, looks: seen.looks, wrong })
    }
}

/// Whether an error at a file of the machine left no trace: a run that failed says so by its exit code. One that is only
/// worth a warning may be about what the agent remembers, but never about the machine itself.
fn is_silent(ended: &Ended, call: &str, root: &Path) -> bool {
    if !call.contains(&*root.to_string_lossy()) || ended.status.code() == Some(1) {
        return false;
    }
    let remembers = call.contains(&*root.join(machine::STATE).to_string_lossy());
    !(remembers && ended.stderr.contains("WARN"))
}

fn expect(ended: &Ended, code: i32, what: &str) -> anyhow::Result<()> {
    if ended.status.code() == Some(code) && ended.objection().is_none() {
        return Ok(());
    }
    bail!("{what} ended with {}, not {code}:\n{}{}", ended.status, ended.stdout, ended.stderr)
}
