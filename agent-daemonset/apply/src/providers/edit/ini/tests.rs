use drover_catalog::Edit;

use super::{super::tests::check, *};

fn ini(state: Presence, section: &str, key: &str, value: &str, separator: &str) -> Edit {
    let value = Sensitive::new(value);
    Edit::Ini { state, section: section.into(), key: key.into(), value, separator: separator.into() }
}

fn set(section: &str, key: &str, value: &str) -> Edit {
    ini(Presence::Present, section, key, value, " = ")
}

#[test]
fn a_value_is_set_and_the_rest_stays() {
    let edit = set("b", "k", "new");
    check(
        &edit,
        "; top\n[a]\nk=1\n\n[b]\n# about k\n k =  old\nz=1\n",
        "; top\n[a]\nk=1\n\n[b]\n# about k\n k =  new\nz=1\n",
    );
    check(&edit, "[b]\nk=new\n", "unchanged");
    check(&edit, "[b]\n\tk\t=\tnew  \n", "unchanged");
    check(&edit, "[ b ]\nk=new\n", "[ b ]\nk=new\n\n[b]\nk = new\n");
    check(&edit, "[b]\nK=new\n", "[b]\nK=new\nk = new\n");
    check(&edit, "[b]\nk=", "[b]\nk = new");
    check(&edit, "[b]\nk\n", "[b]\nk = new\n");
    check(&edit, "[b]\r\nk=1\r\n", "[b]\r\nk=new\r\n");
    check(&set("b", "k", ""), "[b]\nk=1\n", "[b]\nk =\n");
    check(&set("b", "k", ""), "[b]\nk =\n", "unchanged");
}

#[test]
fn a_new_key_goes_after_the_last_setting_of_its_section() {
    let edit = set("a", "k", "v");
    check(&edit, "[a]\nx=1\n# end\n\n# about b\n[b]\n", "[a]\nx=1\nk = v\n# end\n\n# about b\n[b]\n");
    check(&edit, "[a]\n\n[b]\n", "[a]\nk = v\n\n[b]\n");
    check(&edit, "[a]", "[a]\nk = v\n");
    check(&edit, "[a]\nx=1\n[b]\n[a]\ny=1\n", "[a]\nx=1\n[b]\n[a]\ny=1\nk = v\n");
    check(&edit, "", "[a]\nk = v\n");
    check(&edit, "[b]\nk=v", "[b]\nk=v\n\n[a]\nk = v\n");
    check(&edit, "[b]\n\n", "[b]\n\n[a]\nk = v\n");
}

#[test]
fn a_key_before_the_first_section() {
    let edit = set("", "k", "v");
    check(&edit, "", "k = v\n");
    check(&edit, "# top\n", "# top\nk = v\n");
    check(&edit, "x=1\n\n[a]\nk=2\n", "x=1\nk = v\n\n[a]\nk=2\n");
    check(&edit, "# licence\n\n# about a\n[a]\n", "# licence\n\nk = v\n# about a\n[a]\n");
    check(&edit, "[a]\nk=v\n", "k = v\n[a]\nk=v\n");
    check(&edit, "k=1\n[a]\n", "k=v\n[a]\n");
}

#[test]
fn of_a_key_that_is_there_twice_the_last_one_counts() {
    let edit = set("a", "k", "v");
    check(&edit, "[a]\nk=v\nk=2\n", "[a]\nk=v\nk=v\n");
    check(&edit, "[a]\nk=1\nk=v\n", "unchanged");
    check(&edit, "[a]\nk=1\n[b]\n[a]\nk=2\n", "[a]\nk=1\n[b]\n[a]\nk=v\n");
}

#[test]
fn a_value_over_several_lines_is_one_value() {
    let edit = set("a", "url", "http://c");
    check(&edit, "[a]\nurl=http://a\n    http://b?x=1\nz=1\n", "[a]\nurl=http://c\nz=1\n");
    check(&edit, "[a]\nurl=http://c\n    http://b\n", "[a]\nurl=http://c\n");
    check(&edit, "[a]\nurl=a \\\nb=1\n# c\n", "[a]\nurl=http://c\n# c\n");
    // Git indents settings, and nothing says by how much.
    check(&edit, "[a]\nurl=http://c\n  fetch = +refs\n", "unchanged");
    check(&set("a", "k", "1"), "[a]\nx=http://a\n    http://b\n", "[a]\nx=http://a\n    http://b\nk = 1\n");
    check(&ini(Presence::Absent, "a", "url", "", "="), "[a]\nurl=1\n   http://b\n# c\n", "[a]\n# c\n");
}

#[test]
fn the_separator_tells_the_kind_of_file() {
    check(&ini(Presence::Present, "a", "vfs:x", "2", " = "), "[a]\nvfs:x = 1\n", "[a]\nvfs:x = 2\n");
    check(&ini(Presence::Present, "a", "path", "/x=1", ": "), "[a]\npath: /x=2\n", "[a]\npath: /x=1\n");
    check(&ini(Presence::Present, "", "server", "b", " "), "server   a\n", "server   b\n");
    check(&ini(Presence::Present, "", "server", "b", " "), "other a\n", "other a\nserver b\n");
}

#[test]
fn a_setting_is_not_there() {
    let gone = ini(Presence::Absent, "a", "k", "", "=");
    check(&gone, "[a]\nk=1\nx=1\nk=2\n[b]\nk=3\n", "[a]\nx=1\n[b]\nk=3\n");
    check(&gone, "[a]\n#k=1\n", "unchanged");
    check(&gone, "", "unchanged");
    check(&gone, "[a]\nk\n", "[a]\n");
}

#[test]
fn sections_as_git_writes_them() {
    let edit = set("branch \"a]b\"", "remote", "origin");
    check(&edit, "[branch \"a]b\"] # x\n\tremote = other\n", "[branch \"a]b\"] # x\n\tremote = origin\n");
}

#[test]
fn what_would_read_as_something_else_is_refused() {
    let key = "error: the setting can not be written so that it is found again: the key reads as a comment, a section or another key";
    for bad in ["", "#k", ";k", "[k]", "a=b", " k"] {
        check(&set("a", bad, "v"), "", key);
    }
    check(&ini(Presence::Present, "a", "two words", "v", " "), "", key);
    check(&set("a", "k", "v\nk2=v"), "", "error: a value must be one line, without a line break in it");
    let runs_into = "error: the setting can not be written so that it is found again: it would run into the lines around it, \
                     which end or begin as if a value went on";
    check(&set("a", "k", "v"), "[a]\nx=1 \\\n", runs_into);
    check(&set("a", "k", "v"), "[a]\n  http://b\n   http://c\n", "[a]\n  http://b\n   http://c\nk = v\n");
    for bad in [set("a]", "k", "v"), set("a", "k", r"C:\"), ini(Presence::Present, "a", "k", "v", "->")] {
        assert!(super::super::edit("", &bad).is_err());
    }
}
