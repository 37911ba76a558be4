use serde_json::{Value, json};

use super::*;

fn content(value: &str) -> Content {
    let values = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), Sensitive::new(value))]);
    let reference = |kind: &str| -> ContentSource {
        serde_json::from_value(json!({kind: {"name": "blobs", "key": "a.bin"}})).unwrap()
    };
    Content {
        resources: resources(value),
        interval_seconds: 60,
        layers: vec![
            Layer::new(Source::config_map("herd"), None, DataFormat::Text, values("a", "plain")),
            Layer::new(Source::secret("door"), None, DataFormat::Text, values("b", "hunter2")),
        ],
        references: BTreeMap::from([
            (reference("configMapKeyRef"), SensitiveBytes::new(&[0xff, 0][..])),
            (reference("secretKeyRef"), SensitiveBytes::new(&[0xfe, 1][..])),
        ]),
        ..Content::default()
    }
}

fn resources(value: &str) -> Vec<NodeConfigResource> {
    serde_json::from_value(json!([{"name": "forward", "sysctl": {"key": "net.ipv4.ip_forward", "value": value}}]))
        .unwrap()
}

/// One change of each part that a machine, or the order of a catalog, can notice.
fn changed() -> Vec<(&'static str, Content)> {
    let change = |what, change: &dyn Fn(&mut Content)| {
        let mut content = content("1");
        change(&mut content);
        (what, content)
    };
    let secret = |content: &mut Content, bytes: &[u8]| {
        *content.references.values_mut().last().unwrap() = SensitiveBytes::new(bytes);
    };
    vec![
        change("resources", &|content| content.resources = resources("0")),
        change("interval", &|content| content.interval_seconds = 61),
        change("drift", &|content| content.drift = DriftMode::Report),
        change("disruption", &|content| content.disruption.default = Some(drover_crds::DisruptionLevel::Drain)),
        change("priority", &|content| content.priority = 1),
        change("selector", &|content| content.layers[0].selector = Some(LabelSelector::default())),
        change("format", &|content| content.layers[0].format = DataFormat::Yaml),
        change("source", &|content| content.layers[0].source = Source::config_map("flock")),
        change("value", &|content| drop(content.layers[0].values.insert("a".into(), Sensitive::new("other")))),
        change("secret", &|content| drop(content.layers[1].values.insert("b".into(), Sensitive::new("hunter3")))),
        change("order", &|content| content.layers.swap(0, 1)),
        change("reference", &|content| secret(content, &[0xfe, 2])),
    ]
}

#[test]
fn the_name_follows_the_content_and_nothing_else() {
    let key = NameKey::new([7; 32]);
    for key in [None, Some(&key)] {
        let name = |content: &Content| content.name("base", key).unwrap();
        assert_eq!(name(&content("1")), name(&content("1")));
        assert_eq!(name(&content("1")).len(), "base-".len() + NAME_LENGTH);
        for (what, changed) in changed() {
            assert_ne!(name(&content("1")), name(&changed), "{what}");
            assert!(!content("1").is_same_as(&changed), "{what}");
        }
    }
}

#[test]
fn a_name_is_keyed_exactly_where_there_is_a_secret() {
    let (key, other) = (NameKey::new([7; 32]), NameKey::new([8; 32]));
    let name = |content: &Content, key| content.name("base", key).unwrap();
    let secret = content("1");
    assert_ne!(name(&secret, None), name(&secret, Some(&key)));
    assert_ne!(name(&secret, Some(&key)), name(&secret, Some(&other)));
    let mut plain = content("1");
    plain.layers.pop();
    assert!(plain.holds_secrets(), "by a reference");
    plain.references.clear();
    assert_eq!(name(&plain, None), name(&plain, Some(&key)));
    assert_eq!(format!("{key:?}"), "(a key, not shown)");
}

/// The code agrees with RFC 4231's way of computing: the key filled up with zeros, inner and outer hash.
#[test]
fn the_keyed_hash_is_hmac_sha256() {
    use sha2::Digest as _;
    let content = content("1");
    let text = serde_json::to_vec(&(SCHEME, &content)).unwrap();
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|i| if i < 32 { 7 ^ byte } else { byte }).collect() };
    let inner = Sha256::digest([pad(0x36), text].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    let wanted = format!("base-{}", hexadecimal(&outer[..5]));
    assert_eq!(content.name("base", Some(&NameKey::new([7; 32]))).unwrap(), wanted);
}

#[test]
fn what_is_stored_comes_back_and_holds_no_secret() {
    for (what, content) in changed().into_iter().chain([("nothing", content("1"))]) {
        let (stored, secrets) = content.store();
        let text = serde_json::to_string(&stored).unwrap();
        assert!(!text.contains("hunter") && !text.contains("/gE="), "{what}: {text}");
        assert!(secrets.keys().all(|key| key.len() <= 253), "a Secret's keys are at most so long");
        let stored: Stored = serde_json::from_str(&text).unwrap();
        assert_eq!(stored.clone().restore(&BTreeMap::new()), None);
        for missing in secrets.keys() {
            let mut some = secrets.clone();
            some.remove(missing);
            assert_eq!(stored.clone().restore(&some), None, "{what} without {missing}");
        }
        assert_eq!(stored.restore(&secrets).unwrap(), content, "{what}");
    }
}

#[test]
fn an_object_without_values_makes_no_difference_to_a_machine() {
    let empty = Layer::new(Source::config_map("empty"), None, DataFormat::Text, BTreeMap::new());
    let mut more = content("1");
    more.layers.push(empty.clone());
    assert!(more.is_same_as(&content("1")) && content("1").is_same_as(&more));
    let restored = scheme_1(&json!({}), &json!([])).restore(&BTreeMap::new()).unwrap();
    let now = Content { layers: vec![empty], references: BTreeMap::new(), ..content("1") };
    assert!(now.is_same_as(&restored));
}

fn scheme_1(data: &Value, secret_keys: &Value) -> Stored {
    serde_json::from_value(json!({
        "scheme": 1, "resources": resources("1"), "intervalSeconds": 60, "data": data, "secretKeys": secret_keys,
    }))
    .unwrap()
}

#[test]
fn a_revision_of_scheme_1_is_the_same_content_as_long_as_nothing_changed() {
    let secrets = BTreeMap::from([("b".to_owned(), SensitiveBytes::new("hunter2"))]);
    let restored = scheme_1(&json!({"a": "plain"}), &json!(["b"])).restore(&secrets).unwrap();
    let mut now = content("1");
    now.references.clear();
    assert!(now.is_same_as(&restored) && restored.is_same_as(&now));
    for (what, mut changed) in changed() {
        changed.references.clear();
        // Scheme 1 knew neither the names of objects nor the order of layers that share no key.
        let noticed = !matches!(what, "source" | "order" | "reference");
        assert_eq!(changed.is_same_as(&restored), !noticed, "{what}");
    }
    let public = scheme_1(&json!({"a": "plain", "b": "hunter2"}), &json!([])).restore(&secrets).unwrap();
    assert!(!now.is_same_as(&public), "a value that became a secret is another content");
    let empty = scheme_1(&json!({}), &json!([])).restore(&BTreeMap::new()).unwrap();
    assert_eq!(empty, Content { layers: vec![], ..now });
}

#[test]
fn a_scheme_of_a_later_release_is_not_read_in_part() {
    let mut stored = content("1").store();
    assert!(stored.0.is_known());
    stored.0.scheme = SCHEME + 1;
    assert!(!stored.0.is_known() && stored.0.restore(&stored.1).is_none());
}
