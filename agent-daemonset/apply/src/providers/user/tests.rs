use super::*;
use crate::host::{
    EntryKind,
    memory::{MemoryHost, apply, check},
};

const ROOT: Access = Access { mode: 0o644, user: 0, group: 0 };

fn host() -> MemoryHost {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\n";
    let group = "root:x:0:\nadm:x:4:anna\nanna:x:1000:\nusers:x:100:anna\ndocker:x:998:\nbuild:x:50:\n";
    MemoryHost::new()
        .file("/etc/passwd", passwd, ROOT)
        .file("/etc/group", group, ROOT)
        .file("/etc/shadow", "root:*:1::::::\nanna:$6$salt$old:1::::::\n", ROOT)
        .directory("/home/anna", ROOT)
}

fn user(name: &str) -> UserSpec {
    UserSpec { name: name.into(), ..UserSpec::default() }
}

fn names_of(names: &[&str]) -> Vec<String> {
    names.iter().copied().map(str::to_owned).collect()
}

#[track_caller]
fn changes(spec: &UserSpec, expected: &str, ran: &[&str]) {
    let host = host();
    check(spec, &host, expected);
    apply(spec, &host).unwrap();
    assert_eq!(host.ran(), ran);
}

#[test]
fn a_new_account_is_made_with_all_that_is_said_of_it() {
    changes(&user("new"), "created", &["useradd --no-create-home new"]);
    let whole = UserSpec {
        uid: Some(1500),
        group: Some("users".into()),
        groups: Some(names_of(&["docker", "adm", "users"])),
        home: Some("/srv/new".into()),
        manage_home: true,
        shell: Some("/bin/bash".into()),
        comment: Some("New One".into()),
        system: true,
        password_hash: Some(Sensitive::new("$6$salt$new")),
        ..user("new")
    };
    let useradd = "useradd --system --uid=1500 --gid=100 --groups=adm,docker --home-dir=/srv/new --shell=/bin/bash \
                   --comment=New One --create-home new";
    changes(&whole, "created", &[useradd, "chpasswd --encrypted < new:$6$salt$new"]);
}

#[test]
fn a_group_of_its_name_becomes_its_own() {
    changes(&user("build"), "created", &["useradd --gid=build --no-create-home build"]);
}

#[test]
fn each_property_is_a_change_and_all_are_one_call() {
    changes(&user("anna"), "", &[]);
    let same = UserSpec {
        uid: Some(1000),
        group: Some("anna".into()),
        groups: Some(names_of(&["adm"])),
        home: Some("/home/anna".into()),
        shell: Some("/bin/sh".into()),
        comment: Some("Anna".into()),
        password_hash: Some(Sensitive::new("$6$salt$old")),
        locked: Some(false),
        manage_home: true,
        ..user("anna")
    };
    changes(&same, "", &[]);
    let other = UserSpec { uid: Some(1001), shell: Some("/bin/false".into()), ..same.clone() };
    let expected = "uid 1000 -> 1001; shell /bin/sh -> /bin/false";
    changes(&other, expected, &["usermod --uid=1001 --shell=/bin/false anna"]);
    let moved = UserSpec { home: Some("/srv/anna".into()), manage_home: false, ..same.clone() };
    changes(&moved, "home /home/anna -> /srv/anna", &["usermod --home=/srv/anna anna"]);
    let renewed = UserSpec { password_hash: Some(Sensitive::new("$6$salt$new")), ..same.clone() };
    changes(&renewed, "password set", &["chpasswd --encrypted < anna:$6$salt$new"]);
    changes(&UserSpec { locked: Some(true), ..same }, "password locked", &["usermod --lock anna"]);
}

