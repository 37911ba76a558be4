//! The seam between what must be so and a machine: everything a provider may see or do.
//!
//! File calls are short and block; commands and systemd jobs take their time, so those are async. Nothing here knows
//! what a catalog is, and no error carries content.

mod local;
#[cfg(test)]
pub(crate) mod memory;

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use drover_catalog::{Digest, Sensitive};
pub use local::LocalHost;
pub(crate) use local::{Tree, unpack_bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How large a file may be that is edited or compared, in bytes.
pub(crate) const LARGEST_CONFIGURATION: u64 = 16 << 20;

/// A machine, or a folder that stands for one. Paths are absolute and mean the machine's own tree.
#[expect(async_fn_in_trait, reason = "agents run on one thread, so no caller needs the futures to be Send")]
pub trait Host {
    /// What is at a path; a symbolic link is not followed. `None` where nothing is.
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError>;

    /// What tells the file at a path from what was there before, without reading it; a symbolic link is not followed.
    /// `None` where nothing is.
    fn file_version(&self, path: &str) -> Result<Option<FileVersion>, HostError>;

    /// What is at a path with its content, which is empty for all but regular files; a symbolic link is not followed. Both
    /// are of one file, whoever replaces it meanwhile. `None` where nothing is. A file of more than `at_most` bytes is an
    /// error: its owner can make it as large as they like.
    fn read_entry(&self, path: &str, at_most: u64) -> Result<Option<(Entry, Vec<u8>)>, HostError>;

    /// The content of a regular file; a symbolic link is followed where only root can have put it there. `None` where
    /// nothing is. For files that the machine itself writes: one of more than 64 MiB is an error.
    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// What a symbolic link says. `None` where none is.
    fn read_link(&self, path: &str) -> Result<Option<String>, HostError>;

    /// The names in a directory, sorted. `None` where none is.
    fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, HostError>;

    /// Puts a file in place of whatever file or symbolic link is there, at once: a reader sees the old one or the new
    /// one, and the new one has its owner and mode from the start. It is on disk when this returns.
    ///
    /// `validate` is a command that must succeed first; `%` in its arguments stands for the path of the new file, which
    /// nobody knows yet.
    async fn write_file(
        &self,
        path: &str,
        content: &[u8],
        access: Access,
        validate: Option<&[String]>,
    ) -> Result<(), HostError>;

    /// Puts a symbolic link in place of whatever file or symbolic link is there, at once.
    fn write_link(&self, path: &str, target: &str) -> Result<(), HostError>;

    /// Removes a file or a symbolic link. Nothing there is fine.
    fn remove_file(&self, path: &str) -> Result<(), HostError>;

    /// Removes an empty directory. Nothing there is fine.
    fn remove_directory(&self, path: &str) -> Result<(), HostError>;

    /// Removes whatever is at a path, a directory with all that is in it; symbolic links are never followed, and what is
    /// mounted inside is an error. Nothing there is fine.
    fn remove_tree(&self, path: &str) -> Result<(), HostError>;

    /// How many entries [`Host::remove_tree`] would remove, itself included; above `at_most`, any number above it. What is
    /// mounted inside is an error.
    fn count_tree(&self, path: &str, at_most: usize) -> Result<usize, HostError>;

    /// Makes a directory, whose parent must be there.
    fn make_directory(&self, path: &str, access: Access) -> Result<(), HostError>;

    /// Gives a directory to an owner with a mode.
    fn set_directory_access(&self, path: &str, access: Access) -> Result<(), HostError>;

    /// Removes what an earlier, killed process left half-written in a folder.
    fn remove_leftovers(&self, folder: &str) -> Result<(), HostError>;

    /// The number of a user, by name (of the machine's own accounts) or number.
    fn user_id(&self, user: &str) -> Result<u32, HostError>;

    /// The number of a group, by name (of the machine's own accounts) or number.
    fn group_id(&self, group: &str) -> Result<u32, HostError>;

    /// A kernel parameter's value in the running kernel, by its path below `/proc/sys`. `None` where the kernel does not have it,
    /// [`HostError::Unavailable`] where no kernel of its own runs.
    fn kernel_parameter(&self, path: &str) -> Result<Option<String>, HostError>;

    /// Sets a kernel parameter in the running kernel, by its path below `/proc/sys`.
    fn set_kernel_parameter(&self, path: &str, value: &str) -> Result<(), HostError>;

    /// A file of the kernel, by its path below `/proc`. `None` where the kernel does not have it, [`HostError::Unavailable`]
    /// where no kernel of its own runs.
    fn kernel_file(&self, path: &str) -> Result<Option<String>, HostError>;

    /// What is mounted in the machine, as `proc_pid_mountinfo(5)` has it; [`HostError::Unavailable`] where no kernel of its own
    /// runs.
    fn mount_table(&self) -> Result<String, HostError>;

    /// Notes that the machine must reboot, until it has.
    fn require_reboot(&self, reason: &str) -> Result<(), HostError>;

    /// Why the machine must reboot, as was noted since it booted.
    fn reboot_reasons(&self) -> Result<Vec<String>, HostError>;

    /// Shuts the machine down in order and starts it again; returns when that was taken as an order.
    async fn reboot(&self) -> Result<(), HostError>;

    /// Fetches a file from a URL, in place of whatever file or symbolic link is there, once its SHA-256 is right; as
    /// [`Host::write_file`] otherwise.
    async fn download(&self, download: &Download<'_>) -> Result<(), HostError>;

    /// The SHA-256 of a regular file. `None` where nothing is. It reads the whole file, piece by piece.
    fn file_digest(&self, path: &str) -> Result<Option<Digest>, HostError>;

    /// Unpacks an archive that is a file of the machine into a directory; see [`ArchiveSpec`](drover_catalog::ArchiveSpec).
    /// Returns the paths of the files and links that it holds, relative to the directory, with their sizes. All of it
    /// is on disk then.
    async fn unpack(&self, unpack: &Unpack<'_>) -> Result<Vec<(String, u64)>, HostError>;

    /// Runs a command to its end. Ended with all its children when it takes too long, or when
    /// the future is dropped.
    async fn run(&self, command: &Command) -> Result<CommandOutput, HostError>;

    /// What systemd knows of a unit.
    async fn unit(&self, unit: &str) -> Result<Unit, HostError>;

    /// Has a unit started at boot, or not.
    async fn set_unit_enabled(&self, unit: &str, enabled: bool) -> Result<(), HostError>;

    /// Masks a unit, so that nobody can start it, or takes that away.
    async fn set_unit_masked(&self, unit: &str, masked: bool) -> Result<(), HostError>;

    /// Starts, stops, restarts or reloads a unit, and waits for the result.
    async fn run_unit_job(&self, unit: &str, job: UnitJob) -> Result<(), HostError>;

    /// Has systemd read all unit files again.
    async fn reload_unit_files(&self) -> Result<(), HostError>;
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Who may do what with it.
    pub access: Access,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is a regular file with another name beside this one: a hard link.
    pub has_other_names: bool,
}

/// What tells a file from what was at its path before: it differs once the file was replaced, written or given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    /// Its number in its file system.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its content, owner or mode last changed: seconds and nanoseconds since 1970.
    pub changed: (i64, u64),
}

/// The kinds of entries that providers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    SymbolicLink,
    /// A device, a socket or a pipe.
    Special,
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permission bits, with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// The owner.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// A file from a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its SHA-256.
    pub sha256: &'a Digest,
    /// Where it goes.
    pub path: &'a str,
    /// Who may do what with it.
    pub access: Access,
    /// How long it may take.
    pub timeout: Duration,
}

/// An archive that is to be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack<'a> {
    /// The archive, a file of the machine.
    pub archive: &'a str,
    /// Its SHA-256: a file that somebody else has put in its place is refused.
    pub sha256: &'a Digest,
    /// The directory.
    pub into: &'a str,
    /// So many leading parts of each path are left out.
    pub strip_components: u32,
    /// The owner of all that is unpacked.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Files and links below the directory that go, unless the archive has them: those of an older one.
    pub replaces: &'a [String],
}

