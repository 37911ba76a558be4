use drover_catalog::{CommandSpec, Digest, FileSpec, HostIdentity, PackageSpec, PackageState, RebootSpec, ServiceSpec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn resource(name: &str, part: Part, notify: &[&str]) -> Resource {
    let type_name = match &part {
        Part::File(_) => "file",
        Part::Service(_) => "service",
        Part::Package(_) => "package",
        Part::Reboot(_) => "reboot",
        _ => "exec",
    };
    let notify = notify.iter().map(|other| ResourceId::new("base", other)).collect();
    Resource { notify, ..Resource::new(ResourceId::new("base", name), type_name, vec![part]) }
}

fn file(content: &str) -> Part {
    Part::File(FileSpec {
        path: "/etc/x".into(),
        content: Some(drover_catalog::SensitiveBytes::new(content)),
        mode: 0o644,
        owner: "root".into(),
        group: "root".into(),
        validate: None,
    })
}

fn service(running: bool, reload: bool) -> Part {
    let state = running.then_some(drover_catalog::ServiceState::Running);
    Part::Service(ServiceSpec {
        unit: "x.service".into(),
        state,
        enabled: Some(true),
        masked: None,
        reload_on_notify: reload,
    })
}

fn package() -> Part {
    let state = PackageState::Present;
    Part::Package(PackageSpec { package: "x".into(), state, version: None, held: None, allow_downgrade: false })
}

fn command() -> Part {
    Part::Command(CommandSpec::default())
}

fn reboot() -> Part {
    Part::Reboot(RebootSpec::default())
}

fn costs(resources: &[Resource], policy: &serde_json::Value) -> String {
    let policy: DisruptionPolicy = serde_json::from_value(policy.clone()).unwrap();
    let costs = effective(resources, &BTreeMap::new(), &policy);
    costs.iter().map(|cost| format!("{cost:?}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn by_nature_a_resource_costs_what_it_does_and_what_it_notifies() {
    for (resources, wanted) in [
        (vec![resource("a", file("x"), &[])], "None"),
        (vec![resource("a", package(), &[])], "Restart"),
        (vec![resource("a", service(true, true), &[])], "Restart"),
        (vec![resource("a", service(false, true), &[])], "None"),
        (vec![resource("a", reboot(), &[])], "Reboot"),
        (vec![resource("a", file("x"), &["b"]), resource("b", service(false, true), &[])], "Reload None"),
        (vec![resource("a", file("x"), &["b"]), resource("b", service(false, false), &[])], "Restart None"),
        (vec![resource("a", file("x"), &["b"]), resource("b", reboot(), &[])], "Reboot Reboot"),
        (vec![resource("a", file("x"), &["b"]), resource("b", package(), &[])], "None Restart"),
        (
            vec![resource("a", file("x"), &["b"]), resource("b", command(), &["c"]), resource("c", reboot(), &[])],
            "Reboot Reboot Reboot",
        ),
        (
            vec![resource("a", file("x"), &["b"]), resource("b", file("x"), &["c"]), resource("c", reboot(), &[])],
            "None Reboot Reboot",
        ),
    ] {
        assert_eq!(costs(&resources, &json!({})), wanted, "{resources:?}");
    }
    let mut circle = vec![resource("a", command(), &[]), resource("b", service(false, true), &[])];
    circle[0].notify_at_end = vec![circle[1].id.clone()];
    circle[1].notify_at_end = vec![circle[0].id.clone()];
    assert_eq!(costs(&circle, &json!({})), "Reload Reload");
}

#[test]
fn the_first_that_says_something_counts() {
    let all = [resource("kubelet", service(true, false), &[]), resource("kubelet.conf", file("x"), &["kubelet"])];
    for (policy, wanted) in [
        (json!({}), "Restart Restart"),
        (json!({"default": "Drain"}), "Drain Drain"),
        (json!({"default": "None", "rules": [{"resources": ["kubelet"], "disruption": "Drain"}]}), "Drain None"),
        // What the kubelet is said to cost is what the file costs by nature.
        (json!({"rules": [{"resources": ["kubelet"], "disruption": "Drain"}]}), "Drain Drain"),
        (json!({"rules": [{"resources": ["kubelet"], "disruption": "None"}]}), "None None"),
        (json!({"rules": [{"resources": ["kube*"], "types": ["file"], "disruption": "Reboot"}]}), "Restart Reboot"),
        (json!({"rules": [{"disruption": "None"}, {"types": ["file"], "disruption": "Reboot"}]}), "None None"),
        (json!({"rules": [{"resources": ["other", "*conf"], "disruption": "None"}]}), "Restart None"),
    ] {
        assert_eq!(costs(&all, &policy), wanted, "{policy}");
    }
    let own = BTreeMap::from([(all[1].id.clone(), DisruptionLevel::Reload)]);
    let policy = serde_json::from_value(json!({"rules": [{"disruption": "Reboot"}]})).unwrap();
    assert_eq!(effective(&all, &own, &policy), [Disruption::Reboot, Disruption::Reload]);
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, text, fits) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*", "a", true),
        ("*b", "ab", true),
        ("*b", "ba", false),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
        ("*ab", "aab", true),
        ("**", "x", true),
        ("ü*", "üx", true),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
    }
}

fn catalog(resources: Vec<Resource>) -> Catalog {
    Catalog {
        host: HostIdentity { name: "n".into(), uid: "u".into() },
        generation: 1,
        revisions: vec![],
        interval_seconds: 60,
        resources,
        reboot: None,
        commands: vec![],
        digest: Digest::of(b""),
    }
}

fn costing(mut resource: Resource, disruption: Disruption) -> Resource {
    resource.disruption = disruption;
    resource
}

#[test]
fn the_cost_of_a_revision_is_the_most_of_what_changes() {
    let a = |content: &str| costing(resource("a", file(content), &[]), Disruption::Drain);
    let b = || costing(resource("b", package(), &[]), Disruption::Restart);
    let mut reported = a("1");
    reported.drift = drover_catalog::DriftMode::Report;
    let other = Resource { id: ResourceId::new("other", "a"), ..a("1") };
    for (now, next, wanted) in [
        (vec![a("1"), b()], vec![a("1"), b()], None),
        (vec![a("1"), b()], vec![b(), a("1")], None),
        (vec![a("1"), b()], vec![a("2"), b()], Some(Disruption::Drain)),
        (vec![a("1")], vec![a("1"), b()], Some(Disruption::Restart)),
        (vec![], vec![a("1"), b()], Some(Disruption::Drain)),
        (vec![a("1"), b()], vec![b()], Some(Disruption::None)),
        (vec![a("1")], vec![reported], Some(Disruption::None)),
        (vec![a("1")], vec![a("1"), other], None),
    ] {
        assert_eq!(cost(&catalog(now.clone()), &catalog(next.clone()), "base"), wanted, "{now:?} {next:?}");
    }
}

#[test]
fn a_cost_in_words_leaves_out_what_is_nothing() {
    let mut pending = PendingCost::default();
    assert_eq!(in_words(&pending), "");
    for cost in [Some(Disruption::Reboot), Some(Disruption::Reboot), Some(Disruption::None), None] {
        count(&mut pending, cost);
    }
    assert_eq!(in_words(&pending), "2 Reboot, 1 None, 1 no-op");
}

fn levels() -> impl Strategy<Value = Disruption> {
    use Disruption::{Drain, None, Reboot, Reload, Restart};
    prop::sample::select(vec![None, Reload, Restart, Drain, Reboot])
}

proptest! {
    /// Both ways between the two spellings, and the order stays the same.
    #[test]
    fn levels_are_the_same_in_both_spellings(a in levels(), b in levels()) {
        prop_assert_eq!(level(api_level(a)), a);
        prop_assert_eq!(a.cmp(&b), api_level(a).cmp(&api_level(b)));
    }

    /// A resource never costs less than what it restarts, unless somebody says so.
    #[test]
    fn a_notification_is_never_cheaper_than_its_effect(
        kinds in prop::collection::vec(0_u8..5, 1..7),
        links in prop::collection::vec((0_usize..7, 0_usize..7), 0..8),
    ) {
        let part = |kind| match kind {
            0 => file("x"),
            1 => service(false, false),
            2 => service(false, true),
            3 => command(),
            _ => reboot(),
        };
        let resources: Vec<Resource> = kinds.iter().enumerate().map(|(i, kind)| {
            let later: Vec<String> = links.iter().filter(|(a, b)| *a == i && b > a && *b < kinds.len()).map(|(_, b)| format!("r{b}")).collect();
            let later: Vec<&str> = later.iter().map(String::as_str).collect();
            resource(&format!("r{i}"), part(*kind), &later)
        }).collect();
        let costs = by_nature(&resources);
        for (resource, cost) in resources.iter().zip(&costs) {
            for told in &resource.notify {
                let other = resources.iter().find(|other| other.id == *told).unwrap();
                let effect = of_notified_part(&other.parts[0]).unwrap_or_default();
                prop_assert!(*cost >= effect, "{:?} {:?}", resource, other);
            }
        }
    }
}