#[test]
fn a_home_that_is_managed_moves_with_its_user_and_is_made_when_it_is_missing() {
    let moved = UserSpec { home: Some("/srv/anna".into()), manage_home: true, ..user("anna") };
    changes(&moved, "home /home/anna -> /srv/anna", &["usermod --home=/srv/anna --move-home anna"]);
    let host = host().directory("/srv/anna", ROOT);
    apply(&moved, &host).unwrap();
    assert_eq!(host.ran(), ["usermod --home=/srv/anna anna"], "usermod would refuse to move it into another");
    let passwd = "anna:x:1000:1000:Anna:/home/gone:/bin/sh\n";
    let gone = host.file("/etc/passwd", passwd, ROOT).special("/etc/skel", EntryKind::Directory);
    let managed = UserSpec { manage_home: true, ..user("anna") };
    check(&managed, &gone, "home directory made");
    check(&user("anna"), &gone, "");
    apply(&managed, &gone).unwrap();
    let access = Access { mode: 0o700, user: 1000, group: 1000 };
    assert_eq!(gone.entry("/home/gone").unwrap().unwrap().access, access);
    assert_eq!(gone.ran(), ["cp -R /etc/skel/. /home/gone as 1000:1000 umask 077"]);
    check(&managed, &gone, "");
}

#[test]
fn groups_are_added_to_or_are_all_that_there_are() {
    let with = |names: &[&str], exclusive| UserSpec {
        groups: Some(names_of(names)),
        groups_exclusive: exclusive,
        ..user("anna")
    };
    changes(&with(&["adm"], false), "", &[]);
    changes(&with(&[], false), "", &[]);
    let added = "usermod --groups=adm,docker,users --append anna";
    changes(&with(&["docker"], false), "groups adm,users -> adm,docker,users", &[added]);
    changes(&with(&["users", "adm", "adm"], true), "", &[]);
    changes(&with(&["docker"], true), "groups adm,users -> docker", &["usermod --groups=docker anna"]);
    changes(&with(&[], true), "groups adm,users -> ", &["usermod --groups= anna"]);
    // Its primary group is no further one.
    changes(&with(&["anna", "adm", "users"], true), "", &[]);
    let missing = "the machine has no group wheel; add it first (a package or a command that this resource requires)";
    check(&with(&["wheel"], false), &host(), &format!("refused: {missing}"));
}

#[test]
fn an_account_goes_with_its_home_only_when_that_is_managed_and_root_stays() {
    let absent = |name: &str, manage_home| UserSpec { state: Presence::Absent, manage_home, ..user(name) };
    changes(&absent("anna", false), "removed", &["userdel anna"]);
    changes(&absent("anna", true), "removed", &["userdel --remove anna"]);
    changes(&absent("nobody", true), "", &[]);
    check(&absent("root", false), &host(), "refused: the user root is root, and stays");
    let renumbered = UserSpec { uid: Some(7), ..user("root") };
    check(&renumbered, &host(), "refused: the user root is root, and keeps its number");
    // What it once belonged to may be gone before it.
    let of_gone = UserSpec { group: Some("gone".into()), groups: Some(names_of(&["gone"])), ..absent("anna", false) };
    check(&of_gone, &host(), "removed");
}

#[test]
fn the_password_is_nobodys_business() {
    let secret = UserSpec { password_hash: Some(Sensitive::new("$6$salt$hunter2")), ..user("anna") };
    let host = host().command("chpasswd", 1, "", "chpasswd: line 1: no such user");
    let observed = futures::executor::block_on(secret.observe(&host, false)).unwrap();
    let changes = secret.diff(&observed).unwrap();
    let events: Vec<_> = changes.iter().map(super::super::Change::event).collect();
    assert_eq!(events, [event("password")]);
    let error = apply(&secret, &host).unwrap_err();
    for shown in [format!("{changes:?}"), format!("{error:?}"), error.to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_password_that_is_in_passwd_itself_is_compared_there() {
    let passwd = "old:$6$salt$old:7:7::/:/bin/sh\n";
    let host = MemoryHost::new().file("/etc/passwd", passwd, ROOT);
    let with = |hash: &str| UserSpec { password_hash: Some(Sensitive::new(hash)), ..user("old") };
    check(&with("$6$salt$old"), &host, "");
    check(&with("$6$salt$new"), &host, "password set");
}
