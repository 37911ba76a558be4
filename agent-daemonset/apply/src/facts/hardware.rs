//! Processors, memory, disks, firmware and hypervisor, from `/proc` and `/sys`.

use std::collections::BTreeSet;

use drover_catalog::{
    Facts, Memory, Processors,
    facts::{Disk, Dmi, DmiBios, DmiBoard, DmiChassis, DmiProduct, Size},
};

use super::Files;

/// Hypervisors by words of the firmware's manufacturer or product. The first that is found counts.
const HYPERVISORS: &[(&str, &str)] = &[
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("Parallels", "parallels"),
    ("Google Compute Engine", "gce"),
    ("HVM domU", "xen"),
    ("Xen", "xen"),
    ("QEMU", "kvm"),
    ("KVM", "kvm"),
    // Microsoft's; after those whose products have longer names of the same end.
    ("Virtual Machine", "hyperv"),
    ("Amazon EC2", "kvm"),
    ("OpenStack", "kvm"),
    ("DigitalOcean", "kvm"),
    ("Hetzner", "kvm"),
];

/// Forms of a case by number, in facter's words; see the SMBIOS reference specification, section 7.4.1.
const CHASSIS: &[&str] = &[
    "Other",
    "Unknown",
    "Desktop",
    "Low Profile Desktop",
    "Pizza Box",
    "Mini Tower",
    "Tower",
    "Portable",
    "Laptop",
    "Notebook",
    "Hand Held",
    "Docking Station",
    "All in One",
    "Sub Notebook",
    "Space-Saving",
    "Lunch Box",
    "Main System Chassis",
    "Expansion Chassis",
    "SubChassis",
    "Bus Expansion Chassis",
    "Peripheral Chassis",
    "Storage Chassis",
    "Rack Mount Chassis",
    "Sealed-Case PC",
    "Multi-system",
    "CompactPCI",
    "AdvancedTCA",
    "Blade",
    "Blade Enclosure",
];

/// What `/sys/block` counts in, whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// Fills in what is the machine's own only where it runs.
pub(super) fn gather(files: &Files, facts: &mut Facts) {
    let cpuinfo = files.text("/proc/cpuinfo");
    let meminfo = files.text("/proc/meminfo");
    let total = |key| Size { total_bytes: bytes_of(&meminfo, key) };
    let isa = std::mem::take(&mut facts.processors.isa);
    let processors = processors(&files.text("/sys/devices/system/cpu/online"), &cpuinfo);
    facts.processors = Processors { isa, ..processors };
    facts.memory = Memory { system: total("MemTotal"), swap: total("SwapTotal") };
    facts.disks =
        files.names("/sys/block").into_iter().filter_map(|name| Some((name.clone(), disk(files, &name)?))).collect();
    facts.dmi = dmi(files);
    facts.r#virtual = hypervisor(&facts.dmi, &cpuinfo, &files.line("/sys/hypervisor/type")).to_owned();
    facts.is_virtual = facts.r#virtual != "physical";
    facts.fips_enabled = files.line("/proc/sys/crypto/fips_enabled") == "1";
}

fn processors(online: &str, cpuinfo: &str) -> Processors {
    let values = |key: &str| -> BTreeSet<&str> {
        let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()).collect()
    };
    let count = count_cpus(online);
    let sockets = u32::try_from(values("physical id").len()).unwrap_or(u32::MAX);
    Processors {
        count,
        // Kernels of other architectures than x86 do not say.
        physicalcount: if sockets == 0 { count.min(1) } else { sockets },
        models: values("model name").into_iter().map(str::to_owned).collect(),
        isa: String::new(),
    }
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

/// A value of `/proc/meminfo`, which is in KiB whatever it says.
pub(super) fn bytes_of(meminfo: &str, key: &str) -> u64 {
    let kib = |line: &str| line.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse::<u64>().ok();
    meminfo.lines().find_map(kib).unwrap_or(0) * 1024
}

