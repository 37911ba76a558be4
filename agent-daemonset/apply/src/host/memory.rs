//! A machine that lives in memory: fast, scripted, with a log of what was done to it, and with a moment to be killed at.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use drover_catalog::Digest;
use futures::executor::block_on;

use super::{
    Access, Command, CommandOutput, Download, Entry, EntryKind, FileVersion, Host, HostError, Unit, UnitJob, Unpack,
};
use crate::providers::{Provider, ProviderError};

/// A machine in memory.
#[derive(Default)]
pub(crate) struct MemoryHost {
    files: RefCell<BTreeMap<String, (Entry, Vec<u8>)>>,
    units: RefCell<BTreeMap<String, Unit>>,
    kernel: RefCell<BTreeMap<String, String>>,
    has_no_kernel: bool,
    commands: RefCell<BTreeMap<String, CommandOutput>>,
    first_outputs: RefCell<BTreeMap<String, Vec<CommandOutput>>>,
    ran: RefCell<Vec<Command>>,
    missing_programs: BTreeSet<String>,
    broken: RefCell<BTreeSet<String>>,
    log: RefCell<Vec<String>>,
    reboot_reasons: RefCell<Vec<String>>,
    downloads: RefCell<BTreeMap<String, Vec<u8>>>,
    kill: Cell<Option<Kill>>,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Before this many more acts, at the one after them.
    Before(usize),
    /// Right after that one was done.
    After(usize),
}

impl MemoryHost {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: &str, access: Access) -> Self {
        self.put(path, EntryKind::File, content.as_bytes(), access);
        self
    }

    pub(crate) fn directory(self, path: &str, access: Access) -> Self {
        self.put(path, EntryKind::Directory, b"", access);
        self
    }

    pub(crate) fn special(self, path: &str, kind: EntryKind) -> Self {
        self.put(path, kind, b"", Access { mode: 0o777, user: 0, group: 0 });
        self
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.put_link(path, target);
        self
    }

    /// With a hard link to the file elsewhere.
    pub(crate) fn other_name(self, path: &str) -> Self {
        self.files.borrow_mut().get_mut(path).unwrap().0.has_other_names = true;
        self
    }

    /// What is to be had at a URL; at no other there is anything.
    pub(crate) fn url(self, url: &str, content: &[u8]) -> Self {
        self.downloads.borrow_mut().insert(url.into(), content.into());
        self
    }

    pub(crate) fn unit(self, name: &str, active_state: &str, unit_file_state: &str) -> Self {
        let unit = Unit {
            load_state: "loaded".into(),
            active_state: active_state.into(),
            unit_file_state: unit_file_state.into(),
            needs_reload: false,
        };
        self.units.borrow_mut().insert(name.into(), unit);
        self
    }

    pub(crate) fn stale_unit(self, name: &str) -> Self {
        self.change_unit(name, |unit| unit.needs_reload = true);
        self
    }

    pub(crate) fn masked_unit(self, name: &str) -> Self {
        self.change_unit(name, |unit| unit.load_state = "masked".into());
        self
    }

    /// Every other program succeeds without a word.
    pub(crate) fn command(self, program: &str, code: i32, stdout: &str, stderr: &str) -> Self {
        let output = CommandOutput { code: Some(code), stdout: stdout.into(), stderr: stderr.into() };
        self.commands.borrow_mut().insert(program.into(), output);
        self
    }

    /// The next run of a program ends so, before [`MemoryHost::command`] says how all others end.
    pub(crate) fn command_first(self, program: &str, code: i32, stderr: &str) -> Self {
        let output = CommandOutput { code: Some(code), stdout: Vec::new(), stderr: stderr.into() };
        self.first_outputs.borrow_mut().entry(program.into()).or_default().insert(0, output);
        self
    }

    /// The commands that were run since the last call, one line each: program, arguments, and what else is said of them.
    /// Standard input is shown after `<`.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.ran.take().iter().map(told).collect()
    }

    pub(crate) fn without_program(mut self, program: &str) -> Self {
        self.missing_programs.insert(program.into());
        self
    }

    pub(crate) fn kernel_parameter(self, path: &str, value: &str) -> Self {
        self.kernel.borrow_mut().insert(path.into(), value.into());
        self
    }

    pub(crate) fn without_kernel(mut self) -> Self {
        self.has_no_kernel = true;
        self
    }

    /// From now on this act fails.
    pub(crate) fn break_act(&self, act: &str) {
        self.broken.borrow_mut().insert(act.into());
    }

    /// All acts work again, and no kill is due.
    pub(crate) fn repair(&self) {
        self.broken.borrow_mut().clear();
        self.kill.set(None);
    }

    /// Panics at that moment, which is what a kill looks like from inside: nothing after it happens.
    pub(crate) fn kill(&self, when: Kill) {
        self.kill.set(Some(when));
    }

    /// What was done, one line each, since the last call.
    pub(crate) fn log(&self) -> String {
        self.log.take().join("\n")
    }

    /// How often something was done, since the last look at the log.
    pub(crate) fn count(&self, act: &str) -> usize {
        self.log.borrow().iter().filter(|line| *line == act).count()
    }

    fn put(&self, path: &str, kind: EntryKind, content: &[u8], access: Access) {
        let entry = Entry { kind, access, size: content.len() as u64, has_other_names: false };
        self.files.borrow_mut().insert(path.into(), (entry, content.to_vec()));
    }

    fn put_link(&self, path: &str, target: &str) {
        self.put(path, EntryKind::SymbolicLink, target.as_bytes(), Access { mode: 0o777, user: 0, group: 0 });
    }

    fn change_unit(&self, name: &str, change: impl FnOnce(&mut Unit)) {
        change(self.units.borrow_mut().get_mut(name).unwrap());
    }

    fn act(&self, act: String, how: impl FnOnce()) -> Result<(), HostError> {
        let after = match self.kill.get() {
            Some(Kill::Before(0)) => panic!("killed"),
            Some(Kill::After(0)) => true,
            Some(Kill::Before(n)) => {
                self.kill.set(Some(Kill::Before(n - 1)));
                false
            }
            Some(Kill::After(n)) => {
                self.kill.set(Some(Kill::After(n - 1)));
                false
            }
            None => false,
        };
        if self.broken.borrow().contains(&act) {
            return Err(HostError::Unit(format!("could not {act}")));
        }
        how();
        self.log.borrow_mut().push(act);
        assert!(!after, "killed");
        Ok(())
    }
}

