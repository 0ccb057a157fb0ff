//! `docs/status.schema.json` against what pluto really says.

use serde_json::Value;
use std::fs;
use std::path::Path;

/// What in `value` is not as the schema says; of JSON Schema as much as ours uses, and a word it does not know is a fault.
pub(crate) fn faults(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    let object = schema.as_object().expect("a schema is an object");
    for (word, rule) in object {
        match word.as_str() {
            "$schema" | "$id" | "title" | "description" => {}
            "type" => {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(n) if n.is_u64() || n.is_i64() => "integer",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let allowed = rule.as_array().map_or_else(|| vec![rule.clone()], Clone::clone);
                if !allowed.iter().any(|one| one == kind) {
                    out.push(format!("{at} is {kind}, not {rule}"));
                }
            }
            "minimum" => {
                if value.as_i64().is_some_and(|n| n < rule.as_i64().expect("a number")) {
                    out.push(format!("{at} is less than {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().expect("a list").contains(value) {
                    out.push(format!("{at} is {value}, none of {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().expect("a list") {
                    if value.is_object() && value.get(name.as_str().expect("a name")).is_none() {
                        out.push(format!("{at} has no {name}"));
                    }
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        faults(rule, value, &format!("{at}.{name}"), out);
                    }
                }
            }
            "additionalProperties" => {
                let known = object.get("properties").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    match rule.as_bool() {
                        Some(true) => {}
                        Some(false) => out.push(format!("{at}.{name} is not documented")),
                        None => faults(rule, value, &format!("{at}.{name}"), out),
                    }
                }
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    faults(rule, value, &format!("{at}[{n}]"), out);
                }
            }
            word => out.push(format!("the schema says {word}, which is not understood here")),
        }
    }
}

/// A status as documented.
pub(crate) fn holds(status: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/status.schema.json");
    let schema: Value =
        serde_json::from_slice(&fs::read(path).expect("docs/status.schema.json")).expect("JSON");
    let mut out = Vec::new();
    faults(&schema, status, "status", &mut out);
    assert!(out.is_empty(), "{out:#?}\n{status:#}");
    // The checker sees what is wrong.
    for wrong in ["pid", "connections", "klips"] {
        let mut changed = status.clone();
        changed[wrong] = Value::String("wrong".to_owned());
        let mut out = Vec::new();
        faults(&schema, &changed, "status", &mut out);
        assert!(!out.is_empty(), "{wrong}");
    }
    let mut changed = status.clone();
    changed["surprise"] = Value::Null;
    let mut out = Vec::new();
    faults(&schema, &changed, "status", &mut out);
    assert_eq!(out, ["status.surprise is not documented"]);
}
