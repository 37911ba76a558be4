//! JSON as YAML that people like to read: long descriptions as folded paragraphs, whole numbers without a point.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::FoldString;

/// Descriptions longer than this are folded, in lines of at most this many characters.
const WIDTH: usize = 100;

/// The value as a YAML document.
pub fn render(value: &Value) -> Result<String, serde_saphyr::ser::Error> {
    let options =
        serde_saphyr::ser_options! { folded_wrap_chars: WIDTH, min_fold_chars: WIDTH, prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(&Readable(value), options)?;
    // The writer has no way to say that a folded text does not end with a line break, and it indents empty lines.
    let yaml = yaml.replace("description: >\n", "description: >-\n");
    Ok(yaml.lines().flat_map(|line| [line.trim_end(), "\n"]).collect())
}

struct Readable<'a>(&'a Value);

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Field { name, value })))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Readable)),
            Value::Number(number) => match number.as_f64() {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole, and small enough that each step is a number"
                )]
                Some(whole) if whole.fract() == 0.0 && whole.abs() < 9e15 => serializer.serialize_i64(whole as i64),
                _ => number.serialize(serializer),
            },
            other => other.serialize(serializer),
        }
    }
}

struct Field<'a> {
    name: &'a str,
    value: &'a Value,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::String(text)
                if self.name == "description" && (text.contains('\n') || text.chars().count() > WIDTH) =>
            {
                // Folding turns one line break into a space, and two into one.
                FoldString(text.replace('\n', "\n\n")).serialize(serializer)
            }
            value => Readable(value).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_lost() {
        let long = "A field: it says `no: yes` # and more, over and over. ".repeat(9);
        let value = json!({
            "description": format!("{}\n`A`: first.\n`B`: {}", long.trim(), long.trim()),
            "items": [{"description": long.trim(), "pattern": "^[0-7]{3,4}$", "maximum": 5.0, "minimum": -1, "step": 0.5}],
            "empty": {}, "on": true, "text": "yes", "number": "1",
        });
        let yaml = render(&value).unwrap();
        assert!(yaml.lines().all(|line| line.chars().count() < WIDTH + 10), "{yaml}");
        let back: Value = serde_saphyr::from_str(&yaml).unwrap();
        let whole = json!({"maximum": 5});
        assert_eq!(back["items"][0]["maximum"], whole["maximum"]);
        assert_eq!(back["description"], value["description"]);
        assert_eq!(back["items"][0]["description"], value["items"][0]["description"]);
        for key in ["empty", "on", "text", "number"] {
            assert_eq!(back[key], value[key]);
        }
    }
}
