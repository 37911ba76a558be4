//! Facts as the API keeps them, and as templates read them: the same tree, once of any content and once typed.

use drover_catalog::Facts;
use serde_json::{Map, Value};

/// Facts for templates, from what the Host's status keeps. `None` for something else, such as the facts of an earlier
/// release: then they are not known until the agent tells them anew. Facts that this release does not know are left out.
pub fn facts_from_status(tree: &Map<String, Value>) -> Option<Facts> {
    serde_json::from_value(Value::Object(tree.clone())).ok()
}

/// Facts for the Host's status.
pub fn facts_for_status(facts: &Facts) -> Map<String, Value> {
    match serde_json::to_value(facts) {
        Ok(Value::Object(tree)) => tree,
        // They are a struct whose maps have strings for keys, so neither happens.
        Ok(_) | Err(_) => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Os, facts::Disk};
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let disk = Disk { size_bytes: 1 << 50, ..Disk::default() };
        let facts = Facts {
            os: Os { id: "debian".into(), ..Os::default() },
            disks: [("sda".to_owned(), disk)].into(),
            custom: [("rack".to_owned(), json!({"row": 3, "tags": ["a", 1.5, true]}))].into(),
            is_virtual: true,
            ..Facts::default()
        };
        let tree = facts_for_status(&facts);
        assert_eq!(tree["disks"]["sda"]["size_bytes"], 1_i64 << 50);
        assert_eq!(facts_from_status(&tree), Some(facts));
    }

    #[test]
    fn what_is_of_another_release_is_read_as_far_as_it_is_facts() {
        for (tree, expected) in [
            (json!({"os": {"id": "debian"}, "moons": 2}), Some("debian")),
            (json!({}), Some("")),
            (json!({"osId": "debian", "processors": 4}), None),
        ] {
            let facts = facts_from_status(tree.as_object().unwrap());
            assert_eq!(facts.as_ref().map(|facts| facts.os.id.as_str()), expected, "{tree}");
        }
    }
}
