//! The descriptions of a schema, from the doc comments of the type: they are what `kubectl explain` prints.
//!
//! kube drops two things on its way to a Kubernetes schema: the comment on an optional field whose type is an enum, and
//! the comments on an enum's values. And it leaves the line breaks of the source in, where `kubectl` breaks lines itself.
//! So descriptions are taken from the schema that schemars makes of the type, side by side with the one that kube made.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// Writes the descriptions of the type's fields into the schema that kube made of the type.
pub fn document<T: JsonSchema>(schema: &mut Value) {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let root = generator.into_root_schema_for::<T>().to_value();
    Source { root: &root }.describe(&root, schema);
}

/// What schemars makes of a type: each other type that it mentions stands in `$defs`, with its own description.
struct Source<'a> {
    root: &'a Value,
}

impl Source<'_> {
    fn describe(&self, source: &Value, schema: &mut Value) {
        let type_ = self.resolve(source);
        let (of_field, of_type) = (paragraphs(source), paragraphs(type_));
        // The first paragraph of a type says what it is, as the field does; what follows holds wherever it is used.
        let mut paragraphs = if of_field.is_empty() || of_field == of_type {
            of_type
        } else {
            of_field.into_iter().chain(of_type.into_iter().skip(1)).collect()
        };
        paragraphs.extend(documented_values(type_));
        if !paragraphs.is_empty() {
            schema["description"] = paragraphs.join("\n").into();
        }
        for (name, field) in type_["properties"].as_object().into_iter().flatten() {
            if let Some(below) = schema["properties"].get_mut(name) {
                self.describe(field, below);
            }
        }
        for keyword in ["items", "additionalProperties"] {
            if let Some(below) = schema.get_mut(keyword).filter(|below| below.is_object()) {
                self.describe(&type_[keyword], below);
            }
        }
    }

    /// The schema of the type that a field has, or may have.
    fn resolve<'a>(&'a self, source: &'a Value) -> &'a Value {
        let source = match source["anyOf"].as_array().map(Vec::as_slice) {
            Some([inner, null]) if null["type"] == "null" => inner,
            _ => source,
        };
        let reference = source["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(source)
    }
}

/// An enum's values, with what each means.
fn documented_values(source: &Value) -> impl Iterator<Item = String> {
    source["oneOf"].as_array().into_iter().flatten().filter_map(|value| {
        let meaning = value["description"].as_str()?;
        Some(format!("`{}`: {}", value["const"].as_str()?, unfold(meaning)))
    })
}

fn paragraphs(source: &Value) -> Vec<String> {
    source["description"].as_str().into_iter().flat_map(|text| text.split("\n\n")).map(unfold).collect()
}

/// A paragraph without the line breaks that it has in the source.
fn unfold(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A mood.
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Mood {
        /// All is
        /// well.
        Good,
        /// It is not.
        Bad,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Animal {
        /// How it feels; over
        /// two lines.
        ///
        /// And two paragraphs.
        mood: Option<Mood>,
        herd: Vec<Option<Mood>>,
        /// Where it lives.
        stable: Option<Stable>,
    }

    /// A stable.
    ///
    /// It is warm.
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Stable {
        boxes: i32,
    }

    #[test]
    fn a_field_is_described_by_its_own_comment_and_its_values() {
        let mut schema =
            json!({"properties": {"mood": {"description": "dropped"}, "herd": {"items": {}}, "stable": {}}});
        document::<Animal>(&mut schema);
        let values = "`Good`: All is well.\n`Bad`: It is not.";
        assert_eq!(
            schema["properties"]["mood"]["description"],
            format!("How it feels; over two lines.\nAnd two paragraphs.\n{values}"),
        );
        assert_eq!(schema["properties"]["herd"]["items"]["description"], format!("A mood.\n{values}"));
        assert_eq!(schema["properties"]["stable"]["description"], "Where it lives.\nIt is warm.");
    }
}
