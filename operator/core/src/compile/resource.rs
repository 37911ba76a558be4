//! One resource of a NodeConfig as a resource of a catalog: defaults filled in, spellings made one, contents rendered.
//!
//! The API server has validated the fields, but a revision outlives the validation that it was stored under, so what
//! the agent relies on (paths, modes, exactly one kind) is checked again.

use drover_catalog::{
    CommandSpec, DirectorySpec, FileSpec, Finish, PackageSpec, PackageState, Part, Presence, Sensitive, SensitiveBytes,
    ServiceSpec, ServiceState, SysctlSpec,
};
use drover_crds::{
    Directory, Ensure, Exec, File, NodeConfigResource, NotifyAction, Package, Service, ServiceStateWanted, Sysctl,
};

use super::{CompileError, Inputs};

/// How long a command may take, in seconds, when nothing is said.
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
/// The unit types of systemd.unit(5).
const UNIT_SUFFIXES: [&str; 11] = [
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".service",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
];

/// A resource as the agent gets it: its type's name, its parts and what makes them take effect.
pub(super) struct Lowered {
    /// As in the NodeConfig: `file`, `aptRepository`.
    pub(super) type_name: &'static str,
    pub(super) parts: Vec<Part>,
    pub(super) finish: Vec<Finish>,
}

impl Lowered {
    fn part(type_name: &'static str, part: Part) -> Self {
        Self { type_name, parts: vec![part], finish: Vec::new() }
    }
}

/// Makes the resource's parts. `label` is how errors call it; `inputs` makes files of templates.
pub(super) fn lower(
    resource: &NodeConfigResource,
    label: &str,
    inputs: &mut dyn Inputs,
) -> Result<Lowered, CompileError> {
    let NodeConfigResource { name, file, directory, exec, service, package, sysctl, .. } = resource;
    let invalid =
        |field: &'static str, wanted: &'static str| CompileError::Invalid { resource: label.to_owned(), field, wanted };
    match (file, directory, exec, service, package, sysctl) {
        (Some(file), None, None, None, None, None) => {
            let content = content(file, label, inputs)?;
            let File { path, content: _, template: _, ensure: _, mode, owner, group } = file;
            Ok(Lowered::part(
                "file",
                Part::File(FileSpec {
                    path: absolute(path).ok_or_else(|| invalid("file.path", PATH))?,
                    content: content.map(SensitiveBytes::new),
                    mode: octal(mode.as_deref(), 0o644).ok_or_else(|| invalid("file.mode", MODE))?,
                    owner: or_root(owner.as_ref()),
                    group: or_root(group.as_ref()),
                    validate: None,
                }),
            ))
        }
        (None, Some(directory), None, None, None, None) => {
            let Directory { path, mode, owner, group } = directory;
            Ok(Lowered::part(
                "directory",
                Part::Directory(DirectorySpec {
                    path: absolute(path).ok_or_else(|| invalid("directory.path", PATH))?,
                    state: Presence::Present,
                    mode: octal(mode.as_deref(), 0o755).ok_or_else(|| invalid("directory.mode", MODE))?,
                    owner: or_root(owner.as_ref()),
                    group: or_root(group.as_ref()),
                    purge: false,
                    keep: Vec::new(),
                }),
            ))
        }
        (None, None, Some(exec), None, None, None) => {
            let empty = |argv: &Option<Vec<String>>| argv.as_ref().is_some_and(Vec::is_empty);
            if exec.command.is_empty() || empty(&exec.unless) || empty(&exec.only_if) {
                return Err(invalid(
                    "exec.command, exec.unless or exec.onlyIf",
                    "must name a program; write [\"program\", \"argument\"]",
                ));
            }
            Ok(Lowered::part("exec", Part::Command(self::exec(exec))))
        }
        (None, None, None, Some(service), None, None) => {
            Ok(Lowered::part("service", Part::Service(self::service(service))))
        }
        (None, None, None, None, Some(package), None) => {
            Ok(Lowered::part("package", Part::Package(self::package(package, name))))
        }
        (None, None, None, None, None, Some(Sysctl { key, value })) => Ok(Lowered::part(
            "sysctl",
            Part::Sysctl(SysctlSpec { key: sysctl_key(key), value: value.clone(), at_boot: true }),
        )),
        _ => Err(CompileError::NotOneKind { resource: label.to_owned() }),
    }
}

const PATH: &str = "must be absolute, without empty, `.` and `..` parts, and not end with a slash";
const MODE: &str = "must be three or four octal digits as a string, such as \"0644\"";

