//! Packages of adjacent resources.

use drover_catalog::{PackageSpec, PackageState, Resource};

use super::*;
use crate::engine::packages::together;

fn package(name: &str, require: &[&str]) -> Resource {
    let spec = PackageSpec {
        package: name.into(),
        state: PackageState::Present,
        version: None,
        held: None,
        allow_downgrade: false,
    };
    let require = require.iter().copied().map(id).collect();
    Resource { require, ..Resource::new(id(name), "package", vec![Part::Package(spec)]) }
}

#[test]
fn packages_that_do_not_need_each_other_go_together() {
    let other = || Resource::new(id("file"), "file", vec![file("/a", "")]);
    for (resources, expected) in [
        (vec![package("a", &[]), package("b", &[])], 2),
        (vec![package("a", &[]), package("b", &["a"])], 1),
        (vec![package("a", &[]), package("b", &["elsewhere"]), package("c", &["a"])], 2),
        (vec![package("a", &[]), other(), package("b", &[])], 1),
        (vec![other()], 0),
        (vec![], 0),
    ] {
        assert_eq!(together(&resources), expected, "{resources:?}");
    }
}
