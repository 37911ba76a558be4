//! What the tests of the binary share: catalogs and the binary itself.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod master;

use std::{path::Path, process::Command};

use drover_catalog::{
    Catalog, Digest, ExecSpec, FileSpec, HostIdentity, Resource, ResourceId, ResourceKind, RevisionRef, Sensitive,
};

pub(crate) fn id(name: &str) -> ResourceId {
    ResourceId::new("base", name)
}

pub(crate) fn resource(name: &str, kind: ResourceKind, notify: &[&str]) -> Resource {
    Resource { id: id(name), kind, require: vec![], notify: notify.iter().copied().map(id).collect() }
}

pub(crate) fn file(path: &str, content: &str) -> ResourceKind {
    let owner = rustix::process::geteuid().as_raw().to_string();
    let group = rustix::process::getegid().as_raw().to_string();
    ResourceKind::File(FileSpec {
        path: path.into(),
        content: Some(Sensitive::new(content)),
        mode: 0o644,
        owner,
        group,
    })
}

pub(crate) fn exec(argv: &[&str], refresh_only: bool) -> ResourceKind {
    ResourceKind::Exec(ExecSpec {
        argv: argv.iter().copied().map(str::to_owned).collect(),
        creates: None,
        unless: None,
        only_if: None,
        refresh_only,
        cwd: None,
        environment: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
        timeout_seconds: 60,
    })
}

pub(crate) fn catalog(generation: i64, resources: Vec<Resource>) -> Catalog {
    Catalog {
        host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
        generation,
        revisions: vec![RevisionRef { node_config: "base".into(), revision: format!("base-{generation}") }],
        interval_seconds: 3600,
        resources,
        digest: Digest::of(b""),
    }
    .seal()
    .unwrap()
}

/// The agent, on a folder that stands for a machine.
pub(crate) fn agent(subcommand: &str, root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-agent"));
    command.env_clear().arg(subcommand).arg("--root").arg(root);
    command
}
