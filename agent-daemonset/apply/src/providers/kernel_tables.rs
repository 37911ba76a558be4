//! Tables of white-space separated fields: `/proc/1/mountinfo` (`proc_pid_mountinfo(5)`), `/proc/swaps` (`proc_swaps(5)`)
//! and `/etc/fstab` (fstab(5)). In all three, white space and backslashes within a field are octal escapes.

use crate::host::{EntryKind, Host, HostError};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device number, `major:minor`.
    pub(super) device: String,
    /// Which folder of the file system is mounted: another than `/` for a bind mount.
    pub(super) root: String,
    pub(super) path: String,
    /// Options of the mount and of the file system.
    pub(super) options: Vec<String>,
    pub(super) fstype: String,
    pub(super) source: String,
}

/// All mounts, the later ones over the earlier ones.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; there may be any number of fields
/// before the `-`.
fn mount(line: &str) -> Option<Mount> {
    let (own, of_system) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let mut of_system = of_system.split(' ');
    let (fstype, source) = (of_system.next()?, of_system.next()?);
    let options = own.get(5)?.split(',').chain(of_system.next().unwrap_or_default().split(','));
    Some(Mount {
        device: (*own.get(2)?).to_owned(),
        root: unescape(own.get(3)?),
        path: unescape(own.get(4)?),
        options: options.filter(|option| !option.is_empty()).map(unescape).collect(),
        fstype: fstype.to_owned(),
        source: unescape(source),
    })
}

/// The paths of all swap areas in use, and their priorities, of which those that the kernel chose are below 0. The first
/// line is a heading.
pub(super) fn swaps(proc_swaps: &str) -> Vec<(String, i32)> {
    let area = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        Some((unescape(fields.next()?), fields.nth(3)?.parse().ok()?))
    };
    proc_swaps.lines().skip(1).filter_map(area).collect()
}

/// The fields of the line of fstab whose field, counted from 0, is this one; of several lines the first, as systemd
/// does it.
pub(super) fn line_of_fstab(host: &impl Host, field: usize, value: &str) -> Result<Option<Vec<String>>, HostError> {
    let fstab = host.read_file("/etc/fstab")?.unwrap_or_default();
    let fstab = String::from_utf8_lossy(&fstab);
    let lines = fstab.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut lines = lines.map(|line| line.split_ascii_whitespace().map(unescape).collect::<Vec<_>>());
    Ok(lines.find(|fields| fields.get(field).is_some_and(|found| found == value)))
}

/// Takes back `\040` and its like.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\').then(|| after.get(..3)).flatten();
        let octal = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = octal.and_then(|_| after.get(3..)).unwrap_or(after);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether systemd runs the machine, see `sd_booted(3)`.
pub(super) fn runs_systemd(host: &impl Host) -> Result<bool, HostError> {
    Ok(host.entry("/run/systemd/system")?.is_some_and(|entry| entry.kind == EntryKind::Directory))
}

/// How many links may lead from a name to a device.
const MOST_LINKS: u32 = 8;

/// The device node behind a name as mount(8) takes it: `LABEL=` and its like, and links such as `/dev/disk/by-id/…` and
/// `/dev/mapper/…`. What leads nowhere is what it is.
pub(super) fn device_node(host: &impl Host, name: &str) -> Result<String, HostError> {
    let by = [("UUID=", "uuid"), ("LABEL=", "label"), ("PARTUUID=", "partuuid"), ("PARTLABEL=", "partlabel")];
    let link = by.iter().find_map(|(tag, kind)| {
        let value = name.strip_prefix(tag)?.trim_matches('"');
        Some(format!("/dev/disk/by-{kind}/{}", udev_escaped(value)))
    });
    let mut node = link.unwrap_or_else(|| name.to_owned());
    for _ in 0..MOST_LINKS {
        if !node.starts_with("/dev/") {
            break;
        }
        let Some(target) = host.read_link(&node)? else { break };
        node = joined(&node, &target);
    }
    Ok(node)
}

/// As udev names its links: a byte that could not stand in a path is `\x` and two hexadecimal digits.
fn udev_escaped(value: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "#+-.:=@_".contains(c);
    value.chars().map(|c| if safe(c) { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) }).collect()
}

/// Where a link leads that is at a path.
fn joined(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { link.split('/').collect() };
    // The link's own name.
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Access, memory::MemoryHost};

    #[test]
    fn reads_mounts_with_any_number_of_tags() {
        let table = "36 35 98:0 /sub /mnt/a\\040b rw,noatime master:1 propagate_from:2 - ext4 /dev/sda1 rw,errors=x\n\
                     37 35 0:5 / /run rw - tmpfs tmpfs rw,size=4k\nbroken\n";
        let found = mounts(table);
        assert_eq!(found.len(), 2);
        let expected = Mount {
            device: "98:0".into(),
            root: "/sub".into(),
            path: "/mnt/a b".into(),
            options: ["rw", "noatime", "rw", "errors=x"].map(str::to_owned).to_vec(),
            fstype: "ext4".into(),
            source: "/dev/sda1".into(),
        };
        assert_eq!(found.first(), Some(&expected));
    }

    #[test]
    fn takes_back_escapes_and_leaves_the_rest() {
        for (field, text) in [
            (r"a\040b", "a b"),
            (r"a\134b\011", "a\\b\t"),
            (r"a\9", r"a\9"),
            (r"\04", r"\04"),
            (r"\777x", r"\777x"),
            ("ü", "ü"),
        ] {
            assert_eq!(unescape(field), text, "{field}");
        }
    }

    #[test]
    fn finds_swaps_and_lines_of_fstab() {
        let table =
            "Filename\tType\tSize\tUsed\tPriority\n/swap\\040file  file\t1048572\t0\t-2\n/dev/sda2 partition 1 0 -3\n";
        assert_eq!(swaps(table), [("/swap file".to_owned(), -2), ("/dev/sda2".to_owned(), -3)]);
        let access = Access { mode: 0o644, user: 0, group: 0 };
        let fstab = "# /swap none\n/dev/a /mnt\\040x ext4 defaults 0 2\n/swap none swap sw 0 0\n";
        let host = MemoryHost::new().file("/etc/fstab", fstab, access);
        for (field, value, device) in
            [(1, "/mnt x", Some("/dev/a")), (0, "/swap", Some("/swap")), (0, "#", None), (1, "/swap", None)]
        {
            let found = line_of_fstab(&host, field, value).unwrap();
            assert_eq!(found.as_ref().map(|fields| fields[0].as_str()), device, "{value}");
        }
    }

    #[test]
    fn names_of_devices_lead_to_their_nodes() {
        let host = MemoryHost::new()
            .link("/dev/disk/by-uuid/1-2", "../../sda1")
            .link(r"/dev/disk/by-label/my\x20disk", "../../dm-0")
            .link("/dev/mapper/vg-data", "../dm-0")
            .link("/dev/loop", "/dev/loop");
        for (name, node) in [
            ("UUID=1-2", "/dev/sda1"),
            ("UUID=\"1-2\"", "/dev/sda1"),
            ("LABEL=my disk", "/dev/dm-0"),
            ("/dev/mapper/vg-data", "/dev/dm-0"),
            ("/dev/disk/by-uuid/1-2", "/dev/sda1"),
            ("/dev/sdb", "/dev/sdb"),
            ("server:/export", "server:/export"),
            ("tmpfs", "tmpfs"),
            ("/dev/loop", "/dev/loop"),
            ("LABEL=none", "/dev/disk/by-label/none"),
        ] {
            assert_eq!(device_node(&host, name).unwrap(), node, "{name}");
        }
    }
}
