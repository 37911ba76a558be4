//! The order in which the resources of one NodeConfig are applied.
//!
//! A resource comes after those that it requires and after those that notify it; beyond that the order is the one that
//! was written: of all resources that may come next, the one written first does (Kahn's algorithm with a heap). The
//! result depends on nothing but the input.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use drover_crds::NodeConfigResource;

use super::{CompileError, names};

/// Why one resource comes before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Because {
    Requires,
    Notifies,
}

/// Indexes into `resources`, in the order of application. `label` is how a resource is called in an error.
pub(super) fn order(
    resources: &[NodeConfigResource],
    label: impl Fn(&str) -> String,
) -> Result<Vec<usize>, CompileError> {
    let mut index = BTreeMap::new();
    for (position, resource) in resources.iter().enumerate() {
        if index.insert(resource.name.as_str(), position).is_some() {
            return Err(CompileError::DuplicateName { resource: label(&resource.name) });
        }
    }

    // before[x][y]: x comes before y.
    let mut before: Vec<BTreeMap<usize, Because>> = vec![BTreeMap::new(); resources.len()];
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
            before[find("require", name)?].insert(position, Because::Requires);
        }
        for name in &resource.notify {
            before[position].entry(find("notify", name)?).or_insert(Because::Notifies);
        }
    }

    let mut waits_for = vec![0_usize; resources.len()];
    for &later in before.iter().flat_map(BTreeMap::keys) {
        waits_for[later] += 1;
    }
    let mut free: BinaryHeap<_> = (0..resources.len()).filter(|&i| waits_for[i] == 0).map(Reverse).collect();
    let mut ordered = Vec::with_capacity(resources.len());
    while let Some(Reverse(next)) = free.pop() {
        ordered.push(next);
        for &later in before[next].keys() {
            waits_for[later] -= 1;
            if waits_for[later] == 0 {
                free.push(Reverse(later));
            }
        }
    }
    if ordered.len() == resources.len() {
        return Ok(ordered);
    }
    let stuck: BTreeSet<usize> = (0..resources.len()).filter(|&i| waits_for[i] > 0).collect();
    Err(describe_cycle(resources, &before, &stuck, label))
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

    /// Resources that refer to each other at random, with and without cycles.
    fn graph() -> impl Strategy<Value = Vec<NodeConfigResource>> {
        (1_usize..12).prop_flat_map(|count| {
            let names = move || prop::collection::vec((0..count).prop_map(|i| format!("r{i}")), 0..2);
            prop::collection::vec((names(), names()), count).prop_map(|links| {
                let one = |(i, (require, notify))| NodeConfigResource {
                    name: format!("r{i}"),
                    require,
                    notify,
                    ..Default::default()
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
            required.chain(notified).collect()
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
