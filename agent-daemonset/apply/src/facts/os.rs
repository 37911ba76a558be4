//! The operating system, from os-release(5).

use drover_catalog::Os;

/// Families by `ID` and by the words of `ID_LIKE`, the nearest first.
const FAMILIES: &[(&str, &[&str])] = &[
    ("debian", &["debian", "ubuntu"]),
    ("redhat", &["rhel", "fedora", "centos"]),
    ("suse", &["suse", "opensuse", "sles"]),
    ("arch", &["arch"]),
];

pub(super) fn parse(os_release: &str) -> Os {
    let value = |key: &str| {
        let of_line = |line: &str| line.trim().strip_prefix(key)?.strip_prefix('=').map(unquote);
        os_release.lines().find_map(of_line).unwrap_or_default()
    };
    let id = value("ID");
    Os {
        family: family(&id, &value("ID_LIKE")),
        id,
        name: value("NAME"),
        release: value("VERSION_ID"),
        codename: value("VERSION_CODENAME"),
    }
}

fn family(id: &str, like: &str) -> String {
    std::iter::once(id)
        .chain(like.split_whitespace())
        .find_map(|word| FAMILIES.iter().find(|(_, words)| words.contains(&word)))
        .map_or(id, |(family, _)| family)
        .to_owned()
}

/// Values are quoted as in a shell, without its expansions.
fn unquote(value: &str) -> String {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('\'').map_or_else(|| inner('"').unwrap_or(value).replace('\\', ""), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_write() {
        let debian = parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
        );
        let expected = Os {
            id: "debian".into(),
            name: "Debian GNU/Linux".into(),
            family: "debian".into(),
            release: "12".into(),
            codename: "bookworm".into(),
        };
        assert_eq!(debian, expected);
        assert_eq!(parse(""), Os::default());
    }

    #[test]
    fn knows_the_families() {
        for (id, like, expected) in [
            ("ubuntu", "debian", "debian"),
            ("linuxmint", "ubuntu debian", "debian"),
            ("rocky", "rhel centos fedora", "redhat"),
            ("fedora", "", "redhat"),
            ("opensuse-leap", "suse opensuse", "suse"),
            ("manjaro", "arch", "arch"),
            ("alpine", "", "alpine"),
            ("", "", ""),
        ] {
            assert_eq!(family(id, like), expected, "{id}");
        }
    }

    #[test]
    fn unquotes_as_a_shell_does() {
        for (value, expected) in [("a", "a"), ("\"a b\"", "a b"), ("'a b'", "a b"), ("\"a \\\"b\\\"\"", "a \"b\"")] {
            assert_eq!(unquote(value), expected);
        }
    }
}
