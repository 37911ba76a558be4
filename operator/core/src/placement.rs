//! Which masters a machine goes to: the pool that serves it, and how many of the pool's masters each zone has.

use std::{borrow::Borrow, cmp::Reverse, collections::BTreeMap};

use drover_crds::MasterPool;

use crate::selector;

/// The pool that serves a machine with these labels: of those that select it the one with the most requirements, and of those
/// the first by name. `None` when no pool selects it.
pub fn pool_of<'a, P: Borrow<MasterPool>>(
    labels: Option<&BTreeMap<String, String>>,
    pools: &'a [P],
) -> Option<&'a str> {
    let selecting = pools.iter().map(Borrow::borrow).filter(|pool: &&MasterPool| {
        pool.metadata.deletion_timestamp.is_none() && selector::matches(pool.spec.host_selector.as_ref(), labels)
    });
    let first = selecting.min_by_key(|pool| {
        (Reverse(selector::requirements(pool.spec.host_selector.as_ref())), pool.metadata.name.as_deref())
    });
    first.and_then(|pool| pool.metadata.name.as_deref())
}

/// How many masters each zone has, by how many machines of the pool are in it: one at least, and the rest by largest remainder
/// (Hamilton's method), of equal ones the first. Their sum is `total`, or the number of zones where that is more.
pub fn by_zone(total: i32, machines: &[usize]) -> Vec<i32> {
    let zones = machines.len() as u128;
    let spare = u128::try_from(total).unwrap_or(0).saturating_sub(zones);
    let sum: u128 = machines.iter().map(|count| *count as u128).sum();
    // Without machines all zones count the same.
    let weight = |count: usize| if sum == 0 { 1 } else { count as u128 };
    let sum = if sum == 0 { zones.max(1) } else { sum };
    let mut shares: Vec<(usize, u128, u128)> = machines
        .iter()
        .enumerate()
        .map(|(zone, count)| (zone, spare * weight(*count) / sum, spare * weight(*count) % sum))
        .collect();
    let left = spare - shares.iter().map(|(_, whole, _)| whole).sum::<u128>();
    shares.sort_by_key(|(zone, _, remainder)| (Reverse(*remainder), *zone));
    for share in shares.iter_mut().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        share.1 += 1;
    }
    shares.sort_unstable();
    shares.into_iter().map(|(_, whole, _)| i32::try_from(whole + 1).unwrap_or(i32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use drover_crds::MasterPoolSpec;
    use serde_json::{Value, json};

    use super::*;

    fn pool(name: &str, selector: &Value) -> MasterPool {
        let spec: MasterPoolSpec = serde_json::from_value(json!({"hostSelector": selector})).unwrap();
        MasterPool::new(name, spec)
    }

    #[test]
    fn the_pool_with_the_most_requirements_serves_a_machine() {
        let pools = [
            pool("everything", &json!(null)),
            pool("b-europe", &json!({"matchLabels": {"region": "eu"}})),
            pool("a-europe", &json!({"matchLabels": {"region": "eu"}})),
            pool(
                "bank",
                &json!({"matchLabels": {"org": "bank"}, "matchExpressions": [{"key": "region", "operator": "Exists"}]}),
            ),
        ];
        let of = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            pool_of(Some(&labels), &pools).map(str::to_owned)
        };
        assert_eq!(of(&[]).as_deref(), Some("everything"));
        assert_eq!(of(&[("region", "eu")]).as_deref(), Some("a-europe"));
        assert_eq!(of(&[("region", "eu"), ("org", "bank")]).as_deref(), Some("bank"));
        assert_eq!(of(&[("org", "bank")]).as_deref(), Some("everything"));
        assert_eq!(pool_of(None, &pools[1..]), None);

        let mut going = pools;
        going[0].metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(pool_of(None, &going), None, "one that is deleted serves nobody");
    }

    #[test]
    fn each_zone_has_a_master_and_the_rest_by_its_machines() {
        for (total, machines, expected) in [
            (3, &[10, 10, 10][..], &[1, 1, 1][..]),
            (1, &[10, 0, 0], &[1, 1, 1]),
            (6, &[100, 0, 0], &[4, 1, 1]),
            (5, &[10, 10], &[3, 2]),
            (7, &[60, 30, 10], &[4, 2, 1]),
            (7, &[0, 0, 0], &[3, 2, 2]),
            (4, &[], &[]),
        ] {
            assert_eq!(by_zone(total, machines), expected, "{total} {machines:?}");
        }
    }

    #[test]
    fn no_master_is_lost_between_the_zones() {
        for total in 0..40 {
            for machines in [vec![1, 2, 3], vec![7, 0, 7, 1], vec![usize::MAX, 1, usize::MAX]] {
                let sum: i32 = by_zone(total, &machines).iter().sum();
                assert_eq!(sum, total.max(i32::try_from(machines.len()).unwrap()), "{total} {machines:?}");
            }
        }
    }
}
