//! The second half of a command that runs inside another root or as another user: this program again, which becomes
//! what the command must be, and then the command itself.
//!
//! A process may only change its own root and user, and code between `fork` and `exec` is hard to get right; a program
//! that is started for it needs no such code.

use std::{
    convert::Infallible,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{Gid, Mode, Uid},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use thiserror::Error;

/// The first argument that tells this program to call [`enter`].
pub const SUBCOMMAND: &str = "run-in-root";

/// The exit code when the command was never reached. As of env(1) and timeout(1): commands seldom use it themselves.
pub const NOT_ENTERED: u8 = 125;

/// How standard error begins when the command was never reached.
pub const NOT_ENTERED_PREFIX: &str = "drover-agent: run-in-root: ";

/// What a process becomes before it is the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// The root that it changes into; `/` is no change, and needs no right.
    pub root: PathBuf,
    /// The working directory, inside the root. The user must have the right to enter it.
    pub cwd: PathBuf,
    /// The user that it becomes; else it stays who it is.
    pub user: Option<Switch>,
    /// Its umask; else it stays as it is.
    pub umask: Option<u32>,
}

/// Another user, with all its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All further groups; those of the caller are given up.
    pub groups: Vec<u32>,
}

/// What could not be done on the way into the root.
#[derive(Debug, Error)]
pub enum EnterError {
    /// The root could not be changed.
    #[error("could not change the root to {root}: {source}; this needs CAP_SYS_CHROOT")]
    Root {
        /// The root.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The user could not be changed.
    #[error("could not become user {uid} with group {gid}: {source}; this needs CAP_SETUID and CAP_SETGID")]
    User {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such working directory.
    #[error("could not change into {cwd}: {source}")]
    WorkingDirectory {
        /// The directory, inside the root.
        cwd: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The command did not start.
    #[error("could not run {program}: {source}")]
    Exec {
        /// The program, inside the root.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Becomes what the entrance says, and then the command; returns only when that fails. The process must have one thread.
pub fn enter(entrance: &Entrance, argv: &[String]) -> Result<Infallible, EnterError> {
    let Entrance { root, cwd, user, umask } = entrance;
    if root != Path::new("/") {
        rustix::process::chroot(root)
            .map_err(|errno| EnterError::Root { root: root.to_owned(), source: errno.into() })?;
    }
    let elsewhere = |source| EnterError::WorkingDirectory { cwd: cwd.clone(), source };
    // Also when it is "/": until then the working directory is still outside.
    std::env::set_current_dir("/").map_err(elsewhere)?;
    if let Some(user) = user {
        switch(user).map_err(|errno| EnterError::User { uid: user.uid, gid: user.gid, source: errno.into() })?;
    }
    // By the rights of the user: root's would tell what is in folders that are closed to it.
    std::env::set_current_dir(cwd).map_err(elsewhere)?;
    if let Some(umask) = umask {
        rustix::process::umask(Mode::from_raw_mode(*umask));
    }
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let source = Command::new(program).args(arguments).exec();
    Err(EnterError::Exec { program: program.to_owned(), source })
}

/// On Linux, credentials belong to a thread, and a process with several would have to change all of them at once. This
/// process has one only. The user comes last: with it goes the right to change the rest, and every capability.
fn switch(user: &Switch) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)?;
    set_thread_gid(Gid::from_raw(user.gid))?;
    set_thread_uid(Uid::from_raw(user.uid))
}
