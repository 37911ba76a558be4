//! Files, directories and links as wholes, and what is fetched by its digest.

use drover_catalog::{
    ArchiveSpec, DirectorySpec, DownloadSpec, FileSpec, Ownership, Part, Presence, SensitiveBytes, SymlinkSpec,
};
use drover_crds::{Archive, Directory, Download, Ensure, File, Symlink};

use super::{
    Made,
    scope::{Body, DEFAULT_TIMEOUT_SECONDS, Owned, Scope, is_one_line, positive},
};
use crate::compile::CompileError;

/// A file of root's that others may read; absent without content.
pub(super) fn owned_by_root(path: String, content: Option<SensitiveBytes>, mode: u32) -> FileSpec {
    FileSpec { path, content, mode, owner: "root".to_owned(), group: "root".to_owned(), validate: None }
}

pub(super) fn presence(ensure: Option<Ensure>) -> Presence {
    match ensure.unwrap_or_default() {
        Ensure::Present => Presence::Present,
        Ensure::Absent => Presence::Absent,
    }
}

pub(super) fn file(spec: &File, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let File { path, content, template, content_from, ensure, mode, owner, group, validate } = spec;
    let path = scope.path("file.path", path)?;
    let content = scope.body(
        "file",
        "must have exactly one of content, template and contentFrom, or ensure: Absent and none of them",
        Body { ensure: *ensure, content: content.as_ref(), template: template.as_ref(), from: content_from.as_ref() },
    )?;
    let Ownership { mode, owner, group } = scope.ownership(&Owned {
        fields: ["file.mode", "file.owner", "file.group"],
        mode: mode.as_ref(),
        default_mode: 0o644,
        owner: owner.as_ref(),
        group: group.as_ref(),
    })?;
    let validate = scope.validate("file.validate", validate.as_ref())?;
    Ok(Part::File(FileSpec { path, content, mode, owner, group, validate }).into())
}

pub(super) fn directory(spec: &Directory, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Directory { path, ensure, mode, owner, group, purge, keep } = spec;
    let names = keep.iter().all(|name| !name.is_empty() && !name.contains('/') && is_one_line(name));
    scope.ensure(
        names,
        "directory.keep",
        "must be names in the directory, without slashes; * stands for any characters",
    )?;
    let Ownership { mode, owner, group } = scope.ownership(&Owned {
        fields: ["directory.mode", "directory.owner", "directory.group"],
        mode: mode.as_ref(),
        default_mode: 0o755,
        owner: owner.as_ref(),
        group: group.as_ref(),
    })?;
    Ok(Part::Directory(DirectorySpec {
        path: scope.path("directory.path", path)?,
        state: presence(*ensure),
        mode,
        owner,
        group,
        purge: purge.unwrap_or(false),
        keep: keep.clone(),
    })
    .into())
}

pub(super) fn symlink(spec: &Symlink, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Symlink { path, target, ensure, force } = spec;
    let wanted = "must be given, and left out with ensure: Absent";
    scope.ensure(target.is_some() != (*ensure == Some(Ensure::Absent)), "symlink.target", wanted)?;
    let plain = target.as_ref().is_none_or(|target| !target.is_empty() && !target.contains('\0'));
    scope.ensure(plain, "symlink.target", "must not be empty")?;
    Ok(Part::Symlink(SymlinkSpec {
        path: scope.path("symlink.path", path)?,
        target: target.clone(),
        force: force.unwrap_or(false),
    })
    .into())
}

pub(super) fn download(spec: &Download, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Download { url, sha256, path, mode, owner, group, timeout_seconds } = spec;
    let Ownership { mode, owner, group } = scope.ownership(&Owned {
        fields: ["download.mode", "download.owner", "download.group"],
        mode: mode.as_ref(),
        default_mode: 0o644,
        owner: owner.as_ref(),
        group: group.as_ref(),
    })?;
    Ok(Part::Download(DownloadSpec {
        url: scope.url("download.url", url)?,
        sha256: scope.sha256("download.sha256", sha256)?,
        path: scope.path("download.path", path)?,
        mode,
        owner,
        group,
        timeout_seconds: positive(*timeout_seconds, DEFAULT_TIMEOUT_SECONDS),
    })
    .into())
}

pub(super) fn archive(spec: &Archive, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Archive { url, sha256, into, strip_components, owner, group, timeout_seconds } = spec;
    Ok(Part::Archive(ArchiveSpec {
        name: scope.label().to_owned(),
        url: scope.url("archive.url", url)?,
        sha256: scope.sha256("archive.sha256", sha256)?,
        into: scope.path("archive.into", into)?,
        strip_components: positive(*strip_components, 0),
        owner: scope.account("archive.owner", owner.as_ref())?,
        group: scope.account("archive.group", group.as_ref())?,
        timeout_seconds: positive(*timeout_seconds, DEFAULT_TIMEOUT_SECONDS),
    })
    .into())
}
