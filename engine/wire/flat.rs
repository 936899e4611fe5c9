//! Requests as the pages' clients put them into a query: lists and objects as numbered keys, such as
//! `InstanceId.1` and `Tag.1.Key`.

use serde_json::{Map, Value};

/// Folds numbered keys into the lists they stand for; other keys stay as they are. A key that
/// contradicts another one stays too, to be refused by its name.
pub(crate) fn fold(fields: Map<String, Value>) -> Map<String, Value> {
    let mut folded = Map::new();
    let mut numbered: Vec<(String, usize, Option<String>, Value)> = Vec::new();
    for (key, value) in fields {
        match split(&key) {
            Some((name, number, field)) => {
                numbered.push((name.to_owned(), number, field.map(str::to_owned), value));
            }
            None => {
                folded.insert(key, value);
            }
        }
    }
    // By number, and not by the text of it, of which 10 comes before 2.
    numbered.sort_by(|one, two| (&one.0, one.1).cmp(&(&two.0, two.1)));
    let mut last = None;
    for (name, number, field, value) in numbered {
        let goes_on = last == Some((name.clone(), number));
        if !add(&mut folded, &name, goes_on, field.as_deref(), &value) {
            let field = field.map_or(String::new(), |field| format!(".{field}"));
            folded.insert(format!("{name}.{number}{field}"), value);
        }
        last = Some((name, number));
    }
    folded
}

/// `("Tag", 1, Some("Key"))` of `Tag.1.Key`.
fn split(key: &str) -> Option<(&str, usize, Option<&str>)> {
    let (name, rest) = key.split_once('.')?;
    let (number, field) = match rest.split_once('.') {
        Some((number, field)) => (number, Some(field)),
        None => (rest, None),
    };
    Some((name, number.parse().ok()?, field))
}

/// Adds an entry, or a field of the last one, to a list; whether it fits there.
fn add(
    folded: &mut Map<String, Value>,
    name: &str,
    goes_on: bool,
    field: Option<&str>,
    value: &Value,
) -> bool {
    let list = folded.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else { return false };
    match (field, list.last_mut()) {
        (None, _) if !goes_on => list.push(value.clone()),
        (Some(field), Some(Value::Object(entry))) if goes_on => {
            entry.insert(field.to_owned(), value.clone());
        }
        (Some(field), _) if !goes_on => {
            list.push(Value::Object(Map::from_iter([(field.to_owned(), value.clone())])));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbered_keys_are_lists() {
        let check = |flat: Value, want: Value| {
            let Value::Object(fields) = flat else { panic!("an object") };
            assert_eq!(Value::Object(fold(fields.clone())), want, "{fields:?}");
        };
        check(json!({"Name": "a", "InstanceId": ["i"]}), json!({"Name": "a", "InstanceId": ["i"]}));
        let mut many = Map::new();
        for n in 1..=12 {
            many.insert(format!("InstanceId.{n}"), json!(n));
        }
        check(Value::Object(many), json!({"InstanceId": (1..=12).collect::<Vec<_>>()}));
        check(
            json!({"Tag.1.Key": "k", "Tag.1.Value": "v", "Tag.2.Key": "l"}),
            json!({"Tag": [{"Key": "k", "Value": "v"}, {"Key": "l"}]}),
        );
        // What does not fit is left, so that it is refused.
        check(json!({"A": "x", "A.1": "y"}), json!({"A": "x", "A.1": "y"}));
        check(json!({"A.1": "x", "A.1.Key": "y"}), json!({"A": ["x"], "A.1.Key": "y"}));
        check(json!({"A.b": "x", "A.": "y"}), json!({"A.b": "x", "A.": "y"}));
    }
}
