//! What NodeConfigs do on machines, and what Drover says of those that it can not use.

use drover_crds::{Host, NodeConfig, Rollout, RolloutPhase};
use drover_e2e::{
    Fleet, NODES,
    cluster::delete,
    fleet::is_free,
    machine::FOLDER,
    secrets::leaks,
    story,
    wait::{LATER, SOON, eventually, until_gone},
};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{ConfigMap, Secret},
};
use serde_json::{Value, json};

use crate::{data, everywhere, file, files, only};

fn template(name: &str, template: &str) -> Value {
    json!({"name": name, "file": {"path": format!("{FOLDER}/{name}"), "template": template}})
}

/// A NodeConfig that can not be used moves nothing: all is as after the first run of `good`.
async fn nothing_moved(fleet: &Fleet, good: &str) {
    let config = fleet.api::<NodeConfig>().get("base").await.unwrap().status.unwrap();
    assert_eq!(config.revision.as_deref(), Some(good));
    let rollout = fleet.api::<Rollout>().get("base").await.unwrap().status.unwrap();
    assert_eq!((rollout.phase, rollout.run.unwrap().number), (Some(RolloutPhase::Complete), 1));
    for host in fleet.all::<Host>().await {
        let status = host.status.unwrap();
        assert_eq!(status.phase.as_deref(), Some("UpToDate"));
        assert_eq!(status.assigned[0].revision, good);
    }
}

