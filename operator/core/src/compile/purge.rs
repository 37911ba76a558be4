//! What a purged directory keeps: all that other resources of the catalog put there, whichever NodeConfig they are of.

use drover_catalog::{DirectorySpec, Part, Presence, ResourceId};

use super::{CompileError, Compiled};

/// The folder of the files that the agent writes for kernel parameters, and how their names begin.
const SYSCTL_FILES: (&str, &str) = ("/etc/sysctl.d", "60-drover-*");

/// Fills in `keep` of each directory that is purged.
pub(super) fn keep_what_others_put(resources: &mut [Compiled<'_>]) -> Result<(), CompileError> {
    let mut kept = Vec::new();
    for (number, resource) in resources.iter().map(Compiled::resource).enumerate() {
        for (part, directory) in resource.parts.iter().enumerate() {
            let Part::Directory(directory) = directory else { continue };
            if directory.purge && directory.state == Presence::Present {
                kept.push((number, part, names(directory, &resource.id, resources)?));
            }
        }
    }
    for (number, part, names) in kept {
        let Compiled::Made { resource, .. } = &mut resources[number] else { continue };
        if let Part::Directory(directory) = &mut resource.parts[part] {
            directory.keep = names;
        }
    }
    Ok(())
}

/// What stays in a directory that is purged.
fn names(directory: &DirectorySpec, resource: &ResourceId, all: &[Compiled<'_>]) -> Result<Vec<String>, CompileError> {
    let parts = || all.iter().flat_map(|resource| &resource.resource().parts);
    let inside =
        |into: &str| directory.path.strip_prefix(into).is_some_and(|below| below.is_empty() || below.starts_with('/'));
    let unpacks_here = |part: &Part| matches!(part, Part::Archive(archive) if inside(&archive.into));
    if parts().any(unpacks_here) {
        return Err(CompileError::Invalid {
            resource: resource.to_string(),
            field: "directory.purge",
            wanted: "must not be true for a directory that an archive is unpacked into, nor below it; what came from the archive is not known",
        });
    }
    let prefix = format!("{}/", directory.path);
    let names = parts().filter_map(put).filter_map(|path| path.strip_prefix(&prefix));
    let names = names.filter_map(|below| below.split('/').next()).filter(|name| !name.is_empty()).map(str::to_owned);
    let mut keep: Vec<String> = directory.keep.iter().cloned().chain(names).collect();
    let (folder, files) = SYSCTL_FILES;
    if directory.path == folder && parts().any(|part| matches!(part, Part::Sysctl(spec) if spec.at_boot)) {
        keep.push(files.to_owned());
    }
    // Whose home that is, the machine alone knows.
    let keys = |part: &Part| matches!(part, Part::AuthorizedKeys(spec) if spec.path.is_none());
    if directory.path.ends_with("/.ssh") && parts().any(keys) {
        keep.push("authorized_keys".to_owned());
    }
    keep.sort();
    keep.dedup();
    Ok(keep)
}

/// The path that a part puts something at. What must be gone is put nowhere.
fn put(part: &Part) -> Option<&str> {
    Some(match part {
        Part::File(spec) if spec.content.is_some() => &spec.path,
        Part::Directory(spec) if spec.state == Presence::Present => &spec.path,
        Part::Symlink(spec) if spec.target.is_some() => &spec.path,
        Part::Swap(spec) if spec.state == Presence::Present => &spec.path,
        Part::Mount(spec) if spec.mounted => &spec.path,
        // Another's file, of which only a part is ours, stays even when that part goes.
        Part::Edit(spec) => &spec.path,
        Part::Download(spec) => &spec.path,
        Part::Archive(spec) => &spec.into,
        Part::AuthorizedKeys(spec) => spec.path.as_deref()?,
        Part::User(spec) if spec.manage_home => spec.home.as_deref()?,
        Part::File(_)
        | Part::Directory(_)
        | Part::Symlink(_)
        | Part::Swap(_)
        | Part::Mount(_)
        | Part::User(_)
        | Part::Package(_)
        | Part::Service(_)
        | Part::Group(_)
        | Part::Sysctl(_)
        | Part::Module(_)
        | Part::Command(_)
        | Part::Reboot(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use drover_catalog::Resource;
    use serde_json::json;

    use super::*;

    fn parts(list: serde_json::Value) -> Compiled<'static> {
        let list: Vec<Part> = serde_json::from_value(list).unwrap();
        let resource = Resource::new(ResourceId::new("base", "it"), "test", list);
        Compiled::Made { resource, hides_names: false }
    }

    fn directory(path: &str, purge: bool) -> serde_json::Value {
        json!({"part": "directory", "spec": {"path": path, "mode": 493, "owner": "root", "group": "root", "purge": purge, "keep": ["mine"]}})
    }

    fn file(path: &str, content: Option<&str>) -> serde_json::Value {
        json!({"part": "file", "spec": {"path": path, "content": content, "mode": 420, "owner": "root", "group": "root"}})
    }

    fn kept(resources: &mut [Compiled<'_>]) -> Vec<String> {
        keep_what_others_put(resources).unwrap();
        match &resources[0].resource().parts[0] {
            Part::Directory(spec) => spec.keep.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keeps_what_is_put_below_it_by_anybody() {
        let others = || {
            parts(json!([
                file("/srv/a", Some("x")),
                file("/srv/gone", None),
                file("/srv/b/c/d", Some("x")),
                file("/srvx/e", Some("x")),
                file("/etc/srv/f", Some("x")),
                {"part": "symlink", "spec": {"path": "/srv/link", "target": "a"}},
                {"part": "sysctl", "spec": {"key": "a.b", "value": "1"}},
            ]))
        };
        assert_eq!(kept(&mut [parts(json!([directory("/srv", true)])), others()]), ["a", "b", "link", "mine"]);
        assert_eq!(kept(&mut [parts(json!([directory("/srv", false)])), others()]), ["mine"]);
        assert_eq!(kept(&mut [parts(json!([directory("/etc/sysctl.d", true)])), others()]), ["60-drover-*", "mine"]);
    }

    #[test]
    fn what_an_archive_put_there_can_not_be_told_from_the_rest() {
        let archive = json!({"part": "archive", "spec": {"url": "file:///a", "sha256": "", "into": "/srv", "owner": "root", "group": "root", "timeout_seconds": 1}});
        let purged = |path: &str| {
            let mut resources = [parts(json!([directory(path, true)])), parts(json!([archive]))];
            keep_what_others_put(&mut resources).map_err(|error| error.to_string())
        };
        for path in ["/srv", "/srv/a/b"] {
            assert!(purged(path).unwrap_err().starts_with("base/it: directory.purge must not be true"), "{path}");
        }
        purged("/srvx").unwrap();
    }

    #[test]
    fn the_keys_of_a_user_stay_wherever_the_home_is() {
        let keys = || {
            let spec = json!({"user": "ann", "state": "Present", "keys": []});
            parts(json!([{"part": "authorizedKeys", "spec": spec}]))
        };
        assert_eq!(kept(&mut [parts(json!([directory("/x/.ssh", true)])), keys()]), ["authorized_keys", "mine"]);
        assert_eq!(kept(&mut [parts(json!([directory("/x/ssh", true)])), keys()]), ["mine"]);
    }
}
