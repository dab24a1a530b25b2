//! The numbers of a report, whatever its scenario: by the names that lead to them.

use serde_json::{Map, Value};

/// All numbers of a report, named by their paths, in the order of the names.
pub(super) fn numbers(figures: &Map<String, Value>) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for (name, value) in figures {
        collect(name.clone(), value, &mut found);
    }
    found
}

fn collect(path: String, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64().map(|number| (path, number))),
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(format!("{path}.{name}"), value, found);
            }
        }
        Value::Array(items) => {
            for (nth, item) in items.iter().enumerate() {
                collect(format!("{path}[{}]", label(item).unwrap_or_else(|| nth.to_string())), item, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// What an item of a list calls itself: its measure and its phase.
fn label(item: &Value) -> Option<String> {
    let texts: Vec<_> = ["measure", "phase"].iter().filter_map(|name| item.get(name)?.as_str()).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// A number as people read it: three digits, or all of a whole one.
pub(super) fn readable(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 1_000.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.5}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_found_under_its_name() {
        let text = r#"{"b": 2, "a": {"x": 1.5, "no": null, "is": true}, "rows": [{"measure": "m", "phase": "p", "v": 3}, {"v": 4}]}"#;
        let figures: Map<String, Value> = serde_json::from_str(text).unwrap();
        let found = numbers(&figures);
        let expected = [("a.x", 1.5), ("b", 2.0), ("rows[m, p].v", 3.0), ("rows[1].v", 4.0)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
