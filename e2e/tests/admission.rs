//! What the API server itself refuses and accepts of Drover's kinds, and what `kubectl explain` says about them. Nothing of
//! Drover runs for this; only its CRDs must be there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is test code")]

use std::collections::BTreeSet;

use drover_crds::{GROUP, VERSION};
use drover_e2e::{Cluster, cluster::objects_of};
use futures::{StreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Something that is refused.
struct Refused {
    kind: &'static str,
    /// YAML.
    spec: String,
    /// The field that the answer names, without indices.
    field: String,
    /// A part of the advice.
    advice: &'static str,
}

/// A NodeConfig is refused for one of its resources; `field` is below that.
fn resource(resource: &str, field: &str, advice: &'static str) -> Refused {
    let field = format!("resources[].{field}");
    node_config(&format!("resources: [{resource}]"), field.trim_end_matches('.'), advice)
}

fn node_config(spec: &str, field: &str, advice: &'static str) -> Refused {
    Refused { kind: "NodeConfig", spec: format!("{{{spec}}}"), field: format!("spec.{field}"), advice }
}

fn rollout(spec: &str, field: &str, advice: &'static str) -> Refused {
    let spec = format!("{{nodeConfigRef: {{name: base}}, {spec}}}");
    Refused { kind: "Rollout", spec, field: format!("spec.{field}"), advice }
}

/// What is refused of a window, in whatever has windows.
fn refused_windows() -> Vec<Refused> {
    let rows = [
        ("{kind: Allow}", "", "a window has either schedule and durationSeconds, or from and to"),
        ("{kind: Allow, schedule: 0 2 * * 6}", "", "a window with a schedule needs durationSeconds"),
        ("{kind: Deny, from: '2026-12-20T00:00:00Z'}", "", "a window of dates has both from and to"),
        ("{kind: Deny, from: '2026-12-20T00:00:00Z', to: '2026-12-19T00:00:00Z'}", "", "from must be before to"),
        (
            "{kind: Deny, from: '2026-12-20T00:00:00Z', to: '2026-12-21T00:00:00Z', timeZone: UTC}",
            "",
            "timeZone is for schedule; from and to carry their offset",
        ),
        (
            "{kind: Allow, schedule: '@daily', durationSeconds: 60}",
            ".schedule",
            "write five fields with spaces between them",
        ),
        (
            "{kind: Allow, schedule: 0 2 * * 6, durationSeconds: 60, timeZone: '+01:00'}",
            ".timeZone",
            "write the IANA name of a time zone",
        ),
    ];
    let both = |(window, below, advice): (&str, &str, &'static str)| {
        let budget = Refused {
            kind: "DisruptionBudget",
            spec: format!("{{windows: [{window}]}}"),
            field: format!("spec.windows[]{below}"),
            advice,
        };
        let rollout =
            rollout(&format!("schedule: {{windows: [{window}]}}"), &format!("schedule.windows[]{below}"), advice);
        [budget, rollout]
    };
    let limit = "write a number of hosts from 1 to 100000, or a percentage";
    let budget = |spec: &str, field: &str, advice| Refused {
        kind: "DisruptionBudget",
        spec: spec.to_owned(),
        field: format!("spec{field}"),
        advice,
    };
    let mut all: Vec<Refused> = rows.into_iter().flat_map(both).collect();
    all.extend([
        budget("{}", "", "a budget that limits nothing has no effect"),
        budget("{maxParallel: 0}", ".maxParallel", limit),
        budget("{maxUnavailable: 0}", ".maxUnavailable", limit),
        rollout(
            "schedule: {minRemainingSeconds: 600, windows: [{kind: Allow, schedule: 0 2 * * 6, durationSeconds: 60}]}",
            "schedule",
            "a window with kind Allow is shorter than minRemainingSeconds",
        ),
    ]);
    let step = |http: &str, field: &str, advice| {
        rollout(
            &format!("disruption: {{loadBalancer: {{steps: [{{name: a, http: {{{http}}}}}]}}}}"),
            &format!("disruption.loadBalancer.steps[].http.{field}"),
            advice,
        )
    };
    let header = "{url: 'http://lb', headersFrom: [{name: 'a b', secretKeyRef: {name: s, key: k}}]}";
    let plain = "{url: 'http://lb'}";
    all.extend([
        step(
            &format!("leave: {plain}, return: {plain}, caFrom: {{}}"),
            "caFrom",
            "content comes from exactly one of configMapKeyRef and secretKeyRef",
        ),
        step(
            &format!("leave: {header}, return: {plain}"),
            "leave.headersFrom[].name",
            "write the name of a header, such as Authorization",
        ),
        step(
            &format!("leave: {plain}, return: {header}"),
            "return.headersFrom[].name",
            "write the name of a header, such as Authorization",
        ),
        step(
            &format!("leave: {plain}, return: {{url: lb}}"),
            "return.url",
            "write a URL that begins with http:// or https://",
        ),
    ]);
    all
}

fn master_pool(spec: &str, field: &str, advice: &'static str) -> Refused {
    Refused { kind: "MasterPool", spec: format!("{{{spec}}}"), field: format!("spec.{field}"), advice }
}

#[rustfmt::skip]
fn refused() -> Vec<Refused> {
    let one_thing = "a resource has exactly one type, such as file, package or service";
    let path = "write an absolute path, without . and .. parts and without a slash at its end";
    let mode = r#"write the permission bits as a string of three or four octal digits, such as "0644""#;
    let content = "a file has exactly one of content, template and contentFrom; to remove a file write ensure: Absent and none of them";
    let matches = "should match '^";
    let guard = "add creates, unless, onlyIf or refreshOnly: true";
    let name = "write a name of lower case letters, digits, - and .";
    let version = r#"write a whole version as the package manager prints it, such as "1:2.4.57-2""#;
    let unit = "write the name of a unit, such as nginx or backup.timer";
    let limit = r#"write a number of hosts from 1 to 100000, or a percentage from "1%" to "100%"; to stop, set paused: true"#;
    let gate = "a gate has exactly one kind, such as nodeReady, http or prometheus; write each check as a gate of its own";
    vec![
        // What a resource is.
        resource("{name: a}", "", one_thing),
        resource("{name: a, directory: {path: /srv/a}, sysctl: {key: vm.swappiness, value: '1'}}", "", one_thing),
        resource("{directory: {path: /srv/a}}", "name", "Required value"),
        resource("{name: A, directory: {path: /srv/a}}", "name", name),
        resource("{name: a-, directory: {path: /srv/a}}", "name", name),
        resource("{name: '', directory: {path: /srv/a}}", "name", "should be at least 1 chars long"),
        resource("{name: a, directory: {path: /srv/a}}, {name: a, directory: {path: /srv/b}}", "", "Duplicate value"),
        // Files and directories.
        resource("{name: a, file: {path: etc/motd, content: x}}", "file.path", path),
        resource("{name: a, file: {path: /etc/../motd, content: x}}", "file.path", path),
        resource("{name: a, file: {path: /etc/, content: x}}", "file.path", path),
        resource("{name: a, file: {path: /etc//motd, content: x}}", "file.path", path),
        resource("{name: a, file: {path: /etc/motd}}", "file", content),
        resource("{name: a, file: {path: /etc/motd, content: x, template: x}}", "file", content),
        resource("{name: a, file: {path: /etc/motd, content: x, ensure: Absent}}", "file", content),
        resource("{name: a, file: {path: /etc/motd, content: x, ensure: absent}}", "file.ensure", r#"supported values: "Present", "Absent""#),
        resource("{name: a, file: {path: /etc/motd, content: x, mode: rw-r--r--}}", "file.mode", mode),
        resource("{name: a, file: {path: /etc/motd, content: x, mode: '0999'}}", "file.mode", mode),
        resource("{name: a, file: {path: /etc/motd, content: x, mode: 420}}", "file.mode", "must be of type string"),
        resource("{name: a, file: {path: /etc/motd, content: x, owner: ''}}", "file.owner", matches),
        resource("{name: a, directory: {path: .}}", "directory.path", path),
        resource("{name: a, directory: {path: /srv/a, mode: u+w}}", "directory.mode", mode),
        resource("{name: a, directory: {}}", "directory.path", "Required value"),
        // Commands.
        resource("{name: a, exec: {command: [date]}}", "exec", guard),
        resource("{name: a, exec: {command: [date], refreshOnly: false}}", "exec", guard),
        resource("{name: a, exec: {command: [], refreshOnly: true}}", "exec.command", "should have at least 1 items"),
        resource("{name: a, exec: {command: [date], creates: done}}", "exec.creates", path),
        resource("{name: a, exec: {command: [date], refreshOnly: true, cwd: tmp}}", "exec.cwd", matches),
        resource("{name: a, exec: {command: [date], refreshOnly: true, timeoutSeconds: 0}}", "exec.timeoutSeconds", "should be greater than or equal to 1"),
        // Services, packages and kernel parameters.
        resource("{name: a, service: {unit: nginx}}", "service", "add state: Running or Stopped, enabled or masked"),
        resource("{name: a, service: {unit: nginx, masked: true, state: Running}}", "service", "a unit that is masked can neither run nor start at boot"),
        resource("{name: a, service: {unit: nginx, masked: true, enabled: true}}", "service", "a unit that is masked can neither run nor start at boot"),
        resource("{name: a, service: {unit: 'nginx; reboot', enabled: true}}", "service.unit", unit),
        resource("{name: a, service: {unit: nginx, state: Started}}", "service.state", r#"supported values: "Running", "Stopped""#),
        resource("{name: a, package: {package: 'nginx redis'}}", "package.package", matches),
        resource("{name: a, package: {package: --reinstall}}", "package.package", matches),
        resource("{name: a, package: {version: 1.*}}", "package.version", version),
        resource("{name: a, package: {ensure: Absent, version: '1.0'}}", "package", "only a package that is Present has a version; leave version out"),
        resource("{name: a, package: {ensure: Latest, version: '1.0'}}", "package", "only a package that is Present has a version; leave version out"),
        resource("{name: a, sysctl: {key: swappiness, value: '1'}}", "sysctl.key", "write the parameter as sysctl prints it"),
        resource("{name: a, sysctl: {key: ../../etc/passwd, value: '1'}}", "sysctl.key", "write the parameter as sysctl prints it"),
        resource(r#"{name: a, sysctl: {key: vm.swappiness, value: "1\n2"}}"#, "sysctl.value", "write the value on one line"),
        resource("{name: a, sysctl: {key: vm.swappiness, value: 1}}", "sysctl.value", "must be of type string"),
        // The rest of a NodeConfig.
        node_config("", "resources", "Required value"),
        node_config("resources: [], dataFrom: [{}]", "dataFrom[]", "exactly one of configMapRef and secretRef"),
        node_config("resources: [], dataFrom: [{configMapRef: {name: a}, secretRef: {name: a}}]", "dataFrom[]", "exactly one of configMapRef and secretRef"),
        node_config("resources: [], drift: {intervalSeconds: 9}", "drift.intervalSeconds", "should be greater than or equal to 10"),
        node_config("resources: [], revisionHistoryLimit: 0", "revisionHistoryLimit", "should be greater than or equal to 1"),
        // Rollouts.
        Refused { kind: "Rollout", spec: "{}".into(), field: "spec.nodeConfigRef".into(), advice: "Required value" },
        rollout("strategy: {maxParallel: 0}", "strategy.maxParallel", limit),
        rollout("strategy: {maxParallel: 0%}", "strategy.maxParallel", limit),
        rollout("strategy: {maxUnavailable: 101%}", "strategy.maxUnavailable", limit),
        rollout("strategy: {maxUnavailable: -1}", "strategy.maxUnavailable", limit),
        rollout("strategy: {batches: [{size: half}]}", "strategy.batches[].size", limit),
        rollout("strategy: {batches: [{size: '3'}]}", "strategy.batches[].size", limit),
        rollout("strategy: {batches: [{name: canary}]}", "strategy.batches[]", "a batch says which machines it has: size, hosts or hostSelector"),
        rollout("strategy: {failure: {maxFailed: -1}}", "strategy.failure.maxFailed", "write a number of hosts from 0 to 100000, or a percentage"),
        rollout("strategy: {failure: {maxFailed: 0%}}", "strategy.failure.maxFailed", "write a number of hosts from 0 to 100000, or a percentage"),
        rollout("strategy: {applyTimeoutSeconds: 0}", "strategy.applyTimeoutSeconds", "should be greater than or equal to 1"),
        rollout("disruption: {loadBalancer: {settleSeconds: 3601}}", "disruption.loadBalancer.settleSeconds", "should be less than or equal to 3600"),
        rollout("disruption: {drain: {timeoutSeconds: 0}}", "disruption.drain.timeoutSeconds", "should be greater than or equal to 1"),
        rollout("disruption: {drain: {unmanagedPods: Delete}}", "disruption.drain.unmanagedPods", r#"supported values: "Evict", "Block""#),
        rollout("disruption: {when: Sometimes}", "disruption.when", r#"supported values: "AsNeeded", "Always""#),
        rollout("disruption: {drain: {onTimeout: Wait}}", "disruption.drain.onTimeout", r#"supported values: "Fail", "Skip", "Hold", "Pause", "Force""#),
        rollout("disruption: {drain: {podRules: [{}]}}", "disruption.drain.podRules[].behavior", "Required value"),
        rollout("disruption: {drain: {podRules: [{behavior: Drain, namespaces: [a], namespaceSelector: {}}]}}", "disruption.drain.podRules[]", "a rule has namespaces or namespaceSelector, not both"),
        rollout("disruption: {drain: {podRules: [{behavior: Skip, order: 1}]}}", "disruption.drain.podRules[]", "pods that stay have no order"),
        rollout("disruption: {loadBalancer: {steps: [{name: a}]}}", "disruption.loadBalancer.steps[]", "a step has exactly one of http and haproxy"),
        rollout("disruption: {loadBalancer: {steps: [{name: a, haproxy: {address: 'lb', backend: web}}]}}", "disruption.loadBalancer.steps[].haproxy.address", "write host:port"),
        rollout("disruption: {loadBalancer: {steps: [{name: a, haproxy: {address: 'lb:1', backend: 'a;b'}}]}}", "disruption.loadBalancer.steps[].haproxy.backend", "write the name of a backend"),
        rollout("disruption: {loadBalancer: {steps: [{name: a, http: {leave: {url: lb}, return: {url: 'http://lb'}}}]}}", "disruption.loadBalancer.steps[].http.leave.url", "write a URL that begins with http:// or https://"),
        rollout("gates: {host: [{}]}", "gates.host[]", gate),
        rollout("gates: {host: [{nodeReady: {}, http: {port: 80}}]}", "gates.host[]", gate),
        rollout("gates: {host: [{http: {port: 0}}]}", "gates.host[].http.port", "should be greater than or equal to 1"),
        rollout("gates: {host: [{http: {port: 65536}}]}", "gates.host[].http.port", "should be less than or equal to 65535"),
        rollout("gates: {host: [{http: {port: 80, path: healthz}}]}", "gates.host[].http.path", "write a path that begins with a slash"),
        rollout("gates: {host: [{http: {port: 80, path: '/a b'}}]}", "gates.host[].http.path", "write a path that begins with a slash"),
        rollout("gates: {host: [{http: {port: 80, scheme: http}}]}", "gates.host[].http.scheme", r#"supported values: "HTTP", "HTTPS""#),
        rollout("gates: {host: [{nodeReady: {}, periodSeconds: 0}]}", "gates.host[].periodSeconds", "should be greater than or equal to 1"),
    ]
}

#[rustfmt::skip]
fn refused_pools() -> Vec<Refused> {
    vec![
        master_pool("replicas: 0", "replicas", "write how many masters run, from 1 to 100"),
        master_pool("replicas: 101", "replicas", "write how many masters run, from 1 to 100"),
        Refused { kind: "MasterPool", spec: "{replicas: 2, autoscaling: {max: 3}}".into(), field: "spec".into(), advice: "write either replicas or autoscaling" },
        master_pool("autoscaling: {min: 3, max: 2}", "autoscaling", "min is greater than max: write a smaller min or a larger max"),
        master_pool("autoscaling: {max: 2, schedule: [{schedule: '0 7 * * *', durationSeconds: 60, min: 3}]}", "autoscaling", "an entry of schedule has a min that is greater than max"),
        master_pool("autoscaling: {max: 2, schedule: [{schedule: '0 7 * *', durationSeconds: 60, min: 2}]}", "autoscaling.schedule[].schedule", "write five fields with spaces between them"),
        master_pool("autoscaling: {max: 2, schedule: [{schedule: '0 7 * * *', durationSeconds: 60, timeZone: 'Europe Berlin', min: 2}]}", "autoscaling.schedule[].timeZone", "write the IANA name of a time zone"),
        master_pool("autoscaling: {max: 2, redundancy: N+3}", "autoscaling.redundancy", r#"supported values: "N+1", "N+2", "2N""#),
        master_pool("zones: [{name: 'a b'}]", "zones[].name", "write the zone as the label topology.kubernetes.io/zone of its nodes has it"),
        master_pool("zones: [{name: a, region: 'r/1'}]", "zones[].region", "write the region as the label topology.kubernetes.io/region of its nodes has it"),
        master_pool("certificates: {overlapSeconds: 1}", "certificates.overlapSeconds", "should be greater than or equal to 10"),
        master_pool("certificates: {issuerRef: {kind: ClusterIssuer}}", "certificates.issuerRef.name", "Required value"),
        master_pool("autoscaling: {max: 2, targetUtilization: 95}", "autoscaling.targetUtilization", "should be less than or equal to 90"),
    ]
}

/// Resources of the types that are not in the list above.
#[rustfmt::skip]
fn refused_resources() -> Vec<Refused> {
    let path = "write an absolute path, without . and .. parts and without a slash at its end";
    let mode = r#"write the permission bits as a string of three or four octal digits, such as "0644""#;
    let content = "a file has exactly one of content, template and contentFrom; to remove a file write ensure: Absent and none of them";
    let one_source = "content comes from exactly one of configMapKeyRef and secretKeyRef";
    let matches = "should match '^";
    vec![
        // Where content comes from.
        resource("{name: a, file: {path: /etc/motd, content: x, contentFrom: {secretKeyRef: {name: a, key: b}}}}", "file", content),
        resource("{name: a, file: {path: /etc/motd, contentFrom: {}}}", "file.contentFrom", one_source),
        resource("{name: a, file: {path: /etc/motd, contentFrom: {secretKeyRef: {name: a, key: b}, configMapKeyRef: {name: a, key: b}}}}", "file.contentFrom", one_source),
        resource("{name: a, systemdUnit: {name: a.service, contentFrom: {}}}", "systemdUnit.contentFrom", one_source),
        resource("{name: a, systemdDropIn: {unit: a.service, contentFrom: {}}}", "systemdDropIn.contentFrom", one_source),
        resource("{name: a, caCertificate: {contentFrom: {}}}", "caCertificate.contentFrom", one_source),
        resource("{name: a, aptRepository: {uris: ['https://x'], suites: [./], signedBy: {keyFrom: {}}}}", "aptRepository.signedBy.keyFrom", one_source),
        resource("{name: a, exec: {command: [date], refreshOnly: true, environmentFrom: [{name: A}]}}", "exec.environmentFrom[]", "a reference has exactly one of configMapKeyRef and secretKeyRef"),
        resource("{name: a, file: {path: /etc/motd, contentFrom: {secretKeyRef: {name: a}}}}", "file.contentFrom.secretKeyRef.key", "Required value"),
        // Links, and what is fetched.
        resource("{name: a, directory: {path: /srv/a, ensure: Absent, keep: [b]}}", "directory", "a directory that is Absent keeps nothing; leave keep out"),
        resource("{name: a, directory: {path: /srv/a, keep: [b/c]}}", "directory.keep[]", matches),
        resource("{name: a, symlink: {path: /a}}", "symlink", "a symlink has a target"),
        resource("{name: a, symlink: {path: /a, target: b, ensure: Absent}}", "symlink", "a symlink has a target"),
        resource("{name: a, symlink: {path: a, target: b}}", "symlink.path", path),
        resource("{name: a, download: {url: 'ftp://x', sha256: a, path: b, mode: rw}}", "download.url", matches),
        resource("{name: a, download: {url: 'ftp://x', sha256: a, path: b, mode: rw}}", "download.sha256", matches),
        resource("{name: a, download: {url: 'ftp://x', sha256: a, path: b, mode: rw}}", "download.path", path),
        resource("{name: a, download: {url: 'ftp://x', sha256: a, path: b, mode: rw}}", "download.mode", mode),
        resource("{name: a, archive: {url: 'https://x', sha256: a, into: b}}", "archive.into", path),
        // Parts of files.
        resource("{name: a, line: {path: /a}}", "line", "a line says what it is in line"),
        resource("{name: a, line: {path: /a, matching: b}}", "line", "a line says what it is in line"),
        resource("{name: a, line: {path: /a, line: b, insertAfter: c, atBeginning: true}}", "line", "at most one of insertAfter, insertBefore and atBeginning"),
        resource("{name: a, line: {path: a, line: b, mode: rw}}", "line.path", path),
        resource("{name: a, line: {path: a, line: b, mode: rw}}", "line.mode", mode),
        resource(r#"{name: a, line: {path: /a, line: "b\nc"}}"#, "line.line", matches),
        resource("{name: a, block: {path: /a}}", "block", "a block has either content or template"),
        resource("{name: a, block: {path: /a, content: b, template: c}}", "block", "a block has either content or template"),
        resource("{name: a, block: {path: a, content: b, mode: rw}}", "block.path", path),
        resource("{name: a, block: {path: a, content: b, mode: rw}}", "block.mode", mode),
        resource("{name: a, ini: {path: /a, key: b}}", "ini", "a setting has a value"),
        resource("{name: a, ini: {path: a, key: b, value: c, mode: rw}}", "ini.path", path),
        resource("{name: a, ini: {path: a, key: b, value: c, mode: rw}}", "ini.mode", mode),
        resource("{name: a, ini: {path: /a, key: 'b=', value: c}}", "ini.key", matches),
        // Repositories.
        resource("{name: a, aptRepository: {uris: ['https://x']}}", "aptRepository", "a repository has uris and suites"),
        resource("{name: a, aptRepository: {uris: ['https://x'], suites: [./], signedBy: {}}}", "aptRepository.signedBy", "signedBy has exactly one of key, keyFrom and path"),
        resource("{name: a, aptRepository: {uris: ['https://x'], suites: [./], signedBy: {key: b, path: /c}}}", "aptRepository.signedBy", "signedBy has exactly one of key, keyFrom and path"),
        resource("{name: a, aptRepository: {uris: ['https://x'], suites: [./], signedBy: {path: c}}}", "aptRepository.signedBy.path", path),
        resource("{name: a, aptRepository: {uris: ['https://x y'], suites: [./]}}", "aptRepository.uris[]", matches),
        resource("{name: a, aptRepository: {uris: ['https://x'], suites: [./], types: [deb]}}", "aptRepository.types[]", r#"supported values: "Deb", "DebSrc""#),
        resource("{name: a, aptRepository: {name: ../a, uris: ['https://x'], suites: [./]}}", "aptRepository.name", matches),
        resource("{name: a, yumRepository: {}}", "yumRepository", "a repository has exactly one of baseurl, mirrorlist and metalink"),
        resource("{name: a, yumRepository: {baseurl: ['https://x'], metalink: 'https://x'}}", "yumRepository", "a repository has exactly one of baseurl, mirrorlist and metalink"),
        // Units and what runs by the clock.
        resource("{name: a, systemdUnit: {name: a.service}}", "systemdUnit", "a unit file has exactly one of content, template and contentFrom"),
        resource("{name: a, systemdUnit: {name: a, content: b}}", "systemdUnit.name", matches),
        resource("{name: a, systemdDropIn: {unit: a.service, content: b, ensure: Absent}}", "systemdDropIn", "a drop-in has exactly one of content, template and contentFrom"),
        resource("{name: a, timer: {onCalendar: daily}}", "timer", "a timer has onCalendar and command"),
        resource("{name: a, timer: {onCalendar: 'daily;', command: [/bin/true]}}", "timer.onCalendar", matches),
        resource("{name: a, cron: {schedule: '@daily'}}", "cron", "a cron job has schedule and command"),
        resource("{name: a, cron: {name: a.b, schedule: '@daily', command: 'true'}}", "cron.name", matches),
        // Accounts.
        resource("{name: a, user: {groupsExclusive: true, home: a, shell: b}}", "user", "groupsExclusive needs groups"),
        resource("{name: a, user: {groupsExclusive: true, home: a, shell: b}}", "user.home", path),
        resource("{name: a, user: {groupsExclusive: true, home: a, shell: b}}", "user.shell", path),
        resource("{name: a, user: {name: A}}", "user.name", matches),
        resource("{name: a, user: {uid: 4294967295}}", "user.uid", "should be less than or equal to 4294967294"),
        resource("{name: a, user: {passwordHash: {}}}", "user.passwordHash.secretKeyRef", "Required value"),
        resource("{name: a, authorizedKey: {user: a, keys: [b], exclusive: true, ensure: Absent, path: c}}", "authorizedKey", "exclusive removes all other keys"),
        resource("{name: a, authorizedKey: {user: a, keys: [b], exclusive: true, ensure: Absent, path: c}}", "authorizedKey.path", path),
        resource("{name: a, authorizedKey: {user: a, keys: []}}", "authorizedKey.keys", "should have at least 1 items"),
        resource("{name: a, sudoers: {}}", "sudoers", "a sudoers file has exactly one of lines, content and template"),
        resource("{name: a, sudoers: {name: a.b, content: c}}", "sudoers.name", matches),
        // The kernel and the system.
        resource("{name: a, kernelModule: {name: a/b}}", "kernelModule.name", matches),
        resource("{name: a, mount: {path: /a, device: b}}", "mount", "a mount has device and fstype"),
        resource("{name: a, mount: {path: a, device: b, fstype: c}}", "mount.path", path),
        resource("{name: a, mount: {path: /a, device: b, fstype: c, ensure: Unmounted}}", "mount.ensure", r#"supported values: "Mounted", "Present", "Absent""#),
        resource("{name: a, swap: {path: a}}", "swap.path", path),
        resource("{name: a, limits: {}}", "limits", "limits have entries"),
        resource("{name: a, limits: {entries: [{domain: a, type: Soft, item: core, value: many}]}}", "limits.entries[].value", matches),
        resource("{name: a, hostname: {name: a_b}}", "hostname.name", matches),
        resource("{name: a, timezone: {zone: ../etc/passwd}}", "timezone.zone", matches),
        resource("{name: a, hostsEntry: {names: [a]}}", "hostsEntry", "an entry has an ip"),
        resource("{name: a, caCertificate: {content: a, ensure: Absent}}", "caCertificate", "a certificate has either content or contentFrom"),
        resource("{name: a, exec: {command: [date], refreshOnly: true, umask: rwx}}", "exec.umask", mode),
        resource("{name: a, exec: {command: [date], refreshOnly: true, exitCodes: [256]}}", "exec.exitCodes[]", "should be less than or equal to 255"),
        resource("{name: a, reboot: {}}", "reboot.reason", "Required value"),
    ]
}

/// Specs at the edge of what is refused.
const ACCEPTED: &[(&str, &str)] = &[
    ("NodeConfig", "{resources: []}"),
    ("NodeConfig", "{resources: [{name: a.b-1, file: {path: /a, content: ''}}]}"),
    ("NodeConfig", "{resources: [{name: a, file: {path: /etc/..a/.b, template: '{{ x }}', mode: '4755'}}]}"),
    ("NodeConfig", "{resources: [{name: a, file: {path: '/srv/with space', ensure: Absent}}]}"),
    (
        "NodeConfig",
        "{resources: [{name: a, exec: {command: [date], unless: ['false']}}], drift: {intervalSeconds: 10}}",
    ),
    ("NodeConfig", "{resources: [{name: a, package: {package: g++, version: '1:2.0~rc1+b1-3'}}]}"),
    ("NodeConfig", r"{resources: [{name: a, service: {unit: 'dev-disk-by\x2did.swap', enabled: false}}]}"),
    (
        "NodeConfig",
        "{resources: [{name: a, sysctl: {key: net/ipv4/conf/eth0.100/forwarding, value: 4096 87380 6291456}}]}",
    ),
    (
        "NodeConfig",
        "{resources: [{name: a, symlink: {path: /a, ensure: Absent}}, {name: b, line: {path: /b, matching: c, ensure: Absent}}]}",
    ),
    (
        "NodeConfig",
        "{resources: [{name: a, user: {name: svc-a$}}, {name: b, timer: {ensure: Absent}}, {name: c, cron: {ensure: Absent}}]}",
    ),
    (
        "NodeConfig",
        "{resources: [{name: a, package: {package: NetworkManager}, before: [b], notifyAtEnd: [b]}, {name: b, swap: {path: /dev/sdb}}]}",
    ),
    // What is a template still can not be told to be wrong.
    (
        "NodeConfig",
        "{resources: [{name: a, hostname: {name: 'web-{{ data.n }}'}}, {name: b, file: {path: '/srv/{{ data.n }}', content: '', mode: '{{ data.m }}'}}]}",
    ),
    ("Rollout", "{nodeConfigRef: {name: base, revision: base-7f9c41d2ab}}"),
    (
        "Rollout",
        "{nodeConfigRef: {name: base}, strategy: {maxParallel: 100000, maxUnavailable: 100%, batches: [{size: 1%}, {size: 1}]}}",
    ),
    ("Rollout", "{nodeConfigRef: {name: base}, disruption: {loadBalancer: {settleSeconds: 0}, drain: {}}}"),
    (
        "Rollout",
        "{nodeConfigRef: {name: base}, disruption: {when: Always, drain: {onTimeout: Hold, podRules: [{behavior: Skip}, {selector: {matchLabels: {a: b}}, namespaces: [a], behavior: WaitCompleted, order: -1}]}, loadBalancer: {steps: [{name: a, haproxy: {address: '[::1]:9999', backend: web, server: '{{ host.name }}'}}, {name: b, http: {leave: {url: 'https://lb/{{ host.name }}', headersFrom: [{name: Authorization, secretKeyRef: {name: a, key: b}}]}, return: {url: 'https://lb', method: DELETE}}}]}}}",
    ),
    (
        "Rollout",
        "{nodeConfigRef: {name: base}, gates: {host: [{nodeReady: {}}, {http: {port: 65535, path: '/?a=%20'}}]}}",
    ),
    (
        "Rollout",
        "{nodeConfigRef: {name: base}, dependsOn: [{name: db}], gates: {preflight: [{job: {templateRef: {name: a}}}], \
         host: [{podsReady: {}}, {nodeConditions: [{type: A, status: 'False'}]}, {tcp: {port: 1}, dryRun: true}], \
         batch: [{prometheus: {url: 'http://x', query: up, max: 0.01}, failureLimit: 0}, {http: {url: 'https://x'}}]}, \
         hooks: {beforeRun: [{name: a, jobTemplateRef: {name: a}, onFailure: Ignore}]}}",
    ),
    ("MasterPool", "{}"),
    ("MasterPool", "{replicas: 100}"),
    (
        "MasterPool",
        "{hostSelector: {matchLabels: {org: bank}}, zones: [{name: EU_1.a, region: eu-1}, {name: b}], \
         certificates: {issuerRef: {name: corp}, overlapSeconds: 60, authorityGeneration: 2}}",
    ),
];

/// What is refused of gates and hooks, at each of their places.
fn refused_gates() -> Vec<Refused> {
    let mut all = vec![rollout(
        "gates: {host: [{http: {port: 80, url: 'http://x'}}]}",
        "gates.host[].http",
        "an http gate has a port of the machine, with path and scheme if need be, or a whole url",
    )];
    for place in ["preflight", "host", "batch"] {
        let mut gate = |gate: &str, field: &str, advice| {
            let field = format!("gates.{place}[].{field}");
            all.push(rollout(&format!("gates: {{{place}: [{gate}]}}"), field.trim_end_matches('.'), advice));
        };
        let url = "write a URL that begins with http:// or https://, without spaces";
        gate("{http: {url: 'ftp://x'}}", "http.url", url);
        gate("{prometheus: {url: x, query: up, max: 1}}", "prometheus.url", url);
        gate("{prometheus: {url: 'http://x', query: up}}", "prometheus", "a prometheus gate has a max or a min");
        let secret = "{object: {apiVersion: v1, kind: Secret, name: a, expression: 'true'}}";
        gate(secret, "object", "a gate reads no Secrets");
        if place != "host" {
            gate("{name: a}", "", "a gate of a run or a batch has exactly one of http, object, prometheus and job");
        }
    }
    for place in ["beforeRun", "beforeBatch", "beforeHost", "afterHost", "afterBatch", "afterRun"] {
        let hook = |name: &str| format!("{{name: {name}, jobTemplateRef: {{name: a}}}}");
        let mut hooks = |hooks: &str, field: &str, advice| {
            all.push(rollout(&format!("hooks: {{{place}: [{hooks}]}}"), &format!("hooks.{place}[]{field}"), advice));
        };
        let name = "write a name of lower case letters, digits and -, with a letter or digit at both ends";
        hooks(&hook("A.b"), ".name", name);
        hooks(&[hook("a"), hook("a")].join(", "), "", "Duplicate value");
    }
    all
}

#[tokio::test]
async fn each_rule_refuses_with_advice_and_no_rule_is_untried() {
    let cluster = Cluster::connect().await;
    let mut tried = BTreeSet::new();
    for (refused, answer) in try_all(
        &cluster,
        refused()
            .into_iter()
            .chain(refused_pools())
            .chain(refused_resources())
            .chain(refused_gates())
            .chain(refused_windows())
            .collect(),
    )
    .await
    {
        let Refused { kind, spec, field, advice } = refused;
        let causes = answer.expect_err(&format!("{kind} {spec} is refused"));
        let names = |(at, message): &(String, String)| *at == field && message.contains(advice);
        assert!(causes.iter().any(names), "{kind} {spec}: wanted {field}: {advice}; got {causes:#?}");
        tried.extend(causes.into_iter().map(|(field, message)| (kind.to_owned(), field, message)));
    }
    let untried: Vec<String> = rules(&cluster)
        .await
        .into_iter()
        .filter(|(kind, field, advice)| {
            let is_tried = tried.iter().any(|(k, f, message)| k == kind && f == field && message.contains(advice));
            // This one needs an object that is there before.
            !is_tried && field != "spec.nodeRef"
        })
        .map(|(kind, field, advice)| format!("{kind} {field}: {advice}"))
        .collect();
    assert_eq!(untried, [""; 0], "no row above makes them say so");
}

#[tokio::test]
async fn what_is_only_just_right_is_accepted() {
    let cluster = Cluster::connect().await;
    for (kind, spec) in ACCEPTED {
        let accepted = create(&cluster, kind, spec).await;
        assert!(accepted.is_ok(), "{kind} {spec}: {accepted:#?}");
    }
}

#[tokio::test]
async fn the_samples_are_accepted() {
    let cluster = Cluster::connect().await;
    for file in ["config/samples/nodeconfig.yaml", "config/samples/baseline.yaml", "config/samples/rollout.yaml"] {
        for sample in objects_of(file) {
            let accepted = create(&cluster, sample["kind"].as_str().unwrap(), &sample["spec"].to_string()).await;
            assert!(accepted.is_ok(), "{file}: {accepted:#?}");
        }
    }
}

#[tokio::test]
async fn a_misspelt_field_is_refused_by_its_name() {
    let cluster = Cluster::connect().await;
    let file = std::env::temp_dir().join(format!("drover-e2e-misspelt-{}.json", std::process::id()));
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Rollout", "metadata": {"name": "misspelt"},
        "spec": {"nodeConfigRef": {"name": "base"}, "startegy": {"maxParallel": 1}},
    });
    std::fs::write(&file, object.to_string()).unwrap();
    let refused = cluster.try_kubectl(&["create", "--dry-run=server", "-f", file.to_str().unwrap()]).await;
    std::fs::remove_file(&file).unwrap();
    let message = refused.expect_err("kubectl refuses it");
    assert!(message.contains(r#"unknown field "spec.startegy""#), "{message}");
}

#[tokio::test]
async fn a_host_can_not_become_another_machine() {
    let cluster = Cluster::connect().await;
    let hosts = api(&cluster, "Host");
    // In a namespace that no operator looks at.
    let host = |uid: &str| {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Host", "metadata": {"name": "e2e-immutable"},
            "spec": {"nodeRef": {"name": "e2e-immutable", "uid": uid}},
        })
    };
    cluster.apply(&hosts, &host("one")).await;
    let changed =
        hosts.patch("e2e-immutable", &PatchParams::apply("drover-e2e").force(), &Patch::Apply(host("two"))).await;
    hosts.delete("e2e-immutable", &DeleteParams::default()).await.unwrap();
    let message = changed.expect_err("another machine is refused").to_string();
    assert!(message.contains("spec.nodeRef can not change: a Host stands for one machine"), "{message}");
}

#[tokio::test]
async fn explain_reads_like_a_manual() {
    let cluster = Cluster::connect().await;
    for (field, sentences) in [
        ("rollout", &["It is a standing policy: each new revision is a new numbered run."][..]),
        (
            "rollout.spec.strategy",
            &[
                "How many machines change at once, in which portions, and how many may be out of service meanwhile.",
                "Two limits hold at every moment: `maxParallel` for the machines that this Rollout changes",
                "{maxParallel: 10, maxUnavailable: \"10%\", batches: [{name: canary, size: 1}, {name: rest, size: \"10%\"}]}",
                "No further machine is begun when that would exceed it.",
                "one repeats until all machines are done",
            ],
        ),
        ("rollout.spec.disruption", &["Cordon the node and evict its pods, as `kubectl drain` does."]),
        ("nodeconfig", &["No machine changes by that alone: a Rollout moves the revision over them."]),
        ("nodeconfig.spec.resources.file", &["owner and mode are right before it appears.", "\"0644\"", "-required-"]),
        (
            "masterpool.spec",
            &[
                "How many masters run, always. Two survive the loss of one. Left out: 2, where there is no `autoscaling` either.",
            ],
        ),
        ("host.status", &["The Rollout that holds this machine now."]),
    ] {
        let page = cluster.kubectl(&["explain", field]).await;
        let text = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in sentences {
            assert!(text.contains(sentence), "kubectl explain {field} does not say {sentence:?}:\n{page}");
        }
    }
}

#[tokio::test]
async fn every_field_is_documented() {
    let cluster = Cluster::connect().await;
    for (kind, schema) in schemas(&cluster).await {
        walk(&schema, "", &mut |field, schema| {
            // What Kubernetes' own types say of themselves is not ours.
            let foreign = ["metadata", "apiVersion", "kind"].contains(&field) || field.contains("Selector.");
            let documented = schema["description"].as_str().is_some_and(|text| text.ends_with(['.', '`', '…']));
            assert!(
                foreign || field.ends_with("[]") || field.ends_with("{}") || documented,
                "{kind}: {field} has no description"
            );
        });
    }
}

/// The answers of the API server: nothing, or what it names as causes, as fields and messages.
type Answer = Result<(), Vec<(String, String)>>;

async fn try_all(cluster: &Cluster, refused: Vec<Refused>) -> Vec<(Refused, Answer)> {
    let ask = async |refused: Refused| {
        let answer = create(cluster, refused.kind, &refused.spec).await;
        (refused, answer)
    };
    stream::iter(refused).map(ask).buffered(8).collect().await
}

/// Asks the API server whether it would take an object of this kind with this spec in YAML.
async fn create(cluster: &Cluster, kind: &str, spec: &str) -> Answer {
    let spec: Value = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    let object = DynamicObject { data: json!({"spec": spec}), ..DynamicObject::new("e2e-dry-run", &resource_of(kind)) };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match api(cluster, kind).create(&params, &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            Err(causes.into_iter().map(|cause| (without_indices(&cause.field), cause.message)).collect())
        }
        Err(error) => panic!("{kind} {spec}: {error}"),
    }
}

/// `spec.resources[3].file` as `spec.resources[].file`.
fn without_indices(field: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = *c == '[' || (inside && *c != ']');
        !inside || *c == '['
    };
    field.chars().filter(keep).collect()
}

/// The rules that Drover's kinds have beside the schema's own, as kind, field and message.
async fn rules(cluster: &Cluster) -> Vec<(String, String, String)> {
    let mut rules = vec![];
    for (kind, schema) in schemas(cluster).await {
        walk(&schema, "", &mut |field, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let advice =
                    rule["message"].as_str().unwrap_or_else(|| panic!("{kind}: a rule of {field} gives no advice"));
                rules.push((kind.clone(), field.to_owned(), advice.to_owned()));
            }
        });
    }
    assert!(rules.len() > 20, "the rules were found: {rules:?}");
    rules
}

/// The schemas of Drover's kinds, as the API server has them.
async fn schemas(cluster: &Cluster) -> Vec<(String, Value)> {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let definitions = definitions.list(&ListParams::default()).await.unwrap();
    let ours = definitions.into_iter().filter(|definition| definition.spec.group == GROUP);
    let schema = |definition: CustomResourceDefinition| {
        let definition = serde_json::to_value(definition.spec).unwrap();
        let kind = definition["names"]["kind"].as_str().unwrap().to_owned();
        (kind, definition["versions"][0]["schema"]["openAPIV3Schema"].clone())
    };
    let schemas: Vec<_> = ours.map(schema).collect();
    assert!(schemas.len() >= 4, "Drover's CRDs are not installed; run `make test`");
    schemas
}

/// Visits each field of a schema.
fn walk(schema: &Value, field: &str, visit: &mut dyn FnMut(&str, &Value)) {
    if !field.is_empty() {
        visit(field, schema);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
        walk(property, &below, visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{field}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{field}{{}}"), visit);
    }
}

fn api(cluster: &Cluster, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client.clone(), "default", &resource_of(kind))
}

fn resource_of(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind))
}