impl Host for MemoryHost {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        Ok(self.files.borrow().get(path).map(|(entry, _)| *entry))
    }

    fn file_version(&self, path: &str) -> Result<Option<FileVersion>, HostError> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        Ok(self.files.borrow().get(path).map(|(entry, content)| {
            let mut hasher = DefaultHasher::new();
            (content, entry.access.mode).hash(&mut hasher);
            FileVersion { inode: hasher.finish(), size: entry.size, changed: (0, 0) }
        }))
    }

    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.files.borrow().get(path).map(|(_, content)| content.clone()))
    }

    fn read_entry(&self, path: &str, at_most: u64) -> Result<Option<(Entry, Vec<u8>)>, HostError> {
        let found = self.files.borrow().get(path).cloned();
        if found.as_ref().is_some_and(|(entry, _)| entry.size > at_most) {
            return Err(HostError::TooLarge { path: path.into(), limit: at_most });
        }
        Ok(found.map(|(entry, content)| (entry, if entry.kind == EntryKind::File { content } else { Vec::new() })))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, HostError> {
        let files = self.files.borrow();
        let link = files.get(path).filter(|(entry, _)| entry.kind == EntryKind::SymbolicLink);
        Ok(link.map(|(_, target)| String::from_utf8_lossy(target).into_owned()))
    }

    fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        let files = self.files.borrow();
        if files.get(path).is_none_or(|(entry, _)| entry.kind != EntryKind::Directory) {
            return Ok(None);
        }
        let inside = format!("{path}/");
        let names = files.keys().filter_map(|file| file.strip_prefix(&inside)).filter(|name| !name.contains('/'));
        Ok(Some(names.map(str::to_owned).collect()))
    }

    fn write_link(&self, path: &str, target: &str) -> Result<(), HostError> {
        self.act(format!("link {path}"), || self.put_link(path, target))
    }

    fn remove_tree(&self, path: &str) -> Result<(), HostError> {
        let inside = format!("{path}/");
        self.act(format!("remove all of {path}"), || {
            self.files.borrow_mut().retain(|file, _| file != path && !file.starts_with(&inside));
        })
    }

    fn remove_directory(&self, path: &str) -> Result<(), HostError> {
        let inside = format!("{path}/");
        assert!(!self.files.borrow().keys().any(|file| file.starts_with(&inside)), "{path} is not empty");
        self.act(format!("remove {path}"), || drop(self.files.borrow_mut().remove(path)))
    }

    fn count_tree(&self, path: &str, _at_most: usize) -> Result<usize, HostError> {
        let inside = format!("{path}/");
        Ok(self.files.borrow().keys().filter(|file| *file == path || file.starts_with(&inside)).count())
    }

    fn require_reboot(&self, reason: &str) -> Result<(), HostError> {
        self.act("require a reboot".to_owned(), || self.reboot_reasons.borrow_mut().push(reason.to_owned()))
    }

    fn reboot_reasons(&self) -> Result<Vec<String>, HostError> {
        Ok(self.reboot_reasons.borrow().clone())
    }

    async fn reboot(&self) -> Result<(), HostError> {
        self.act("reboot".to_owned(), || {})
    }

    async fn download(&self, download: &Download<'_>) -> Result<(), HostError> {
        let own = download.url.strip_prefix("file://").map(|path| self.read_file(path)).transpose()?.flatten();
        let Some(content) = self.downloads.borrow().get(download.url).cloned().or(own) else {
            return Err(HostError::Download { url: download.url.to_owned(), why: "not found".to_owned() });
        };
        if Digest::of(&content) != *download.sha256 {
            return Err(HostError::Download { url: download.url.to_owned(), why: "wrong digest".to_owned() });
        }
        self.act(format!("download {}", download.path), || {
            self.put(download.path, EntryKind::File, &content, download.access);
        })
    }

    fn file_digest(&self, path: &str) -> Result<Option<Digest>, HostError> {
        Ok(self.read_file(path)?.map(|content| Digest::of(&content)))
    }

    async fn unpack(&self, unpack: &Unpack<'_>) -> Result<Vec<(String, u64)>, HostError> {
        // An archive in memory is lines: the paths of files that hold their own names.
        let archive = self.read_file(unpack.archive)?.unwrap_or_default();
        assert_eq!(Digest::of(&archive), *unpack.sha256);
        let archive = String::from_utf8_lossy(&archive).into_owned();
        let access = Access { mode: 0o755, user: unpack.user, group: unpack.group };
        self.act(format!("unpack into {}", unpack.into), || {
            for path in archive.lines() {
                self.put(&format!("{}/{path}", unpack.into), EntryKind::File, path.as_bytes(), access);
            }
        })?;
        for old in unpack.replaces.iter().filter(|old| archive.lines().all(|path| path != *old)) {
            self.remove_file(&format!("{}/{old}", unpack.into))?;
        }
        Ok(archive.lines().map(|path| (path.to_owned(), path.len() as u64)).collect())
    }

    async fn write_file(
        &self,
        path: &str,
        content: &[u8],
        access: Access,
        validate: Option<&[String]>,
    ) -> Result<(), HostError> {
        if let Some(program) = validate.and_then(<[String]>::first) {
            let output = self.run(&Command::new([program], std::time::Duration::from_secs(1))).await?;
            if !output.success() {
                let (program, failure) = (program.clone(), output.failure());
                return Err(HostError::Invalid { path: path.into(), program, failure });
            }
        }
        self.act(format!("write {path}"), || {
            self.put(path, EntryKind::File, content, access);
        })
    }

    fn remove_file(&self, path: &str) -> Result<(), HostError> {
        self.act(format!("remove {path}"), || drop(self.files.borrow_mut().remove(path)))
    }

    fn make_directory(&self, path: &str, access: Access) -> Result<(), HostError> {
        self.act(format!("make {path}"), || {
            self.put(path, EntryKind::Directory, b"", access);
        })
    }

    fn set_directory_access(&self, path: &str, access: Access) -> Result<(), HostError> {
        self.act(format!("set access of {path}"), || {
            self.put(path, EntryKind::Directory, b"", access);
        })
    }

    fn remove_leftovers(&self, _folder: &str) -> Result<(), HostError> {
        Ok(())
    }

    fn user_id(&self, user: &str) -> Result<u32, HostError> {
        account("user", user)
    }

    fn group_id(&self, group: &str) -> Result<u32, HostError> {
        account("group", group)
    }

    fn kernel_parameter(&self, path: &str) -> Result<Option<String>, HostError> {
        if self.has_no_kernel {
            return Err(HostError::Unavailable("no kernel".into()));
        }
        Ok(self.kernel.borrow().get(path).cloned())
    }

    fn set_kernel_parameter(&self, path: &str, value: &str) -> Result<(), HostError> {
        self.act(format!("set {path}"), || {
            drop(self.kernel.borrow_mut().insert(path.into(), value.into()));
        })
    }

    fn kernel_file(&self, path: &str) -> Result<Option<String>, HostError> {
        if self.has_no_kernel {
            return Err(HostError::Unavailable("no kernel".into()));
        }
        let content = self.read_file(&format!("/proc/{path}"))?;
        Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    }

    fn mount_table(&self) -> Result<String, HostError> {
        Ok(self.kernel_file("1/mountinfo")?.unwrap_or_default())
    }

    async fn run(&self, command: &Command) -> Result<CommandOutput, HostError> {
        let program = command.program();
        if self.missing_programs.contains(program) {
            return Err(HostError::NoProgram { program: program.to_owned() });
        }
        self.act(format!("run {program}"), || self.ran.borrow_mut().push(command.clone()))?;
        if let Some(first) = self.first_outputs.borrow_mut().get_mut(program).and_then(Vec::pop) {
            return Ok(first);
        }
        let succeeded = CommandOutput { code: Some(0), ..CommandOutput::default() };
        Ok(self.commands.borrow().get(program).cloned().unwrap_or(succeeded))
    }

    async fn unit(&self, unit: &str) -> Result<Unit, HostError> {
        let not_found = || Unit {
            load_state: "not-found".into(),
            active_state: "inactive".into(),
            unit_file_state: String::new(),
            needs_reload: false,
        };
        Ok(self.units.borrow().get(unit).cloned().unwrap_or_else(not_found))
    }

    async fn set_unit_enabled(&self, unit: &str, enabled: bool) -> Result<(), HostError> {
        let state = if enabled { "enabled" } else { "disabled" };
        self.act(format!("{state} {unit}"), || {
            self.change_unit(unit, |unit| unit.unit_file_state = state.into());
        })
    }

    async fn set_unit_masked(&self, unit: &str, masked: bool) -> Result<(), HostError> {
        let (verb, load_state, state) =
            if masked { ("mask", "masked", "masked") } else { ("unmask", "loaded", "disabled") };
        self.act(format!("{verb} {unit}"), || {
            self.change_unit(unit, |unit| {
                unit.load_state = load_state.into();
                unit.unit_file_state = state.into();
            });
        })
    }

    async fn run_unit_job(&self, unit: &str, job: UnitJob) -> Result<(), HostError> {
        let state = if job == UnitJob::Stop { "inactive" } else { "active" };
        self.act(format!("{} {unit}", job.verb()), || {
            self.change_unit(unit, |unit| unit.active_state = state.into());
        })
    }

    async fn reload_unit_files(&self) -> Result<(), HostError> {
        self.act("reload unit files".into(), || {
            self.units.borrow_mut().values_mut().for_each(|unit| unit.needs_reload = false);
        })
    }
}

