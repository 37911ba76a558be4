//! What a resource consists of on a machine. The types that users write are made of these parts by the masters: a
//! sudoers rule is a file with a validation, a repository is two files and a refresh of the package lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Sensitive, SensitiveBytes};

/// One thing on a machine that must be so. An agent has one provider for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", content = "spec", rename_all = "camelCase")]
pub enum Part {
    /// A regular file as a whole.
    File(FileSpec),
    /// A directory.
    Directory(DirectorySpec),
    /// A symbolic link.
    Symlink(SymlinkSpec),
    /// Some lines of a file whose rest is not ours.
    Edit(EditSpec),
    /// A file from a URL, by its digest.
    Download(DownloadSpec),
    /// An unpacked archive, by its digest.
    Archive(ArchiveSpec),
    /// A package. It is the only part of its resource: packages of adjacent resources are one transaction.
    Package(PackageSpec),
    /// A systemd unit's state.
    Service(ServiceSpec),
    /// A user account.
    User(UserSpec),
    /// A group.
    Group(GroupSpec),
    /// Keys that may log in as a user.
    AuthorizedKeys(AuthorizedKeysSpec),
    /// A kernel parameter.
    Sysctl(SysctlSpec),
    /// A kernel module, loaded or not.
    Module(ModuleSpec),
    /// A file system, mounted or not.
    Mount(MountSpec),
    /// A swap file, active or not.
    Swap(SwapSpec),
    /// A command behind guards.
    Command(CommandSpec),
    /// A reboot that is asked for; the machine reboots when its Rollout says so.
    Reboot(RebootSpec),
}

/// Whether a thing is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It is there.
    #[default]
    Present,
    /// It is not there.
    Absent,
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// The whole content; absent when the file must not be there.
    pub content: Option<SensitiveBytes>,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
    /// A command that must succeed on the new file before it takes its place. `%` in it stands for the new file's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Vec<String>>,
}

/// A directory. Its parents must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySpec {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// There or not; one that must go is removed with everything in it only when `purge` is set, else when it is empty.
    #[serde(default)]
    pub state: Presence,
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
    /// Remove what is in it and is not in `keep`.
    #[serde(default)]
    pub purge: bool,
    /// Names in the directory that stay, with everything below them: what other resources of the catalog put there,
    /// and what the user excepts. `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymlinkSpec {
    /// Where the link is: absolute, without `.` and `..`.
    pub path: String,
    /// What it says; absent when there must be no link. It need not exist.
    pub target: Option<String>,
    /// Replace a regular file or an empty directory that is in its place.
    #[serde(default)]
    pub force: bool,
}

/// Some lines of a file. The rest of the file, its owner and its mode stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditSpec {
    /// The file: absolute, without `.` and `..`. A symbolic link is an error.
    pub path: String,
    /// What must be in it, or not.
    pub edit: Edit,
    /// How to make the file when it is not there; else a missing file is an error, or fine when something must be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Ownership>,
    /// As in [`FileSpec::validate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Vec<String>>,
}

/// Who owns a new file, and its permission bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
}

/// What must be in a file, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "camelCase")]
pub enum Edit {
    /// One line.
    Line {
        /// There or not.
        state: Presence,
        /// The line, without its end.
        line: Sensitive,
        /// A regular expression (of Rust's `regex`) that finds the line to replace, or with `Absent` all lines to remove.
        /// Present: the last match is replaced, further matches are an error. Without it, the line itself is looked for.
        #[serde(default)]
        matching: Option<String>,
        /// Where a new line goes when nothing matches.
        #[serde(default)]
        place: Place,
    },
    /// Lines between two marker lines.
    Block {
        /// There or not.
        state: Presence,
        /// The lines, without the markers.
        content: Sensitive,
        /// The first marker line.
        begin: String,
        /// The last marker line.
        end: String,
        /// Where a new block goes.
        #[serde(default)]
        place: Place,
    },
    /// One setting of an INI file.
    Ini {
        /// There or not. A section that is left empty stays.
        state: Presence,
        /// The section, without brackets; empty: before the first section.
        section: String,
        /// The key.
        key: String,
        /// Its value.
        value: Sensitive,
        /// What stands between key and value in a new line, such as ` = ` or `=`.
        separator: String,
    },
    /// One line of a table of white-space separated fields, such as `/etc/fstab` or `/etc/hosts`, found by one field.
    Entry {
        /// There or not.
        state: Presence,
        /// Which field, from 0.
        field: usize,
        /// What that field is.
        key: String,
        /// The whole line, without its end. A line whose fields are the same is left as it is.
        line: String,
    },
}

