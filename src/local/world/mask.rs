//! Update masks: which fields of a body a PATCH means.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::local::fault::{Answer, Fault};

/// The fields a PATCH changes, as single paths such as `spec.ttl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask(BTreeSet<String>);

/// What a resource's masks may name.
pub(crate) struct Fields {
    /// Paths of single fields.
    pub(crate) leaves: &'static [&'static str],
    /// Names of one-of groups and of blocks, each with the leaves it stands for.
    pub(crate) groups: &'static [(&'static str, &'static [&'static str])],
    /// Those leaves that are lists or maps: clients leave empty ones out, which clears them.
    pub(crate) lists: &'static [&'static str],
}

impl Mask {
    /// Reads the query parameter `update_mask` for the request body `body`.
    ///
    /// Fails when it is missing, names an unknown field, or names one that the body does not hold and
    /// that is no list.
    /// `*` and `spec` stand for every field the body holds.
    pub(crate) fn parse(text: Option<&str>, fields: &Fields, body: &Value) -> Answer<Mask> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Fault::required("update_mask"))?;
        let mut paths = BTreeSet::new();
        for path in text.split(',').map(str::trim) {
            let named = leaves_of(path, fields).ok_or_else(|| {
                Fault::invalid(format!("Unknown field path in update_mask: '{path}'"))
            })?;
            let clears = |leaf: &&str| named.len() == 1 && fields.lists.contains(leaf);
            let meant = |leaf: &&str| holds(body, leaf) || clears(leaf);
            let held: Vec<&str> = named.iter().copied().filter(meant).collect();
            if held.is_empty() && !is_everything(path) {
                return Err(Fault::invalid(format!(
                    "Field '{path}' is in update_mask but not in the request body"
                )));
            }
            paths.extend(held.into_iter().map(str::to_owned));
        }
        Ok(Mask(paths))
    }

    /// Returns whether the field at `path` is to be changed.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains(path)
    }
}

fn is_everything(path: &str) -> bool {
    matches!(path, "*" | "spec" | "spec.*")
}

fn leaves_of<'a>(path: &str, fields: &'a Fields) -> Option<Vec<&'a str>> {
    if is_everything(path) {
        return Some(fields.leaves.to_vec());
    }
    if let Some((_, leaves)) = fields.groups.iter().find(|(name, _)| *name == path) {
        return Some(leaves.to_vec());
    }
    fields.leaves.iter().find(|leaf| **leaf == path).map(|leaf| vec![*leaf])
}

fn holds(body: &Value, path: &str) -> bool {
    path.split('.').try_fold(body, |value, key| value.get(key)).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: Fields = Fields {
        leaves: &["spec.ttl", "spec.no_expiry", "spec.is_protected", "spec.tags"],
        groups: &[("spec.expiration", &["spec.ttl", "spec.no_expiry"])],
        lists: &["spec.tags"],
    };

    fn parse(text: &str, body: Value) -> Result<Vec<String>, String> {
        Mask::parse(Some(text), &FIELDS, &body)
            .map(|mask| mask.0.into_iter().collect())
            .map_err(|fault| fault.failure.message)
    }

    #[test]
    fn both_spellings_of_a_one_of_group_are_understood() {
        let body = json!({ "spec": { "ttl": "60s" } });

        assert_eq!(parse("spec.expiration", body.clone()).unwrap(), ["spec.ttl"]);
        assert_eq!(parse("spec.ttl", body).unwrap(), ["spec.ttl"]);
    }

    #[test]
    fn a_star_means_what_the_body_holds() {
        let body = json!({ "spec": { "is_protected": true } });

        assert_eq!(parse("*", body).unwrap(), ["spec.is_protected"]);
    }

    #[test]
    fn a_list_that_is_left_out_is_meant_where_it_is_named() {
        let body = json!({ "spec": { "is_protected": true } });

        assert_eq!(parse("spec.tags", body.clone()).unwrap(), ["spec.tags"]);
        assert_eq!(parse("*", body).unwrap(), ["spec.is_protected"]);
    }

    #[test]
    fn unknown_and_unpopulated_paths_are_refused() {
        let unknown = parse("spec.colour", json!({})).unwrap_err();
        assert_eq!(unknown, "Unknown field path in update_mask: 'spec.colour'");
        assert!(parse("spec.is_protected", json!({ "spec": {} })).is_err());
        assert!(Mask::parse(None, &FIELDS, &json!({})).is_err());
    }
}
