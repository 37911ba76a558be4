//! The agent as a process: with or without strace, with a deadline, and with what it leaves behind.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

/// No run takes so long that is not stuck.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stuck: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// Whether it ended as it says it does: 0, 1 or 2, and with a reason for 1.
    pub(crate) fn objection(&self) -> Option<String> {
        let said = || format!("{}{}", self.stdout, self.stderr);
        if self.stuck {
            return Some(format!("it was still running after {} s:\n{}", DEADLINE.as_secs(), said()));
        }
        if self.stderr.contains("panicked") {
            return Some(format!("it panicked:\n{}", self.stderr));
        }
        match self.status.code() {
            Some(0 | 2) => None,
            Some(1) if self.stdout.contains("FAILED") || self.stderr.contains("drover-agent: ") => None,
            _ => Some(format!("it ended with {}:\n{}", self.status, said())),
        }
    }
}

/// One run of a catalog; `strace` are the arguments of strace, where it takes part.
pub(crate) fn apply(
    agent: &Path,
    catalog: &Path,
    folder: &Path,
    root: &Path,
    strace: Option<&[String]>,
) -> io::Result<Ended> {
    let mut command = match strace {
        None => Command::new(agent),
        Some(arguments) => {
            let mut command = Command::new("strace");
            command.args(arguments).arg("--").arg(agent);
            command
        }
    };
    // Files, so that nobody has to read while the agent runs.
    let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg("apply").arg("--catalog").arg(catalog).arg("--root").arg(root);
    command.stdin(Stdio::null()).stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
    let mut child = command.process_group(0).spawn()?;
    let stuck = !ends_in_time(&child, DEADLINE)?;
    if stuck && let Some(group) = pid(child.id()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait()?;
    end_commands(root, !stuck)?;
    let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(Ended { status, stuck, stdout: read(&stdout)?, stderr: read(&stderr)? })
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

fn ends_in_time(child: &Child, deadline: Duration) -> io::Result<bool> {
    pid(child.id()).map_or(Ok(true), |pid| wait(pid, deadline))
}

/// Whether a process ends within a time.
fn wait(pid: Pid, deadline: Duration) -> io::Result<bool> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(errno) => return Err(errno.into()),
    };
    let until = Instant::now() + deadline;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A command outlives an agent that is killed. It may end by itself first: its work belongs to the case.
fn end_commands(root: &Path, patiently: bool) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !is_in(id, root)? {
            continue;
        }
        let Some(pid) = pid(id) else { continue };
        if !(patiently && wait(pid, DEADLINE)?) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Whether a process runs inside the root, or is on its way there.
fn is_in(id: u32, root: &Path) -> io::Result<bool> {
    if fs::read_link(format!("/proc/{id}/root")).is_ok_and(|found| found == root) {
        return Ok(true);
    }
    match fs::read(format!("/proc/{id}/cmdline")) {
        Ok(arguments) => Ok(arguments.split(|byte| *byte == 0).any(|one| one == root.as_os_str().as_encoded_bytes())),
        // It has just ended.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(false),
        Err(error) => Err(error),
    }
}
