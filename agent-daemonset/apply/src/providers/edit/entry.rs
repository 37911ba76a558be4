//! One line of a table of white-space separated fields, see fstab(5) and hosts(5).

use drover_catalog::Presence;

use super::{
    EditError,
    text::{Text, one_line},
};

pub(super) fn edit(text: &mut Text, state: Presence, field: usize, key: &str, line: &str) -> Result<(), EditError> {
    one_line("the entry", line)?;
    let has_key = |line: &str| fields(line).nth(field) == Some(key);
    let meant = text.find(has_key);
    if state == Presence::Absent {
        text.remove(meant);
        return Ok(());
    }
    if !has_key(line) {
        return Err(EditError::Key { key: key.to_owned(), field });
    }
    // Spaces are for people.
    let right = text.find(|found| fields(found).eq(fields(line)));
    match meant.as_slice() {
        [] => text.insert(text.len(), [line.to_owned()]),
        all if all.iter().all(|at| right.contains(at)) => {}
        [one] => text.replace(*one, line.to_owned()),
        several => {
            let what = format!("entries with {key} as field {field} (from 0)");
            return Err(EditError::Several { what, count: several.len() });
        }
    }
    Ok(())
}

/// A comment ends the fields, at the beginning of a line or after others.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace().take_while(|field| !field.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use drover_catalog::Edit;

    use super::{super::tests::check, *};

    fn entry(state: Presence, field: usize, key: &str, line: &str) -> Edit {
        Edit::Entry { state, field, key: key.into(), line: line.into() }
    }

    #[test]
    fn an_entry_is_there() {
        let data = entry(Presence::Present, 1, "/data", "/dev/sdb1 /data ext4 noatime 0 2");
        check(&data, "", "/dev/sdb1 /data ext4 noatime 0 2\n");
        check(&data, "# /x /data\n", "# /x /data\n/dev/sdb1 /data ext4 noatime 0 2\n");
        check(&data, "/dev/sdb1\t/data  ext4 noatime 0 2 # ours\n", "unchanged");
        check(
            &data,
            "/dev/sda1 / ext4\n/dev/sdb1 /data xfs\n#end",
            "/dev/sda1 / ext4\n/dev/sdb1 /data ext4 noatime 0 2\n#end",
        );
        let error = "error: found 2 entries with /data as field 1 (from 0) where one is meant; name it more exactly, or remove \
                     the others by hand";
        check(&data, "a /data\nb /data\n", error);
    }

    #[test]
    fn an_entry_is_not_there() {
        let gone = entry(Presence::Absent, 0, "10.0.0.1", "");
        check(&gone, "10.0.0.1 a\n10.0.0.10 b\n#10.0.0.1 c\n 10.0.0.1\td\n", "10.0.0.10 b\n#10.0.0.1 c\n");
        check(&gone, "10.0.0.10 b\n", "unchanged");
    }

    #[test]
    fn an_entry_that_would_never_be_found_again_is_refused() {
        let error = "error: the entry must have /data as field 1 (from 0), by which it is found";
        for line in ["/data", "a # /data", ""] {
            check(&entry(Presence::Present, 1, "/data", line), "", error);
        }
    }
}