fn told(command: &Command) -> String {
    let mut line = command.argv.join(" ");
    if let Some((user, group)) = command.user {
        line.extend([" as ", &user.to_string(), ":", &group.to_string()]);
    }
    if let Some(umask) = command.umask {
        line.extend([" umask ", &format!("{umask:03o}")]);
    }
    if let Some(stdin) = &command.stdin {
        line.extend([" < ", stdin.expose().trim_end()]);
    }
    line
}

fn account(kind: &'static str, name: &str) -> Result<u32, HostError> {
    match name {
        "root" => Ok(0),
        "adm" => Ok(4),
        _ => name.parse().map_err(|_| HostError::NoAccount { kind, name: name.to_owned() }),
    }
}

/// What a resource would change on a machine: its changes joined by `; `, or `refused: ` and why.
#[track_caller]
pub(crate) fn check<P: Provider>(spec: &P, host: &MemoryHost, expected: &str) {
    assert_eq!(changes(spec, host, false), expected);
}

/// The same, when something else has notified it.
#[track_caller]
pub(crate) fn check_notified<P: Provider>(spec: &P, host: &MemoryHost, expected: &str) {
    assert_eq!(changes(spec, host, true), expected);
}

pub(crate) fn changes<P: Provider>(spec: &P, host: &MemoryHost, notified: bool) -> String {
    match block_on(spec.observe(host, notified)).and_then(|observed| spec.diff(&observed)) {
        Ok(changes) => changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Err(error) => format!("refused: {error}"),
    }
}

/// Applies what a resource must change.
pub(crate) fn apply<P: Provider>(spec: &P, host: &MemoryHost) -> Result<(), ProviderError> {
    block_on(async {
        let observed = spec.observe(host, false).await?;
        let changes = spec.diff(&observed)?;
        host.log();
        spec.apply(host, &changes).await
    })
}
