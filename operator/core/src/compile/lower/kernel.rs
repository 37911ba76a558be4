//! What the kernel does: parameters, modules, mounts, swap.

use drover_catalog::{
    Edit, EditSpec, Finish, ModuleSpec, MountSpec, Part, Presence, SensitiveBytes, SwapSpec, SysctlSpec,
};
use drover_crds::{KernelModule, Mount, MountEnsure, Swap, Sysctl};

use super::{
    Made,
    files::{owned_by_root, presence},
    scope::{Scope, positive},
};
use crate::compile::CompileError;

const FSTAB: &str = "/etc/fstab";

pub(super) fn sysctl(spec: &Sysctl, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Sysctl { key, value, at_boot } = spec;
    let name = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let parts = key.split(['.', '/']);
    let fits = key.chars().all(name) && key.contains(['.', '/']) && parts.into_iter().all(|part| !part.is_empty());
    scope.ensure(fits, "sysctl.key", "must be a parameter as sysctl prints it, such as net.ipv4.ip_forward")?;
    scope.one_line("sysctl.value", value)?;
    let at_boot = at_boot.unwrap_or(true);
    Ok(Part::Sysctl(SysctlSpec { key: sysctl_key(key), value: value.clone(), at_boot }).into())
}

/// One spelling of a kernel parameter, by the rule of sysctl.d(5): when a slash comes first, slashes separate and dots
/// belong to names, so the two are exchanged.
pub(super) fn sysctl_key(key: &str) -> String {
    let exchanged = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key.chars().map(exchanged).collect(),
        _ => key.to_owned(),
    }
}

/// The files have names of our own: a distribution's file of the module's name stays as it is.
pub(super) fn module(spec: &KernelModule, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let KernelModule { name, loaded, at_boot, options, blacklisted } = spec;
    let wanted = "must be a module's name: letters, digits, _ and -";
    let name = scope.named("kernelModule.name", name.as_ref(), is_module, wanted)?;
    let blacklisted = blacklisted.unwrap_or(false);
    let loaded = loaded.unwrap_or(!blacklisted);
    let at_boot = at_boot.unwrap_or(loaded);
    let mut modprobe = String::new();
    if let Some(options) = options {
        scope.one_line("kernelModule.options", options)?;
        // modprobe.d(5) joins a line that ends with a backslash with the next.
        scope.ensure(!options.ends_with('\\'), "kernelModule.options", "must not end with a backslash")?;
        modprobe.extend(["options ", &name, " ", options, "\n"]);
    }
    if blacklisted {
        modprobe.extend(["blacklist ", &name, "\n"]);
    }
    let file = |folder: &str, text: Option<String>| {
        let content = text.map(|text| SensitiveBytes::new(scope.header() + &text));
        Part::File(owned_by_root(format!("/etc/{folder}/drover-{name}.conf"), content, 0o644))
    };
    // Options first: a module that is loaded now is loaded with them.
    Ok(vec![
        file("modprobe.d", (!modprobe.is_empty()).then_some(modprobe)),
        file("modules-load.d", at_boot.then(|| format!("{name}\n"))),
        Part::Module(ModuleSpec { name: name.clone(), loaded }),
    ]
    .into())
}

fn is_module(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// A line of fstab(5), and what it says done now. systemd makes units of that file, so it reads it again.
pub(super) fn mount(spec: &Mount, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Mount { path, device, fstype, options, pass, ensure } = spec;
    let path = scope.path("mount.path", path)?;
    let ensure = ensure.unwrap_or_default();
    let fstab = |state, line| entry(state, 1, &path, line);
    let live = |mounted, device: &str, fstype: &str| {
        Part::Mount(MountSpec {
            path: path.clone(),
            mounted,
            device: device.to_owned(),
            fstype: fstype.to_owned(),
            options: options.clone(),
        })
    };
    if ensure == MountEnsure::Absent {
        // Unmounted first: what is still mounted should still be in the table.
        let parts = vec![live(false, "", ""), fstab(Presence::Absent, String::new())];
        return Ok(Made::from(parts).then(Finish::ReadUnitFiles));
    }
    let wanted = "must be given, or ensure be Absent";
    let (Some(device), Some(fstype)) = (device, fstype) else {
        return Err(scope.invalid("mount.device and mount.fstype", wanted));
    };
    scope.one_line("mount.device", device)?;
    scope.ensure(!device.starts_with('#'), "mount.device", "must not begin with #, which begins a comment of fstab")?;
    scope.words("mount.fstype", std::slice::from_ref(fstype))?;
    scope.words("mount.options", options)?;
    let commas = options.iter().any(|option| option.contains(','));
    scope.ensure(!commas, "mount.options", "must be one option each, without commas")?;
    let joined = if options.is_empty() { "defaults".to_owned() } else { options.join(",") };
    let pass = positive(*pass, 0);
    let line = format!("{} {} {fstype} {joined} 0 {pass}", escaped(device), escaped(&path));
    // Mounted first: a line for what can not be mounted would stop the next boot.
    let live = (ensure == MountEnsure::Mounted).then(|| live(true, device, fstype));
    let parts: Vec<Part> = live.into_iter().chain([fstab(Presence::Present, line)]).collect();
    Ok(Made::from(parts).then(Finish::ReadUnitFiles))
}

pub(super) fn swap(spec: &Swap, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Swap { path, size_mib, priority, ensure } = spec;
    let path = scope.path("swap.path", path)?;
    let state = presence(*ensure);
    let size = size_mib.map(|size| u64::try_from(size).ok().filter(|size| *size > 0));
    let size =
        size.map(|size| size.ok_or_else(|| scope.invalid("swap.sizeMib", "must be greater than 0"))).transpose()?;
    let range = "must be from 0 to 32767";
    let fits = |priority: i32| u16::try_from(priority).ok().filter(|priority| *priority <= 32767);
    let priority =
        priority.map(|found| fits(found).ok_or_else(|| scope.invalid("swap.priority", range))).transpose()?;
    let options = priority.map_or_else(|| "sw".to_owned(), |priority| format!("sw,pri={priority}"));
    let line = match state {
        Presence::Present => format!("{} none swap {options} 0 0", escaped(&path)),
        Presence::Absent => String::new(),
    };
    let fstab = entry(state, 0, &path, line);
    let live = Part::Swap(SwapSpec { path, state, size_mib: size, priority });
    // Active first, and gone first: the table never names what is not there.
    Ok(Made::from(vec![live, fstab]).then(Finish::ReadUnitFiles))
}

/// A line of fstab, found by one of its fields.
fn entry(state: Presence, field: usize, key: &str, line: String) -> Part {
    let edit = Edit::Entry { state, field, key: escaped(key), line };
    Part::Edit(EditSpec { path: FSTAB.to_owned(), edit, create: None, validate: None })
}

/// A field of fstab(5), where white space and backslashes are octal numbers.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011")
}
