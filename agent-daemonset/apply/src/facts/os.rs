//! The operating system, from os-release(5) and what else its files say.

use drover_catalog::{
    Os,
    facts::{Distro, Release, Selinux},
};

use super::Files;

/// Families by `ID` and by the words of `ID_LIKE`, the nearest first.
const FAMILIES: &[(&str, &[&str])] = &[
    ("Debian", &["debian", "ubuntu"]),
    ("RedHat", &["rhel", "fedora", "centos"]),
    ("Suse", &["suse", "opensuse", "sles"]),
    ("Archlinux", &["arch"]),
];

/// Who installs packages, by the program that does it. The first that is there is the one that people use.
const PACKAGE_PROVIDERS: &[(&str, &str)] = &[
    ("apt", "/usr/bin/apt-get"),
    ("dnf", "/usr/bin/dnf"),
    ("yum", "/usr/bin/yum"),
    ("zypper", "/usr/bin/zypper"),
    ("apk", "/sbin/apk"),
    ("pacman", "/usr/bin/pacman"),
];

pub(super) fn gather(files: &Files, hardware: &str) -> Os {
    let os_release = ["/etc/os-release", "/usr/lib/os-release"].map(|path| files.text(path));
    let os_release = os_release.iter().find(|text| !text.is_empty()).map_or("", String::as_str);
    let os = parse(os_release, &files.line("/etc/debian_version"));
    Os {
        architecture: architecture(&os.family, hardware),
        hardware: hardware.to_owned(),
        selinux: selinux(files),
        ..os
    }
}

fn parse(os_release: &str, debian_version: &str) -> Os {
    let id = value(os_release, "ID");
    let name = name(&value(os_release, "NAME"));
    Os {
        family: family(&id, &value(os_release, "ID_LIKE"), &name),
        release: release(&id, &value(os_release, "VERSION_ID"), debian_version),
        distro: Distro {
            codename: value(os_release, "VERSION_CODENAME"),
            description: value(os_release, "PRETTY_NAME"),
        },
        id,
        name,
        ..Os::default()
    }
}

/// A value of a file of shell variables.
fn value(text: &str, key: &str) -> String {
    let of_line = |line: &str| line.trim().strip_prefix(key)?.strip_prefix('=').map(unquote);
    text.lines().find_map(of_line).unwrap_or_default()
}

