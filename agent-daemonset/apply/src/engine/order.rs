//! Whether a catalog's order is one: requirements before, notified ones after, each id once.
//!
//! Masters sort; the check is cheap, and a wrong order would silently skip restarts.

use std::collections::BTreeMap;

use drover_catalog::{Resource, ResourceId};
use thiserror::Error;

/// What is wrong with a catalog's order.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Two resources have one id.
    #[error("{0} is in it twice")]
    Twice(ResourceId),
    /// A resource names one that is not in the catalog.
    #[error("{by} names {missing}, which is not in it")]
    Missing {
        /// Who names it.
        by: ResourceId,
        /// Who is missing.
        missing: ResourceId,
    },
    /// A resource comes after another that must come later.
    #[error("{first} must come before {second}, and does not")]
    WrongWayRound {
        /// Who must come first.
        first: ResourceId,
        /// Who must come second.
        second: ResourceId,
    },
}

/// Checks the order of a catalog's resources.
pub(super) fn check(resources: &[Resource]) -> Result<(), OrderError> {
    let mut places = BTreeMap::new();
    for (place, resource) in resources.iter().enumerate() {
        if places.insert(&resource.id, place).is_some() {
            return Err(OrderError::Twice(resource.id.clone()));
        }
    }
    let place = |by: &Resource, of: &ResourceId| {
        places.get(of).copied().ok_or_else(|| OrderError::Missing { by: by.id.clone(), missing: of.clone() })
    };
    for (here, resource) in resources.iter().enumerate() {
        for required in &resource.require {
            if place(resource, required)? >= here {
                return Err(OrderError::WrongWayRound { first: required.clone(), second: resource.id.clone() });
            }
        }
        for notified in &resource.notify_at_end {
            place(resource, notified)?;
        }
        for notified in &resource.notify {
            if place(resource, notified)? <= here {
                return Err(OrderError::WrongWayRound { first: resource.id.clone(), second: notified.clone() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row is `id`, what it requires, what it notifies.
    fn check_rows(rows: &[(&str, &[&str], &[&str])], expected: &str) {
        let id = |name: &str| ResourceId::new("c", name);
        let resource = |(name, require, notify): &(&str, &[&str], &[&str])| Resource {
            require: require.iter().copied().map(id).collect(),
            notify: notify.iter().copied().map(id).collect(),
            ..Resource::new(id(name), "file", vec![])
        };
        let resources: Vec<Resource> = rows.iter().map(resource).collect();
        assert_eq!(check(&resources).err().map_or_else(String::new, |error| error.to_string()), expected);
    }

    #[test]
    fn finds_what_is_wrong() {
        check_rows(&[("a", &[], &["b"]), ("b", &["a"], &[])], "");
        check_rows(&[("a", &[], &[]), ("a", &[], &[])], "c/a is in it twice");
        check_rows(&[("a", &["x"], &[])], "c/a names c/x, which is not in it");
        check_rows(&[("a", &[], &["x"])], "c/a names c/x, which is not in it");
        check_rows(&[("a", &["b"], &[]), ("b", &[], &[])], "c/b must come before c/a, and does not");
        check_rows(&[("a", &[], &[]), ("b", &[], &["a"])], "c/b must come before c/a, and does not");
        check_rows(&[("a", &["a"], &[])], "c/a must come before c/a, and does not");
        check_rows(&[("a", &[], &["a"])], "c/a must come before c/a, and does not");
    }
}
