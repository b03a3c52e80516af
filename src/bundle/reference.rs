//! `${…}` references: found in texts and replaced by values.

use std::ops::Range;

use serde_json::Value;

use crate::error::{Error, Kind, Result, nearest};

/// First words of references that mean something; others, such as `${HOME}`, are left alone.
pub(super) const NAMESPACES: [&str; 6] =
    ["bundle", "workspace", "var", "variables", "resources", "artifacts"];

/// A reference inside a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'t> {
    range: Range<usize>,
    /// What stands between the braces.
    pub(super) path: &'t str,
}

/// Returns the references in `text`; what only looks like one (`${HOME:-/}`) is none.
pub(super) fn references(text: &str) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("${").map(|at| from + at) {
        let inside = start + 2;
        from = inside;
        let Some(end) = text[inside..].find('}').map(|at| inside + at) else { break };
        let path = &text[inside..end];
        if is_path(path) {
            found.push(Reference { range: start..end + 1, path });
            from = end + 1;
        }
    }
    found
}

/// Follows the rule of the Databricks CLI 1.13 (`libs/dyn/dynvar/ref.go`, read 2026-11): words of
/// letters, digits, `-` and `_`, a letter first and no sign last, joined by dots, with `[0]` after a word.
fn is_path(path: &str) -> bool {
    path.split('.').all(|part| {
        let word = part.split('[').next().unwrap_or_default();
        let indices = &part[word.len()..];
        word.starts_with(char::is_alphabetic)
            && word.ends_with(char::is_alphanumeric)
            && word.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && indices_of(indices).is_some()
    })
}

/// Reads `[0][12]`.
fn indices_of(text: &str) -> Option<Vec<usize>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner.split("][").map(|number| number.parse().ok()).collect()
}

/// Returns the value at `path` (`apps.shop.env[0].name`) below `value`.
pub(super) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, part| {
        let word = part.split('[').next().unwrap_or_default();
        let indices = indices_of(&part[word.len()..])?;
        indices.into_iter().try_fold(value.get(word)?, |value, index| value.get(index))
    })
}

/// Returns what `name` begins with before its first reference, without the hyphen that joins them.
pub(super) fn stem(name: &str) -> &str {
    match references(name).first() {
        Some(first) => name[..first.range.start].trim_end_matches('-'),
        None => name,
    }
}

/// Returns the namespace of `path`, or an error when it is nearly one.
pub(super) fn namespace(path: &str) -> Result<Option<&str>> {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    if NAMESPACES.contains(&first) {
        return Ok(Some(first));
    }
    match nearest(first, NAMESPACES) {
        Some(known) if path.contains('.') => Err(Error::new(
            Kind::Usage,
            format!("`${{{path}}}` is not a reference this bundle knows"),
        )
        .hint(format!("did you mean `{known}.…`?"))),
        _ => Ok(None),
    }
}

/// Replaces the references in `text` by what `lookup` says; `None` leaves the reference as it is.
///
/// A text that is nothing but one reference takes the value's type. Fails when a mapping, a list
/// or null would become a part of a text.
pub(super) fn substitute(
    text: &str,
    mut lookup: impl FnMut(&str) -> Result<Option<Value>>,
) -> Result<Value> {
    let mut result = String::new();
    let mut done = 0;
    for Reference { range, path } in references(text) {
        let Some(value) = lookup(path)? else { continue };
        if range == (0..text.len()) {
            return Ok(value);
        }
        result.push_str(&text[done..range.start]);
        match value {
            Value::String(part) => result.push_str(&part),
            Value::Number(part) => result.push_str(&part.to_string()),
            Value::Bool(part) => result.push_str(if part { "true" } else { "false" }),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(Error::new(
                    Kind::Usage,
                    format!("`${{{path}}}` is not a text and cannot be a part of one"),
                ));
            }
        }
        done = range.end;
    }
    result.push_str(&text[done..]);
    Ok(Value::String(result))
}

/// Replaces the references in every text of `value` like [`substitute`].
pub(super) fn substitute_all(
    value: &Value,
    lookup: &mut dyn FnMut(&str) -> Result<Option<Value>>,
) -> Result<Value> {
    Ok(match value {
        Value::String(text) => substitute(text, &mut *lookup)?,
        Value::Array(items) => {
            items.iter().map(|item| substitute_all(item, lookup)).collect::<Result<_>>()?
        }
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| Ok((key.clone(), substitute_all(value, lookup)?)))
                .collect::<Result<_>>()?,
        ),
        plain => plain.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(text: &str) -> Vec<&str> {
        references(text).into_iter().map(|reference| reference.path).collect()
    }

    #[test]
    fn references_are_found_and_look_alikes_are_not() {
        assert_eq!(paths("a-${var.x}${bundle.name}"), ["var.x", "bundle.name"]);
        assert_eq!(paths("${var.list[0].name[1]}"), ["var.list[0].name[1]"]);
        assert_eq!(paths("${HOME:-/} ${} ${a..b} ${a-} ${1} $${var.x"), [""; 0]);
        assert_eq!(paths("${${var.x}}"), ["var.x"]);
    }

    #[test]
    fn a_whole_reference_keeps_its_type_and_a_part_becomes_text() {
        let lookup = |path: &str| Ok((path == "var.n").then(|| json!(7)));

        assert_eq!(substitute("${var.n}", lookup).unwrap(), json!(7));
        assert_eq!(substitute("n=${var.n} ${var.m}", lookup).unwrap(), json!("n=7 ${var.m}"));
        assert!(substitute("n=${var.n}", |_| Ok(Some(json!({})))).is_err());
    }

    #[test]
    fn a_path_leads_through_lists() {
        let tree = json!({"a": {"b": [{"c": 1}, {"c": 2}]}});

        assert_eq!(at(&tree, "a.b[1].c"), Some(&json!(2)));
        assert_eq!(at(&tree, "a.b[2].c"), None);
    }

    #[test]
    fn a_mistyped_namespace_is_told_from_a_shell_variable() {
        assert_eq!(namespace("HOME").unwrap(), None);
        assert_eq!(namespace("var.x").unwrap(), Some("var"));
        assert!(
            namespace("resource.apps.x").unwrap_err().hint_text().unwrap().contains("resources")
        );
    }
}
