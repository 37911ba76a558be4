//! What a machine is called, where it is, whom it trusts, and how much its users may have.

use std::net::IpAddr;

use drover_catalog::{Edit, EditSpec, Finish, Part, Presence, SensitiveBytes, SymlinkSpec, SysctlSpec};
use drover_crds::{CaCertificate, Ensure, Hostname, HostsEntry, LimitType, Limits, ProcessLimit, Timezone};

use super::{
    Made,
    files::{owned_by_root, presence},
    scope::{Body, DEFAULT_TIMEOUT_SECONDS, Scope, is_file_name},
};
use crate::compile::CompileError;

/// The items of limits.conf(5).
const LIMIT_ITEMS: [&str; 20] = [
    "as",
    "chroot",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "maxlogins",
    "maxsyslogins",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nonewprivs",
    "nproc",
    "priority",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

pub(super) fn limits(spec: &Limits, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Limits { name, entries, ensure } = spec;
    let name = scope.file_name("limits.name", name.as_ref())?;
    let path = format!("/etc/security/limits.d/{name}.conf");
    let present = presence(*ensure) == Presence::Present;
    scope.ensure(present != entries.is_empty(), "limits.entries", "must be given, and left out with ensure: Absent")?;
    if !present {
        return Ok(Part::File(owned_by_root(path, None, 0o644)).into());
    }
    let mut text = scope.header();
    for ProcessLimit { domain, kind, item, value } in entries {
        scope.words("limits.entries.domain", std::slice::from_ref(domain))?;
        scope.ensure(!domain.starts_with('#'), "limits.entries.domain", "must not begin with #")?;
        let wanted = "must be an item of limits.conf(5), such as nofile, nproc, memlock or core";
        scope.ensure(LIMIT_ITEMS.contains(&item.as_str()), "limits.entries.item", wanted)?;
        let number = value.parse::<i64>().is_ok() || matches!(value.as_str(), "unlimited" | "infinity");
        scope.ensure(number, "limits.entries.value", "must be a number, unlimited or infinity")?;
        let kind = match kind {
            LimitType::Soft => "soft",
            LimitType::Hard => "hard",
            LimitType::Both => "-",
        };
        text.extend([domain, " ", kind, " ", item, " ", value, "\n"]);
    }
    Ok(Part::File(owned_by_root(path, Some(SensitiveBytes::new(text)), 0o644)).into())
}

/// `/etc/hostname` for the next boot, see hostname(5), and the kernel's own for now.
pub(super) fn hostname(spec: &Hostname, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Hostname { name } = spec;
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let wanted = "must be at most 64 letters, digits, - and ., with a letter or digit at both ends of each label";
    scope.ensure(name.len() <= 64 && name.split('.').all(label), "hostname.name", wanted)?;
    let file = owned_by_root("/etc/hostname".to_owned(), Some(SensitiveBytes::new(format!("{name}\n"))), 0o644);
    let live = SysctlSpec { key: "kernel.hostname".to_owned(), value: name.clone(), at_boot: false };
    Ok(vec![Part::File(file), Part::Sysctl(live)].into())
}

/// The link of localtime(5), and the file that Debian's packages read beside it.
pub(super) fn timezone(spec: &Timezone, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Timezone { zone } = spec;
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c));
    let fits = zone.len() <= 64 && zone.split('/').all(part) && zone.split('/').count() <= 3;
    scope.ensure(fits, "timezone.zone", "must be a name of /usr/share/zoneinfo, such as Europe/Berlin or Etc/UTC")?;
    let link = SymlinkSpec {
        path: "/etc/localtime".to_owned(),
        target: Some(format!("../usr/share/zoneinfo/{zone}")),
        force: true,
    };
    let mut parts = vec![Part::Symlink(link)];
    if family(scope) == "Debian" {
        let content = SensitiveBytes::new(format!("{zone}\n"));
        parts.push(Part::File(owned_by_root("/etc/timezone".to_owned(), Some(content), 0o644)));
    }
    Ok(parts.into())
}

