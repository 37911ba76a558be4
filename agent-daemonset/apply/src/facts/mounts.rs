//! Mounted file systems that belong to the machine, from `/proc/PID/mountinfo`; see `proc_pid_mountinfo(5)`.

use std::{collections::BTreeMap, path::Path};

use drover_catalog::facts::Mountpoint;

use super::Files;

/// Below these, containers and logins come and go with their mounts.
const OF_GUESTS: &[&str] = &[
    "/run/",
    "/var/run/",
    "/var/lib/kubelet/",
    "/var/lib/containerd/",
    "/var/lib/containers/",
    "/var/lib/docker/",
    "/var/lib/rancher/",
    "/var/lib/rook/",
    "/snap/",
    "/var/snap/",
    "/proc/",
    "/sys/",
    "/dev/",
    "/tmp/",
    "/media/",
];

/// File systems of other machines, or without a device of their own.
const WITHOUT_DEVICE: &[&str] = &["nfs", "nfs4", "cifs", "ceph", "zfs", "virtiofs", "9p"];

pub(super) fn gather(files: &Files, root: &Path) -> BTreeMap<String, Mountpoint> {
    // As PID 1 sees it: an agent in a container has mounts of its own. Only root may look; others see their own.
    let of_first = files.text("/proc/1/mountinfo");
    let mountinfo = if of_first.is_empty() { files.text("/proc/self/mountinfo") } else { of_first };
    let mut mountpoints = parse(&mountinfo);
    for (path, mountpoint) in &mut mountpoints {
        // A file system on the network may not answer, and would hold everything up.
        if mountpoint.device.starts_with("/dev/") {
            mountpoint.size_bytes = size(&root.join(path.trim_start_matches('/')));
        }
    }
    mountpoints
}

fn parse(mountinfo: &str) -> BTreeMap<String, Mountpoint> {
    mountinfo.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<(String, Mountpoint)> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, path) = (of_mount.next()?, unescape(of_mount.next()?));
    let mut of_file_system = of_file_system.split(' ');
    let (filesystem, device) = (of_file_system.next()?, unescape(of_file_system.next()?));
    let is_lasting = device.starts_with("/dev/") || WITHOUT_DEVICE.contains(&filesystem);
    // The root of another folder than the file system's own: a folder that is bound there. Subvolumes look the same.
    let is_whole = root == "/" || filesystem == "btrfs";
    let of_guest = OF_GUESTS.iter().any(|folder| path.starts_with(folder)) || filesystem == "squashfs";
    let belongs = path == "/" || (is_lasting && is_whole && !of_guest);
    belongs.then(|| (path, Mountpoint { device, filesystem: filesystem.to_owned(), size_bytes: 0 }))
}

/// Blanks and backslashes are octal: `\040`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

fn size(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |file_system| file_system.f_blocks.saturating_mul(file_system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_machine_is_kept() {
        for (line, expected) in [
            ("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw", "/ /dev/vda1 ext4"),
            ("27 1 254:0 / / rw,relatime - overlay overlay rw,lowerdir=/a", "/ overlay overlay"),
            ("28 27 254:1 / /boot/efi rw shared:2 master:3 - vfat /dev/vda15 rw", "/boot/efi /dev/vda15 vfat"),
            ("28 27 0:50 /@home /home rw - btrfs /dev/vdb rw", "/home /dev/vdb btrfs"),
            ("28 27 0:50 / /srv/my\\040files rw - nfs4 192.0.2.1:/export rw", "/srv/my files 192.0.2.1:/export nfs4"),
            ("28 27 254:0 /srv/data /data rw - ext4 /dev/vda1 rw", ""),
            ("22 27 0:21 / /proc rw,relatime - proc proc rw", ""),
            ("29 27 0:26 / /tmp rw - tmpfs tmpfs rw", ""),
            ("29 27 8:16 / /var/lib/kubelet/pods/1/volumes/csi/mount rw - ext4 /dev/sdb rw", ""),
            ("29 27 0:99 / /run/containerd/io/rootfs rw - overlay overlay rw", ""),
            ("29 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro", ""),
            ("29 27 0:99 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw", ""),
            ("no mount at all", ""),
        ] {
            let shown =
                mount(line).map(|(path, m)| format!("{path} {} {}", m.device, m.filesystem)).unwrap_or_default();
            assert_eq!(shown, expected, "{line}");
        }
    }

    #[test]
    fn this_machine_has_a_root() {
        let files = Files(crate::host::Tree::open(Path::new("/")).ok());
        let mountpoints = gather(&files, Path::new("/"));
        assert!(mountpoints.contains_key("/"), "{mountpoints:?}");
    }
}