#[tokio::test]
async fn a_config_that_can_not_be_used_says_why_and_every_host_stays_as_it_is() {
    story(async |fleet| {
        let good = fleet.configure("base", json!([file("motd", "good")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &good).await;

        let typo = json!({"resources": [template("motd", "{{ facts.os.nmae }}")]});
        let config = fleet.apply_node_config("base", typo).await;
        let why = fleet.refusal_of(&config, "Invalid").await;
        assert!(why.contains("motd") && why.contains("`facts.os.nmae` is not known"), "{why}");
        assert!(why.contains("every host keeps what it has"), "{why}");
        nothing_moved(fleet, &good).await;

        let greeting = json!([template("motd", "{{ data.greeting }} {{ data.password }}")]);
        let from = json!([{"configMapRef": {"name": "words"}}, {"secretRef": {"name": "keys"}}]);
        let needy = json!({"resources": greeting, "dataFrom": from});
        let config = fleet.apply_node_config("base", needy).await;
        let why = fleet.refusal_of(&config, "MissingData").await;
        assert!(why.contains("ConfigMap words, which is not there"), "{why}");
        nothing_moved(fleet, &good).await;

        let words = data("ConfigMap", "words", json!({"greeting": "hello"}));
        fleet.cluster.apply(&fleet.api::<ConfigMap>(), &words).await;
        eventually("the Secret is missed", SOON, async || {
            let why = fleet.refusal_of(&config, "MissingData").await;
            if why.contains("Secret keys, which is not there") { Ok(()) } else { Err(why) }
        })
        .await;
        nothing_moved(fleet, &good).await;

        let keys = data("Secret", "keys", json!({"password": "swordfish"}));
        fleet.cluster.apply(&fleet.api::<Secret>(), &keys).await;
        let revision = fleet.revision_of(&config).await;
        fleet.completes("base", &revision).await;
        assert_eq!(files(fleet, "motd").await, everywhere("hello swordfish"));

        // A change of the data alone is a new revision.
        let words = data("ConfigMap", "words", json!({"greeting": "goodbye"}));
        fleet.cluster.apply(&fleet.api::<ConfigMap>(), &words).await;
        let status = fleet.rollout_until("base", "Complete again", |status| {
            status.phase == Some(RolloutPhase::Complete) && status.run.as_ref().is_some_and(|run| run.number == 3)
        });
        assert_ne!(status.await.run.unwrap().revision, revision);
        assert_eq!(files(fleet, "motd").await, everywhere("goodbye swordfish"));
    })
    .await;
}

#[tokio::test]
async fn a_secret_reaches_its_file_and_is_found_nowhere_else() {
    // Not in the clear, and not as a Secret's own encoding of it.
    const SECRET: &str = "drover-e2e-hunter2-0d1f";
    const ENCODED: &str = "ZHJvdmVyLWUyZS1odW50ZXIyLTBkMWY";
    story(async |fleet| {
        let keys = data("Secret", "keys", json!({"password": SECRET}));
        fleet.cluster.apply(&fleet.api::<Secret>(), &keys).await;
        let token = json!({"name": "token", "file": {
            "path": format!("{FOLDER}/token"), "template": "password={{ data.password }}\n", "mode": "0600",
        }});
        let from = json!([{"secretRef": {"name": "keys"}}]);
        let revision = fleet.configure_with("base", json!({"resources": [token.clone()], "dataFrom": from})).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &revision).await;
        let expected = format!("password={SECRET}\n");
        assert_eq!(files(fleet, "token").await, everywhere(&expected));
        for access in fleet.on_all(&format!("stat -c '%a %U %G' {FOLDER}/token")).await {
            assert_eq!(access, "600 root root");
        }

        // Each way in which it could be quoted: a run that fails where the secret is written, and a template that fails
        // on its value.
        let lost = json!({"name": "lost", "file": {
            "path": format!("{FOLDER}/nowhere/token"), "template": "password={{ data.password }}\n",
        }});
        let broken = fleet.configure_with("base", json!({"resources": [token, lost], "dataFrom": from})).await;
        let failed = fleet.rollout_until("base", "Failed", |status| status.phase == Some(RolloutPhase::Failed)).await;
        assert_eq!(failed.run.unwrap().revision, broken);
        let sum = json!({"resources": [template("sum", "{{ data.password + 1 }}")], "dataFrom": from});
        let config = fleet.apply_node_config("base", sum).await;
        let why = fleet.refusal_of(&config, "Invalid").await;
        assert!(why.contains("line 1 of its template"), "{why}");

        let revisions = fleet.api::<ControllerRevision>();
        assert!(revisions.get_opt(&revision).await.unwrap().is_some(), "there is a revision to look into");
        assert_eq!(leaks(fleet, SECRET).await, [""; 0]);
        assert_eq!(leaks(fleet, ENCODED).await, [""; 0]);
        for readable in fleet.on_all("find /var/lib/drover -perm /077").await {
            assert_eq!(readable, "", "what agents keep is for root alone");
        }
        for elsewhere in
            fleet.on_all(&format!("grep -rlF {SECRET} /var/log /etc /run /tmp /srv 2>/dev/null || true")).await
        {
            assert_eq!(elsewhere, format!("{FOLDER}/token"));
        }
    })
    .await;
}

/// A signed repository with two versions of a package, made in the machine, as machines have no way out. Its key is printed.
const REPOSITORY: &str = r#"
set -e
export SOURCE_DATE_EPOCH=0
mkdir -p /srv/e2e/repo && cd /srv/e2e/repo
for version in 1.0 2.0; do
  mkdir -p hello/DEBIAN hello/usr/share/e2e-hello
  echo "hello $version" > hello/usr/share/e2e-hello/version
  printf 'Package: e2e-hello\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' $version > hello/DEBIAN/control
  dpkg-deb --root-owner-group -b hello e2e-hello_${version}_all.deb >/dev/null
  { cat hello/DEBIAN/control
    echo "Filename: ./e2e-hello_${version}_all.deb"
    echo "Size: $(stat -c %s e2e-hello_${version}_all.deb)"
    echo "SHA256: $(sha256sum e2e-hello_${version}_all.deb | cut -d' ' -f1)"
    echo; } >> Packages
  rm -r hello
done
{ echo "Origin: e2e"; echo "Date: $(LC_ALL=C date -Ru)"; echo "SHA256:"
  echo " $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages"; } > Release
export GNUPGHOME=/srv/e2e/gpg
mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-generate-key e2e@example.org default default never
gpg --batch --quiet --clearsign -o InRelease Release
gpg --armor --export
gpgconf --kill all
"#;

#[tokio::test]
async fn a_package_is_installed_upgraded_and_removed() {
    story(async |fleet| {
        let machine = fleet.machine("node-3");
        let key = machine.run(REPOSITORY).await;
        let installed = async || {
            machine.run("dpkg-query -W -f '${db:Status-Status} ${Version}' e2e-hello 2>/dev/null || true").await
        };
        let source = json!({"name": "e2e", "aptRepository": {
            "uris": ["file:/srv/e2e/repo"], "suites": ["./"], "signedBy": {"key": key},
        }});
        // Packages come after the repositories, wherever they are written.
        let with = |package: Value| json!([{"name": "e2e-hello", "package": package}, source]);

        let first = fleet.configure("base", with(json!({"version": "1.0"}))).await;
        fleet.roll("base", json!({"hostSelector": only("node-3")})).await;
        fleet.completes("base", &first).await;
        assert_eq!(installed().await, "installed 1.0");
        assert_eq!(machine.run("cat /usr/share/e2e-hello/version").await, "hello 1.0");

        let second = fleet.configure("base", with(json!({"package": "e2e-hello", "version": "2.0"}))).await;
        fleet.completes("base", &second).await;
        assert_eq!(installed().await, "installed 2.0");

        let third = fleet.configure("base", with(json!({"ensure": "Absent"}))).await;
        fleet.completes("base", &third).await;
        assert!(!installed().await.starts_with("installed"));
    })
    .await;
}

#[tokio::test]
async fn what_is_changed_by_hand_is_put_back() {
    story(async |fleet| {
        let machine = fleet.machine("node-1");
        let drift = json!({"intervalSeconds": 10});
        let revision = fleet.configure_with("base", json!({"resources": [file("motd", "kept")], "drift": drift})).await;
        fleet.roll("base", json!({"hostSelector": only("node-1")})).await;
        fleet.completes("base", &revision).await;

        machine.run(&format!("echo mine > {FOLDER}/motd; chmod 0777 {FOLDER}/motd")).await;
        eventually("the file is put back", LATER, async || match machine.read(&format!("{FOLDER}/motd")).await {
            Some(content) if content == "kept" => Ok(()),
            content => Err(format!("{content:?}")),
        })
        .await;
        assert_eq!(machine.access(&format!("{FOLDER}/motd")).await, "644 root root");
        fleet
            .host_until("node-1", "telling of the correction", |host| {
                let active = host.status.as_ref().and_then(|status| status.active.as_ref());
                active.is_some_and(|active| {
                    active.corrected == 1 && active.message.as_deref().is_some_and(|message| message.contains("motd"))
                })
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_node_config_that_is_deleted_leaves_the_machines_as_they_are() {
    story(async |fleet| {
        let drift = json!({"intervalSeconds": 10});
        let resources = json!([file("motd", "left"), file("mine", "theirs")]);
        let revision = fleet.configure_with("base", json!({"resources": resources, "drift": drift})).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &revision).await;
        delete(&fleet.api::<Rollout>(), "base").await;
        until_gone(&fleet.api::<Rollout>(), "base", SOON).await;
        delete(&fleet.api::<NodeConfig>(), "base").await;
        // The agents say that they keep nothing any more; then what is changed by hand stays, also after a restart.
        for node in NODES {
            fleet.host_until(node, "free of assignments", is_free).await;
        }
        assert_eq!(files(fleet, "motd").await, everywhere("left"));
        assert_eq!(files(fleet, "mine").await, everywhere("theirs"));
        fleet.on_all(&format!("printf mine > {FOLDER}/mine")).await;
        fleet.kill(&fleet.agent("node-1").await).await;
        let other = fleet.configure("other", json!([file("other", "one")])).await;
        fleet.roll("other", json!({})).await;
        fleet.completes("other", &other).await;
        assert_eq!(files(fleet, "motd").await, everywhere("left"));
        assert_eq!(files(fleet, "mine").await, everywhere("mine"));
    })
    .await;
}
