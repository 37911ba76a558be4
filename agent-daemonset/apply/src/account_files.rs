//! The machine's own accounts, as its files have them: passwd(5), group(5) and shadow(5).
//!
//! Lines that are none of an account (comments, the `+` lines of NIS) are passed over.

/// A line of `/etc/passwd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User<'a> {
    pub(crate) name: &'a str,
    /// The hash of its password, where it is not in `/etc/shadow`; there it is `x`.
    pub(crate) password: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The full name (GECOS).
    pub(crate) comment: &'a str,
    pub(crate) home: &'a str,
    pub(crate) shell: &'a str,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    pub(crate) name: &'a str,
    pub(crate) gid: u32,
    pub(crate) members: Vec<&'a str>,
}

/// All users of a passwd file.
pub(crate) fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next();
        let (name, password) = (next()?, next()?);
        let (uid, gid) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (comment, home, shell) = (next()?, next()?, next().unwrap_or_default());
        Some(User { name, password, uid, gid, comment, home, shell })
    })
}

/// All groups of a group file.
pub(crate) fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        let members = members.split(',').filter(|member| !member.is_empty()).collect();
        Some(Group { name, gid, members })
    })
}

/// The password field of a user's line in a shadow file: a hash, or something that is none and lets nobody in.
pub(crate) fn shadow_password<'a>(shadow: &'a str, user: &str) -> Option<&'a str> {
    shadow.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then(|| fields.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_lines_and_passes_over_the_rest() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n+::::::\nbroken\nanna:x:1000:100:Anna,,:/home/anna:\n";
        let found: Vec<_> = users(passwd).map(|user| (user.name, user.uid, user.gid, user.home, user.shell)).collect();
        assert_eq!(found, [("root", 0, 0, "/root", "/bin/sh"), ("anna", 1000, 100, "/home/anna", "")]);
        let group = "adm:x:4:syslog,anna\nbroken:x\nusers:x:100:\nold:x:7\n";
        let found: Vec<_> = groups(group).map(|group| (group.name, group.gid, group.members)).collect();
        assert_eq!(found, [("adm", 4, vec!["syslog", "anna"]), ("users", 100, vec![]), ("old", 7, vec![])]);
    }

    #[test]
    fn finds_the_password_of_a_whole_name() {
        let shadow = "annalise:$6$no:1::\nanna:!$6$yes:1::\nhalf";
        for (user, password) in [("anna", Some("!$6$yes")), ("ann", None), ("half", None)] {
            assert_eq!(shadow_password(shadow, user), password, "{user}");
        }
    }
}
