//! The machine below a folder of this file system: `/`, the node's `/` mounted at `/host`, or an image being built.

mod accounts;
mod commands;
mod download;
mod reboot;
mod systemd;
mod tree;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
};

use commands::Runner;
use drover_catalog::Digest;
use systemd::Systemd;
use tracing::warn;
pub(crate) use tree::Tree;
pub(crate) use unpack::unpack_bytes;

use super::{Access, Command, CommandOutput, Download, Entry, FileVersion, Host, HostError, Unit, UnitJob, Unpack};
use crate::state::{Digests, StateDir};

/// How long the validation of a new file may take.
const VALIDATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// The machine below a root folder.
pub struct LocalHost {
    tree: Tree,
    root: PathBuf,
    booted: bool,
    runner: Runner,
    /// Connected when it is first needed: most runs change no service.
    systemd: tokio::sync::OnceCell<Systemd>,
    digests: Digests,
}

impl LocalHost {
    /// The machine whose tree is at `root`. `booted` says whether it runs: in a folder that stands for a machine,
    /// nothing is started and no kernel parameter is set.
    ///
    /// Commands run inside the root: where that is not `/`, through this very program, which must call
    /// [`run_in_root`](crate::run_in_root) when its arguments begin with
    /// [`run_in_root::SUBCOMMAND`](crate::run_in_root::SUBCOMMAND).
    pub fn open(root: &Path, booted: bool) -> Result<Self, HostError> {
        Ok(Self {
            tree: Tree::open(root)?,
            root: root.to_owned(),
            booted,
            runner: Runner::new(root),
            systemd: tokio::sync::OnceCell::new(),
            digests: Digests::default(),
        })
    }

    /// The same, with what earlier runs know of files that they read whole; see [`LocalHost::keep_digests`].
    #[must_use]
    pub fn with_digests(self, state: &StateDir) -> Self {
        Self { digests: Digests::load(state), ..self }
    }

    /// Writes down, at the end of a whole run, what it knows of files that it read whole. What it did not ask for is
    /// forgotten.
    pub fn keep_digests(&self, state: &StateDir) {
        if let Err(error) = self.digests.keep(state) {
            warn!(%error, "could not remember digests; downloads are read again in the next run");
        }
    }

    /// Whether the folder is the tree of a machine that runs under systemd.
    pub fn runs_systemd(root: &Path) -> bool {
        root.join("run/systemd/system").is_dir()
    }

    async fn systemd(&self) -> Result<&Systemd, HostError> {
        if !Self::runs_systemd(&self.root) {
            return Err(HostError::Unavailable("no systemd runs on this machine".to_owned()));
        }
        self.systemd.get_or_try_init(|| Systemd::connect(&self.root)).await
    }

