//! Commands inside the root, each in a process group of its own, so that it can be ended with all its children.
//!
//! One that runs as a user gets what login(1) would give it: the further groups of the machine's own `/etc/group`, and
//! `HOME`, `USER` and `LOGNAME`. A user without an account gets no further group, and `/` for its home.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal},
    thread::CapabilitySet,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::{Child, Command as Process},
    time::timeout,
};

use drover_catalog::Sensitive;

use super::{Command, CommandOutput, HostError, Tree, accounts::Identity};
use crate::run_in_root;

const STDOUT_LIMIT: usize = 64 * 1024;
const STDERR_LIMIT: usize = 500;

/// How long output may still come in when the command itself has ended: a daemon that it left behind may hold its
/// standard output open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Runs commands inside one root.
pub(super) struct Runner {
    /// `None` where it is the root of this very process.
    root: Option<PathBuf>,
}

impl Runner {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: (root != Path::new("/")).then(|| root.to_owned()) }
    }

    /// Whether this process has the right to change into the root.
    pub(super) fn may_enter_root(&self) -> bool {
        self.root.is_none()
            || rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_CHROOT))
    }

    /// Refuses a command whose program is not on the machine, before anything starts: from the outside, that would
    /// look like a program that exited with 127.
    pub(super) fn check_program(tree: &Tree, command: &Command) -> Result<(), HostError> {
        let program = command.program();
        let there = if program.contains('/') {
            // Relative to a working directory that only the command itself will see.
            !program.starts_with('/') || tree.is_program(program)
        } else {
            let path = command.environment.get("PATH").map_or(Command::PATH, Sensitive::expose);
            path.split(':').any(|folder| tree.is_program(&format!("{folder}/{program}")))
        };
        if there { Ok(()) } else { Err(HostError::NoProgram { program: program.to_owned() }) }
    }

    /// See [`Host::run`](super::Host::run). `identity` is what is known of the user that the command runs as.
    pub(super) async fn run(&self, command: &Command, identity: Option<&Identity>) -> Result<CommandOutput, HostError> {
        let failed = |source| HostError::Spawn { program: command.program().to_owned(), source };
        let mut process = self.process(command, identity).map_err(failed)?;
        process
            .env_clear()
            .env("PATH", Command::PATH)
            .envs(identity.map(environment).unwrap_or_default())
            .envs(command.environment.iter().map(|(name, value)| (name, value.expose())))
            .process_group(0)
            .stdin(if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().map_err(failed)?;
        let group = Group::of(&child);
        let stdin = child.stdin.take().zip(command.stdin.as_ref());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = CommandOutput::default();
        let Ok(status) = timeout(command.timeout, wait(&mut child, stdin, stdout, stderr, &mut output)).await else {
            drop(group);
            child.wait().await.map_err(failed)?;
            return Err(HostError::Timeout {
                program: command.program().to_owned(),
                seconds: command.timeout.as_secs(),
            });
        };
        output.code = status.map_err(failed)?.code();
        group.let_go();
        match never_started(&output) {
            Some(why) => Err(failed(std::io::Error::other(why))),
            None => Ok(output),
        }
    }

    fn process(&self, command: &Command, identity: Option<&Identity>) -> std::io::Result<Process> {
        let cwd = command.cwd.as_deref().unwrap_or("/");
        let (program, arguments) =
            command.argv.split_first().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        if self.root.is_none() && identity.is_none() && command.umask.is_none() {
            let mut process = Process::new(program);
            process.args(arguments).current_dir(cwd);
            return Ok(process);
        }
        // Not by its path: an upgrade may have put another program there.
        let mut process = Process::new("/proc/self/exe");
        process.arg(run_in_root::SUBCOMMAND).arg("--root").arg(self.root.as_deref().unwrap_or(Path::new("/")));
        process.args(["--cwd", cwd]);
        if let Some(Identity { uid, gid, groups, account: _ }) = identity {
            process.arg(format!("--uid={uid}")).arg(format!("--gid={gid}"));
            process.args(groups.iter().map(|group| format!("--group={group}")));
        }
        if let Some(umask) = command.umask {
            process.arg(format!("--umask={umask}"));
        }
        process.arg("--").args(&command.argv);
        Ok(process)
    }
}

/// What login(1) says of a user to its programs.
fn environment(identity: &Identity) -> Vec<(&'static str, String)> {
    match &identity.account {
        Some((name, home)) => vec![("HOME", home.clone()), ("USER", name.clone()), ("LOGNAME", name.clone())],
        None => vec![("HOME", "/".to_owned())],
    }
}

/// Why a command was never reached, if so: a guard must not take that for its answer.
fn never_started(output: &CommandOutput) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = stderr.trim_end().strip_prefix(run_in_root::NOT_ENTERED_PREFIX)?;
    (output.code == Some(i32::from(run_in_root::NOT_ENTERED))).then(|| why.to_owned())
}

/// Waits for the command, while its input is written and its output is read, so that neither side waits on a full pipe
/// for the other.
async fn wait(
    child: &mut Child,
    stdin: Option<(impl AsyncWrite + Unpin, &Sensitive)>,
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    output: &mut CommandOutput,
) -> std::io::Result<ExitStatus> {
    let CommandOutput { stdout: head, stderr: tail, code: _ } = output;
    let keep_first = |chunk: &[u8]| head.extend(chunk.iter().take(STDOUT_LIMIT - head.len()));
    let keep_last = |chunk: &[u8]| {
        tail.extend_from_slice(chunk);
        tail.drain(..tail.len().saturating_sub(STDERR_LIMIT));
    };
    let exchange =
        async { tokio::join!(write_all(stdin), read_to_end(stdout, keep_first), read_to_end(stderr, keep_last)) };
    tokio::pin!(exchange);
    tokio::select! {
        // Output first: then it is complete, unless something was left behind.
        biased;
        _ = &mut exchange => child.wait().await,
        status = child.wait() => {
            let _ = timeout(LAST_OUTPUT, exchange).await;
            status
        }
    }
}

/// Writes a pipe and closes it. A command need not read it to the end: the exit code is what counts.
async fn write_all(stdin: Option<(impl AsyncWrite + Unpin, &Sensitive)>) {
    if let Some((mut pipe, text)) = stdin {
        let _ = pipe.write_all(text.expose().as_bytes()).await;
    }
}

/// Reads a pipe to its end. A pipe that breaks has ended: the exit code is what counts.
async fn read_to_end(pipe: Option<impl AsyncRead + Unpin>, mut keep: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        keep(chunk.get(..length).unwrap_or_default());
    }
}

/// The process group of a command. Dropping it ends the whole group, also when the future that runs the command is
/// dropped; a command that ended by itself may leave a daemon behind, and that is let go.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended just now.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}