/// Where a new line goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// At the end of the file.
    #[default]
    End,
    /// At its beginning.
    Beginning,
    /// After the last line that matches this regular expression; else at the end.
    After(String),
    /// Before the first line that matches this regular expression; else at the end.
    Before(String),
}

/// A file from a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadSpec {
    /// `https://`, `http://` or `file://`; with the digest, the way there need not be trusted.
    pub url: String,
    /// What must arrive, by its SHA-256.
    pub sha256: Digest,
    /// Where it goes.
    pub path: String,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// A user's name or number.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
    /// Given up after so many seconds.
    pub timeout_seconds: u32,
}

/// An unpacked archive: tar, plain or compressed by gzip, xz or zstd, or zip; told by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSpec {
    /// What it is called among the archives of its directory, the same when its URL and digest change: what an older one
    /// of this name has put there and this one has not is removed. Empty: its URL is its name.
    #[serde(default)]
    pub name: String,
    /// As in [`DownloadSpec::url`].
    pub url: String,
    /// The archive's SHA-256. Another digest unpacks anew.
    pub sha256: Digest,
    /// The directory that it is unpacked into, which must be there.
    pub into: String,
    /// So many leading parts of each path in it are left out.
    #[serde(default)]
    pub strip_components: u32,
    /// A user's name or number; owners in the archive are ignored.
    pub owner: String,
    /// A group's name or number.
    pub group: String,
    /// Given up after so many seconds.
    pub timeout_seconds: u32,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSpec {
    /// Its name.
    pub package: String,
    /// There, not there, or the newest that the repositories offer.
    pub state: PackageState,
    /// Exactly this version; absent: any that is there, else the repository's candidate.
    #[serde(default)]
    pub version: Option<String>,
    /// Held back from upgrades by others, or not; absent: as it is.
    #[serde(default)]
    pub held: Option<bool>,
    /// Whether a newer version may be replaced by the wanted one.
    #[serde(default)]
    pub allow_downgrade: bool,
}

/// Whether a package is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageState {
    /// Installed.
    Present,
    /// Not installed.
    Absent,
    /// Installed, and the newest that the repositories offer.
    Latest,
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The unit with its suffix, such as `nginx.service`.
    pub unit: String,
    /// Running or stopped; absent: as it is.
    #[serde(default)]
    pub state: Option<ServiceState>,
    /// Started at boot or not; absent: as it is.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Masked (nobody can start it) or not; absent: as it is.
    #[serde(default)]
    pub masked: Option<bool>,
    /// On a notification, reload where the unit can (systemd's reload-or-restart) instead of restart.
    #[serde(default)]
    pub reload_on_notify: bool,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Active.
    Running,
    /// Inactive.
    Stopped,
}

/// A user account. What is absent stays as it is, or for a new account is as `useradd` makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserSpec {
    /// Its name.
    pub name: String,
    /// There or not.
    pub state: Presence,
    /// Its number.
    pub uid: Option<u32>,
    /// Its primary group, by name or number.
    pub group: Option<String>,
    /// Further groups, which must be there.
    pub groups: Option<Vec<String>>,
    /// Take it out of all further groups that are not named.
    pub groups_exclusive: bool,
    /// Its home directory.
    pub home: Option<String>,
    /// Make the home directory with a new account, and remove it with an account that goes.
    pub manage_home: bool,
    /// Its login shell.
    pub shell: Option<String>,
    /// Its full name (GECOS).
    pub comment: Option<String>,
    /// Made as a system account.
    pub system: bool,
    /// The hash of its password, as crypt(5) writes it; passed by standard input, never by argument.
    pub password_hash: Option<Sensitive>,
    /// Whether its password is locked; absent: as it is.
    pub locked: Option<bool>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// There or not.
    pub state: Presence,
    /// Its number.
    pub gid: Option<u32>,
    /// Made as a system group.
    pub system: bool,
}