/// A command on the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, looked up in [`Command::PATH`] if it has no slash, and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment, beside `PATH`, which it may override.
    pub environment: BTreeMap<String, Sensitive>,
    /// The working directory; else the root.
    pub cwd: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// The user and the group that it runs as; else root.
    pub user: Option<(u32, u32)>,
    /// Its umask; else `0o022`.
    pub umask: Option<u32>,
    /// Its standard input; else nothing. The place for secrets: others can see arguments.
    pub stdin: Option<Sensitive>,
}

impl Command {
    /// The search path of commands.
    pub const PATH: &'static str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// A command with nothing in its environment but `PATH`.
    pub fn new<const N: usize>(argv: [&str; N], timeout: Duration) -> Self {
        Self::of(argv.map(str::to_owned).to_vec(), timeout)
    }

    /// The same, for arguments that are not known beforehand.
    pub fn of(argv: Vec<String>, timeout: Duration) -> Self {
        Self { argv, environment: BTreeMap::new(), cwd: None, timeout, user: None, umask: None, stdin: None }
    }

    /// The program's name, which is all that messages may show: arguments can hold secrets.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The first 64 KiB of its standard output.
    pub stdout: Vec<u8>,
    /// The last 500 bytes of its standard error.
    pub stderr: Vec<u8>,
}