/// A block device that has hardware behind it, and whose medium stays in it.
fn disk(files: &Files, name: &str) -> Option<Disk> {
    let of = |attribute: &str| files.line(&format!("/sys/block/{name}/{attribute}"));
    let size_bytes = of("size").parse::<u64>().ok()? * SECTOR;
    let has_hardware = files.is_there(&format!("/sys/block/{name}/device"));
    if !has_hardware || size_bytes == 0 || of("removable") == "1" {
        return None;
    }
    let r#type = if of("queue/rotational") == "1" { "hdd" } else { "ssd" }.to_owned();
    Some(Disk { size_bytes, model: of("device/model"), r#type })
}

fn dmi(files: &Files) -> Dmi {
    let of = |name: &str| files.line(&format!("/sys/class/dmi/id/{name}"));
    let form = of("chassis_type").parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    Dmi {
        manufacturer: of("sys_vendor"),
        product: DmiProduct { name: of("product_name"), serial_number: of("product_serial"), uuid: of("product_uuid") },
        bios: DmiBios { vendor: of("bios_vendor"), version: of("bios_version"), release_date: of("bios_date") },
        board: DmiBoard {
            manufacturer: of("board_vendor"),
            product: of("board_name"),
            serial_number: of("board_serial"),
        },
        chassis: DmiChassis {
            r#type: form.and_then(|form| CHASSIS.get(form)).copied().unwrap_or_default().to_owned(),
            asset_tag: of("chassis_asset_tag"),
        },
    }
}

/// By what the hypervisor's firmware says; a machine whose processor says that there is one is virtual in any case, and
/// one of a cloud provider whose processor does not is a whole machine.
fn hypervisor(dmi: &Dmi, cpuinfo: &str, of_kernel: &str) -> &'static str {
    let is_x86 = cpuinfo.lines().any(|line| line.starts_with("flags"));
    let says_so =
        cpuinfo.lines().any(|line| line.starts_with("flags") && line.split_whitespace().any(|f| f == "hypervisor"));
    if is_x86 && !says_so {
        // A paravirtual guest of Xen does not see it in its processor.
        return if of_kernel == "xen" { "xen" } else { "physical" };
    }
    let named = HYPERVISORS
        .iter()
        .find(|(word, _)| dmi.manufacturer.contains(word) || dmi.product.name.contains(word))
        .map(|(_, name)| *name);
    match named {
        Some(name) => name,
        None if of_kernel == "xen" => "xen",
        None if says_so => "hypervisor",
        None => "physical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::machine;

    #[test]
    fn reads_the_kernels_formats() {
        for (list, count) in [("0-3,8\n", 5), ("0\n", 1), ("0,2-3\n", 3), ("", 0), ("3-1", 0)] {
            assert_eq!(count_cpus(list), count, "{list}");
        }
        let meminfo = "MemFree: 1 kB\nMemTotal:       16384 kB\nSwapTotal: 8 kB\n";
        for (key, bytes) in [("MemTotal", 16_777_216), ("SwapTotal", 8192), ("Mem", 0), ("HugePages", 0)] {
            assert_eq!(bytes_of(meminfo, key), bytes, "{key}");
        }
    }

    #[test]
    fn processors_are_counted_by_socket_and_models_told_once() {
        let two_sockets = [0, 1, 0, 1]
            .map(|socket| format!("processor\t: 7\nmodel name\t: Fast: 3.0 GHz\nphysical id\t: {socket}\n"))
            .join("\n");
        let x86 = processors("0-3", &two_sockets);
        assert_eq!((x86.count, x86.physicalcount, x86.models), (4, 2, vec!["Fast: 3.0 GHz".to_owned()]));
        let arm = processors("0-7", "processor\t: 0\nCPU implementer\t: 0x41\n");
        assert_eq!((arm.count, arm.physicalcount, arm.models.len()), (8, 1, 0));
    }

    #[test]
    fn disks_have_hardware_and_stay() {
        let (_root, files) = machine(&[
            ("/sys/block/sda/size", "2048\n"),
            ("/sys/block/sda/removable", "0\n"),
            ("/sys/block/sda/queue/rotational", "1\n"),
            ("/sys/block/sda/device/model", "Spinner 3000 \n"),
            ("/sys/block/nvme0n1/size", "4096\n"),
            ("/sys/block/nvme0n1/queue/rotational", "0\n"),
            ("/sys/block/nvme0n1/device/model", "Flash\n"),
            ("/sys/block/sr0/size", "2048\n"),
            ("/sys/block/sr0/removable", "1\n"),
            ("/sys/block/sr0/device/model", "DVD\n"),
            ("/sys/block/sdb/size", "0\n"),
            ("/sys/block/sdb/device/model", "Card reader\n"),
            ("/sys/block/loop0/size", "2048\n"),
        ]);
        let mut facts = Facts::default();
        gather(&files, &mut facts);
        let shown: Vec<String> =
            facts.disks.iter().map(|(name, d)| format!("{name} {} {} {}", d.size_bytes, d.r#type, d.model)).collect();
        assert_eq!(shown, ["nvme0n1 2097152 ssd Flash", "sda 1048576 hdd Spinner 3000"]);
    }

    #[test]
    fn hypervisors_are_named_by_their_firmware() {
        const GUEST: &str = "flags\t\t: fpu hypervisor lm\n";
        const METAL: &str = "flags\t\t: fpu lm\n";
        const ARM: &str = "CPU implementer\t: 0x41\n";
        for (manufacturer, product, cpuinfo, of_kernel, expected) in [
            ("QEMU", "Standard PC", GUEST, "", "kvm"),
            ("Red Hat", "KVM", GUEST, "", "kvm"),
            ("QEMU", "KVM Virtual Machine", GUEST, "", "kvm"),
            ("VMware, Inc.", "VMware7,1", GUEST, "", "vmware"),
            ("innotek GmbH", "VirtualBox", GUEST, "", "virtualbox"),
            ("Microsoft Corporation", "Virtual Machine", GUEST, "", "hyperv"),
            ("Microsoft Corporation", "Surface Pro", METAL, "", "physical"),
            ("Amazon EC2", "m5.large", GUEST, "", "kvm"),
            ("Amazon EC2", "m5.metal", METAL, "", "physical"),
            ("Google", "Google Compute Engine", GUEST, "", "gce"),
            ("Xen", "HVM domU", GUEST, "xen", "xen"),
            ("", "", METAL, "xen", "xen"),
            ("", "", GUEST, "", "hypervisor"),
            ("", "", ARM, "", "physical"),
            ("QEMU", "QEMU Virtual Machine", ARM, "", "kvm"),
            ("Dell Inc.", "PowerEdge R640", METAL, "", "physical"),
        ] {
            let dmi = Dmi {
                manufacturer: manufacturer.into(),
                product: DmiProduct { name: product.into(), ..DmiProduct::default() },
                ..Dmi::default()
            };
            assert_eq!(hypervisor(&dmi, cpuinfo, of_kernel), expected, "{manufacturer} {product}");
        }
    }

    #[test]
    fn firmware_is_read_and_a_case_has_a_form() {
        let (_root, files) = machine(&[
            ("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("/sys/class/dmi/id/product_serial", "ABC123\n"),
            ("/sys/class/dmi/id/chassis_type", "23\n"),
        ]);
        let dmi = dmi(&files);
        assert_eq!((dmi.manufacturer.as_str(), dmi.product.serial_number.as_str()), ("Dell Inc.", "ABC123"));
        assert_eq!((dmi.chassis.r#type.as_str(), dmi.bios.vendor.as_str()), ("Rack Mount Chassis", ""));
    }
}
