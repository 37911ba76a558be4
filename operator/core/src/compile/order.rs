//! The order in which the resources of one NodeConfig are applied.
//!
//! A resource comes after those that it requires, those that say they come before it, and those that notify it; beyond that
//! the order is the one that was written: of all resources that may come next, the one written first does (Kahn's
//! algorithm). Two things are added:
//!
//! - A package comes after all repositories of the NodeConfig, unless that would be a cycle.
//! - After a package, the next package that may come is taken first, when nothing that is written before it and is not done
//!   yet can matter to the package manager: packages that follow each other are one transaction.
//!
//! Notifications at the end ask for no order. The result depends on nothing but the input.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use drover_crds::NodeConfigResource;

use super::{CompileError, lower::Kind, names};

/// What the package manager reads, by how the path begins.
const READ_BY_PACKAGE_MANAGERS: [&str; 14] = [
    "/etc/apt",
    "/etc/dnf",
    "/etc/dpkg",
    "/etc/hosts",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/rpm",
    "/etc/ssl",
    "/etc/yum",
    "/usr/sbin/policy-rc.d",
    "/usr/share/keyrings",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/dpkg",
];

/// Why one resource comes before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Because {
    Requires,
    Before,
    Notifies,
    /// A repository and a package. It is never part of a cycle.
    Repository,
}

/// `edges[x][y]`: x comes before y.
type Edges = Vec<BTreeMap<usize, Because>>;

/// Indexes into `resources`, in the order of application. `label` is how a resource is called in an error.
pub(super) fn order(
    resources: &[NodeConfigResource],
    label: impl Fn(&str) -> String,
) -> Result<Vec<usize>, CompileError> {
    let mut edges = written(resources, &label)?;
    if let Err(stuck) = sort(resources, &edges) {
        return Err(describe_cycle(resources, &edges, &stuck, label));
    }
    repositories_first(resources, &mut edges);
    sort(resources, &edges).map_err(|stuck| describe_cycle(resources, &edges, &stuck, label))
}

/// Who must have succeeded before whom, among the resources of one NodeConfig.
pub(super) struct Requirements<'a> {
    /// Of each name, those that say they come before it, in the order in which they are written.
    before: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Requirements<'a> {
    pub(super) fn new(resources: &'a [NodeConfigResource]) -> Self {
        let mut before: HashMap<&str, Vec<&str>> = HashMap::new();
        for resource in resources {
            for later in &resource.before {
                before.entry(later).or_default().push(&resource.name);
            }
        }
        Self { before }
    }

    /// The names of those that must have succeeded before a resource: those that it requires, and those that say they come
    /// before it.
    pub(super) fn of(&self, resource: &'a NodeConfigResource) -> impl Iterator<Item = &'a str> {
        let before = self.before.get(resource.name.as_str()).into_iter().flatten().copied();
        resource.require.iter().map(String::as_str).chain(before)
    }
}

/// What the resources themselves ask for.
fn written(resources: &[NodeConfigResource], label: &impl Fn(&str) -> String) -> Result<Edges, CompileError> {
    let mut index = BTreeMap::new();
    for (position, resource) in resources.iter().enumerate() {
        if index.insert(resource.name.as_str(), position).is_some() {
            return Err(CompileError::DuplicateName { resource: label(&resource.name) });
        }
    }
    let mut edges = vec![BTreeMap::new(); resources.len()];
    for (position, resource) in resources.iter().enumerate() {
        let find = |field: &'static str, name: &String| {
            index.get(name.as_str()).copied().ok_or_else(|| CompileError::UnknownReference {
                resource: label(&resource.name),
                field,
                name: name.clone(),
                hint: names::did_you_mean(name, index.keys().copied()),
            })
        };
        for name in &resource.require {
            edges[find("require", name)?].insert(position, Because::Requires);
        }
        for name in &resource.before {
            edges[position].entry(find("before", name)?).or_insert(Because::Before);
        }
        for name in &resource.notify {
            edges[position].entry(find("notify", name)?).or_insert(Because::Notifies);
        }
        for name in &resource.notify_at_end {
            find("notifyAtEnd", name)?;
        }
    }
    Ok(edges)
}

