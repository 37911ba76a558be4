//! Names of systemd units that stand for a path, see "String Escaping for Inclusion in Unit Names" in systemd.unit(5).

/// The unit of a path, by its suffix: `mount` or `swap`.
pub(super) fn of_path(path: &str, suffix: &str) -> String {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(escape).collect();
    let name = parts.join("-");
    let name = if name.is_empty() { "-".to_owned() } else { first_dot(name) };
    format!("{name}.{suffix}")
}

/// Bytes that are no ASCII letter, digit, `:`, `_` or `.` become `\x` and two hexadecimal digits.
fn escape(part: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    part.bytes().map(byte).collect()
}

/// The whole name must not begin with a dot; further parts may.
fn first_dot(name: String) -> String {
    match name.strip_prefix('.') {
        Some(rest) => format!("\\x2e{rest}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_as_systemd_does() {
        // By `systemd-escape --path --suffix=mount`.
        for (path, unit) in [
            ("/", "-.mount"),
            ("/mnt", "mnt.mount"),
            ("/mnt/my-disk", r"mnt-my\x2ddisk.mount"),
            ("//mnt//data/", "mnt-data.mount"),
            ("/mnt/with space", r"mnt-with\x20space.mount"),
            ("/.hidden/.b", r"\x2ehidden-.b.mount"),
            (r"/a\b", r"a\x5cb.mount"),
            ("/v_1:2.3", "v_1:2.3.mount"),
            ("/srv/ü", r"srv-\xc3\xbc.mount"),
        ] {
            assert_eq!(of_path(path, "mount"), unit, "{path}");
        }
        assert_eq!(of_path("/swap-file", "swap"), r"swap\x2dfile.swap");
    }
}
