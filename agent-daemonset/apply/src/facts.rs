//! What is known of a machine; see [`Facts`] for what each fact means.
//!
//! Nothing here fails: a machine without an `os-release` has an empty name, and its catalog says so when it matters.
//!
//! - `os`, `network`, `hardware`, `mounts`, `ssh`: read from files each time, which costs next to nothing.
//! - `custom`: what the machine says of itself in `/etc/drover/facts.d`; programs there are asked again when their time is
//!   up.
//! - `volatile`: what changes by itself.

mod custom;
mod hardware;
mod mounts;
mod network;
mod os;
mod ssh;
mod volatile;

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

pub use custom::FOLDER as CUSTOM_FOLDER;
use drover_catalog::Facts;
pub use volatile::gather as gather_volatile;

use crate::{
    StateDir,
    host::{LocalHost, Tree},
};

/// Looks at the machine below a root. `booted` says whether it runs; of a folder that stands for a machine, only the
/// files are its own. Custom facts are left out; see [`Gatherer`].
pub fn gather(root: &Path, booted: bool) -> Facts {
    let files = Files(Tree::open(root).ok());
    let kernel = rustix::system::uname();
    let kernel_name = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let hostname = if booted { kernel_name(kernel.nodename()) } else { files.line("/etc/hostname") };
    let kernelrelease = kernel_name(kernel.release());
    let kernelversion = os::kernel_version(&kernelrelease);
    let hardware = kernel_name(kernel.machine());
    let mut facts = Facts {
        os: os::gather(&files, &hardware),
        kernel: kernel_name(kernel.sysname()),
        kernelmajversion: kernelversion.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
        kernelversion,
        kernelrelease,
        networking: network::gather(&files, hostname, booted),
        timezone: os::timezone(&files),
        ssh: ssh::gather(&files),
        service_provider: if LocalHost::runs_systemd(root) { "systemd" } else { "none" }.to_owned(),
        package_provider: os::package_provider(&files).to_owned(),
        machine_id: files.line("/etc/machine-id"),
        ..Facts::default()
    };
    facts.processors.isa = hardware;
    if booted {
        hardware::gather(&files, &mut facts);
        facts.mountpoints = mounts::gather(&files, root);
    }
    facts
}

/// The kernel's boot id, which changes with each reboot; empty where no kernel runs.
pub fn boot_id(root: &Path) -> String {
    Files(Tree::open(root).ok()).line("/proc/sys/kernel/random/boot_id")
}

/// Gathers all facts of one machine, the custom ones included.
#[derive(Clone, Copy, Debug)]
pub struct Gatherer<'a> {
    /// Where the machine's `/` is.
    pub root: &'a Path,
    /// Whether it runs.
    pub booted: bool,
    /// Where what programs said is remembered.
    pub state: &'a StateDir,
    /// For how long it is.
    pub ttl: Duration,
    /// Asks each program anew.
    pub refresh: bool,
}

/// The facts of a machine, and what is wrong with the custom ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The facts.
    pub facts: Facts,
    /// What was left out of them and why, for people. The same as long as nothing changes.
    pub warnings: Vec<String>,
}

impl Gatherer<'_> {
    /// Gathers the facts. They have at most [`Facts::MAX_BYTES`].
    pub async fn gather(&self) -> Gathered {
        let mut facts = gather(self.root, self.booted);
        let mut warnings = Vec::new();
        match LocalHost::open(self.root, self.booted) {
            Ok(host) => {
                let asked = custom::Asked { host: &host, state: self.state, ttl: self.ttl, refresh: self.refresh };
                (facts.custom, warnings) = asked.gather(SystemTime::now()).await;
            }
            Err(error) => warnings.push(format!("{CUSTOM_FOLDER} was not read: {error}")),
        }
        fit(&mut facts, &mut warnings);
        Gathered { facts, warnings }
    }
}