impl CommandOutput {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// For a message about its failure: how it ended, and after a colon the end of standard error.
    pub fn failure(&self) -> String {
        let ending = match self.code {
            Some(code) => format!("exited with {code}"),
            None => "was ended by a signal".to_owned(),
        };
        let stderr = String::from_utf8_lossy(&self.stderr);
        match stderr.trim() {
            "" => format!("{ending}, and wrote nothing to standard error"),
            text => format!("{ending}: {text}"),
        }
    }
}

/// What systemd knows of a unit, in systemd's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `LoadState`: `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load_state: String,
    /// `ActiveState`: `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`; empty where no systemd
    /// runs.
    pub active_state: String,
    /// `UnitFileState`: `enabled`, `disabled`, `static`, `masked` and others.
    pub unit_file_state: String,
    /// Whether its file changed since systemd read it.
    pub needs_reload: bool,
}

/// Something that systemd does to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitJob {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it.
    Restart,
    /// Reload it if it can, else restart it.
    ReloadOrRestart,
}

impl UnitJob {
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::ReloadOrRestart => "reload",
        }
    }
}

/// Why something could not be done on a machine.
#[derive(Debug, Error)]
pub enum HostError {
    /// It cannot be done here and now, and that is no failure.
    #[error("{0}")]
    Unavailable(String),
    /// The file system refused.
    #[error("could not {action} {path}: {}", explain(source))]
    Path {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A symbolic link on the way that others than root may have put there, and that is not followed for this reason.
    #[error(
        "could not {action} {path}: {link} is a symbolic link that is not trusted, because {why}; name the place that it \
         leads to, or let only root own and write the link and the folders above it"
    )]
    UntrustedLink {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Where the link is.
        link: PathBuf,
        /// Who may have put it there.
        why: String,
    },
    /// A file is larger than what is read of such files.
    #[error("{path} is larger than {} MiB, which no configuration file is; see what it is, and move it away", .limit >> 20)]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// What is read at most, in bytes.
        limit: u64,
    },
    /// A new file did not pass its validation, and was not put in place.
    #[error("the new {path} was refused by {program}, and the old one stays: {failure}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The program that validates it.
        program: String,
        /// How it ended, and after a colon the end of its standard error.
        failure: String,
    },
    /// A file could not be fetched, or is not the one that was asked for.
    #[error("could not fetch {url}: {why}")]
    Download {
        /// From where.
        url: String,
        /// Why, and what to do.
        why: String,
    },
    /// An archive could not be unpacked.
    #[error("could not unpack {archive}: {why}")]
    Archive {
        /// Which archive.
        archive: String,
        /// Why, and what to do.
        why: String,
    },
    /// There is something else than a file.
    #[error("{path} is {found}, which is never replaced by {wanted}; move it away or choose another path")]
    WrongKind {
        /// Which path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What should be there.
        wanted: &'static str,
    },
    /// No such user or group on the machine.
    #[error("the machine has no {kind} {name}; add it first (a package or a command that this resource requires)")]
    NoAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A command could not be run at all.
    #[error("could not run {program}: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command's program is not on the machine.
    #[error("there is no program {program} on the machine; install the package that has it, and require that package")]
    NoProgram {
        /// Its name.
        program: String,
    },
    /// A command took too long, and was ended with all its children.
    #[error("{program} was still running after {seconds} s and was ended; raise timeoutSeconds if it needs longer")]
    Timeout {
        /// Its name.
        program: String,
        /// Its limit.
        seconds: u64,
    },
    /// Systemd did not do it.
    #[error("{0}")]
    Unit(String),
    /// Systemd does not answer.
    #[error("could not {action} over D-Bus: {source}")]
    Bus {
        /// What was attempted.
        action: String,
        /// What the bus said.
        source: zbus::Error,
    },
}

/// The system's words, and what to do about the ones that puzzle people.
fn explain(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; a folder on the way is missing: add it as a directory resource and require it",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only",
        io::ErrorKind::CrossesDevices => {
            "; another file system is mounted in there, and is never entered: unmount it first"
        }
        io::ErrorKind::ResourceBusy => "; it is a mount point, and such a file cannot be replaced",
        _ => "",
    };
    format!("{error}{hint}")
}
