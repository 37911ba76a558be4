//! What the engine does on machines, seen from outside: each family of types, secrets, reboots, what somebody else
//! changed, what a revision would cost, and what two NodeConfigs want at once.

use std::collections::BTreeSet;

use drover_crds::{Host, NodeConfig, NodeConfigStatus, RolloutPhase, condition};
use drover_e2e::{
    Fleet, Machine, NODES,
    fleet::is_free,
    machine::FOLDER,
    secrets::{encoded, written},
    story,
    wait::{LATER, eventually, until},
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::{data, everywhere, file, files, only};

const NODE: &str = "node-3";

/// Waits until a NodeConfig's status is like this.
async fn config_until<T>(fleet: &Fleet, name: &str, what: &str, find: impl Fn(&NodeConfigStatus) -> Option<T>) -> T {
    until(&fleet.api::<NodeConfig>(), name, what, LATER, |config| config.status.as_ref().and_then(&find)).await
}

/// A certificate authority that signed itself and nothing else.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
     MIIBlTCCATugAwIBAgIUQEcKtMPaIfvkHxCvwmqjPs1lGHUwCgYIKoZIzj0EAwIw\n\
     HzEdMBsGA1UEAwwURHJvdmVyIGUyZSBhdXRob3JpdHkwIBcNMjYxMTIxMTYzMDEz\n\
     WhgPMjEyNjEwMjgxNjMwMTNaMB8xHTAbBgNVBAMMFERyb3ZlciBlMmUgYXV0aG9y\n\
     aXR5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQW68bSkMax/pksR8FmNELH6N\n\
     Vc3mps4+TIMK87Pzyl9G2Qdl+ga65qnu5QELL5N22S9CELFcImOiziFePRE/OaNT\n\
     MFEwHQYDVR0OBBYEFIcAWSS7gpxKvPC7IG72x0WyHPkIMB8GA1UdIwQYMBaAFIcA\n\
     WSS7gpxKvPC7IG72x0WyHPkIMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwID\n\
     SAAwRQIhAK6lXLhKPIic+IB/Sob4Mg5M4kz0ik2Aw9Z/nUCWR3IUAiB3PUI/sXVy\n\
     6beLfJH4g05GBlEhU+Wk3tBefeINYQr9Xw==\n\
     -----END CERTIFICATE-----\n";

/// One of each family, beside those that other stories are about: files, packages and exec.
fn families() -> Value {
    json!([
        {"name": "e2e-ops", "group": {"gid": 45678}},
        {"name": "e2e-ann", "require": ["e2e-ops"], "user": {
            "uid": 45678, "group": "e2e-ops", "home": "/srv/e2e/ann", "manageHome": true, "shell": "/bin/sh",
        }},
        {"name": "keys", "require": ["e2e-ann"], "authorizedKey": {"user": "e2e-ann", "exclusive": true, "keys": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTjIzYCKyAgVjrNfWAD0aB0v0y2yXk1J6XqXo8nTQ3x ann@laptop",
        ]}},
        {"name": "e2e-ops-may", "require": ["e2e-ops"], "sudoers": {"lines": ["%e2e-ops ALL=(root) NOPASSWD: /bin/true"]}},
        {"name": "e2e-clock.service", "notify": ["clock"], "systemdUnit": {
            "content": "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        }},
        {"name": "clock-limits", "notify": ["clock"], "systemdDropIn": {
            "unit": "e2e-clock.service", "name": "limits", "content": "[Service]\nMemoryMax=64M\n",
        }},
        {"name": "clock", "service": {"unit": "e2e-clock", "state": "Running", "enabled": true}},
        {"name": "e2e-tick", "timer": {"onCalendar": "*-*-* 04:00", "command": ["/bin/true"]}},
        {"name": "e2e-batch", "cron": {"schedule": "15 4 * * *", "command": "true"}},
        {"name": "keepalive", "sysctl": {"key": "net.ipv4.tcp_keepalive_time", "value": "1234"}},
        {"name": "mountpoint", "directory": {"path": format!("{FOLDER}/mnt")}},
        {"name": "data", "require": ["mountpoint"], "mount": {
            "path": format!("{FOLDER}/mnt"), "device": "tmpfs", "fstype": "tmpfs", "options": ["size=1m", "mode=0750"],
        }},
        {"name": "e2e-files", "limits": {"entries": [{"domain": "e2e-ann", "type": "Both", "item": "nofile", "value": "512"}]}},
        {"name": "registry", "hostsEntry": {"ip": "192.0.2.10", "names": ["registry.e2e.example"]}},
        {"name": "zone", "timezone": {"zone": "Asia/Kathmandu"}},
        {"name": "conf", "directory": {"path": format!("{FOLDER}/conf.d"), "purge": true}},
        {"name": "kept", "file": {"path": format!("{FOLDER}/conf.d/kept"), "content": "kept"}},
        {"name": "e2e-authority", "caCertificate": {"content": AUTHORITY}},
        {"name": "link", "symlink": {"path": format!("{FOLDER}/link"), "target": "conf.d/kept"}},
        {"name": "setting", "ini": {"path": format!("{FOLDER}/app.ini"), "section": "a", "key": "k", "value": "v", "create": true}},
        {"name": "line", "line": {"path": format!("{FOLDER}/app.ini"), "line": "# by hand and by Drover", "atBeginning": true}},
    ])
}

/// What must be so then, as a person would look for it. Each line prints nothing when it is.
const SEEN: &str = r#"
is() { [ "$2" = "$3" ] || echo "$1 is '$2' and not '$3'"; }
is user "$(getent passwd e2e-ann | cut -d: -f3-7)" '45678:45678::/srv/e2e/ann:/bin/sh'
is home "$(stat -c '%U %G' /srv/e2e/ann)" 'e2e-ann e2e-ops'
is keys "$(stat -c '%a %U' /srv/e2e/ann/.ssh/authorized_keys; wc -l < /srv/e2e/ann/.ssh/authorized_keys)" '600 e2e-ann
1'
is sudoers "$(visudo -cqf /etc/sudoers.d/e2e-ops-may && stat -c %a /etc/sudoers.d/e2e-ops-may)" 440
is unit "$(systemctl is-active e2e-clock; systemctl is-enabled e2e-clock)" 'active
enabled'
is drop-in "$(systemctl show -P MemoryMax e2e-clock)" 67108864
is timer "$(systemctl is-active e2e-tick.timer; systemctl is-enabled e2e-tick.timer)" 'active
enabled'
is cron "$(grep -v '^#' /etc/cron.d/e2e-batch | grep .)" '15 4 * * * root true'
is sysctl "$(cat /proc/sys/net/ipv4/tcp_keepalive_time)" 1234
is mount "$(findmnt -no FSTYPE,SIZE /srv/e2e/mnt | tr -s ' ')" 'tmpfs 1M'
is fstab "$(grep -c ' /srv/e2e/mnt tmpfs ' /etc/fstab)" 1
is limits "$(su e2e-ann -c 'ulimit -n')" 512
is hosts "$(getent hosts registry.e2e.example | cut -d' ' -f1)" 192.0.2.10
is zone "$(date +%Z; readlink /etc/localtime)" '+0545
../usr/share/zoneinfo/Asia/Kathmandu'
is purge "$(ls /srv/e2e/conf.d)" kept
is authority "$(openssl verify -CApath /etc/ssl/certs /usr/local/share/ca-certificates/e2e-authority.crt)" '/usr/local/share/ca-certificates/e2e-authority.crt: OK'
is link "$(cat /srv/e2e/link)" kept
is ini "$(cat /srv/e2e/app.ini)" '# by hand and by Drover
[a]
k = v'
"#;

#[tokio::test]
async fn each_family_of_types_makes_a_machine_so_and_then_finds_nothing_to_do() {
    story(async |fleet| {
        let machine = fleet.machine(NODE);
        machine.run(&format!("mkdir {FOLDER}/conf.d && touch {FOLDER}/conf.d/stray")).await;
        let drift = json!({"intervalSeconds": 10});
        let spec = json!({"resources": families(), "drift": drift, "hostSelector": only(NODE)});
        let revision = fleet.configure_with("base", spec).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &revision).await;
        assert_eq!(machine.run(SEEN).await, "");

        // A later run finds all as it must be: the report tells of nothing but unchanged ones.
        let all = i32::try_from(families().as_array().unwrap().len()).unwrap();
        fleet
            .host_until(NODE, "unchanged after another run", |host| {
                let active = host.status.as_ref().and_then(|status| status.active.as_ref());
                active.is_some_and(|a| a.converged && a.resources == all && a.changed + a.corrected + a.failed == 0)
            })
            .await;
        // What was undone by hand, in eight ways, is corrected; the user's own key goes.
        machine
            .run(&format!(
                "usermod -s /bin/false e2e-ann; echo 'ssh-ed25519 AAAA x@y' >> {FOLDER}/ann/.ssh/authorized_keys; \
                 systemctl disable --now --quiet e2e-clock; systemctl stop e2e-tick.timer; umount {FOLDER}/mnt; \
                 echo 7200 > /proc/sys/net/ipv4/tcp_keepalive_time; touch {FOLDER}/conf.d/stray; ln -sf /etc/passwd {FOLDER}/link; \
                 sed -i /registry.e2e/d /etc/hosts"
            ))
            .await;
        eventually("all of it is corrected", LATER, async || match machine.run(SEEN).await.as_str() {
            "" => Ok(()),
            wrong => Err(wrong.to_owned()),
        })
        .await;
    })
    .await;
}

/// How many canaries there are, and how many of them go which way.
const CANARIES: usize = 200;

fn canary(number: usize) -> String {
    format!("droverCanary{number:03}x{:08x}", (number + 1).wrapping_mul(0x9e37_79b1) & 0xffff_ffff)
}

/// A value of the Secret: a hash for the passwords of users, YAML for the layer that is YAML, else the canary itself.
fn value(number: usize) -> String {
    if PASSWORDS.contains(&number) { format!("$6${}$abcdefghij", canary(number)) } else { canary(number) }
}

const TEMPLATES: std::ops::Range<usize> = 0..80;
const CONTENTS: std::ops::Range<usize> = 80..120;
const ENVIRONMENTS: std::ops::Range<usize> = 120..140;
const PASSWORDS: std::ops::Range<usize> = 140..150;
const LINES: std::ops::Range<usize> = 150..165;
const SETTINGS: std::ops::Range<usize> = 165..175;
const BLOCKS: std::ops::Range<usize> = 175..180;
const LINKS: std::ops::Range<usize> = 180..185;
const CONDITIONS: std::ops::Range<usize> = 185..190;
/// These fail where the canary is at hand: a command that prints it on both outputs, and a check of a file that does.
const FAILING_COMMANDS: std::ops::Range<usize> = 190..195;
const FAILING_CHECKS: std::ops::Range<usize> = 195..CANARIES;

fn canaries() -> Vec<Value> {
    let reference = |n: usize| json!({"secretKeyRef": {"name": "canaries", "key": format!("k{n:03}")}});
    let variable = |n: usize| {
        let mut source = reference(n);
        source["name"] = json!("TOKEN");
        json!([source])
    };
    let path = |n: usize| format!("{FOLDER}/c{n:03}");
    let data = |n: usize| format!("{{{{ data.k{n:03} }}}}");
    let one = |n: usize| -> Value {
        let (name, path, data) = (format!("e2e-c{n:03}"), path(n), data(n));
        if TEMPLATES.contains(&n) {
            json!({"name": name, "file": {"path": path, "template": data}})
        } else if CONTENTS.contains(&n) {
            json!({"name": name, "file": {"path": path, "contentFrom": reference(n)}})
        } else if ENVIRONMENTS.contains(&n) {
            let script = format!("printenv TOKEN > {path}");
            json!({"name": name, "exec": {"command": ["sh", "-c", script], "creates": path, "environmentFrom": variable(n)}})
        } else if PASSWORDS.contains(&n) {
            json!({"name": name, "user": {"passwordHash": reference(n)}})
        } else if LINES.contains(&n) {
            json!({"name": name, "render": true, "line": {"path": format!("{FOLDER}/lines"), "line": data, "create": true}})
        } else if SETTINGS.contains(&n) {
            let key = format!("k{n}");
            json!({"name": name, "render": true, "ini": {"path": format!("{FOLDER}/app.ini"), "key": key, "value": data, "create": true}})
        } else if BLOCKS.contains(&n) {
            json!({"name": name, "block": {"path": format!("{FOLDER}/blocks"), "template": data, "create": true}})
        } else if LINKS.contains(&n) {
            json!({"name": name, "render": true, "symlink": {"path": path, "target": data}})
        } else if CONDITIONS.contains(&n) {
            let when = format!("data.k{n:03} == '{}'", "never");
            json!({"name": name, "when": when, "file": {"path": path, "template": data}})
        } else if FAILING_COMMANDS.contains(&n) {
            let command = ["sh", "-c", "printenv TOKEN; printenv TOKEN >&2; exit 3"];
            json!({"name": name, "exec": {"command": command, "unless": ["sh", "-c", "printenv TOKEN >&2; exit 1"], "environmentFrom": variable(n)}})
        } else {
            json!({"name": name, "file": {"path": path, "template": data, "validate": ["sh", "-c", "cat %; cat % >&2; exit 1"]}})
        }
    };
    (0..CANARIES).map(one).collect()
}

/// Every start of a program by the agent and whatever it starts, with all its arguments, from now on.
async fn watch_arguments(fleet: &Fleet, machine: &Machine) {
    let agent = fleet.agent(NODE).await;
    let id = agent.status.unwrap().container_statuses.unwrap()[0].container_id.clone().unwrap();
    let id = id.strip_prefix("containerd://").unwrap().to_owned();
    let script = format!(
        "set -e; pid=$(ctr -n k8s.io task ls | awk '$1 == \"{id}\" {{ print $2 }}'); \
         systemd-run --quiet --collect --unit e2e-watch --service-type=exec \
           strace -f -qq -s 1000000 -e trace=execve,execveat -o /srv/e2e/arguments -p $pid"
    );
    machine.run(&script).await;
    eventually("the agent is watched", LATER, async || {
        let script = format!(
            "pid=$(ctr -n k8s.io task ls | awk '$1 == \"{id}\" {{ print $2 }}'); sed -n 's/^TracerPid:[[:space:]]*//p' /proc/$pid/status"
        );
        match machine.run(&script).await.as_str() {
            "0" => Err("nobody traces it".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn two_hundred_secrets_reach_their_places_and_are_found_nowhere_else() {
    story(async |fleet| {
        let machine = fleet.machine(NODE);
        let values: serde_json::Map<String, Value> =
            (0..CANARIES).map(|n| (format!("k{n:03}"), json!(value(n)))).collect();
        fleet.cluster.apply(&fleet.api::<Secret>(), &data("Secret", "canaries", Value::Object(values))).await;
        watch_arguments(fleet, &machine).await;

        let from = json!([{"secretRef": {"name": "canaries"}}]);
        let spec = json!({
            "resources": canaries(), "dataFrom": from, "drift": {"intervalSeconds": 10}, "hostSelector": only(NODE),
        });
        let revision = fleet.configure_with("base", spec).await;
        fleet.roll("base", json!({"strategy": {"applyTimeoutSeconds": 120}})).await;
        let failed = fleet.rollout_until("base", "Failed", |status| status.phase == Some(RolloutPhase::Failed)).await;
        assert_eq!(failed.run.unwrap().revision, revision);
        let failures = i32::try_from(FAILING_COMMANDS.len() + FAILING_CHECKS.len()).unwrap();
        fleet
            .host_until(NODE, "telling of the failures", |host| {
                host.status.as_ref().and_then(|status| status.active.as_ref()).is_some_and(|a| a.failed == failures)
            })
            .await;

        // What reached its place, and what is corrected there once more: copies of what was replaced are made then.
        let places = format!("{FOLDER}/c* {FOLDER}/lines {FOLDER}/app.ini {FOLDER}/blocks /etc/shadow");
        let look = format!(
            "{{ cat {places} 2>/dev/null; readlink {FOLDER}/c*; }} | grep -oE 'droverCanary[0-9]{{3}}x[0-9a-f]{{8}}' | sort -u"
        );
        let arrived = machine.run(&look).await;
        let expected: BTreeSet<String> = (0..CONDITIONS.start).map(canary).collect();
        assert_eq!(arrived.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
        machine.run(&format!("for f in {FOLDER}/c0*; do echo by hand >> $f; done; sed -i 's/droverCanary/old&/' {FOLDER}/lines {FOLDER}/app.ini")).await;
        let differs = format!("grep -l 'by hand' {FOLDER}/c0* | wc -l; grep -c olddrover {FOLDER}/app.ini || true");
        eventually("the files are put back", LATER, async || match machine.run(&differs).await.as_str() {
            "0\n0" => Ok(()),
            left => Err(left.to_owned()),
        })
        .await;

        machine.run("systemctl stop e2e-watch").await;
        let mut looked_into = written(fleet).await;
        let arguments = machine.read("/srv/e2e/arguments").await.unwrap();
        assert!(arguments.contains("execve(") && arguments.contains("printenv"), "commands were seen: {arguments}");
        looked_into.push(("the arguments of processes".to_owned(), arguments));
        let kept = "cd /var/lib/drover; find . -type f ! -name catalog.json -exec cat {} +; ls -R .";
        looked_into.push(("what the agent keeps beside its catalog".to_owned(), machine.run(kept).await));
        let logs = "journalctl --no-pager -o export 2>/dev/null | tr -d '\\0'; find /var/log -name '*.log' -type f -exec cat {} + | tr -d '\\0'";
        looked_into.push(("the machine's logs".to_owned(), machine.run(logs).await));
        // The names of resources are no secrets: they show that what is looked into would show one.
        for (part, name) in [("Host node-3", "e2e-c190"), ("the log of drover-agent", "e2e-c195"), ("NodeConfig base", "e2e-c000")] {
            let found = looked_into.iter().any(|(place, text)| place.contains(part) && text.contains(name));
            assert!(found, "{name} is in {part}");
        }
        let bytes: usize = looked_into.iter().map(|(_, text)| text.len()).sum();
        let hits: Vec<String> = (0..CANARIES)
            .flat_map(|n| [canary(n), encoded(&value(n))])
            .flat_map(|secret| looked_into.iter().filter(move |(_, text)| text.contains(&secret)))
            .map(|(place, _)| place.clone())
            .collect();
        eprintln!("{CANARIES} canaries: {} hits in {} places of {bytes} bytes", hits.len(), looked_into.len());
        assert_eq!(hits, [""; 0]);
        for readable in fleet.on_all("find /var/lib/drover -perm /077").await {
            assert_eq!(readable, "", "what agents keep is for root alone");
        }
    })
    .await;
}

async fn boot_id(machine: &Machine) -> String {
    machine.run("cat /proc/sys/kernel/random/boot_id").await
}

#[tokio::test]
async fn a_machine_reboots_when_its_rollout_takes_it_out_of_service_and_not_before() {
    story(async |fleet| {
        let machine = fleet.machine(NODE);
        let before = boot_id(&machine).await;
        let others = fleet.machine("node-1");
        let other = boot_id(&others).await;
        let resources = |content: &str| {
            let mut kernel = file("kernel", content);
            kernel["notify"] = json!(["new-kernel"]);
            json!([kernel, {"name": "new-kernel", "reboot": {"reason": "another kernel"}}])
        };
        let reboots = |policy: &str| json!({"hostSelector": only(NODE), "disruption": {"drain": {}, "reboot": policy}});

        // A Rollout that may not reboot leaves it due, and says so on the Host.
        let first = fleet.configure("base", resources("1")).await;
        fleet.roll("base", reboots("Never")).await;
        fleet.completes("base", &first).await;
        let host = fleet.api::<Host>().get(NODE).await.unwrap();
        assert_eq!(host.status.unwrap().active.unwrap().reboot_required, ["another kernel"]);
        assert_eq!(boot_id(&machine).await, before);

        let second = fleet.configure("base", resources("2")).await;
        fleet.roll("base", reboots("IfRequired")).await;
        let host = fleet
            .host_until(NODE, "back from its reboot", |host| {
                let conditions = host.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
                condition::is_true(conditions, "Rebooted")
            })
            .await;
        fleet.completes("base", &second).await;
        assert_ne!(boot_id(&machine).await, before);
        assert_eq!(boot_id(&others).await, other);
        assert!(host.status.unwrap().active.unwrap().reboot_required.is_empty());
        assert_eq!(machine.read(&format!("{FOLDER}/kernel")).await.as_deref(), Some("2"));
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn what_somebody_else_changed_is_counted_and_left_alone_where_that_is_wanted() {
    story(async |fleet| {
        let mut seen = file("seen", "as it was");
        seen["drift"] = json!("Report");
        let mut ignored = file("ignored", "as it was");
        ignored["drift"] = json!("Ignore");
        let resources = json!([file("put-back", "as it was"), seen, ignored]);
        let spec = json!({"resources": resources, "drift": {"intervalSeconds": 10}});
        let revision = fleet.configure_with("base", spec.clone()).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &revision).await;

        let machine = fleet.machine(NODE);
        machine.run(&format!("cd {FOLDER}; for f in seen ignored put-back; do echo mine > $f; done")).await;
        let host = fleet
            .host_until(NODE, "telling of the difference", |host| {
                let active = host.status.as_ref().and_then(|status| status.active.as_ref());
                active.is_some_and(|active| active.pending == 1)
            })
            .await;
        let drifted = condition::find(&host.status.as_ref().unwrap().conditions, "Drifted").unwrap().clone();
        assert_eq!(drifted.status, "True");
        assert!(drifted.message.contains("base/seen"), "{}", drifted.message);
        config_until(fleet, "base", "one Host drifted", |status| (status.drifted == Some(1)).then_some(())).await;
        for (name, content) in [("seen", "mine\n"), ("ignored", "mine\n"), ("put-back", "as it was")] {
            assert_eq!(machine.read(&format!("{FOLDER}/{name}")).await.as_deref(), Some(content), "{name}");
        }
        // A new revision is meant: it changes what was left alone.
        let text = serde_json::to_string(&spec).unwrap().replace("as it was", "as it is now");
        let revision = fleet.configure_with("base", serde_json::from_str(&text).unwrap()).await;
        fleet.completes("base", &revision).await;
        for name in ["seen", "ignored", "put-back"] {
            assert_eq!(machine.read(&format!("{FOLDER}/{name}")).await.as_deref(), Some("as it is now"), "{name}");
        }
        config_until(fleet, "base", "none drifted", |status| (status.drifted == Some(0)).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_revision_says_what_it_would_cost_before_anything_moves() {
    story(async |fleet| {
        let unit = json!({"name": "e2e-cost.service", "systemdUnit": {
            "content": "[Service]\nExecStart=/bin/sleep infinity\n",
        }, "notify": ["cost"]});
        let service = json!({"name": "cost", "service": {"unit": "e2e-cost", "state": "Running"}});
        let first = fleet.configure("base", json!([unit, service, file("motd", "one")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &first).await;
        config_until(fleet, "base", "without cost", |status| status.cost.is_none().then_some(())).await;

        // Nothing moves it: the Rollout is paused.
        fleet.edit_rollout("base", json!({"paused": true})).await;
        let cost = async |what: &str| {
            config_until(fleet, "base", what, |status| status.cost.clone().filter(|cost| cost == what)).await
        };
        fleet.configure("base", json!([unit, service, file("motd", "two")])).await;
        cost("3 None").await;
        let mut slower = unit.clone();
        slower["systemdUnit"]["content"] = json!("[Service]\nExecStart=/bin/sleep 100000\n");
        fleet.configure("base", json!([slower, service, file("motd", "two")])).await;
        cost("3 Restart").await;
        // What the user knows better counts.
        let resources = json!([slower, service, file("motd", "two")]);
        let rules = json!({"rules": [{"resources": ["e2e-cost.*"], "disruption": "Drain"}]});
        fleet.configure_with("base", json!({"resources": resources, "disruption": rules})).await;
        cost("3 Drain").await;
        let config = fleet.api::<NodeConfig>().get("base").await.unwrap().status.unwrap();
        let effective: Vec<String> =
            config.disruption.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert!(
            effective.iter().any(|entry| entry.contains("e2e-cost.service") && entry.contains("Drain")),
            "{effective:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn an_older_revision_can_be_moved_again_and_is_the_same() {
    story(async |fleet| {
        let first = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &first).await;
        let second = fleet.configure("base", json!([file("motd", "second")])).await;
        fleet.completes("base", &second).await;

        fleet.edit_rollout("base", json!({"nodeConfigRef": {"revision": first}})).await;
        fleet.completes("base", &first).await;
        assert_eq!(files(fleet, "motd").await, everywhere("first"));
        // What is written by now is what it was: the same content has the same name, and is no new run.
        let again = fleet.configure("base", json!([file("motd", "first")])).await;
        assert_eq!(again, first);
        fleet.edit_rollout("base", json!({"nodeConfigRef": {"revision": null}})).await;
        assert_eq!(fleet.completes("base", &first).await.run.unwrap().revision, first);
    })
    .await;
}

#[tokio::test]
async fn two_configs_that_want_one_thing_both_say_so_and_the_first_keeps_it() {
    story(async |fleet| {
        let first = fleet.configure("first", json!([file("motd", "first")])).await;
        fleet.roll("first", json!({})).await;
        fleet.completes("first", &first).await;

        let second = fleet.apply_node_config("second", json!({"resources": [file("motd", "second")]})).await;
        let why = fleet.refusal_of(&second, "Conflict").await;
        assert!(why.contains("first") && why.contains(&format!("{FOLDER}/motd")), "{why}");
        let theirs = config_until(fleet, "first", "in conflict as well", |status| {
            condition::find(&status.conditions, "Conflict").filter(|found| found.status == "True").cloned()
        })
        .await;
        assert!(theirs.message.contains("second"), "{}", theirs.message);
        fleet.roll("second", json!({})).await;
        for node in NODES {
            assert_eq!(fleet.machine(node).read(&format!("{FOLDER}/motd")).await.as_deref(), Some("first"));
        }
        // Another path, and both are at peace.
        let revision = fleet.configure("second", json!([file("issue", "second")])).await;
        fleet.completes("second", &revision).await;
        config_until(fleet, "first", "at peace", |status| {
            condition::find(&status.conditions, "Conflict").is_none_or(|found| found.status != "True").then_some(())
        })
        .await;
        let hosts = fleet.all::<Host>().await;
        assert!(hosts.iter().all(|host| !is_free(host)));
    })
    .await;
}
