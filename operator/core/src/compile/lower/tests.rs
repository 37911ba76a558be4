use std::collections::BTreeMap;

use drover_catalog::{Facts, Sensitive, SensitiveBytes};
use drover_crds::ContentSource;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::compile::TemplateError;

const KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTjIzYCKyAgVjrNfWAD0aB0v0y2yXk1J6XqXo8nTQ3x ann@laptop";
const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// What a machine of some family gives, with a few ConfigMaps and Secrets; or no machine at all.
struct Given {
    facts: Option<Facts>,
    sensitive: bool,
}

impl Given {
    fn family(family: &str) -> Self {
        let mut facts = Facts::default();
        facts.os.family = family.into();
        Self { facts: Some(facts), sensitive: false }
    }
}

impl Inputs for Given {
    fn render(&mut self, template: &str) -> Result<String, TemplateError> {
        Ok(format!("rendered {template}"))
    }

    fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        if self.facts.is_none() {
            return Ok(SensitiveBytes::default());
        }
        let key = source.config_map_key_ref.as_ref().or(source.secret_key_ref.as_ref()).unwrap();
        Ok(SensitiveBytes::new(match key.key.as_str() {
            "hash" => b"$6$salt$hash\n".to_vec(),
            "password" => b"hunter2".to_vec(),
            "key" => KEY.into(),
            "certificate" => CERTIFICATE.into(),
            "binary" => vec![0xff, 0],
            other => other.into(),
        }))
    }

    fn mark_sensitive(&mut self) {
        self.sensitive = true;
    }

    fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }
}

/// A part on a line of its own, with its file's text below; what it ends with; the error.
fn shown(given: &mut Given, kind: &str, spec: &Value) -> String {
    let resource: NodeConfigResource = serde_json::from_value(json!({"name": "it", kind: spec})).unwrap();
    let lowered = match lower(&resource, "base/it", given) {
        Ok(lowered) => lowered,
        Err(error) => return error.to_string(),
    };
    assert_eq!(lowered.type_name, kind);
    let mut lines = Vec::new();
    for part in lowered.parts {
        let mut part = serde_json::to_value(part).unwrap();
        let text = part["spec"]["content"].as_str().map(str::to_owned);
        if text.is_some() {
            part["spec"]["content"] = json!("below");
        }
        lines.push(format!("{} {}", part["part"].as_str().unwrap(), without_nulls(&part["spec"])));
        lines.extend(text.iter().flat_map(|text| text.lines()).map(|line| format!("  | {line}").trim_end().to_owned()));
    }
    lines.extend(lowered.finish.iter().map(|finish| format!("then {}", serde_json::to_string(finish).unwrap())));
    lines.join("\n")
}

fn without_nulls(spec: &Value) -> String {
    let fields = spec.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    serde_json::to_string(&fields.collect::<BTreeMap<_, _>>()).unwrap()
}

fn check(kind: &str, spec: &Value, expected: &Expect) {
    check_all(kind, std::slice::from_ref(spec), expected);
}

/// Several at once: what each is, or why not.
fn check_all(kind: &str, specs: &[Value], expected: &Expect) {
    let all: Vec<String> = specs.iter().map(|spec| shown(&mut Given::family("Debian"), kind, spec)).collect();
    expected.assert_eq(&all.join("\n"));
}