pub(super) fn hosts_entry(spec: &HostsEntry, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let HostsEntry { ip, names, ensure } = spec;
    let name = |name: &String| is_file_name(name) && !name.ends_with(['.', '-']) && !name.contains("..");
    scope.ensure(names.iter().all(name), "hostsEntry.names", "must be host names: letters, digits and - . _")?;
    let first = names.first().ok_or_else(|| scope.invalid("hostsEntry.names", "must have at least one name"))?;
    let state = presence(*ensure);
    let wanted = "must be an IPv4 or IPv6 address, and left out with ensure: Absent";
    let line = match (state, ip) {
        (Presence::Absent, None) => String::new(),
        (Presence::Present, Some(ip)) if ip.parse::<IpAddr>().is_ok() => format!("{ip}\t{}", names.join(" ")),
        _ => return Err(scope.invalid("hostsEntry.ip", wanted)),
    };
    let edit = Edit::Entry { state, field: 1, key: first.clone(), line };
    Ok(Part::Edit(EditSpec { path: "/etc/hosts".to_owned(), edit, create: None, validate: None }).into())
}

/// Where a system keeps certificates of its own administrator, with which suffix, and what reads them again.
fn trust_store(family: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    Some(match family {
        "Debian" => ("/usr/local/share/ca-certificates", "crt", &["update-ca-certificates"]),
        "RedHat" => ("/etc/pki/ca-trust/source/anchors", "pem", &["update-ca-trust", "extract"]),
        "Suse" => ("/etc/pki/trust/anchors", "pem", &["update-ca-certificates"]),
        "Archlinux" => ("/etc/ca-certificates/trust-source/anchors", "crt", &["update-ca-trust", "extract"]),
        _ => return None,
    })
}

pub(super) fn ca_certificate(spec: &CaCertificate, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let CaCertificate { name, content, content_from, ensure } = spec;
    let name = scope.file_name("caCertificate.name", name.as_ref())?;
    let fields = "must have either content or contentFrom, or ensure: Absent and neither of them";
    let body = Body { ensure: *ensure, content: content.as_ref(), template: None, from: content_from.as_ref() };
    let certificate = scope.body("caCertificate", fields, body)?;
    let is_here = scope.facts().is_some() || content_from.is_none();
    let wanted = "must be one certificate as PEM: -----BEGIN CERTIFICATE-----, its base64, -----END CERTIFICATE-----; \
                  a chain is a resource for each";
    let fits = certificate.as_ref().is_none_or(|certificate| is_one_certificate(certificate.expose()));
    scope.ensure(!is_here || fits, "caCertificate", wanted)?;
    let (folder, suffix, refresh) = trust_store(family(scope)).ok_or_else(|| {
        let wanted = "must be left out for this machine: where its operating system keeps certificates is not known";
        scope.invalid("caCertificate", wanted)
    })?;
    let mut argv: Vec<String> = refresh.iter().map(ToString::to_string).collect();
    if *ensure == Some(Ensure::Absent) && refresh == ["update-ca-certificates"] {
        // Only so the links to certificates that are gone go too.
        argv.push("--fresh".to_owned());
    }
    let file = owned_by_root(format!("{folder}/{name}.{suffix}"), certificate, 0o644);
    let finish = Finish::Command { argv, timeout_seconds: DEFAULT_TIMEOUT_SECONDS };
    Ok(Made::from(Part::File(file)).then(finish))
}

/// The look of RFC 7468. What the bytes mean is for the machine's own tools.
fn is_one_certificate(pem: &[u8]) -> bool {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let Ok(text) = std::str::from_utf8(pem) else { return false };
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_ascii_whitespace();
    let body = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    body.is_some_and(|(body, rest)| body.chars().all(base64) && body.trim().starts_with("MI") && !rest.contains(begin))
}

/// The family of the machine's system. Without a host, or without its facts yet, the commonest stands for it.
fn family<'s>(scope: &'s Scope<'_>) -> &'s str {
    scope.facts().map(|facts| facts.os.family.as_str()).filter(|family| !family.is_empty()).unwrap_or("Debian")
}
