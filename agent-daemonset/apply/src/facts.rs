//! What templates may know of a machine; see [`Facts`] for what each means.
//!
//! Nothing here fails: a machine without an `os-release` has an empty name, and its catalog says so when it matters.

mod network;
mod os;

use std::path::Path;

use drover_catalog::{Facts, Memory, Processors};

use crate::host::{LocalHost, Tree};

/// Looks at the machine below a root. `booted` says whether it runs; of a folder that stands for a machine, only the
/// files are its own.
pub fn gather(root: &Path, booted: bool) -> Facts {
    let files = Files(Tree::open(root).ok());
    let kernel = rustix::system::uname();
    let kernel_name = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let hostname = if booted { kernel_name(kernel.nodename()) } else { files.line("/etc/hostname") };
    Facts {
        os: os::parse(&first_of(&files, &["/etc/os-release", "/usr/lib/os-release"])),
        kernel: kernel_name(kernel.sysname()),
        kernelrelease: kernel_name(kernel.release()),
        architecture: kernel_name(kernel.machine()),
        networking: network::gather(hostname, booted),
        processors: Processors { count: count_cpus(&files.text("/sys/devices/system/cpu/online")) },
        memory: Memory { total_mib: total_mib(&files.text("/proc/meminfo")) },
        init: if LocalHost::runs_systemd(root) { "systemd" } else { "none" }.to_owned(),
        machine_id: files.line("/etc/machine-id"),
    }
}

/// The kernel's boot id, which changes with each reboot; empty where no kernel runs.
pub fn boot_id(root: &Path) -> String {
    Files(Tree::open(root).ok()).line("/proc/sys/kernel/random/boot_id")
}

/// The files of the machine; one that cannot be read is empty.
struct Files(Option<Tree>);

impl Files {
    fn text(&self, path: &str) -> String {
        let content = self.0.as_ref().and_then(|tree| tree.read_file(path).ok().flatten()).unwrap_or_default();
        String::from_utf8_lossy(&content).into_owned()
    }

    fn line(&self, path: &str) -> String {
        self.text(path).trim().to_owned()
    }
}

fn first_of(files: &Files, paths: &[&str]) -> String {
    paths.iter().map(|path| files.text(path)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// The kernel's list format, such as `0-3,8`.
fn count_cpus(ranges: &str) -> u32 {
    let size = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    ranges.trim().split(',').filter_map(size).sum()
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB whatever it says.
fn total_mib(meminfo: &str) -> u64 {
    let kib = |line: &str| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok();
    meminfo.lines().find_map(kib).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_formats() {
        for (list, count) in [("0-3,8\n", 5), ("0\n", 1), ("0,2-3\n", 3), ("", 0), ("3-1", 0)] {
            assert_eq!(count_cpus(list), count, "{list}");
        }
        assert_eq!(total_mib("MemFree: 1 kB\nMemTotal:       16384 kB\n"), 16);
        assert_eq!(total_mib(""), 0);
    }

    #[test]
    fn a_folder_has_its_own_names_and_none_of_this_machine() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/hostname"), "image.example.org\n").unwrap();
        std::fs::write(root.path().join("etc/os-release"), "ID=debian\n").unwrap();
        let facts = gather(root.path(), false);
        assert_eq!(facts.networking.hostname, "image");
        assert_eq!(facts.networking.fqdn, "image.example.org");
        assert_eq!(facts.networking.interfaces.len(), 0);
        assert_eq!(facts.os.family, "debian");
        assert_eq!(facts.init, "none");
        assert_eq!(facts.machine_id, "");
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let facts = gather(Path::new("/"), true);
        assert!(facts.processors.count > 0, "{facts:?}");
        assert!(facts.memory.total_mib > 0, "{facts:?}");
        assert_eq!(facts.kernel, "Linux");
    }
}
