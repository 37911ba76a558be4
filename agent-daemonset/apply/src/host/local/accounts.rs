//! Users and groups by the machine's own `/etc/passwd` and `/etc/group`: the agent's container has others.
//!
//! Accounts of a directory service (LDAP, SSSD) are not in these files; name them by number.

use super::{HostError, Tree};
use crate::account_files::{groups, users};

/// Which of the two databases.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }

    fn find(self, database: &str, name: &str) -> Option<u32> {
        match self {
            Self::User => users(database).find(|user| user.name == name).map(|user| user.uid),
            Self::Group => groups(database).find(|group| group.name == name).map(|group| group.gid),
        }
    }
}

/// The number behind a name, or behind a number.
pub(super) fn id(tree: &Tree, kind: Kind, name: &str) -> Result<u32, HostError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    kind.find(&text(tree, kind)?, name).ok_or_else(|| HostError::NoAccount { kind: kind.word(), name: name.to_owned() })
}

/// What a process is that runs as a user: what login(1) would make it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Its further groups, by the machine's own `/etc/group`. A user without an account has none.
    pub(super) groups: Vec<u32>,
    /// Its name and its home directory, where it has an account.
    pub(super) account: Option<(String, String)>,
}

/// What a process is that runs as this user and this group.
pub(super) fn identity(tree: &Tree, (uid, gid): (u32, u32)) -> Result<Identity, HostError> {
    Ok(identity_by(&text(tree, Kind::User)?, &text(tree, Kind::Group)?, uid, gid))
}

fn identity_by(passwd: &str, group: &str, uid: u32, gid: u32) -> Identity {
    let Some(user) = users(passwd).find(|user| user.uid == uid) else {
        return Identity { uid, gid, groups: Vec::new(), account: None };
    };
    let groups = groups(group).filter(|group| group.members.contains(&user.name)).map(|group| group.gid);
    Identity { uid, gid, groups: groups.collect(), account: Some((user.name.to_owned(), user.home.to_owned())) }
}

fn text(tree: &Tree, kind: Kind) -> Result<String, HostError> {
    let database = tree.read_file(kind.file())?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&database).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:\nbroken\nwww-data:x:34:34::/srv:\n";

    #[test]
    fn finds_the_number_of_a_whole_name() {
        for (name, id) in [("root", Some(0)), ("www-data", Some(34)), ("www", Some(33)), ("w", None), ("broken", None)]
        {
            assert_eq!(Kind::User.find(PASSWD, name), id, "{name}");
        }
    }

    #[test]
    fn a_process_gets_the_groups_of_its_user_and_of_nobody_else() {
        let group = "www:x:33:\nwww-data:x:34:\nadm:x:4:www-data,root\nlogs:x:50:www\nwheel:x:10:root\n";
        let of = |uid| identity_by(PASSWD, group, uid, 34);
        let account = Some(("www-data".to_owned(), "/srv".to_owned()));
        assert_eq!(of(34), Identity { uid: 34, gid: 34, groups: vec![4], account });
        assert_eq!(of(4242), Identity { uid: 4242, gid: 34, groups: vec![], account: None });
    }
}