fn content(file: &File, label: &str, inputs: &mut dyn Inputs) -> Result<Option<String>, CompileError> {
    match (file.ensure.unwrap_or_default(), &file.content, &file.template) {
        (Ensure::Absent, None, None) => Ok(None),
        (Ensure::Present, Some(content), None) => Ok(Some(content.clone())),
        (Ensure::Present, None, Some(template)) => {
            let problem = |problem| CompileError::Template { resource: label.to_owned(), problem };
            inputs.render(template).map(Some).map_err(problem)
        }
        _ => Err(CompileError::Invalid {
            resource: label.to_owned(),
            field: "file",
            wanted: "must have either content or template, or ensure: Absent and neither of them",
        }),
    }
}

fn exec(exec: &Exec) -> CommandSpec {
    let Exec { command, creates, unless, only_if, refresh_only, cwd, environment, timeout_seconds } = exec.clone();
    CommandSpec {
        argv: command,
        creates,
        unless,
        only_if,
        refresh_only: refresh_only.unwrap_or(false),
        cwd: Some(cwd.unwrap_or_else(|| "/".to_owned())),
        environment: environment.unwrap_or_default().into_iter().map(|(k, v)| (k, Sensitive::new(v))).collect(),
        timeout_seconds: timeout_seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        ..CommandSpec::default()
    }
}

fn service(service: &Service) -> ServiceSpec {
    let Service { unit, state, enabled, on_notify } = service;
    ServiceSpec {
        unit: if UNIT_SUFFIXES.iter().any(|suffix| unit.ends_with(suffix)) {
            unit.clone()
        } else {
            format!("{unit}.service")
        },
        state: state.map(|state| match state {
            ServiceStateWanted::Running => ServiceState::Running,
            ServiceStateWanted::Stopped => ServiceState::Stopped,
        }),
        enabled: *enabled,
        masked: None,
        reload_on_notify: *on_notify == Some(NotifyAction::Reload),
    }
}

fn package(package: &Package, name: &str) -> PackageSpec {
    let Package { package, ensure, version } = package;
    PackageSpec {
        package: package.clone().unwrap_or_else(|| name.to_owned()),
        state: match ensure.unwrap_or_default() {
            Ensure::Present => PackageState::Present,
            Ensure::Absent => PackageState::Absent,
        },
        version: version.clone(),
        held: None,
        allow_downgrade: false,
    }
}

/// The path, when nobody can write another one for the same file (links aside).
fn absolute(path: &str) -> Option<String> {
    let parts = path.strip_prefix('/')?;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    parts.split('/').all(plain).then(|| path.to_owned())
}

fn octal(text: Option<&str>, default: u32) -> Option<u32> {
    let Some(text) = text else { return Some(default) };
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    digits.then(|| u32::from_str_radix(text, 8).ok())?
}

fn or_root(name: Option<&String>) -> String {
    name.cloned().unwrap_or_else(|| "root".to_owned())
}