/// As facter shortens it: the first word, or the first two where one alone does not tell.
fn name(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    match words.as_slice() {
        ["Red" | "Oracle", second, ..] => format!("{}{second}", words.first().unwrap_or(&"")),
        ["Arch" | "Manjaro", second, ..] => format!("{}{}", words.first().unwrap_or(&""), second.to_lowercase()),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

fn family(id: &str, like: &str, name: &str) -> String {
    std::iter::once(id)
        .chain(like.split_whitespace())
        .find_map(|word| FAMILIES.iter().find(|(_, words)| words.contains(&word)))
        .map_or(name, |(family, _)| family)
        .to_owned()
}

/// Debian's os-release has no point release; its `debian_version` has (in testing, that is a word).
fn release(id: &str, version_id: &str, debian_version: &str) -> Release {
    let is_point_release = id == "debian" && debian_version.split('.').next() == Some(version_id);
    let full = if is_point_release { debian_version } else { version_id };
    let (major, minor) = match full.split_once('.') {
        Some(_) if id == "ubuntu" => (full, ""),
        Some((major, rest)) => (major, rest.split('.').next().unwrap_or_default()),
        None => (full, ""),
    };
    Release { full: full.to_owned(), major: major.to_owned(), minor: minor.to_owned() }
}

fn architecture(family: &str, hardware: &str) -> String {
    match (family, hardware) {
        ("Debian", "x86_64") => "amd64",
        ("Debian", "aarch64") => "arm64",
        ("Debian", "i686") => "i386",
        _ => hardware,
    }
    .to_owned()
}

fn selinux(files: &Files) -> Selinux {
    let enforce = files.line("/sys/fs/selinux/enforce");
    let config = files.text("/etc/selinux/config");
    Selinux {
        enabled: !enforce.is_empty(),
        enforced: enforce == "1",
        config_mode: value(&config, "SELINUX"),
        config_policy: value(&config, "SELINUXTYPE"),
    }
}

/// The name in the tz database; see localtime(5).
pub(super) fn timezone(files: &Files) -> String {
    let link = files.link("/etc/localtime");
    let linked = link.split_once("/zoneinfo/").map(|(_, zone)| zone.to_owned());
    let named = linked.unwrap_or_else(|| files.line("/etc/timezone"));
    if named.is_empty() { "UTC".to_owned() } else { named }
}

pub(super) fn package_provider(files: &Files) -> &'static str {
    PACKAGE_PROVIDERS.iter().find(|(_, program)| files.is_program(program)).map_or("", |(name, _)| name)
}

/// The numbers at the beginning of a kernel's release.
pub(super) fn kernel_version(release: &str) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release.get(..end).unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Values are quoted as in a shell, without its expansions.
fn unquote(value: &str) -> String {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('\'').map_or_else(|| inner('"').unwrap_or(value).replace('\\', ""), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::machine;

    #[test]
    fn reads_what_distributions_write() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        let (_root, files) = machine(&[("/etc/os-release", debian), ("/etc/debian_version", "12.5\n")]);
        let expected = Os {
            id: "debian".into(),
            name: "Debian".into(),
            family: "Debian".into(),
            release: Release { full: "12.5".into(), major: "12".into(), minor: "5".into() },
            distro: Distro { codename: "bookworm".into(), description: "Debian GNU/Linux 12 (bookworm)".into() },
            architecture: "amd64".into(),
            hardware: "x86_64".into(),
            selinux: Selinux::default(),
        };
        assert_eq!(gather(&files, "x86_64"), expected);
        assert_eq!(parse("", ""), Os::default());
    }

    #[test]
    fn names_and_families_are_facters() {
        for (id, name_, like, expected) in [
            ("debian", "Debian GNU/Linux", "", "Debian Debian"),
            ("ubuntu", "Ubuntu", "debian", "Ubuntu Debian"),
            ("linuxmint", "Linux Mint", "ubuntu debian", "Linux Debian"),
            ("rhel", "Red Hat Enterprise Linux", "fedora", "RedHat RedHat"),
            ("rocky", "Rocky Linux", "rhel centos fedora", "Rocky RedHat"),
            ("centos", "CentOS Stream", "rhel fedora", "CentOS RedHat"),
            ("ol", "Oracle Linux Server", "fedora", "OracleLinux RedHat"),
            ("fedora", "Fedora Linux", "", "Fedora RedHat"),
            ("sles", "SLES", "suse", "SLES Suse"),
            ("opensuse-leap", "openSUSE Leap", "suse opensuse", "openSUSE Suse"),
            ("arch", "Arch Linux", "", "Archlinux Archlinux"),
            ("alpine", "Alpine Linux", "", "Alpine Alpine"),
            ("", "", "", " "),
        ] {
            let name = name(name_);
            let family = family(id, like, &name);
            assert_eq!(format!("{name} {family}"), expected, "{id}");
        }
    }

    #[test]
    fn releases_are_divided() {
        for (id, version_id, debian_version, expected) in [
            ("debian", "12", "12.5", "12.5 12 5"),
            ("debian", "13", "trixie/sid", "13 13 "),
            ("debian", "", "trixie/sid", "  "),
            ("ubuntu", "22.04", "bookworm/sid", "22.04 22.04 "),
            ("rocky", "9.3", "", "9.3 9 3"),
            ("alpine", "3.19.1", "", "3.19.1 3 19"),
        ] {
            let Release { full, major, minor } = release(id, version_id, debian_version);
            assert_eq!(format!("{full} {major} {minor}"), expected, "{id}");
        }
    }

    #[test]
    fn reads_the_rest_of_its_files() {
        let (root, files) = machine(&[
            ("/sys/fs/selinux/enforce", "1"),
            ("/etc/selinux/config", "# a comment\nSELINUX=permissive\nSELINUXTYPE=targeted\n"),
            ("/etc/timezone", "Asia/Tokyo\n"),
        ]);
        let expected = Selinux {
            enabled: true,
            enforced: true,
            config_mode: "permissive".into(),
            config_policy: "targeted".into(),
        };
        assert_eq!(selinux(&files), expected);
        assert_eq!(timezone(&files), "Asia/Tokyo");
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Europe/Berlin", root.path().join("etc/localtime")).unwrap();
        assert_eq!(timezone(&files), "Europe/Berlin");
        assert_eq!(timezone(&machine(&[]).1), "UTC");
        for (hardware, family, expected) in [
            ("x86_64", "Debian", "amd64"),
            ("aarch64", "Debian", "arm64"),
            ("x86_64", "RedHat", "x86_64"),
            ("riscv64", "Debian", "riscv64"),
        ] {
            assert_eq!(architecture(family, hardware), expected);
        }
        for (release, expected) in
            [("6.1.0-18-amd64", "6.1.0"), ("5.14.0-362.8.1.el9_3.x86_64", "5.14.0"), ("6.10", "6.10")]
        {
            assert_eq!(kernel_version(release), expected);
        }
    }

    #[test]
    fn unquotes_as_a_shell_does() {
        for (value, expected) in [("a", "a"), ("\"a b\"", "a b"), ("'a b'", "a b"), ("\"a \\\"b\\\"\"", "a \"b\"")] {
            assert_eq!(unquote(value), expected);
        }
    }
}
