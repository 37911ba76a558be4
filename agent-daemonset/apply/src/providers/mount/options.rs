//! Which options of a mount differ from what the kernel shows. It does not show all, nor as they were written.

/// Options without a value that the kernel shows for any file system while they are set. All others are for mount(8),
/// systemd or people, are defaults that are not shown, or go by another word: that they are not there says nothing.
const SHOWN: [&str; 11] = [
    "ro",
    "noexec",
    "nosuid",
    "nodev",
    "noatime",
    "relatime",
    "nodiratime",
    "nosymfollow",
    "sync",
    "dirsync",
    "lazytime",
];

/// Options that say that another one, which is shown, is not there.
const OPPOSITES: [(&str, &str); 10] = [
    // Both the mount and its file system have one, and either makes it read-only.
    ("rw", "ro"),
    ("exec", "noexec"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("async", "sync"),
    ("diratime", "nodiratime"),
    ("atime", "noatime"),
    ("norelatime", "relatime"),
    ("strictatime", "relatime"),
    ("symfollow", "nosymfollow"),
];

/// The options as one argument of mount(8), without those that are only about when to mount: systemd leaves them out too,
/// as not all helpers know them.
pub(super) fn for_the_tool(options: &[String]) -> String {
    let when = |option: &&str| matches!(*option, "auto" | "noauto" | "nofail");
    options.iter().flat_map(|list| list.split(',')).filter(|option| !when(option)).collect::<Vec<_>>().join(",")
}

/// The wanted options that are not in force.
pub(super) fn missing<'a>(wanted: &'a [String], shown: &[String]) -> Vec<&'a str> {
    let differs = |option: &&str| !is_in_force(option, shown);
    wanted.iter().flat_map(|list| list.split(',')).filter(differs).collect()
}

fn is_in_force(option: &str, shown: &[String]) -> bool {
    let has = |option: &str| shown.iter().any(|found| found == option);
    if let Some((_, opposite)) = OPPOSITES.iter().find(|(positive, _)| *positive == option) {
        return !has(opposite);
    }
    let Some((key, value)) = option.split_once('=') else {
        return has(option) || !SHOWN.contains(&option);
    };
    // nfs(5) has two names for it.
    let key = if key == "nfsvers" { "vers" } else { key };
    let mut found = shown.iter().filter_map(|found| found.split_once('=')).filter(|(name, _)| *name == key).peekable();
    // A value that is not shown at all cannot be told: it is a default, a secret or only for mount(8).
    found.peek().is_none() || found.any(|(_, found)| same_value(key, value, found))
}

fn same_value(key: &str, wanted: &str, found: &str) -> bool {
    if wanted == found {
        return true;
    }
    match key {
        "mode" | "umask" | "fmask" | "dmask" => octal(wanted).is_some() && octal(wanted) == octal(found),
        // A share of the memory is shown in bytes.
        "size" | "nr_blocks" | "nr_inodes" => {
            wanted.ends_with('%') || (bytes(wanted).is_some() && bytes(wanted) == bytes(found))
        }
        // A server may grant less than is asked for.
        "rsize" | "wsize" => bytes(found).zip(bytes(wanted)).is_some_and(|(found, wanted)| found < wanted),
        // Names are shown as numbers.
        "uid" | "gid" => wanted.parse::<u32>().is_err(),
        "subvol" => wanted.trim_start_matches('/') == found.trim_start_matches('/'),
        // `vers=4` is shown as `vers=4.2`, and `compress=zstd` as `compress=zstd:3`.
        _ => found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(['.', ':'])),
    }
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok()
}

fn bytes(text: &str) -> Option<u64> {
    let shift = match text.chars().last()?.to_ascii_lowercase() {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        _ => return text.parse().ok(),
    };
    text.get(..text.len() - 1)?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &str, shown: &str, expected: &str) {
        let shown: Vec<String> = shown.split(',').map(str::to_owned).collect();
        assert_eq!(missing(&[wanted.to_owned()], &shown).join(","), expected, "{wanted} of {shown:?}");
    }

    #[test]
    fn each_wanted_option_is_in_force_or_named() {
        check("noatime,nodev", "rw,nodev,noatime,rw", "");
        check("noatime,nodev,discard", "rw,relatime", "noatime,nodev");
        let all = "ro,noexec,nosuid,nodev,noatime,relatime,nodiratime,nosymfollow,sync,dirsync,lazytime";
        check(all, "rw", all);
        check(all, all, "");
        check("ro", "rw,relatime,rw", "ro");
        check("ro", "rw,ro", "");
        check("rw", "ro,relatime", "rw");
        check("exec,suid,async,strictatime", "rw", "");
        check("exec,strictatime", "rw,noexec,relatime", "exec,strictatime");
    }

    #[test]
    fn what_the_kernel_does_not_show_is_no_difference() {
        check("defaults,nofail,_netdev,noauto,user,x-systemd.automount,x-gvfs-show,bind,acl", "rw", "");
        check("remount,loop,loud,silent,_netdev,group,user_xattr,barrier,discard,iversion", "rw", "");
        // Of nfs(5), of propagation, of btrfs.
        check("bg,soft,intr,tcp,nolock", "rw,soft,proto=tcp", "");
        check("shared,rshared,private,rprivate,slave,rslave,unbindable,runbindable", "rw", "");
        check("compress,autodefrag", "rw,compress=zstd:3", "");
        check("credentials=/etc/c,password=hunter2", "rw", "");
        check("", "rw", "");
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        check("size=1G,mode=0755", "rw,size=1048576k,mode=755", "");
        check("size=2G", "rw,size=1048576k", "size=2G");
        check("size=50%", "rw,size=1048576k", "");
        check("mode=1777", "rw,size=1k", "");
        check("mode=700", "rw,mode=755", "mode=700");
        check("nfsvers=4,rsize=1024", "rw,vers=4.2,rsize=1024", "");
        check("rsize=1048576,wsize=4096", "rw,rsize=262144,wsize=262144", "wsize=4096");
        check("vers=3", "rw,vers=4.2", "vers=3");
        check("compress=zstd,subvol=@home", "rw,compress=zstd:3,subvol=/@home", "");
        check("compress=lzo", "rw,compress=zstd:3", "compress=lzo");
        check("uid=anna,gid=100", "rw,uid=1000,gid=101", "gid=100");
    }
}
