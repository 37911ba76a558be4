//! `drover-agent backups`: the copies of what was replaced, for people.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::{Context as _, bail};
use drover_apply::{StateDir, state::Backup};

use crate::{
    cli::{BackupsOptions, Exit},
    one_shot::print,
};

/// How many characters of a digest are shown: enough to name a copy by.
const SHORT: usize = 12;

/// Prints the list of copies, or the content of one.
pub(crate) fn run(options: &BackupsOptions) -> anyhow::Result<Exit> {
    let BackupsOptions { path, show, root, state_dir } = options;
    let state = StateDir::new(root, state_dir)?;
    let backups = state.backups();
    let mut list = backups.list()?;
    if let Some(beginning) = show {
        let digest = one(&list, beginning)?;
        let content = backups.read(digest)?.with_context(|| format!("the copy {digest} is damaged"))?;
        io::stdout().write_all(&content).context("could not write to standard output")?;
        return Ok(Exit::Ok);
    }
    list.retain(|backup| path.as_ref().is_none_or(|path| backup.path == *path));
    match (list.as_slice(), path) {
        ([], None) => print("no copies: nothing was replaced yet, or what was may hold secrets")?,
        ([], Some(path)) => bail!("no copy of {path} is kept; `drover-agent backups` lists all"),
        (list, _) => print(&table(list))?,
    }
    Ok(Exit::Ok)
}

/// The digest that begins so.
fn one<'a>(list: &'a [Backup], beginning: &str) -> anyhow::Result<&'a str> {
    let mut found: Vec<&str> = list.iter().map(|backup| backup.digest.as_str()).collect();
    found.retain(|digest| digest.starts_with(beginning));
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [digest] => Ok(digest),
        [] => bail!("no copy has a SHA-256 that begins with {beginning:?}; `drover-agent backups` lists them"),
        several => bail!("{} copies have a SHA-256 that begins with {beginning:?}; write more of it", several.len()),
    }
}

fn table(list: &[Backup]) -> String {
    let mut text = format!("{:<20}  {:<SHORT$}  {:>8}  PATH\n", "REPLACED", "SHA256", "BYTES");
    for Backup { path, digest, bytes, replaced_at } in list {
        let at = i64::try_from(*replaced_at).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let at = at.map_or_else(|| replaced_at.to_string(), |at| at.to_string());
        // Writing to a String does not fail.
        let _ = writeln!(text, "{at:<20}  {}  {bytes:>8}  {path}", digest.short(SHORT));
    }
    text
}

#[cfg(test)]
mod tests {
    use drover_catalog::Digest;

    use super::*;

    fn backup(path: &str, content: &str) -> Backup {
        let digest = Digest::of(content.as_bytes());
        Backup { path: path.into(), digest, bytes: content.len() as u64, replaced_at: 1_700_000_000 }
    }

    #[test]
    fn a_copy_is_named_by_the_beginning_of_its_digest() {
        let list = [backup("/a", "moo"), backup("/b", "moo"), backup("/c", "baa")];
        let moo = Digest::of(b"moo");
        assert_eq!(one(&list, moo.short(6)).unwrap(), moo.as_str());
        assert!(one(&list, "").unwrap_err().to_string().starts_with("2 copies have"));
        assert!(one(&list, "xyz").unwrap_err().to_string().starts_with("no copy has"));
    }

    #[test]
    fn the_table_says_when_and_where() {
        assert_eq!(
            table(&[backup("/etc/motd", "moo")]),
            "REPLACED              SHA256           BYTES  PATH\n2023-11-14T22:13:20Z  47dfae9288ab         3  /etc/motd\n"
        );
    }
}
