//! What the tests of the binary share: catalogs and the binary itself.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod machine;
pub(crate) mod master;

use std::{path::Path, process::Command};

use drover_catalog::{
    Catalog, CommandSpec, Digest, FileSpec, HostIdentity, Part, Resource, ResourceId, RevisionRef, Sensitive,
    SensitiveBytes,
};

pub(crate) fn id(name: &str) -> ResourceId {
    ResourceId::new("base", name)
}

pub(crate) fn resource(name: &str, part: Part, notify: &[&str]) -> Resource {
    Resource { notify: notify.iter().copied().map(id).collect(), ..Resource::new(id(name), "test", vec![part]) }
}

pub(crate) fn file(path: &str, content: &str) -> Part {
    let owner = rustix::process::geteuid().as_raw().to_string();
    let group = rustix::process::getegid().as_raw().to_string();
    Part::File(FileSpec {
        path: path.into(),
        content: Some(SensitiveBytes::new(content)),
        mode: 0o644,
        owner,
        group,
        validate: None,
    })
}

pub(crate) fn exec(argv: &[&str], refresh_only: bool) -> Part {
    Part::Command(CommandSpec {
        argv: argv.iter().copied().map(str::to_owned).collect(),
        refresh_only,
        environment: [("TOKEN".to_owned(), Sensitive::new("hunter2"))].into(),
        timeout_seconds: 60,
        ..CommandSpec::default()
    })
}

pub(crate) fn catalog(generation: i64, resources: Vec<Resource>) -> Catalog {
    Catalog {
        host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
        generation,
        revisions: vec![RevisionRef { node_config: "base".into(), revision: format!("base-{generation}") }],
        interval_seconds: 3600,
        resources,
        reboot: None,
        commands: vec![],
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