/// One spelling of a kernel parameter, by the rule of sysctl.d(5): when a slash comes first, slashes separate and dots
/// belong to names, so the two are exchanged.
fn sysctl_key(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    struct Rendered;

    impl Inputs for Rendered {
        fn render(&mut self, template: &str) -> Result<String, crate::compile::TemplateError> {
            Ok(format!("rendered {template}"))
        }

        fn content(&mut self, _: &drover_crds::ContentSource) -> Result<SensitiveBytes, CompileError> {
            Ok(SensitiveBytes::default())
        }

        fn mark_sensitive(&mut self) {}

        fn facts(&self) -> Option<&drover_catalog::Facts> {
            None
        }
    }

    fn check(yaml_like: serde_json::Value, expected: &Expect) {
        let resource: NodeConfigResource = serde_json::from_value(yaml_like).unwrap();
        let actual = match lower(&resource, "base/it", &mut Rendered) {
            Ok(lowered) => serde_json::to_string(&lowered.parts).unwrap(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&actual);
    }

    #[test]
    fn fills_in_what_was_left_out() {
        use serde_json::json;
        check(
            json!({"name": "it", "file": {"path": "/etc/motd", "content": "moo"}}),
            &expect![[
                r#"[{"part":"file","spec":{"path":"/etc/motd","content":"moo","mode":420,"owner":"root","group":"root"}}]"#
            ]],
        );
        check(
            json!({"name": "it", "file": {"path": "/etc/motd", "template": "t", "mode": "4711", "owner": "a", "group": "7"}}),
            &expect![[
                r#"[{"part":"file","spec":{"path":"/etc/motd","content":"rendered t","mode":2505,"owner":"a","group":"7"}}]"#
            ]],
        );
        check(
            json!({"name": "it", "file": {"path": "/etc/motd", "ensure": "Absent"}}),
            &expect![[
                r#"[{"part":"file","spec":{"path":"/etc/motd","content":null,"mode":420,"owner":"root","group":"root"}}]"#
            ]],
        );
        check(
            json!({"name": "it", "directory": {"path": "/srv"}}),
            &expect![[
                r#"[{"part":"directory","spec":{"path":"/srv","state":"Present","mode":493,"owner":"root","group":"root","purge":false}}]"#
            ]],
        );
        check(
            json!({"name": "it", "exec": {"command": ["true"], "refreshOnly": true}}),
            &expect![[
                r#"[{"part":"command","spec":{"argv":["true"],"creates":null,"unless":null,"only_if":null,"refresh_only":true,"cwd":"/","user":null,"umask":null,"environment":{},"timeout_seconds":300,"tries":0,"try_sleep_seconds":0,"exit_codes":[]}}]"#
            ]],
        );
        check(
            json!({"name": "it", "service": {"unit": "nginx", "state": "Running"}}),
            &expect![[
                r#"[{"part":"service","spec":{"unit":"nginx.service","state":"Running","enabled":null,"masked":null,"reload_on_notify":false}}]"#
            ]],
        );
        check(
            json!({"name": "it", "service": {"unit": "backup.timer", "enabled": true, "onNotify": "Reload"}}),
            &expect![[
                r#"[{"part":"service","spec":{"unit":"backup.timer","state":null,"enabled":true,"masked":null,"reload_on_notify":true}}]"#
            ]],
        );
        check(
            json!({"name": "it", "service": {"unit": "dbus-org.freedesktop.hostname1", "enabled": true}}),
            &expect![[
                r#"[{"part":"service","spec":{"unit":"dbus-org.freedesktop.hostname1.service","state":null,"enabled":true,"masked":null,"reload_on_notify":false}}]"#
            ]],
        );
        check(
            json!({"name": "it", "package": {}}),
            &expect![[
                r#"[{"part":"package","spec":{"package":"it","state":"Present","version":null,"held":null,"allow_downgrade":false}}]"#
            ]],
        );
        check(
            json!({"name": "it", "package": {"package": "vim", "ensure": "Absent"}}),
            &expect![[
                r#"[{"part":"package","spec":{"package":"vim","state":"Absent","version":null,"held":null,"allow_downgrade":false}}]"#
            ]],
        );
    }

    #[test]
    fn one_parameter_has_one_spelling() {
        for (written, key) in [
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
        ] {
            assert_eq!(sysctl_key(written), key, "{written}");
        }
    }

    #[test]
    fn refuses_what_an_agent_could_not_rely_on() {
        use serde_json::json;
        for path in ["etc/motd", "/", "/etc/", "/etc//motd", "/etc/../motd", "/etc/.", ""] {
            assert_eq!(absolute(path), None, "{path}");
        }
        for mode in ["0999", "77", "+644", "00644", "0o644"] {
            assert_eq!(octal(Some(mode), 0), None, "{mode}");
        }
        check(
            json!({"name": "it", "directory": {"path": "/srv/.."}}),
            &expect![
                "base/it: directory.path must be absolute, without empty, `.` and `..` parts, and not end with a slash"
            ],
        );
        check(
            json!({"name": "it", "file": {"path": "/etc/motd", "content": "moo", "mode": "rw"}}),
            &expect![[r#"base/it: file.mode must be three or four octal digits as a string, such as "0644""#]],
        );
        check(
            json!({"name": "it", "file": {"path": "/etc/motd"}}),
            &expect!["base/it: file must have either content or template, or ensure: Absent and neither of them"],
        );
        check(
            json!({"name": "it", "exec": {"command": []}}),
            &expect![[
                r#"base/it: exec.command, exec.unless or exec.onlyIf must name a program; write ["program", "argument"]"#
            ]],
        );
        check(
            json!({"name": "it"}),
            &expect![
                "base/it: a resource has exactly one of file, directory, exec, service, package and sysctl; write each thing as a resource of its own"
            ],
        );
        check(
            json!({"name": "it", "package": {}, "sysctl": {"key": "a.b", "value": "1"}}),
            &expect![
                "base/it: a resource has exactly one of file, directory, exec, service, package and sysctl; write each thing as a resource of its own"
            ],
        );
    }
}
