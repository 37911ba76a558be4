//! User accounts, changed by the machine's own `useradd`, `usermod`, `userdel` and `chpasswd`: they lock the files and
//! know what else belongs to an account.
//!
//! A hash of a password is passed by standard input only: whoever is on the machine can read arguments.

mod password;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use drover_catalog::{Presence, PropertyEvent, Sensitive, UserSpec};
use password::Password;

use super::{Provider, ProviderError, event, event_of, group::check_name, run_tool};
use crate::{
    account_files::{groups, shadow_password, users},
    host::{Access, Command, Host, HostError},
};

/// How long a tool may take; one that moves or removes a home directory has much to do.
const TIMEOUT: Duration = Duration::from_secs(600);

/// An account as it is.
pub(crate) struct Observed {
    /// `None` where it is not there.
    account: Option<Account>,
    /// The numbers and names of what the resource names, as the machine has them.
    group: Option<u32>,
    groups: Vec<String>,
    /// Whether there is a group with the account's own name.
    own_group: bool,
}

struct Account {
    uid: u32,
    gid: u32,
    comment: String,
    home: String,
    shell: String,
    /// All further groups by name.
    groups: Vec<String>,
    /// Only where it matters.
    password: Option<Password>,
    home_directory: HomeDirectory,
}

/// The home directory that is wanted, as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HomeDirectory {
    /// It is there, or not managed.
    There,
    /// It is still in the old place.
    Elsewhere,
    /// It is in neither place: an earlier run was cut off, or somebody removed it.
    Missing,
}

/// What must change about an account.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make it, with this primary group where one is wanted or there is one of its name.
    Create { group: Option<String>, groups: Vec<String>, password: Option<Password> },
    /// Give it another property, by these options of `usermod`.
    Property { name: &'static str, from: String, to: String, options: Vec<String> },
    /// Make its home directory.
    Home { path: String, uid: u32, gid: u32 },
    /// Give it another password, locked or not.
    Password(Password),
    /// Lock its password, or unlock it.
    Locked(bool),
    /// Remove it.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { .. } => f.write_str("created"),
            Self::Property { name, from, to, options: _ } => write!(f, "{name} {from} -> {to}"),
            Self::Home { .. } => f.write_str("home directory made"),
            Self::Password(_) => f.write_str("password set"),
            Self::Locked(true) => f.write_str("password locked"),
            Self::Locked(false) => f.write_str("password unlocked"),
            Self::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Create { .. } => event_of("ensure", Some("absent".into()), Some("present".into())),
            Self::Property { name, from, to, options: _ } => event_of(name, Some(from.clone()), Some(to.clone())),
            Self::Home { path, .. } => event_of("homeDirectory", None, Some(path.clone())),
            Self::Password(_) => event("password"),
            Self::Locked(to) => event_of("locked", Some((!to).to_string()), Some(to.to_string())),
            Self::Remove => event_of("ensure", Some("present".into()), Some("absent".into())),
        }
    }
}

