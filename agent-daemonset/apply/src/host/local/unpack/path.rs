//! What the names in an archive mean below the folder that it is unpacked into. Pure.

use std::fmt;

/// Why an entry is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("has an absolute path; nothing may leave the folder")]
    Absolute,
    #[error("has .. in its path; nothing may leave the folder")]
    Parent,
    #[error("has a name that is not UTF-8")]
    NotUtf8,
    #[error("has a name that begins with .drover-, which is for the agent's own files")]
    Reserved,
    #[error("is a device, a pipe or something else that is neither file, directory nor link")]
    Special,
    #[error("is a symbolic link that points out of the folder")]
    LinkOutside,
    #[error("is a hard link to a file that the archive does not have before it")]
    LinkToNothing,
}

/// A path below the folder: at least one name, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// The folders on the way.
    pub(super) folders: Vec<String>,
    /// The last name.
    pub(super) name: String,
}

impl Inside {
    /// What a name in the archive means when so many leading parts are left out. `None` when nothing is left.
    pub(super) fn of(raw: &[u8], strip: u32) -> Result<Option<Self>, Refusal> {
        let text = std::str::from_utf8(raw).map_err(|_| Refusal::NotUtf8)?;
        if text.starts_with('/') {
            return Err(Refusal::Absolute);
        }
        let parts = || text.split('/').filter(|part| !part.is_empty() && *part != ".");
        if parts().any(|part| part == "..") {
            return Err(Refusal::Parent);
        }
        let strip = usize::try_from(strip).unwrap_or(usize::MAX);
        let mut folders: Vec<String> = parts().skip(strip).map(str::to_owned).collect();
        if folders.first().is_some_and(|first| first.starts_with(".drover-")) {
            return Err(Refusal::Reserved);
        }
        Ok(folders.pop().map(|name| Self { folders, name }))
    }

    /// The target of a symbolic link at this path, when it stays in the folder: any number of `..` to get out of the
    /// folders that the link is in, and then names. A `..` behind a name could come after another link, and then
    /// nobody knows what it means.
    pub(super) fn link_target<'a>(&self, raw: &'a [u8]) -> Result<&'a str, Refusal> {
        let target = std::str::from_utf8(raw).map_err(|_| Refusal::NotUtf8)?;
        let mut parts = target.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
        let mut up = 0;
        while parts.next_if_eq(&"..").is_some() {
            up += 1;
        }
        if target.is_empty() || target.starts_with('/') || up > self.folders.len() || parts.any(|part| part == "..") {
            return Err(Refusal::LinkOutside);
        }
        Ok(target)
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for folder in &self.folders {
            write!(f, "{folder}/")?;
        }
        f.write_str(&self.name)
    }
}

/// A name for a message: of printable characters, and not too long.
pub(super) fn shown(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_the_folder_or_is_refused() {
        let check = |raw: &str, strip, expected: Result<Option<&str>, Refusal>| {
            let found = Inside::of(raw.as_bytes(), strip).map(|inside| inside.map(|inside| inside.to_string()));
            assert_eq!(found, expected.map(|path| path.map(str::to_owned)), "{raw}");
        };
        check("a", 0, Ok(Some("a")));
        check("./a//b/./c", 0, Ok(Some("a/b/c")));
        check("tool-1.0/bin/tool", 1, Ok(Some("bin/tool")));
        check("tool-1.0/", 1, Ok(None));
        check("tool-1.0", 2, Ok(None));
        check("./", 0, Ok(None));
        check("/etc/passwd", 0, Err(Refusal::Absolute));
        check("/etc/passwd", 1, Err(Refusal::Absolute));
        check("../a", 0, Err(Refusal::Parent));
        check("a/../../b", 0, Err(Refusal::Parent));
        // What is left out counts as well.
        check("../a", 1, Err(Refusal::Parent));
        check("..a/b..", 0, Ok(Some("..a/b..")));
        check(".drover-archive-0", 0, Err(Refusal::Reserved));
        check("x/.drover-archive-0", 1, Err(Refusal::Reserved));
        assert_eq!(Inside::of(b"\xff", 0), Err(Refusal::NotUtf8));
    }

    #[test]
    fn a_link_points_into_the_folder_or_is_refused() {
        let check = |link: &str, target: &str, fits: bool| {
            let inside = Inside::of(link.as_bytes(), 0).unwrap().unwrap();
            assert_eq!(inside.link_target(target.as_bytes()).is_ok(), fits, "{link} -> {target}");
        };
        check("a", "b", true);
        check("a", "b/c", true);
        check("a", ".", true);
        check("bin/a", "../lib/a", true);
        check("bin/a", "..", true);
        check("bin/a", "../..", false);
        check("a", "..", false);
        check("a", "/etc", false);
        check("a", "", false);
        // Through another link, the last `..` could be anywhere.
        check("x/a", "link/../../b", false);
        check("x/a", "link/..", false);
    }
}