/// Packages come after repositories. A package that a repository waits for, such as one with its keys, does not.
fn repositories_first(resources: &[NodeConfigResource], edges: &mut Edges) {
    let kinds: Vec<Option<Kind<'_>>> = resources.iter().map(|resource| Kind::of(resource).ok()).collect();
    let is_repository = |kind: &Option<Kind<'_>>| matches!(kind, Some(Kind::AptRepository(_) | Kind::YumRepository(_)));
    for repository in (0..resources.len()).filter(|&i| is_repository(&kinds[i])) {
        let first = all_before(repository, edges);
        for package in (0..resources.len()).filter(|&i| matches!(kinds[i], Some(Kind::Package(_)))) {
            if !first.contains(&package) {
                edges[repository].entry(package).or_insert(Because::Repository);
            }
        }
    }
}

/// All that must come before a resource, directly or not.
fn all_before(resource: usize, edges: &Edges) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![resource];
    while let Some(later) = open.pop() {
        let earlier = (0..edges.len()).filter(|&earlier| edges[earlier].contains_key(&later));
        open.extend(earlier.filter(|&earlier| found.insert(earlier)));
    }
    found
}

/// All resources in order; or those that can not be ordered.
fn sort(resources: &[NodeConfigResource], edges: &Edges) -> Result<Vec<usize>, BTreeSet<usize>> {
    let mut waits_for = vec![0_usize; resources.len()];
    for &later in edges.iter().flat_map(BTreeMap::keys) {
        waits_for[later] += 1;
    }
    let mut left: BTreeSet<usize> = (0..resources.len()).collect();
    let mut free: BTreeSet<usize> = (0..resources.len()).filter(|&i| waits_for[i] == 0).collect();
    let mut ordered: Vec<usize> = Vec::with_capacity(resources.len());
    let is_package = |&i: &usize| resources[i].package.is_some();
    loop {
        let package = free.iter().copied().find(is_package).filter(|&package| {
            let in_between = left.range(..package);
            ordered.last().is_some_and(is_package)
                && !in_between.into_iter().any(|&i| matters_to_packages(&resources[i]))
        });
        let Some(next) = package.or_else(|| free.first().copied()) else { break };
        free.remove(&next);
        left.remove(&next);
        ordered.push(next);
        for &later in edges[next].keys() {
            waits_for[later] -= 1;
            if waits_for[later] == 0 {
                free.insert(later);
            }
        }
    }
    if left.is_empty() { Ok(ordered) } else { Err(left) }
}

/// Whether packages that are written after this resource may depend on it being done first: where they come from, what
/// their scripts find (accounts, masked services), and commands, of which nobody knows. A file that a package's own script
/// reads is not known either; such a package must require it.
fn matters_to_packages(resource: &NodeConfigResource) -> bool {
    // Where a path leads that is a template itself is known for a machine only, and the order is the same on all.
    let is_template = resource.render == Some(true);
    let read = |path: &str| {
        (is_template && path.contains('{')) || READ_BY_PACKAGE_MANAGERS.iter().any(|start| path.starts_with(start))
    };
    match Kind::of(resource) {
        Ok(Kind::File(spec)) => read(&spec.path),
        Ok(Kind::Directory(spec)) => read(&spec.path),
        Ok(Kind::Symlink(spec)) => read(&spec.path),
        Ok(Kind::Line(spec)) => read(&spec.path),
        Ok(Kind::Block(spec)) => read(&spec.path),
        Ok(Kind::Ini(spec)) => read(&spec.path),
        Ok(Kind::Service(spec)) => spec.masked.is_some(),
        Ok(
            Kind::AuthorizedKey(_)
            | Kind::Cron(_)
            | Kind::Hostname(_)
            | Kind::KernelModule(_)
            | Kind::Limits(_)
            | Kind::Package(_)
            | Kind::Reboot(_)
            | Kind::Sudoers(_)
            | Kind::Swap(_)
            | Kind::Sysctl(_)
            | Kind::SystemdDropIn(_)
            | Kind::SystemdUnit(_)
            | Kind::Timer(_)
            | Kind::Timezone(_),
        ) => false,
        Ok(
            Kind::AptRepository(_)
            | Kind::Archive(_)
            | Kind::CaCertificate(_)
            | Kind::Download(_)
            | Kind::Exec(_)
            | Kind::Group(_)
            | Kind::HostsEntry(_)
            | Kind::Mount(_)
            | Kind::User(_)
            | Kind::YumRepository(_),
        )
        | Err(_) => true,
    }
}

