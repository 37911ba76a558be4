//! Users and groups by the machine's own `/etc/passwd` and `/etc/group`: the agent's container has others.
//!
//! Accounts of a directory service (LDAP, SSSD) are not in these files; name them by number.

use super::{HostError, Tree};

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
}

/// The number behind a name, or behind a number.
pub(super) fn id(tree: &Tree, kind: Kind, name: &str) -> Result<u32, HostError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let database = tree.read_file(kind.file())?.unwrap_or_default();
    find(&String::from_utf8_lossy(&database), name)
        .ok_or_else(|| HostError::NoAccount { kind: kind.word(), name: name.to_owned() })
}

/// Both files have the name first and the number third, see passwd(5) and group(5).
fn find(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_number_of_a_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:\nbroken\nwww-data:x:34:34::/:\n";
        for (name, id) in [("root", Some(0)), ("www-data", Some(34)), ("www", Some(33)), ("w", None), ("broken", None)]
        {
            assert_eq!(find(passwd, name), id, "{name}");
        }
    }
}