/// Leaves out what makes the facts too large for a master: custom ones first, then the lists that have no bound.
fn fit(facts: &mut Facts, warnings: &mut Vec<String>) {
    type Drop = fn(&mut Facts);
    let drops: [(&str, Drop); 4] = [
        ("custom", |facts| facts.custom.clear()),
        ("mountpoints", |facts| facts.mountpoints.clear()),
        ("disks", |facts| facts.disks.clear()),
        ("networking.interfaces", |facts| facts.networking.interfaces.clear()),
    ];
    for (name, drop) in drops {
        let bytes = serde_json::to_vec(facts).map_or(0, |json| json.len());
        if bytes <= Facts::MAX_BYTES {
            return;
        }
        drop(facts);
        let hint = if name == "custom" { format!("; have {CUSTOM_FOLDER} say less") } else { String::new() };
        let most = Facts::MAX_BYTES;
        warnings
            .push(format!("the facts have {bytes} bytes, and a master takes {most}: facts.{name} is left out{hint}"));
    }
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

    fn link(&self, path: &str) -> String {
        self.0.as_ref().and_then(|tree| tree.read_link(path).ok().flatten()).unwrap_or_default()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.0.as_ref().and_then(|tree| tree.list_directory(folder).ok().flatten()).unwrap_or_default()
    }

    fn is_there(&self, path: &str) -> bool {
        self.0.as_ref().is_some_and(|tree| tree.entry(path).is_ok_and(|entry| entry.is_some()))
    }

    fn is_program(&self, path: &str) -> bool {
        self.0.as_ref().is_some_and(|tree| tree.is_program(path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use drover_catalog::facts::{Interface, Mountpoint};
    use serde_json::Value;

    use super::*;

    /// A folder with files, which stands for a machine.
    pub(super) fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let files = Files(Tree::open(root.path()).ok());
        (root, files)
    }

    #[test]
    fn a_folder_has_its_own_names_and_none_of_this_machine() {
        let (root, _) = machine(&[
            ("/etc/hostname", "image.example.org\n"),
            ("/etc/os-release", "ID=debian\n"),
            ("/proc/meminfo", "MemTotal: 16 kB\n"),
        ]);
        let facts = gather(root.path(), false);
        assert_eq!(facts.networking.hostname, "image");
        assert_eq!(facts.networking.domain, "example.org");
        assert_eq!(facts.networking.fqdn, "image.example.org");
        assert_eq!(facts.networking.interfaces.len(), 0);
        assert_eq!(facts.os.id, "debian");
        assert_eq!(facts.service_provider, "none");
        assert_eq!(facts.machine_id, "");
        assert_eq!(facts.memory.system.total_bytes, 0, "it may be that of whoever builds the image");
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let facts = gather(Path::new("/"), true);
        assert!(facts.processors.count > 0 && facts.processors.physicalcount > 0, "{facts:?}");
        assert!(facts.memory.system.total_bytes > 0, "{facts:?}");
        assert_eq!(facts.kernel, "Linux");
        assert!(facts.kernelrelease.starts_with(&facts.kernelversion) && !facts.kernelmajversion.is_empty());
        assert_eq!(gather(Path::new("/"), true), facts, "they are stable");
    }

    #[test]
    fn what_is_too_large_goes_in_order_custom_facts_first() {
        let large = "x".repeat(Facts::MAX_BYTES);
        let custom = BTreeMap::from([("blob".to_owned(), Value::from(large.clone()))]);
        let mountpoint = Mountpoint { device: "/dev/sda1".into(), ..Mountpoint::default() };
        let small = Facts {
            custom: [("rack".to_owned(), Value::from("r1"))].into(),
            mountpoints: [("/".to_owned(), mountpoint)].into(),
            ..Facts::default()
        };
        let endless = Interface { mac: large, ..Interface::default() };
        let mut network = small.clone();
        network.networking.interfaces.insert("eth0".into(), endless);
        for (mut facts, left_out, mountpoints) in [
            (small.clone(), vec![], 1),
            (Facts { custom, ..small }, vec!["custom"], 1),
            (network, vec!["custom", "mountpoints", "disks", "networking.interfaces"], 0),
        ] {
            let mut warnings = Vec::new();
            fit(&mut facts, &mut warnings);
            let names = left_out.iter().map(|name| format!("facts.{name} is left out")).collect::<Vec<_>>();
            assert_eq!(warnings.len(), names.len(), "{warnings:?}");
            assert!(warnings.iter().zip(&names).all(|(warning, name)| warning.contains(name)), "{warnings:?}");
            assert_eq!((facts.custom.is_empty(), facts.mountpoints.len()), (!left_out.is_empty(), mountpoints));
            assert!(serde_json::to_vec(&facts).unwrap().len() <= Facts::MAX_BYTES);
        }
    }
}