/// One cycle among the resources that are left over. Each of them has a predecessor among them (that is why it is left
/// over), so walking backwards from any comes to one twice.
fn describe_cycle(
    resources: &[NodeConfigResource],
    before: &[BTreeMap<usize, Because>],
    stuck: &BTreeSet<usize>,
    label: impl Fn(&str) -> String,
) -> CompileError {
    let mut walked: Vec<usize> = stuck.first().copied().into_iter().collect();
    let mut cycle = loop {
        let Some(&at) = walked.last() else { break vec![] };
        let Some(previous) = stuck.iter().copied().find(|earlier| before[*earlier].contains_key(&at)) else {
            break walked;
        };
        if let Some(start) = walked.iter().position(|&seen| seen == previous) {
            break walked.split_off(start);
        }
        walked.push(previous);
    };
    cycle.reverse();
    // Begin with the one that was written first, and end where it began.
    if let Some(first) = (0..cycle.len()).min_by_key(|&i| cycle[i]) {
        cycle.rotate_left(first);
        cycle.push(cycle[0]);
    }
    let name = |i: usize| resources[i].name.as_str();
    let path: Vec<&str> = cycle.iter().map(|&i| name(i)).collect();
    let reasons: Vec<String> = cycle
        .windows(2)
        .map(|pair| match before[pair[0]].get(&pair[1]) {
            Some(Because::Notifies) => format!("{} notifies {}", name(pair[0]), name(pair[1])),
            Some(Because::Before) => format!("{} is before {}", name(pair[0]), name(pair[1])),
            Some(Because::Repository) => format!("{} is a repository for {}", name(pair[0]), name(pair[1])),
            Some(Because::Requires) | None => format!("{} requires {}", name(pair[1]), name(pair[0])),
        })
        .collect();
    CompileError::Cycle {
        resource: label(path.first().copied().unwrap_or_default()),
        path: path.join(" -> "),
        reasons: reasons.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn resource(name: &str, require: &[&str], notify: &[&str]) -> NodeConfigResource {
        NodeConfigResource {
            name: name.into(),
            require: require.iter().map(ToString::to_string).collect(),
            notify: notify.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    /// A resource of a type, such as `a: package` or `x: exec`, and what it is before.
    fn typed(name: &str, kind: &str, spec: &serde_json::Value) -> NodeConfigResource {
        serde_json::from_value(serde_json::json!({"name": name, kind: spec})).unwrap()
    }

    fn package(name: &str) -> NodeConfigResource {
        typed(name, "package", &serde_json::json!({}))
    }

    fn file(name: &str, path: &str) -> NodeConfigResource {
        typed(name, "file", &serde_json::json!({"path": path, "content": ""}))
    }

    fn repository(name: &str) -> NodeConfigResource {
        typed(name, "aptRepository", &serde_json::json!({"ensure": "Absent"}))
    }

    fn check(resources: &[NodeConfigResource], expected: &Expect) {
        let actual = match order(resources, |name| format!("base/{name}")) {
            Ok(order) => order.iter().map(|&i| resources[i].name.as_str()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&actual);
    }

    #[test]
    fn keeps_what_was_written_unless_something_must_come_first() {
        check(&[resource("c", &[], &[]), resource("a", &[], &[]), resource("b", &[], &[])], &expect!["c a b"]);
        check(&[resource("a", &["c"], &[]), resource("b", &[], &[]), resource("c", &[], &[])], &expect!["b c a"]);
        check(&[resource("service", &[], &[]), resource("config", &[], &["service"])], &expect!["config service"]);
        // The same thing said twice, and in both ways, counts once.
        check(&[resource("b", &["a", "a"], &[]), resource("a", &[], &["b", "b"])], &expect!["a b"]);
        check(&[], &expect![""]);
    }

    #[test]
    fn says_which_name_is_wrong() {
        check(
            &[resource("config", &[], &["nginx"]), resource("nginx.service", &[], &[]), resource("ngin", &[], &[])],
            &expect![
                "base/config: notify names `nginx`, and no resource of this NodeConfig has that name; did you mean `ngin`?"
            ],
        );
        check(
            &[resource("config", &["x"], &[]), resource("package", &[], &[])],
            &expect!["base/config: require names `x`, and no resource of this NodeConfig has that name"],
        );
        check(
            &[resource("a", &[], &[]), resource("a", &[], &[])],
            &expect!["base/a: two resources of this NodeConfig have this name; rename one of them"],
        );
    }

    #[test]
    fn shows_the_whole_cycle_and_only_that() {
        check(
            &[
                resource("outside", &["config"], &[]),
                resource("service", &["config"], &["exec"]),
                resource("config", &["exec"], &[]),
                resource("exec", &[], &[]),
            ],
            &expect![
                "base/service: it would have to come before itself: service -> exec -> config -> service (service notifies exec, config requires exec, service requires config); take one of these away"
            ],
        );
        check(
            &[resource("a", &["a"], &[])],
            &expect!["base/a: it would have to come before itself: a -> a (a requires a); take one of these away"],
        );
    }

    #[test]
    fn before_is_require_of_the_other() {
        let before = |name: &str, before: &[&str]| NodeConfigResource {
            before: before.iter().map(ToString::to_string).collect(),
            ..resource(name, &[], &[])
        };
        check(&[resource("b", &[], &[]), before("a", &["b"])], &expect!["a b"]);
        check(
            &[before("a", &["b"]), resource("b", &[], &["c"]), before("c", &["a"])],
            &expect![
                "base/a: it would have to come before itself: a -> b -> c -> a (a is before b, b notifies c, c is before a); take one of these away"
            ],
        );
        check(
            &[before("a", &["bee"]), resource("be", &[], &[])],
            &expect![
                "base/a: before names `bee`, and no resource of this NodeConfig has that name; did you mean `be`?"
            ],
        );
        let all = [resource("b", &["x"], &[]), before("a", &["b"]), resource("x", &[], &[])];
        assert_eq!(Requirements::new(&all).of(&all[0]).collect::<Vec<_>>(), ["x", "a"]);
    }

    #[test]
    fn the_end_of_a_run_asks_for_no_order() {
        let told = |name: &str, at_end: &[&str]| NodeConfigResource {
            notify_at_end: at_end.iter().map(ToString::to_string).collect(),
            ..resource(name, &[], &[])
        };
        check(&[told("a", &["b"]), told("b", &["a"]), told("c", &["a", "c"])], &expect!["a b c"]);
        check(
            &[told("a", &["bat"]), told("bad", &[])],
            &expect![
                "base/a: notifyAtEnd names `bat`, and no resource of this NodeConfig has that name; did you mean `bad`?"
            ],
        );
    }

    #[test]
    fn packages_come_after_repositories_unless_these_wait_for_them() {
        check(&[package("p"), file("f", "/a"), repository("r")], &expect!["f r p"]);
        let keys = NodeConfigResource { require: vec!["keys".into()], ..repository("r") };
        check(&[package("p"), package("keys"), keys.clone(), repository("s")], &expect!["s keys r p"]);
        // Each repository waits for a package that would wait for the other.
        let other = NodeConfigResource { require: vec!["p".into()], ..repository("s") };
        check(&[package("p"), package("keys"), keys, other], &expect!["keys r p s"]);
    }

    #[test]
    fn packages_come_together_when_nothing_between_them_matters() {
        let service = || typed("s", "service", &serde_json::json!({"unit": "x", "state": "Running"}));
        check(
            &[package("a"), file("f", "/srv/x"), service(), package("b"), file("g", "/y"), package("c")],
            &expect!["a b c f s g"],
        );
        let mut rendered = file("f", "{{ data.folder }}/x");
        rendered.render = Some(true);
        let masked = typed("m", "service", &serde_json::json!({"unit": "x", "masked": true}));
        let exec = typed("x", "exec", &serde_json::json!({"command": ["true"], "refreshOnly": true}));
        let user = typed("u", "user", &serde_json::json!({}));
        for between in [file("f", "/etc/apt/apt.conf.d/x"), file("f", "/etc/yum.conf"), rendered, masked, exec, user] {
            let name = between.name.clone();
            let resources = [package("a"), file("h", "/srv/x"), between, package("b")];
            let order = order(&resources, str::to_owned).unwrap();
            assert_eq!(order, [0, 1, 2, 3], "{name}");
        }
        // What comes first is not passed over for a package.
        check(&[file("f", "/srv/x"), package("a"), package("b")], &expect!["f a b"]);
        // A package that waits for a file comes after it.
        let waits = NodeConfigResource { require: vec!["f".into()], ..package("b") };
        check(&[package("a"), file("f", "/srv/x"), waits, package("c")], &expect!["a c f b"]);
    }

    /// Resources that refer to each other at random, with and without cycles.
    fn graph() -> impl Strategy<Value = Vec<NodeConfigResource>> {
        (1_usize..12).prop_flat_map(|count| {
            let names = move || prop::collection::vec((0..count).prop_map(|i| format!("r{i}")), 0..2);
            let kinds = prop::sample::select(vec!["package", "aptRepository", "exec", "sysctl"]);
            prop::collection::vec((names(), names(), names(), kinds), count).prop_map(|links| {
                let one = |(i, (require, before, notify, kind)): (usize, _)| NodeConfigResource {
                    require,
                    before,
                    notify,
                    ..typed(&format!("r{i}"), kind, &serde_json::json!({"command": [], "key": "", "value": ""}))
                };
                links.into_iter().enumerate().map(one).collect()
            })
        })
    }

    /// Every "x before y" that the resources ask for.
    fn wishes(resources: &[NodeConfigResource]) -> Vec<(&str, &str)> {
        let of = |r: &'_ NodeConfigResource| -> Vec<(String, String)> {
            let required = r.require.iter().map(|other| (other.clone(), r.name.clone()));
            let notified = r.notify.iter().map(|other| (r.name.clone(), other.clone()));
            let before = r.before.iter().map(|other| (r.name.clone(), other.clone()));
            required.chain(before).chain(notified).collect()
        };
        let own = |name: &str| resources.iter().find(|r| r.name == name).map(|r| r.name.as_str()).unwrap();
        resources.iter().flat_map(of).map(|(a, b)| (own(&a), own(&b))).collect()
    }

    proptest! {
        #[test]
        fn each_wish_is_met_or_a_true_cycle_is_shown(resources in graph()) {
            let wishes = wishes(&resources);
            match order(&resources, str::to_owned) {
                Ok(order) => {
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    prop_assert_eq!(sorted, (0..resources.len()).collect::<Vec<_>>(), "each exactly once");
                    let at = |name: &str| order.iter().position(|&i| resources[i].name == name);
                    for (first, then) in wishes {
                        prop_assert!(at(first) < at(then), "{} before {}", first, then);
                    }
                }
                Err(CompileError::Cycle { path, .. }) => {
                    let path: Vec<&str> = path.split(" -> ").collect();
                    prop_assert!(path.len() >= 2 && path.first() == path.last());
                    for pair in path.windows(2) {
                        prop_assert!(wishes.contains(&(pair[0], pair[1])), "{:?} in {:?}", pair, path);
                    }
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
