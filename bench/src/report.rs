//! One figure a line: JSON for programs, columns for people.

use serde_json::{Map, Value, json};

/// Prints one row both ways.
pub(crate) fn row(columns: &[(&str, Value)]) {
    let map: Map<String, Value> =
        columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    println!("{}", Value::Object(map));
    let cells: Vec<String> = columns
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{text:<24}"),
            None => format!("{name} {value:>8}"),
        })
        .collect();
    eprintln!("{}", cells.join("  "));
}

/// Rounded to what the machine can tell.
pub(crate) fn figure(value: f64) -> Value {
    let digits = if value >= 100.0 {
        1.0
    } else if value >= 10.0 {
        10.0
    } else {
        100.0
    };
    json!((value * digits).round() / digits)
}