impl Provider for UserSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let text = |path| host.read_file(path).map(Option::unwrap_or_default);
        let (passwd, group) = (text("/etc/passwd")?, text("/etc/group")?);
        let (passwd, group) = (String::from_utf8_lossy(&passwd), String::from_utf8_lossy(&group));
        let found = users(&passwd).find(|user| user.name == self.name);
        let account = match found {
            Some(user) if self.state == Presence::Present => {
                let home = self.home.as_deref().unwrap_or(user.home);
                let home_directory = if !self.manage_home || host.entry(home)?.is_some() {
                    HomeDirectory::There
                } else if home != user.home && host.entry(user.home)?.is_some() {
                    HomeDirectory::Elsewhere
                } else {
                    HomeDirectory::Missing
                };
                let further = groups(&group).filter(|group| group.members.contains(&user.name));
                let wants_password = self.password_hash.is_some() || self.locked.is_some();
                let password = match user.password {
                    "x" if wants_password => {
                        let shadow = text("/etc/shadow")?;
                        shadow_password(&String::from_utf8_lossy(&shadow), user.name).map(Password::new)
                    }
                    here => wants_password.then(|| Password::new(here)),
                };
                Some(Account {
                    uid: user.uid,
                    gid: user.gid,
                    comment: user.comment.to_owned(),
                    home: user.home.to_owned(),
                    shell: user.shell.to_owned(),
                    groups: further.map(|group| group.name.to_owned()).collect(),
                    password,
                    home_directory,
                })
            }
            other => other.map(|user| Account::known_by(user.uid)),
        };
        if self.state == Presence::Absent {
            return Ok(Observed { account, group: None, groups: Vec::new(), own_group: false });
        }
        let by_name = |name: &String| {
            let number = name.parse().ok();
            groups(&group)
                .find(|group| group.name == name || Some(group.gid) == number)
                .ok_or_else(|| HostError::NoAccount { kind: "group", name: name.clone() })
        };
        let primary = self.group.as_ref().map(by_name).transpose()?.map(|group| group.gid);
        let gid = primary.or(account.as_ref().map(|account| account.gid));
        let mut further = Vec::new();
        for name in self.groups.iter().flatten() {
            let found = by_name(name)?;
            // Who has a group for its own needs no second entry in it.
            if Some(found.gid) != gid {
                further.push(found.name.to_owned());
            }
        }
        further.sort_unstable();
        further.dedup();
        let own_group = groups(&group).any(|group| group.name == self.name);
        Ok(Observed { account, group: primary, groups: further, own_group })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        check_name("user", &self.name)?;
        let Some(account) = &observed.account else {
            if self.state == Presence::Absent {
                return Ok(Vec::new());
            }
            let password = password::of_new_account(self.password_hash.as_ref(), self.locked)?;
            // What useradd would make is there already, and then it would refuse.
            let own_group = observed.own_group.then(|| self.name.clone());
            let group = observed.group.map(|gid| gid.to_string()).or(own_group);
            return Ok(vec![Change::Create { group, groups: observed.groups.clone(), password }]);
        };
        if self.state == Presence::Absent {
            if account.uid == 0 {
                return Err(ProviderError::Refused(format!("the user {} is root, and stays", self.name)));
            }
            return Ok(vec![Change::Remove]);
        }
        if account.uid == 0 && self.uid.is_some_and(|uid| uid != 0) {
            return Err(ProviderError::Refused(format!("the user {} is root, and keeps its number", self.name)));
        }
        let mut changes = self.properties(account, observed);
        if account.home_directory == HomeDirectory::Missing {
            let path = self.home.clone().unwrap_or_else(|| account.home.clone());
            let (uid, gid) = (self.uid.unwrap_or(account.uid), observed.group.unwrap_or(account.gid));
            changes.push(Change::Home { path, uid, gid });
        }
        if let Some(found) = &account.password {
            changes.extend(password::change(found, self.password_hash.as_ref(), self.locked)?);
        }
        Ok(changes)
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        // One call for all properties: usermod refuses all or none, as when processes of the user run.
        let options = changes.iter().filter_map(|change| match change {
            Change::Property { options, .. } => Some(options.as_slice()),
            _ => None,
        });
        let options: Vec<String> = options.flatten().cloned().collect();
        if !options.is_empty() {
            self.run(host, "usermod", options).await?;
        }
        for change in changes {
            match change {
                Change::Property { .. } => {}
                Change::Create { group, groups, password } => {
                    self.run(host, "useradd", self.new_account(group.as_deref(), groups)).await?;
                    if let Some(password) = password {
                        self.set_password(host, password).await?;
                    }
                }
                Change::Home { path, uid, gid } => make_home(host, path, *uid, *gid).await?,
                Change::Password(password) => self.set_password(host, password).await?,
                Change::Locked(true) => self.run(host, "usermod", vec!["--lock".into()]).await?,
                Change::Locked(false) => self.run(host, "usermod", vec!["--unlock".into()]).await?,
                Change::Remove => {
                    let options = self.manage_home.then(|| "--remove".to_owned());
                    self.run(host, "userdel", options.into_iter().collect()).await?;
                }
            }
        }
        Ok(())
    }
}

impl Account {
    fn known_by(uid: u32) -> Self {
        Self {
            uid,
            gid: 0,
            comment: String::new(),
            home: String::new(),
            shell: String::new(),
            groups: Vec::new(),
            password: None,
            home_directory: HomeDirectory::There,
        }
    }
}

