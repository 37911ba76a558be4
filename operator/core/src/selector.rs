//! Kubernetes label selectors, evaluated here so that decisions need no API server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether the selector matches these labels. No selector, or an empty one, matches everything; an operator that is not
/// known matches nothing. The rules are those of
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements>.
pub fn matches(selector: Option<&LabelSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(selector) = selector else { return true };
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let found = value(&expression.key);
        let listed = found.is_some_and(|found| expression.values.iter().flatten().any(|wanted| wanted == found));
        match expression.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    equal && expressions
}

/// How many requirements a selector has: the more, the more specific it is.
pub fn requirements(selector: Option<&LabelSelector>) -> usize {
    selector.map_or(0, |selector| {
        selector.match_labels.as_ref().map_or(0, BTreeMap::len)
            + selector.match_expressions.as_ref().map_or(0, Vec::len)
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn follows_the_rules_of_kubernetes() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let expression = |operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "zone".into(),
                operator: operator.into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            }]),
            ..LabelSelector::default()
        };
        for (operator, values, with, without) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"][..], false, false),
            ("NotIn", &["a"][..], false, true),
            ("Exists", &[][..], true, false),
            ("DoesNotExist", &[][..], false, true),
            ("Guess", &["a"][..], false, false),
        ] {
            let selector = expression(operator, values);
            assert_eq!(matches(Some(&selector), Some(&labels)), with, "{operator} with the label");
            assert_eq!(matches(Some(&selector), None), without, "{operator} without labels");
        }
        let equal = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
        assert!(matches(Some(&equal), Some(&labels)) && !matches(Some(&equal), None) && matches(None, None));
    }
}