    /// The `SELinux` label that the machine's policy has for a path. `None` where it has none, or nobody to ask.
    async fn label_by_policy(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        let command = Command::new(["matchpathcon", "-n", path], std::time::Duration::from_secs(60));
        match self.run(&command).await {
            Ok(output) if output.success() => Ok(tree::parse_label(&output.stdout)),
            // The folder's label, which the kernel gives it, is right for most files.
            Ok(_) | Err(HostError::NoProgram { .. } | HostError::Unavailable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks `systemctl` inside the root, which then works on unit files alone.
    async fn offline_systemctl(&self, verb: &'static str, unit: &str) -> Result<CommandOutput, HostError> {
        let command = Command::new(["systemctl", verb, unit], std::time::Duration::from_secs(60));
        self.run(&command).await.map_err(|error| match error {
            HostError::NoProgram { .. } => HostError::Unavailable("this folder has no systemctl".to_owned()),
            other => other,
        })
    }
}

impl Host for LocalHost {
    fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        self.tree.entry(path)
    }

    fn file_version(&self, path: &str) -> Result<Option<FileVersion>, HostError> {
        self.tree.file_version(path)
    }

    fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.tree.read_file(path)
    }

    fn read_entry(&self, path: &str, at_most: u64) -> Result<Option<(Entry, Vec<u8>)>, HostError> {
        self.tree.read_entry(path, at_most)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, HostError> {
        self.tree.read_link(path)
    }

    fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        self.tree.list_directory(path)
    }

    async fn write_file(
        &self,
        path: &str,
        content: &[u8],
        access: Access,
        validate: Option<&[String]>,
    ) -> Result<(), HostError> {
        let label = if self.tree.needs_label(path) { self.label_by_policy(path).await? } else { None };
        let staged = self.tree.stage_file(path, content, access, label.as_deref())?;
        let Some(validate) = validate else { return staged.place() };
        let argv = validate.iter().map(|argument| argument.replace('%', &staged.path())).collect();
        let command = Command::of(argv, VALIDATION_TIMEOUT);
        let output = self.run(&command).await?;
        if !output.success() {
            return Err(HostError::Invalid {
                path: path.into(),
                program: command.program().to_owned(),
                failure: output.failure(),
            });
        }
        staged.place()
    }

    fn write_link(&self, path: &str, target: &str) -> Result<(), HostError> {
        self.tree.write_link(path, target)
    }

    fn remove_file(&self, path: &str) -> Result<(), HostError> {
        self.tree.remove_file(path)
    }

    fn remove_directory(&self, path: &str) -> Result<(), HostError> {
        self.tree.remove_directory(path)
    }

    fn remove_tree(&self, path: &str) -> Result<(), HostError> {
        self.tree.remove_tree(path)
    }

    fn count_tree(&self, path: &str, at_most: usize) -> Result<usize, HostError> {
        self.tree.count_tree(path, at_most)
    }

    fn make_directory(&self, path: &str, access: Access) -> Result<(), HostError> {
        self.tree.make_directory(path, access)
    }

    fn set_directory_access(&self, path: &str, access: Access) -> Result<(), HostError> {
        self.tree.set_directory_access(path, access)
    }

    fn remove_leftovers(&self, folder: &str) -> Result<(), HostError> {
        self.tree.remove_leftovers(folder)
    }

    fn user_id(&self, user: &str) -> Result<u32, HostError> {
        accounts::id(&self.tree, accounts::Kind::User, user)
    }

    fn group_id(&self, group: &str) -> Result<u32, HostError> {
        accounts::id(&self.tree, accounts::Kind::Group, group)
    }

    fn kernel_parameter(&self, path: &str) -> Result<Option<String>, HostError> {
        if !self.booted {
            return Err(HostError::Unavailable("no kernel runs in a folder that stands for a machine".to_owned()));
        }
        Ok(self.tree.read_file(&format!("/proc/sys/{path}"))?.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    fn set_kernel_parameter(&self, path: &str, value: &str) -> Result<(), HostError> {
        self.tree.write_in_place(&format!("/proc/sys/{path}"), value.as_bytes())
    }

    fn kernel_file(&self, path: &str) -> Result<Option<String>, HostError> {
        if !self.booted {
            return Err(HostError::Unavailable("no kernel runs in a folder that stands for a machine".to_owned()));
        }
        Ok(self.tree.read_file(&format!("/proc/{path}"))?.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    fn mount_table(&self) -> Result<String, HostError> {
        // An agent in a container has mounts of its own; those of the machine are process 1's.
        let table = match self.kernel_file("1/mountinfo") {
            Err(HostError::Path { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied && self.root == Path::new("/") =>
            {
                self.kernel_file("self/mountinfo")?
            }
            other => other?,
        };
        table.ok_or_else(|| HostError::Unavailable("this machine shows no /proc/1/mountinfo".to_owned()))
    }

    fn require_reboot(&self, reason: &str) -> Result<(), HostError> {
        reboot::require(&self.tree, reason)
    }

    fn reboot_reasons(&self) -> Result<Vec<String>, HostError> {
        reboot::reasons(&self.tree)
    }

    async fn reboot(&self) -> Result<(), HostError> {
        if !self.booted {
            return Err(HostError::Unavailable("a folder that stands for a machine does not reboot".to_owned()));
        }
        self.systemd().await?.reboot().await
    }

    async fn download(&self, download: &Download<'_>) -> Result<(), HostError> {
        download::download(&self.tree, download).await
    }

    fn file_digest(&self, path: &str) -> Result<Option<Digest>, HostError> {
        download::digest(&self.tree, &self.digests, path)
    }

    async fn unpack(&self, unpack: &Unpack<'_>) -> Result<Vec<(String, u64)>, HostError> {
        unpack::unpack(&self.tree, unpack).await
    }

    async fn run(&self, command: &Command) -> Result<CommandOutput, HostError> {
        if !self.booted && !self.runner.may_enter_root() {
            return Err(HostError::Unavailable("entering this folder to run a command needs root".to_owned()));
        }
        Runner::check_program(&self.tree, command)?;
        let identity = command.user.map(|ids| accounts::identity(&self.tree, ids)).transpose()?;
        self.runner.run(command, identity.as_ref()).await
    }

    async fn unit(&self, unit: &str) -> Result<Unit, HostError> {
        if self.booted {
            return self.systemd().await?.unit(unit).await;
        }
        let output = self.offline_systemctl("is-enabled", unit).await?;
        let unit_file_state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let found = !matches!(unit_file_state.as_str(), "" | "not-found");
        Ok(Unit {
            load_state: if found { "loaded" } else { "not-found" }.to_owned(),
            active_state: String::new(),
            unit_file_state,
            needs_reload: false,
        })
    }

    async fn set_unit_enabled(&self, unit: &str, enabled: bool) -> Result<(), HostError> {
        if self.booted {
            return self.systemd().await?.set_enabled(unit, enabled).await;
        }
        let verb = if enabled { "enable" } else { "disable" };
        let output = self.offline_systemctl(verb, unit).await?;
        if output.success() {
            return Ok(());
        }
        Err(HostError::Unit(format!("systemctl {verb} {unit} {}", output.failure())))
    }

    async fn set_unit_masked(&self, unit: &str, masked: bool) -> Result<(), HostError> {
        if self.booted {
            return self.systemd().await?.set_masked(unit, masked).await;
        }
        let verb = if masked { "mask" } else { "unmask" };
        let output = self.offline_systemctl(verb, unit).await?;
        if output.success() {
            return Ok(());
        }
        Err(HostError::Unit(format!("systemctl {verb} {unit} {}", output.failure())))
    }

    async fn run_unit_job(&self, unit: &str, job: UnitJob) -> Result<(), HostError> {
        if !self.booted {
            return Err(HostError::Unavailable(format!("to {} {unit} waits until the machine boots", job.verb())));
        }
        self.systemd().await?.run_job(unit, job).await
    }

    async fn reload_unit_files(&self) -> Result<(), HostError> {
        if !self.booted {
            return Ok(());
        }
        self.systemd().await?.reload().await
    }
}

/// Wraps a system call's error with what was attempted.
fn failed(action: &'static str, path: &str) -> impl FnOnce(rustix::io::Errno) -> HostError {
    let path = PathBuf::from(path);
    move |errno| HostError::Path { action, path, source: io::Error::from(errno) }
}

#[cfg(test)]
mod tests;