/// What the account needs of the machine's tools.
trait Tools {
    fn properties(&self, account: &Account, observed: &Observed) -> Vec<Change>;
    fn new_account(&self, group: Option<&str>, groups: &[String]) -> Vec<String>;
    async fn set_password(&self, host: &impl Host, password: &Password) -> Result<(), ProviderError>;
    async fn run(&self, host: &impl Host, program: &str, options: Vec<String>) -> Result<(), ProviderError>;
}

impl Tools for UserSpec {
    /// What `usermod` must change.
    fn properties(&self, account: &Account, observed: &Observed) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut differs = |name: &'static str, from: String, to: Option<String>, flag: &str, more: Option<&str>| {
            if let Some(to) = to.filter(|to| *to != from) {
                let options = [format!("--{flag}={to}")].into_iter().chain(more.map(str::to_owned)).collect();
                changes.push(Change::Property { name, from, to, options });
            }
        };
        let moves = (account.home_directory == HomeDirectory::Elsewhere).then_some("--move-home");
        differs("uid", account.uid.to_string(), self.uid.map(|uid| uid.to_string()), "uid", None);
        differs("group", account.gid.to_string(), observed.group.map(|gid| gid.to_string()), "gid", None);
        differs("comment", account.comment.clone(), self.comment.clone(), "comment", None);
        differs("home", account.home.clone(), self.home.clone(), "home", moves);
        differs("shell", account.shell.clone(), self.shell.clone(), "shell", None);
        if self.groups.is_some() {
            let mut found = account.groups.clone();
            found.sort_unstable();
            let mut wanted = observed.groups.clone();
            if !self.groups_exclusive {
                wanted.extend(found.iter().cloned());
                wanted.sort_unstable();
                wanted.dedup();
            }
            let append = (!self.groups_exclusive).then_some("--append");
            differs("groups", found.join(","), Some(wanted.join(",")), "groups", append);
        }
        changes
    }

    /// The options of `useradd`.
    fn new_account(&self, group: Option<&str>, groups: &[String]) -> Vec<String> {
        let flag = |name: &str, value: Option<String>| value.map(|value| format!("--{name}={value}"));
        let mut options: Vec<String> = Vec::new();
        options.extend(self.system.then(|| "--system".to_owned()));
        options.extend(flag("uid", self.uid.map(|uid| uid.to_string())));
        options.extend(flag("gid", group.map(str::to_owned)));
        options.extend(flag("groups", (!groups.is_empty()).then(|| groups.join(","))));
        options.extend(flag("home-dir", self.home.clone()));
        options.extend(flag("shell", self.shell.clone()));
        options.extend(flag("comment", self.comment.clone()));
        options.push(if self.manage_home { "--create-home" } else { "--no-create-home" }.to_owned());
        options
    }

    async fn set_password(&self, host: &impl Host, password: &Password) -> Result<(), ProviderError> {
        let line = Sensitive::new(format!("{}:{}\n", self.name, password.expose()));
        let command = Command { stdin: Some(line), ..Command::new(["chpasswd", "--encrypted"], TIMEOUT) };
        run_tool(host, &command).await
    }

    async fn run(&self, host: &impl Host, program: &str, options: Vec<String>) -> Result<(), ProviderError> {
        let argv = [vec![program.to_owned()], options, vec![self.name.clone()]].concat();
        run_tool(host, &Command::of(argv, TIMEOUT)).await
    }
}

/// Makes a home directory that an earlier run, cut off, or somebody else left out, as useradd does: with what is in
/// `/etc/skel`. The user itself copies it, so that nothing which the user puts there leads root anywhere.
async fn make_home(host: &impl Host, path: &str, uid: u32, gid: u32) -> Result<(), ProviderError> {
    host.make_directory(path, Access { mode: 0o700, user: uid, group: gid })?;
    if host.entry("/etc/skel")?.is_none() {
        return Ok(());
    }
    let copy = Command::new(["cp", "-R", "/etc/skel/.", path], TIMEOUT);
    run_tool(host, &Command { user: Some((uid, gid)), umask: Some(0o077), ..copy }).await
}