/// Keys that may log in as a user, by `authorized_keys` of sshd(8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizedKeysSpec {
    /// The user, who must be there when this is applied.
    pub user: String,
    /// There or not.
    pub state: Presence,
    /// Whole lines: options, type, key, comment. A key is the same when its type and its base64 are.
    pub keys: Vec<String>,
    /// Remove all other keys.
    #[serde(default)]
    pub exclusive: bool,
    /// The file; absent: `.ssh/authorized_keys` in the user's home directory.
    #[serde(default)]
    pub path: Option<String>,
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlSpec {
    /// With dots, such as `net.ipv4.ip_forward`; a slash stands for a dot within a name (`net.ipv4.conf.eth0/1.forwarding`).
    pub key: String,
    /// As the kernel takes it; runs of white space count as one when it is compared.
    pub value: String,
    /// Also after a reboot, by a file in `/etc/sysctl.d`.
    #[serde(default = "yes")]
    pub at_boot: bool,
}

fn yes() -> bool {
    true
}

/// A kernel module, in the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSpec {
    /// Its name; `-` and `_` are the same.
    pub name: String,
    /// Loaded, or not.
    pub loaded: bool,
}

/// A file system, in the running machine. What is mounted at boot is an [`Edit::Entry`] of `/etc/fstab`, which comes after
/// this: a line for what can not be mounted would stop the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Where: absolute, without `.` and `..`. The directory must be there.
    pub path: String,
    /// Mounted or not.
    pub mounted: bool,
    /// What: a device, `LABEL=`, `UUID=`, `server:/path`, or a name such as `tmpfs`.
    pub device: String,
    /// The type of file system, such as `ext4`.
    pub fstype: String,
    /// Options, such as `noatime`; those that the kernel shows are compared, and a difference is remounted.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A swap file, in the running machine. What is active at boot is an [`Edit::Entry`] of `/etc/fstab`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapSpec {
    /// The swap file, or a block device, which is never made or resized.
    pub path: String,
    /// Active, or gone with its file.
    pub state: Presence,
    /// The size of the file in MiB; absent for a block device.
    #[serde(default)]
    pub size_mib: Option<u64>,
    /// Which swap is used first, the highest, from 0 to 32767; absent for the kernel's choice, whatever that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
}

/// A command. It runs when it is not `refresh_only` or was notified, and no guard says that its work is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandSpec {
    /// The program and its arguments; no shell.
    pub argv: Vec<String>,
    /// Done when this path exists.
    pub creates: Option<String>,
    /// Done when this command exits with 0.
    pub unless: Option<Vec<String>>,
    /// Only needed when this command exits with 0.
    pub only_if: Option<Vec<String>>,
    /// Runs only when another resource notified it.
    pub refresh_only: bool,
    /// The working directory.
    pub cwd: Option<String>,
    /// The user it runs as, by name or number; absent: root.
    pub user: Option<String>,
    /// Its umask; absent: `0o022`.
    pub umask: Option<u32>,
    /// Its environment, beside `PATH`.
    pub environment: BTreeMap<String, Sensitive>,
    /// Ended, with its children, after so many seconds; so is each guard.
    pub timeout_seconds: u32,
    /// So often it is tried in all; 0 counts as 1.
    pub tries: u32,
    /// So many seconds pass between two tries.
    pub try_sleep_seconds: u32,
    /// These exit codes are success; none counts as 0.
    pub exit_codes: Vec<i32>,
}

/// A reboot that is asked for. An agent never reboots its machine for this alone: it reports that a reboot is due, and a
/// Rollout brings it about under its disruption rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebootSpec {
    /// Why, for people.
    pub reason: String,
    /// Also when the system itself asks for one (`/run/reboot-required`).
    pub when_system_asks: bool,
}

/// What makes the changes of a resource take effect. It is done after any of its parts changed, and again in the next
/// run when that one was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finish", rename_all = "camelCase")]
pub enum Finish {
    /// A command.
    Command {
        /// The program and its arguments; no shell.
        argv: Vec<String>,
        /// Ended after so many seconds.
        timeout_seconds: u32,
    },
    /// Systemd reads all unit files again.
    ReadUnitFiles,
}
