//! The second half of a command that runs inside another root: this program again, which changes its root and then
//! becomes the command.
//!
//! A process may only change its own root, and code between `fork` and `exec` is hard to get right; a program that
//! is started for it needs no such code.

use std::{
    convert::Infallible,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

/// The first argument that tells this program to call [`enter`].
pub const SUBCOMMAND: &str = "run-in-root";

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

/// Changes the root and becomes the command; returns only when that fails.
pub fn enter(root: &Path, cwd: &Path, argv: &[String]) -> Result<Infallible, EnterError> {
    rustix::process::chroot(root).map_err(|errno| EnterError::Root { root: root.to_owned(), source: errno.into() })?;
    // Also when it is "/": until then the working directory is still outside.
    std::env::set_current_dir("/")
        .and_then(|()| std::env::set_current_dir(cwd))
        .map_err(|source| EnterError::WorkingDirectory { cwd: cwd.to_owned(), source })?;
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let source = Command::new(program).args(arguments).exec();
    Err(EnterError::Exec { program: program.to_owned(), source })
}