#[test]
fn files_and_directories() {
    check_all(
        "file",
        &[
            json!({"path": "/etc/motd", "content": "moo"}),
            json!({"path": "/etc/motd", "template": "t", "mode": "4711", "owner": "a", "group": "7", "validate": ["check", "%"]}),
            json!({"path": "/etc/motd", "contentFrom": {"configMapKeyRef": {"name": "n", "key": "moo"}}}),
            json!({"path": "/etc/motd", "contentFrom": {"secretKeyRef": {"name": "n", "key": "binary"}}}),
            json!({"path": "/etc/motd", "ensure": "Absent"}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/motd"}
              | moo
            file {"content":"below","group":"7","mode":2505,"owner":"a","path":"/etc/motd","validate":["check","%"]}
              | rendered t
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/motd"}
              | moo
            file {"content":{"base64":"/wA="},"group":"root","mode":420,"owner":"root","path":"/etc/motd"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/motd"}"#]],
    );
    check_all(
        "directory",
        &[
            json!({"path": "/srv"}),
            json!({"path": "/srv", "mode": "0700", "owner": "a", "group": "b", "purge": true, "keep": ["x*"]}),
            json!({"path": "/srv", "ensure": "Absent", "purge": true}),
        ],
        &expect![[r#"
            directory {"group":"root","mode":493,"owner":"root","path":"/srv","purge":false,"state":"Present"}
            directory {"group":"b","keep":["x*"],"mode":448,"owner":"a","path":"/srv","purge":true,"state":"Present"}
            directory {"group":"root","mode":493,"owner":"root","path":"/srv","purge":true,"state":"Absent"}"#]],
    );
    check_all(
        "symlink",
        &[json!({"path": "/a", "target": "../b", "force": true}), json!({"path": "/a", "ensure": "Absent"})],
        &expect![[r#"
            symlink {"force":true,"path":"/a","target":"../b"}
            symlink {"force":false,"path":"/a"}"#]],
    );
    check(
        "download",
        &json!({"url": "https://x/y", "sha256": SHA, "path": "/opt/y", "mode": "0755"}),
        &expect![[
            r#"download {"group":"root","mode":493,"owner":"root","path":"/opt/y","sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","timeout_seconds":300,"url":"https://x/y"}"#
        ]],
    );
    check(
        "archive",
        &json!({"url": "file:///x", "sha256": SHA, "into": "/opt", "stripComponents": 1, "timeoutSeconds": 9}),
        &expect![[
            r#"archive {"group":"root","into":"/opt","name":"base/it","owner":"root","sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","strip_components":1,"timeout_seconds":9,"url":"file:///x"}"#
        ]],
    );
}

#[test]
fn files_and_directories_are_refused() {
    for path in ["etc/motd", "/", "/etc/", "/etc//motd", "/etc/../motd", "/etc/.", "", "/a\nb"] {
        assert!(!scope::is_absolute(path), "{path}");
    }
    for mode in ["0999", "77", "+644", "00644", "0o644"] {
        assert_eq!(scope::octal(mode), None, "{mode}");
    }
    check_all(
        "file",
        &[
            json!({"path": "/etc/motd"}),
            json!({"path": "/etc/motd", "content": "", "template": ""}),
            json!({"path": "/etc/motd", "content": "", "ensure": "Absent"}),
            json!({"path": "/etc/..", "content": ""}),
            json!({"path": "/etc/motd", "content": "", "mode": "rw"}),
            json!({"path": "/etc/motd", "content": "", "owner": "a b"}),
            json!({"path": "/etc/motd", "content": "", "group": "-r"}),
            json!({"path": "/etc/motd", "content": "", "validate": ["true"]}),
            json!({"path": "/etc/motd", "content": "", "validate": []}),
            json!({"path": "/etc/motd", "contentFrom": {}}),
        ],
        &expect![[r#"
            base/it: file must have exactly one of content, template and contentFrom, or ensure: Absent and none of them
            base/it: file must have exactly one of content, template and contentFrom, or ensure: Absent and none of them
            base/it: file must have exactly one of content, template and contentFrom, or ensure: Absent and none of them
            base/it: file.path must be absolute, without empty, `.` and `..` parts, and not end with a slash
            base/it: file.mode must be three or four octal digits as a string, such as "0644"
            base/it: file.owner must be the name or number of a user or group: letters, digits and _ . -, with a letter, digit or _ first
            base/it: file.group must be the name or number of a user or group: letters, digits and _ . -, with a letter, digit or _ first
            base/it: file.validate must have % in it, which stands for the path of the new content
            base/it: file.validate must name a program; write ["program", "argument"]
            base/it: a reference must be exactly one of configMapKeyRef and secretKeyRef"#]],
    );
    check(
        "directory",
        &json!({"path": "/srv", "keep": ["a/b"]}),
        &expect![
            "base/it: directory.keep must be names in the directory, without slashes; * stands for any characters"
        ],
    );
    check_all(
        "symlink",
        &[
            json!({"path": "/a"}),
            json!({"path": "/a", "target": "b", "ensure": "Absent"}),
            json!({"path": "/a", "target": ""}),
        ],
        &expect![[r"
            base/it: symlink.target must be given, and left out with ensure: Absent
            base/it: symlink.target must be given, and left out with ensure: Absent
            base/it: symlink.target must not be empty"]],
    );
    check_all(
        "download",
        &[
            json!({"url": "ftp://x/y", "sha256": SHA, "path": "/y"}),
            json!({"url": "https://x/y z", "sha256": SHA, "path": "/y"}),
            json!({"url": "https://x/y", "sha256": "ba78", "path": "/y"}),
        ],
        &expect![[r"
            base/it: download.url must be a URL that begins with https://, http:// or file:// and has no white space
            base/it: download.url must be a URL that begins with https://, http:// or file:// and has no white space
            base/it: download.sha256 must be the 64 lower-case hexadecimal digits that sha256sum prints"]],
    );
}

#[test]
fn edits() {
    check_all(
        "line",
        &[
            json!({"path": "/etc/x", "line": "a"}),
            json!({"path": "/etc/x", "line": "a=1", "matching": "^a=", "insertAfter": "^#", "create": true, "mode": "0600", "validate": ["v", "%"]}),
            json!({"path": "/etc/x", "line": "a", "insertBefore": "b"}),
            json!({"path": "/etc/x", "line": "a", "atBeginning": true}),
            json!({"path": "/etc/x", "matching": "^a=", "ensure": "Absent"}),
        ],
        &expect![[r#"
            edit {"edit":{"edit":"line","line":"a","matching":null,"place":"end","state":"Present"},"path":"/etc/x"}
            edit {"create":{"group":"root","mode":384,"owner":"root"},"edit":{"edit":"line","line":"a=1","matching":"^a=","place":{"after":"^#"},"state":"Present"},"path":"/etc/x","validate":["v","%"]}
            edit {"edit":{"edit":"line","line":"a","matching":null,"place":{"before":"b"},"state":"Present"},"path":"/etc/x"}
            edit {"edit":{"edit":"line","line":"a","matching":null,"place":"beginning","state":"Present"},"path":"/etc/x"}
            edit {"edit":{"edit":"line","line":"","matching":"^a=","place":"end","state":"Absent"},"path":"/etc/x"}"#]],
    );
    check_all(
        "block",
        &[
            json!({"path": "/etc/x", "content": "a\nb\n"}),
            json!({"path": "/etc/x", "template": "t", "comment": "//", "insertAfter": "x", "create": true}),
            json!({"path": "/etc/x", "ensure": "Absent"}),
        ],
        &expect![[r##"
            edit {"edit":{"begin":"# BEGIN Drover base/it","content":"a\nb\n","edit":"block","end":"# END Drover base/it","place":"end","state":"Present"},"path":"/etc/x"}
            edit {"create":{"group":"root","mode":420,"owner":"root"},"edit":{"begin":"// BEGIN Drover base/it","content":"rendered t","edit":"block","end":"// END Drover base/it","place":{"after":"x"},"state":"Present"},"path":"/etc/x"}
            edit {"edit":{"begin":"# BEGIN Drover base/it","content":"","edit":"block","end":"# END Drover base/it","place":"end","state":"Absent"},"path":"/etc/x"}"##]],
    );
    check_all(
        "ini",
        &[
            json!({"path": "/etc/x", "section": "s", "key": "k", "value": "v"}),
            json!({"path": "/etc/x", "key": "k", "value": "", "separator": "="}),
            json!({"path": "/etc/x", "key": "k", "ensure": "Absent"}),
        ],
        &expect![[r#"
            edit {"edit":{"edit":"ini","key":"k","section":"s","separator":" = ","state":"Present","value":"v"},"path":"/etc/x"}
            edit {"edit":{"edit":"ini","key":"k","section":"","separator":"=","state":"Present","value":""},"path":"/etc/x"}
            edit {"edit":{"edit":"ini","key":"k","section":"","separator":" = ","state":"Absent","value":""},"path":"/etc/x"}"#]],
    );
}

#[test]
fn edits_are_refused() {
    check_all(
        "line",
        &[
            json!({"path": "/etc/x"}),
            json!({"path": "/etc/x", "line": "a\nb"}),
            json!({"path": "/etc/x", "matching": "a"}),
            json!({"path": "/etc/x", "line": "a", "matching": "("}),
            json!({"path": "/etc/x", "line": "a", "matching": "^#a"}),
            json!({"path": "/etc/x", "line": "a", "insertAfter": "x", "atBeginning": true}),
        ],
        &expect![[r"
            base/it: line.line must be given; only with ensure: Absent may matching be alone
            base/it: line.line must be one line, without its end
            base/it: line.line must be given; only with ensure: Absent may matching be alone
            base/it: line.matching must be a regular expression of Rust's regex, see https://docs.rs/regex/latest/regex/#syntax
            base/it: line.matching must match line too, or the next run would add it once more
            base/it: line must have at most one of insertAfter, insertBefore and atBeginning"]],
    );
    check_all(
        "block",
        &[
            json!({"path": "/etc/x"}),
            json!({"path": "/etc/x", "content": "a", "comment": ""}),
            json!({"path": "/etc/x", "content": "# END Drover base/it\n"}),
        ],
        &expect![[r"
            base/it: block must have either content or template, or ensure: Absent and neither of them
            base/it: block.comment must be what begins a comment, such as #
            base/it: block must not have its own marker lines in it; leave them out, they are added"]],
    );
    check_all(
        "ini",
        &[
            json!({"path": "/etc/x", "key": "k"}),
            json!({"path": "/etc/x", "key": "a=b", "value": "v"}),
            json!({"path": "/etc/x", "key": "[a", "value": "v"}),
            json!({"path": "/etc/x", "key": "k", "value": "a\nb"}),
            json!({"path": "/etc/x", "section": "a]\n[b", "key": "k", "value": "v"}),
            json!({"path": "/etc/x", "key": "k", "value": "v", "separator": "x"}),
        ],
        &expect![[r"
            base/it: ini.value must be given, and left out with ensure: Absent
            base/it: ini.key must be one line without =, which begins with neither [, # nor ;
            base/it: ini.key must be one line without =, which begins with neither [, # nor ;
            base/it: ini.value must be one line
            base/it: ini.section must be one line, without brackets
            base/it: ini.separator must be = or :, with or without spaces around, or a space"]],
    );
}

#[test]
fn packages() {
    check_all(
        "package",
        &[
            json!({}),
            json!({"package": "vim", "ensure": "Absent"}),
            json!({"ensure": "Latest"}),
            json!({"package": "NetworkManager", "version": "1:1.2~3^4-5_6", "held": true, "allowDowngrade": true}),
            json!({"package": "--reinstall"}),
            json!({"version": "1.*"}),
            json!({"version": "1", "ensure": "Latest"}),
        ],
        &expect![[r#"
            package {"allow_downgrade":false,"package":"it","state":"Present"}
            package {"allow_downgrade":false,"package":"vim","state":"Absent"}
            package {"allow_downgrade":false,"package":"it","state":"Latest"}
            package {"allow_downgrade":true,"held":true,"package":"NetworkManager","state":"Present","version":"1:1.2~3^4-5_6"}
            base/it: package.package must be a package's name: letters, digits and + . _ -, with a letter or digit first
            base/it: package.version must be a whole version as the package manager prints it, such as "1:2.4.57-2"
            base/it: package.version must be left out, or ensure be Present"#]],
    );
}

#[test]
fn repositories() {
    check(
        "aptRepository",
        &json!({"uris": ["https://x/debian"], "suites": ["a", "b"], "components": ["main"], "types": ["Deb", "DebSrc"],
            "architectures": ["amd64"], "signedBy": {"key": KEY}, "enabled": false}),
        &expect![[r#"
            directory {"group":"root","mode":493,"owner":"root","path":"/etc/apt/keyrings","purge":false,"state":"Present"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/apt/keyrings/it.asc"}
              | -----BEGIN PGP PUBLIC KEY BLOCK-----
              | mQ==
              | -----END PGP PUBLIC KEY BLOCK-----
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/apt/sources.list.d/it.sources"}
              | # Written by Drover for base/it; changes here are undone.
              | Types: deb deb-src
              | URIs: https://x/debian
              | Suites: a b
              | Components: main
              | Architectures: amd64
              | Signed-By: /etc/apt/keyrings/it.asc
              | Enabled: no
            then {"finish":"command","argv":["apt-get","update","-q","-o","APT::Update::Error-Mode=any","-o","APT::Get::List-Cleanup=0","-o","Dir::Etc::SourceList=sources.list.d/it.sources","-o","Dir::Etc::SourceParts=-"],"timeout_seconds":300}"#]],
    );
    check_all(
        "aptRepository",
        &[
            json!({"name": "x.y", "uris": ["https://x"], "suites": ["./"], "signedBy": {"path": "/usr/share/keyrings/x.gpg"}}),
            json!({"ensure": "Absent"}),
            json!({"uris": ["https://x"]}),
            json!({"uris": ["https://x"], "suites": ["a"]}),
            json!({"uris": ["https://x"], "suites": ["a", "./"], "components": ["main"]}),
            json!({"uris": ["https://x\nTrusted: yes"], "suites": ["./"]}),
            json!({"name": "../x", "uris": ["https://x"], "suites": ["./"]}),
            json!({"uris": ["https://x"], "suites": ["./"], "signedBy": {}}),
            json!({"uris": ["https://x"], "suites": ["./"], "signedBy": {"key": "x"}}),
            json!({"uris": ["https://x"], "suites": ["./"], "signedBy": {"keyFrom": {"secretKeyRef": {"name": "n", "key": "password"}}}}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/apt/sources.list.d/x.y.sources"}
              | # Written by Drover for base/it; changes here are undone.
              | Types: deb
              | URIs: https://x
              | Suites: ./
              | Signed-By: /usr/share/keyrings/x.gpg
            then {"finish":"command","argv":["apt-get","update","-q","-o","APT::Update::Error-Mode=any","-o","APT::Get::List-Cleanup=0","-o","Dir::Etc::SourceList=sources.list.d/x.y.sources","-o","Dir::Etc::SourceParts=-"],"timeout_seconds":300}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/apt/sources.list.d/it.sources"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/apt/keyrings/it.asc"}
            then {"finish":"command","argv":["apt-get","update","-q","-o","APT::Update::Error-Mode=any"],"timeout_seconds":300}
            base/it: aptRepository.suites must be given, or ensure be Absent
            base/it: aptRepository.components must be given, such as [main]; only suites that all end with a slash have none
            base/it: aptRepository.components must be given, such as [main]; only suites that all end with a slash have none
            base/it: aptRepository.uris must be words without white space
            base/it: aptRepository.name must be a name of letters, digits and _ . -, with a letter, digit or _ first
            base/it: aptRepository.signedBy must have exactly one of key, keyFrom and path
            base/it: aptRepository.signedBy must be an armored public key, -----BEGIN PGP PUBLIC KEY BLOCK-----; gpg --armor --export makes one
            base/it: aptRepository.signedBy must be an armored public key, -----BEGIN PGP PUBLIC KEY BLOCK-----; gpg --armor --export makes one"#]],
    );
    check_all(
        "yumRepository",
        &[
            json!({"description": "X", "baseurl": ["https://x/$releasever", "https://y"], "gpgkey": ["https://x/key"]}),
            json!({"metalink": "https://x", "gpgcheck": false, "enabled": false}),
            json!({"mirrorlist": "https://x"}),
            json!({"ensure": "Absent"}),
            json!({}),
            json!({"metalink": "https://x", "mirrorlist": "https://x"}),
            json!({"metalink": "https://x\ngpgcheck=0"}),
            json!({"baseurl": ["https://x\ngpgcheck=0"]}),
            json!({"metalink": "https://x", "description": "a\nb"}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/yum.repos.d/it.repo"}
              | # Written by Drover for base/it; changes here are undone.
              | [it]
              | name=X
              | baseurl=https://x/$releasever https://y
              | enabled=1
              | gpgcheck=1
              | gpgkey=https://x/key
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/yum.repos.d/it.repo"}
              | # Written by Drover for base/it; changes here are undone.
              | [it]
              | name=it
              | metalink=https://x
              | enabled=0
              | gpgcheck=0
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/yum.repos.d/it.repo"}
              | # Written by Drover for base/it; changes here are undone.
              | [it]
              | name=it
              | mirrorlist=https://x
              | enabled=1
              | gpgcheck=1
            file {"group":"root","mode":420,"owner":"root","path":"/etc/yum.repos.d/it.repo"}
            base/it: yumRepository must have exactly one of baseurl, mirrorlist and metalink, or ensure: Absent and none of them
            base/it: yumRepository must have exactly one of baseurl, mirrorlist and metalink, or ensure: Absent and none of them
            base/it: yumRepository.metalink must be a URL without white space
            base/it: yumRepository.baseurl must be words without white space
            base/it: yumRepository.description must be one line of text that is not empty"#]],
    );
}

#[test]
fn services_and_units() {
    check_all(
        "service",
        &[
            json!({"unit": "nginx", "state": "Running"}),
            json!({"unit": "backup.timer", "enabled": true, "onNotify": "Reload"}),
            json!({"unit": "dbus-org.freedesktop.hostname1", "enabled": true}),
            json!({"unit": "nginx", "masked": true, "state": "Stopped"}),
            json!({"unit": "nginx"}),
            json!({"unit": "nginx", "masked": true, "enabled": true}),
            json!({"unit": "nginx; reboot", "enabled": true}),
        ],
        &expect![[r#"
            service {"reload_on_notify":false,"state":"Running","unit":"nginx.service"}
            service {"enabled":true,"reload_on_notify":true,"unit":"backup.timer"}
            service {"enabled":true,"reload_on_notify":false,"unit":"dbus-org.freedesktop.hostname1.service"}
            service {"masked":true,"reload_on_notify":false,"state":"Stopped","unit":"nginx.service"}
            base/it: service must say something of its unit: add state, enabled or masked
            base/it: service.masked must not be true for a unit that runs or is enabled
            base/it: service.unit must be the name of a unit: letters, digits and : _ . \ @ -"#]],
    );
    check_all(
        "systemdUnit",
        &[
            json!({"name": "x@.service", "content": "[Service]\n"}),
            json!({"name": "x.service", "ensure": "Absent"}),
            json!({"content": ""}),
            json!({"name": "../x.service", "content": ""}),
            json!({"name": ".service", "content": ""}),
            json!({"name": "x.service"}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/x@.service"}
              | [Service]
            then {"finish":"readUnitFiles"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/x.service"}
            then {"finish":"readUnitFiles"}
            base/it: systemdUnit.name must be a unit with its suffix, such as backup.service: letters, digits and : _ . \ @ -
            base/it: systemdUnit.name must be a unit with its suffix, such as backup.service: letters, digits and : _ . \ @ -
            base/it: systemdUnit.name must be a unit with its suffix, such as backup.service: letters, digits and : _ . \ @ -
            base/it: systemdUnit must have exactly one of content, template and contentFrom, or ensure: Absent and none of them"#]],
    );
    check_all(
        "systemdDropIn",
        &[
            json!({"unit": "x.service", "content": "[Service]\n"}),
            json!({"unit": "x.service", "name": "10-y", "ensure": "Absent"}),
            json!({"unit": "x", "content": ""}),
            json!({"unit": "x.service", "name": "a/b", "content": ""}),
        ],
        &expect![[r#"
            directory {"group":"root","mode":493,"owner":"root","path":"/etc/systemd/system/x.service.d","purge":false,"state":"Present"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/x.service.d/it.conf"}
              | [Service]
            then {"finish":"readUnitFiles"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/x.service.d/10-y.conf"}
            then {"finish":"readUnitFiles"}
            base/it: systemdDropIn.unit must be a unit with its suffix, such as backup.service: letters, digits and : _ . \ @ -
            base/it: systemdDropIn.name must be a name of letters, digits and _ . -, with a letter, digit or _ first"#]],
    );
}

#[test]
fn timers() {
    check(
        "timer",
        &json!({"onCalendar": "Mon..Fri 04:00", "command": ["/bin/sh", "-c", "echo \"$HOME\" 100%"], "user": "ann",
            "environment": {"A": "1 %"}, "persistent": true, "randomizedDelaySeconds": 60, "timeoutSeconds": 5, "description": "Up 5%"}),
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.service"}
              | # Written by Drover for base/it; changes here are undone.
              | [Unit]
              | Description=Up 5%%
              |
              | [Service]
              | Type=oneshot
              | User=ann
              | Environment="A=1 %%"
              | TimeoutStartSec=5
              | ExecStart="/bin/sh" "-c" "echo \"$$HOME\" 100%%"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.timer"}
              | # Written by Drover for base/it; changes here are undone.
              | [Unit]
              | Description=Up 5%%
              |
              | [Timer]
              | OnCalendar=Mon..Fri 04:00
              | Persistent=true
              | RandomizedDelaySec=60
              |
              | [Install]
              | WantedBy=timers.target
            service {"enabled":true,"reload_on_notify":false,"state":"Running","unit":"it.timer"}
            then {"finish":"readUnitFiles"}"#]],
    );
    check_all(
        "timer",
        &[
            json!({"onCalendar": "daily", "command": ["/bin/true"]}),
            json!({"ensure": "Absent"}),
            json!({"command": ["/bin/true"]}),
            json!({"onCalendar": "daily"}),
            json!({"onCalendar": "daily\nPersistent=true", "command": ["/bin/true"]}),
            json!({"onCalendar": "daily", "command": ["true"]}),
            json!({"onCalendar": "daily", "command": ["-/bin/true"]}),
            json!({"onCalendar": "daily", "command": ["/bin/true"], "description": "a\nb"}),
            json!({"onCalendar": "daily", "command": ["/bin/true"], "description": "a\\"}),
            json!({"onCalendar": "daily", "command": ["/bin/true"], "user": "root\nX=1"}),
            json!({"onCalendar": "daily", "command": ["/bin/true"], "environment": {"A B": ""}}),
            json!({"name": "x.timer", "onCalendar": "daily", "command": ["/bin/true"]}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.service"}
              | # Written by Drover for base/it; changes here are undone.
              | [Unit]
              | Description=it, made by Drover
              |
              | [Service]
              | Type=oneshot
              | User=root
              | ExecStart="/bin/true"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.timer"}
              | # Written by Drover for base/it; changes here are undone.
              | [Unit]
              | Description=it, made by Drover
              |
              | [Timer]
              | OnCalendar=daily
              |
              | [Install]
              | WantedBy=timers.target
            service {"enabled":true,"reload_on_notify":false,"state":"Running","unit":"it.timer"}
            then {"finish":"readUnitFiles"}
            service {"enabled":false,"reload_on_notify":false,"state":"Stopped","unit":"it.timer"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.timer"}
            file {"group":"root","mode":420,"owner":"root","path":"/etc/systemd/system/it.service"}
            then {"finish":"readUnitFiles"}
            base/it: timer.onCalendar must be given, or ensure be Absent
            base/it: timer.command must be given, or ensure be Absent
            base/it: timer.onCalendar must be a time of systemd.time(7), such as `daily` or `Mon..Fri 04:00`
            base/it: timer.command must begin with the absolute path of a program, such as /bin/sh
            base/it: timer.command must begin with the absolute path of a program, such as /bin/sh
            base/it: timer.description must be one line of text that is not empty
            base/it: timer.description must not end with a backslash
            base/it: timer.user must be the name or number of a user or group: letters, digits and _ . -, with a letter, digit or _ first
            base/it: timer.environment must have names of letters, digits and _ that begin with no digit, and values without null characters
            base/it: timer.name must be a name without a suffix; .service and .timer are added"#]],
    );
}

#[test]
fn cron_jobs() {
    check_all(
        "cron",
        &[
            json!({"schedule": " 30  4 * * 1-5", "command": "date +%F >> /var/log/x", "user": "ann", "environment": {"MAILTO": "", "P": "a b"}}),
            json!({"schedule": "@daily", "command": "true"}),
            json!({"ensure": "Absent"}),
            json!({"command": "true"}),
            json!({"schedule": "@daily"}),
            json!({"schedule": "60 * * * *", "command": "true"}),
            json!({"schedule": "@daily", "command": "date +\\%F"}),
            json!({"schedule": "@daily", "command": "true\n* * * * * root x"}),
            json!({"schedule": "@daily", "command": "true", "environment": {"A": "\""}}),
            json!({"schedule": "@daily", "command": "true", "user": "a b"}),
            json!({"name": "a.b", "schedule": "@daily", "command": "true"}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/cron.d/it"}
              | # Written by Drover for base/it; changes here are undone.
              | MAILTO=""
              | P="a b"
              | 30 4 * * 1-5 ann date +\%F >> /var/log/x
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/cron.d/it"}
              | # Written by Drover for base/it; changes here are undone.
              | @daily root true
            file {"group":"root","mode":420,"owner":"root","path":"/etc/cron.d/it"}
            base/it: cron.schedule must be given, or ensure be Absent
            base/it: cron.command must be given, or ensure be Absent
            base/it: cron.schedule must begin with minutes from 0 to 59: *, a number, a range such as 1-5, a step such as */5, or a list of these
            base/it: cron.command must have its % without a backslash; they are escaped for cron
            base/it: cron.command must be one line of text that is not empty
            base/it: cron.environment must have values on one line, without double quotes: cron can not escape
            base/it: cron.user must be the name or number of a user or group: letters, digits and _ . -, with a letter, digit or _ first
            base/it: cron.name must be a name of letters, digits, - and _; cron ignores files with other names"#]],
    );
}

#[test]
fn accounts() {
    check_all(
        "user",
        &[
            json!({}),
            json!({"name": "ann", "uid": 4_294_967_294_i64, "group": "staff", "groups": ["a", "b"], "groupsExclusive": true, "home": "/home/ann",
                "manageHome": true, "shell": "/bin/bash", "comment": "Ann", "system": true, "locked": false}),
            json!({"ensure": "Absent", "groups": []}),
            json!({"name": "Ann"}),
            json!({"name": "-r"}),
            json!({"uid": 4_294_967_295_i64}),
            json!({"groupsExclusive": true}),
            json!({"groups": ["a,b"]}),
            json!({"comment": "a:b"}),
            json!({"home": "home"}),
            json!({"shell": "bash"}),
        ],
        &expect![[r#"
            user {"groups_exclusive":false,"manage_home":false,"name":"it","state":"Present","system":false}
            user {"comment":"Ann","group":"staff","groups":["a","b"],"groups_exclusive":true,"home":"/home/ann","locked":false,"manage_home":true,"name":"ann","shell":"/bin/bash","state":"Present","system":true,"uid":4294967294}
            user {"groups":[],"groups_exclusive":false,"manage_home":false,"name":"it","state":"Absent","system":false}
            base/it: user.name must be at most 32 lower-case letters, digits and _ . -, with a letter or _ first
            base/it: user.name must be at most 32 lower-case letters, digits and _ . -, with a letter or _ first
            base/it: user.uid must be a number from 0 to 4294967294
            base/it: user.groups must be given where groupsExclusive is
            base/it: user.groups must be names of groups: letters, digits and _ . -
            base/it: user.comment must be one line without a colon, see passwd(5)
            base/it: user.home must be absolute, without empty, `.` and `..` parts, and not end with a slash
            base/it: user.shell must be absolute, without empty, `.` and `..` parts, and not end with a slash"#]],
    );
    check_all(
        "group",
        &[json!({"name": "docker", "gid": 5}), json!({"ensure": "Absent"}), json!({"gid": -1})],
        &expect![[r#"
            group {"gid":5,"name":"docker","state":"Present","system":false}
            group {"name":"it","state":"Absent","system":false}
            base/it: group.gid must be a number from 0 to 4294967294"#]],
    );
    check_all(
        "authorizedKey",
        &[
            json!({"user": "ann", "keys": [SSH, format!("command=\"x y\",no-pty {SSH}")], "exclusive": true}),
            json!({"user": "ann", "keys": [SSH], "ensure": "Absent", "path": "/etc/keys/ann"}),
            json!({"user": "ann", "keys": []}),
            json!({"user": "ann", "keys": ["AAAAC3NzaC1lZDI1NTE5"]}),
            json!({"user": "ann", "keys": [format!("{SSH}\n{SSH}")]}),
            json!({"user": "ann", "keys": [SSH], "ensure": "Absent", "exclusive": true}),
        ],
        &expect![[r#"
            authorizedKeys {"exclusive":true,"keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTjIzYCKyAgVjrNfWAD0aB0v0y2yXk1J6XqXo8nTQ3x ann@laptop","command=\"x y\",no-pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTjIzYCKyAgVjrNfWAD0aB0v0y2yXk1J6XqXo8nTQ3x ann@laptop"],"state":"Present","user":"ann"}
            authorizedKeys {"exclusive":false,"keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTjIzYCKyAgVjrNfWAD0aB0v0y2yXk1J6XqXo8nTQ3x ann@laptop"],"path":"/etc/keys/ann","state":"Absent","user":"ann"}
            base/it: authorizedKey.keys must be lines of authorized_keys, such as `ssh-ed25519 AAAA… ann@laptop`; options may come first
            base/it: authorizedKey.keys must be lines of authorized_keys, such as `ssh-ed25519 AAAA… ann@laptop`; options may come first
            base/it: authorizedKey.keys must be lines of authorized_keys, such as `ssh-ed25519 AAAA… ann@laptop`; options may come first
            base/it: authorizedKey.exclusive must be left out where ensure is Absent: the keys would be the only ones and gone"#]],
    );
    check_all(
        "sudoers",
        &[
            json!({"lines": ["%admin ALL=(ALL) ALL", "ann ALL=(ALL) NOPASSWD: ALL"]}),
            json!({"name": "x", "template": "t"}),
            json!({"name": "x", "ensure": "Absent"}),
            json!({"name": "x.y", "content": ""}),
            json!({"name": "x~", "content": ""}),
            json!({"lines": ["a\nb"]}),
            json!({"lines": ["a"], "content": "a"}),
            json!({"lines": ["a"], "template": "a"}),
            json!({"lines": ["a"], "ensure": "Absent"}),
            json!({}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":288,"owner":"root","path":"/etc/sudoers.d/it","validate":["visudo","-cf","%"]}
              | # Written by Drover for base/it; changes here are undone.
              | %admin ALL=(ALL) ALL
              | ann ALL=(ALL) NOPASSWD: ALL
            file {"content":"below","group":"root","mode":288,"owner":"root","path":"/etc/sudoers.d/x","validate":["visudo","-cf","%"]}
              | rendered t
            file {"group":"root","mode":288,"owner":"root","path":"/etc/sudoers.d/x"}
            base/it: sudoers.name must be a name of letters, digits, _ and -; sudo ignores files with . or ~ in their names
            base/it: sudoers.name must be a name of letters, digits, _ and -; sudo ignores files with . or ~ in their names
            base/it: sudoers.lines must be one line each
            base/it: sudoers must have exactly one of lines, content and template, or ensure: Absent and none of them
            base/it: sudoers must have exactly one of lines, content and template, or ensure: Absent and none of them
            base/it: sudoers must have exactly one of lines, content and template, or ensure: Absent and none of them
            base/it: sudoers must have exactly one of lines, content and template, or ensure: Absent and none of them"#]],
    );
}

#[test]
fn the_kernel() {
    for (written, key) in [
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
    ] {
        assert_eq!(kernel::sysctl_key(written), key, "{written}");
    }
    check_all(
        "sysctl",
        &[
            json!({"key": "vm/swappiness", "value": "1"}),
            json!({"key": "vm.swappiness", "value": "1", "atBoot": false}),
            json!({"key": "swappiness", "value": "1"}),
            json!({"key": "../../etc/passwd", "value": "1"}),
            json!({"key": "vm.swappiness", "value": "1\nkernel.x = 1"}),
        ],
        &expect![[r#"
            sysctl {"at_boot":true,"key":"vm.swappiness","value":"1"}
            sysctl {"at_boot":false,"key":"vm.swappiness","value":"1"}
            base/it: sysctl.key must be a parameter as sysctl prints it, such as net.ipv4.ip_forward
            base/it: sysctl.key must be a parameter as sysctl prints it, such as net.ipv4.ip_forward
            base/it: sysctl.value must be one line of text that is not empty"#]],
    );
    check_all(
        "kernelModule",
        &[
            json!({"name": "br_netfilter"}),
            json!({"name": "loop", "options": "max_loop=64", "atBoot": false}),
            json!({"name": "pcspkr", "blacklisted": true}),
            json!({"name": "a/b"}),
            json!({"name": "loop", "options": "a\ninstall x y"}),
            json!({"name": "loop", "options": "a\\"}),
        ],
        &expect![[r#"
            file {"group":"root","mode":420,"owner":"root","path":"/etc/modprobe.d/drover-br_netfilter.conf"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/modules-load.d/drover-br_netfilter.conf"}
              | # Written by Drover for base/it; changes here are undone.
              | br_netfilter
            module {"loaded":true,"name":"br_netfilter"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/modprobe.d/drover-loop.conf"}
              | # Written by Drover for base/it; changes here are undone.
              | options loop max_loop=64
            file {"group":"root","mode":420,"owner":"root","path":"/etc/modules-load.d/drover-loop.conf"}
            module {"loaded":true,"name":"loop"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/modprobe.d/drover-pcspkr.conf"}
              | # Written by Drover for base/it; changes here are undone.
              | blacklist pcspkr
            file {"group":"root","mode":420,"owner":"root","path":"/etc/modules-load.d/drover-pcspkr.conf"}
            module {"loaded":false,"name":"pcspkr"}
            base/it: kernelModule.name must be a module's name: letters, digits, _ and -
            base/it: kernelModule.options must be one line of text that is not empty
            base/it: kernelModule.options must not end with a backslash"#]],
    );
}

#[test]
fn mounts_and_swap() {
    check_all(
        "mount",
        &[
            json!({"path": "/srv/my data", "device": "LABEL=my data", "fstype": "ext4", "options": ["noatime", "nofail"], "pass": 2}),
            json!({"path": "/mnt", "device": "tmpfs", "fstype": "tmpfs", "ensure": "Present"}),
            json!({"path": "/mnt", "ensure": "Absent"}),
            json!({"path": "/mnt", "device": "tmpfs"}),
            json!({"path": "/", "device": "tmpfs", "fstype": "tmpfs"}),
            json!({"path": "/mnt", "device": "#x", "fstype": "tmpfs"}),
            json!({"path": "/mnt", "device": "x", "fstype": "tmp fs"}),
            json!({"path": "/mnt", "device": "x", "fstype": "tmpfs", "options": ["a,b"]}),
            json!({"path": "/mnt", "device": "x", "fstype": "tmpfs", "options": ["a b"]}),
        ],
        &expect![[r#"
            mount {"device":"LABEL=my data","fstype":"ext4","mounted":true,"options":["noatime","nofail"],"path":"/srv/my data"}
            edit {"edit":{"edit":"entry","field":1,"key":"/srv/my\\040data","line":"LABEL=my\\040data /srv/my\\040data ext4 noatime,nofail 0 2","state":"Present"},"path":"/etc/fstab"}
            then {"finish":"readUnitFiles"}
            edit {"edit":{"edit":"entry","field":1,"key":"/mnt","line":"tmpfs /mnt tmpfs defaults 0 0","state":"Present"},"path":"/etc/fstab"}
            then {"finish":"readUnitFiles"}
            mount {"device":"","fstype":"","mounted":false,"options":[],"path":"/mnt"}
            edit {"edit":{"edit":"entry","field":1,"key":"/mnt","line":"","state":"Absent"},"path":"/etc/fstab"}
            then {"finish":"readUnitFiles"}
            base/it: mount.device and mount.fstype must be given, or ensure be Absent
            base/it: mount.path must be absolute, without empty, `.` and `..` parts, and not end with a slash
            base/it: mount.device must not begin with #, which begins a comment of fstab
            base/it: mount.fstype must be words without white space
            base/it: mount.options must be one option each, without commas
            base/it: mount.options must be words without white space"#]],
    );
    check_all(
        "swap",
        &[
            json!({"path": "/swapfile", "sizeMib": 512, "priority": 5}),
            json!({"path": "/dev/sdb", "ensure": "Absent"}),
            json!({"path": "/swapfile", "sizeMib": 0}),
            json!({"path": "/swapfile", "sizeMib": 1, "priority": 32768}),
            json!({"path": "/swapfile", "sizeMib": 1, "priority": -1}),
        ],
        &expect![[r#"
            swap {"path":"/swapfile","priority":5,"size_mib":512,"state":"Present"}
            edit {"edit":{"edit":"entry","field":0,"key":"/swapfile","line":"/swapfile none swap sw,pri=5 0 0","state":"Present"},"path":"/etc/fstab"}
            then {"finish":"readUnitFiles"}
            swap {"path":"/dev/sdb","state":"Absent"}
            edit {"edit":{"edit":"entry","field":0,"key":"/dev/sdb","line":"","state":"Absent"},"path":"/etc/fstab"}
            then {"finish":"readUnitFiles"}
            base/it: swap.sizeMib must be greater than 0
            base/it: swap.priority must be from 0 to 32767
            base/it: swap.priority must be from 0 to 32767"#]],
    );
}

#[test]
fn the_system() {
    check_all(
        "limits",
        &[
            json!({"entries": [{"domain": "*", "type": "Soft", "item": "nofile", "value": "65536"}, {"domain": "@staff", "type": "Both", "item": "core", "value": "unlimited"}]}),
            json!({"ensure": "Absent"}),
            json!({}),
            json!({"entries": [{"domain": "a b", "type": "Hard", "item": "core", "value": "0"}]}),
            json!({"entries": [{"domain": "#", "type": "Hard", "item": "core", "value": "0"}]}),
            json!({"entries": [{"domain": "a", "type": "Hard", "item": "cores", "value": "0"}]}),
            json!({"entries": [{"domain": "a", "type": "Hard", "item": "core", "value": "many"}]}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/security/limits.d/it.conf"}
              | # Written by Drover for base/it; changes here are undone.
              | * soft nofile 65536
              | @staff - core unlimited
            file {"group":"root","mode":420,"owner":"root","path":"/etc/security/limits.d/it.conf"}
            base/it: limits.entries must be given, and left out with ensure: Absent
            base/it: limits.entries.domain must be words without white space
            base/it: limits.entries.domain must not begin with #
            base/it: limits.entries.item must be an item of limits.conf(5), such as nofile, nproc, memlock or core
            base/it: limits.entries.value must be a number, unlimited or infinity"#]],
    );
    check_all(
        "hostname",
        &[
            json!({"name": "web-1.example.com"}),
            json!({"name": "web_1"}),
            json!({"name": "a..b"}),
            json!({"name": "-a"}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/hostname"}
              | web-1.example.com
            sysctl {"at_boot":false,"key":"kernel.hostname","value":"web-1.example.com"}
            base/it: hostname.name must be at most 64 letters, digits, - and ., with a letter or digit at both ends of each label
            base/it: hostname.name must be at most 64 letters, digits, - and ., with a letter or digit at both ends of each label
            base/it: hostname.name must be at most 64 letters, digits, - and ., with a letter or digit at both ends of each label"#]],
    );
    check_all(
        "timezone",
        &[
            json!({"zone": "America/Argentina/Buenos_Aires"}),
            json!({"zone": "../../etc/passwd"}),
            json!({"zone": "/Etc/UTC"}),
        ],
        &expect![[r#"
            symlink {"force":true,"path":"/etc/localtime","target":"../usr/share/zoneinfo/America/Argentina/Buenos_Aires"}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/etc/timezone"}
              | America/Argentina/Buenos_Aires
            base/it: timezone.zone must be a name of /usr/share/zoneinfo, such as Europe/Berlin or Etc/UTC
            base/it: timezone.zone must be a name of /usr/share/zoneinfo, such as Europe/Berlin or Etc/UTC"#]],
    );
    check_all(
        "hostsEntry",
        &[
            json!({"ip": "fd00::1", "names": ["db.example.com", "db"]}),
            json!({"names": ["db"], "ensure": "Absent"}),
            json!({"ip": "10.0.0", "names": ["db"]}),
            json!({"ip": "10.0.0.1", "names": []}),
            json!({"ip": "10.0.0.1", "names": ["a b"]}),
            json!({"names": ["db"]}),
        ],
        &expect![[r#"
            edit {"edit":{"edit":"entry","field":1,"key":"db.example.com","line":"fd00::1\tdb.example.com db","state":"Present"},"path":"/etc/hosts"}
            edit {"edit":{"edit":"entry","field":1,"key":"db","line":"","state":"Absent"},"path":"/etc/hosts"}
            base/it: hostsEntry.ip must be an IPv4 or IPv6 address, and left out with ensure: Absent
            base/it: hostsEntry.names must have at least one name
            base/it: hostsEntry.names must be host names: letters, digits and - . _
            base/it: hostsEntry.ip must be an IPv4 or IPv6 address, and left out with ensure: Absent"#]],
    );
    check_all(
        "caCertificate",
        &[
            json!({"content": CERTIFICATE}),
            json!({"name": "corp", "contentFrom": {"configMapKeyRef": {"name": "n", "key": "certificate"}}}),
            json!({"ensure": "Absent"}),
            json!({"content": "MIIB"}),
            json!({"content": format!("{CERTIFICATE}{CERTIFICATE}")}),
            json!({"contentFrom": {"secretKeyRef": {"name": "n", "key": "password"}}}),
        ],
        &expect![[r#"
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/usr/local/share/ca-certificates/it.crt"}
              | -----BEGIN CERTIFICATE-----
              | MIIB
              | -----END CERTIFICATE-----
            then {"finish":"command","argv":["update-ca-certificates"],"timeout_seconds":300}
            file {"content":"below","group":"root","mode":420,"owner":"root","path":"/usr/local/share/ca-certificates/corp.crt"}
              | -----BEGIN CERTIFICATE-----
              | MIIB
              | -----END CERTIFICATE-----
            then {"finish":"command","argv":["update-ca-certificates"],"timeout_seconds":300}
            file {"group":"root","mode":420,"owner":"root","path":"/usr/local/share/ca-certificates/it.crt"}
            then {"finish":"command","argv":["update-ca-certificates","--fresh"],"timeout_seconds":300}
            base/it: caCertificate must be one certificate as PEM: -----BEGIN CERTIFICATE-----, its base64, -----END CERTIFICATE-----; a chain is a resource for each
            base/it: caCertificate must be one certificate as PEM: -----BEGIN CERTIFICATE-----, its base64, -----END CERTIFICATE-----; a chain is a resource for each
            base/it: caCertificate must be one certificate as PEM: -----BEGIN CERTIFICATE-----, its base64, -----END CERTIFICATE-----; a chain is a resource for each"#]],
    );
}

#[test]
fn each_family_has_its_places() {
    for (family, certificate, debian) in [
        ("Debian", "/usr/local/share/ca-certificates/it.crt", true),
        ("", "/usr/local/share/ca-certificates/it.crt", true),
        ("RedHat", "/etc/pki/ca-trust/source/anchors/it.pem", false),
        ("Suse", "/etc/pki/trust/anchors/it.pem", false),
        ("Archlinux", "/etc/ca-certificates/trust-source/anchors/it.crt", false),
        ("plan9", "base/it: caCertificate must be left out for this machine", false),
    ] {
        let shown_here = shown(&mut Given::family(family), "caCertificate", &json!({"content": CERTIFICATE}));
        assert!(shown_here.contains(certificate), "{family}: {shown_here}");
        let shown_here = shown(&mut Given::family(family), "timezone", &json!({"zone": "Etc/UTC"}));
        assert_eq!(shown_here.contains("/etc/timezone"), debian, "{family}: {shown_here}");
    }
}

#[test]
fn commands() {
    check_all(
        "exec",
        &[
            json!({"command": ["true"], "refreshOnly": true}),
            json!({"command": ["a", "b"], "creates": "/x", "unless": ["u"], "onlyIf": ["o"], "cwd": "/tmp", "user": "ann", "umask": "077",
                "environment": {"A": "1"}, "timeoutSeconds": 9, "tries": 3, "trySleepSeconds": 2, "exitCodes": [0, 2]}),
            json!({"command": ["true"]}),
            json!({"command": [], "refreshOnly": true}),
            json!({"command": ["true"], "unless": []}),
            json!({"command": ["true"], "creates": "x"}),
            json!({"command": ["true"], "refreshOnly": true, "cwd": "x"}),
            json!({"command": ["true"], "refreshOnly": true, "environment": {"A=": ""}}),
            json!({"command": ["true"], "refreshOnly": true, "environmentFrom": [{"name": "A"}]}),
        ],
        &expect![[r#"
            command {"argv":["true"],"cwd":"/","environment":{},"exit_codes":[],"refresh_only":true,"timeout_seconds":300,"tries":1,"try_sleep_seconds":0}
            command {"argv":["a","b"],"creates":"/x","cwd":"/tmp","environment":{"A":"1"},"exit_codes":[0,2],"only_if":["o"],"refresh_only":false,"timeout_seconds":9,"tries":3,"try_sleep_seconds":2,"umask":63,"unless":["u"],"user":"ann"}
            base/it: exec must have a guard, or it would run at every check of the machine; add creates, unless, onlyIf or refreshOnly: true
            base/it: exec.command must name a program; write ["program", "argument"]
            base/it: exec.unless must name a program; write ["program", "argument"]
            base/it: exec.creates must be absolute, without empty, `.` and `..` parts, and not end with a slash
            base/it: exec.cwd must be absolute, without empty, `.` and `..` parts, and not end with a slash
            base/it: exec.environment must have names of letters, digits and _ that begin with no digit, and values without null characters
            base/it: a reference must be exactly one of configMapKeyRef and secretKeyRef"#]],
    );
    check_all(
        "reboot",
        &[json!({"reason": "new kernel", "whenSystemAsks": true}), json!({"reason": ""})],
        &expect![[r#"
            reboot {"reason":"new kernel","when_system_asks":true}
            base/it: reboot.reason must be one line of text that is not empty"#]],
    );
}

#[test]
fn secrets_mark_their_resource_and_are_shown_by_no_error() {
    let secret = |key: &str| json!({"secretKeyRef": {"name": "n", "key": key}});
    let environment = |mut source: Value| {
        source["name"] = json!("TOKEN");
        json!({"command": ["true"], "refreshOnly": true, "environmentFrom": [source]})
    };
    let config_map = json!({"configMapKeyRef": {"name": "n", "key": "password"}});
    for (kind, spec, sensitive, told) in [
        ("user", json!({"passwordHash": secret("hash")}), true, r#""password_hash":"$6$salt$hash""#),
        ("user", json!({"passwordHash": secret("password")}), true, "user.passwordHash must be a hash"),
        ("user", json!({"passwordHash": secret("binary")}), true, "user.passwordHash must be UTF-8 text"),
        ("exec", environment(secret("password")), true, r#""environment":{"TOKEN":"hunter2"}"#),
        ("exec", environment(config_map), false, r#""environment":{"TOKEN":"hunter2"}"#),
        ("exec", environment(secret("binary")), true, "exec.environmentFrom must be UTF-8 text"),
    ] {
        let mut given = Given::family("Debian");
        let shown = shown(&mut given, kind, &spec);
        assert!(shown.contains(told), "{kind} {spec}: {shown}");
        assert_eq!(given.sensitive, sensitive, "{kind} {spec}");
        assert!(!shown.starts_with("base/it") || !shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(format!("{:?}", Sensitive::new("hunter2")), "(7 bytes, not shown)");
}

#[test]
fn without_a_host_nothing_is_said_of_content_that_is_not_there() {
    let source = json!({"secretKeyRef": {"name": "n", "key": "k"}});
    for (kind, spec) in [
        ("user", json!({"passwordHash": source})),
        ("caCertificate", json!({"contentFrom": source})),
        ("aptRepository", json!({"uris": ["https://x"], "suites": ["./"], "signedBy": {"keyFrom": source}})),
        (
            "exec",
            json!({"command": ["true"], "refreshOnly": true, "environmentFrom": [{"name": "A", "secretKeyRef": source["secretKeyRef"]}]}),
        ),
    ] {
        let shown = shown(&mut Given { facts: None, sensitive: false }, kind, &spec);
        assert!(!shown.starts_with("base/it"), "{kind}: {shown}");
    }
}

#[test]
fn a_resource_has_one_type() {
    for (resource, told) in [
        (json!({"name": "it"}), "and this one has none"),
        (
            json!({"name": "it", "package": {}, "sysctl": {"key": "a.b", "value": "1"}, "file": {"path": "/x"}}),
            "and this one has file and package and sysctl",
        ),
    ] {
        let resource: NodeConfigResource = serde_json::from_value(resource).unwrap();
        let error = lower(&resource, "base/it", &mut Given::family("Debian")).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
