//! Reading a YAML file into types: each value knows its place and says what it should have been.

use std::sync::Arc;

use serde_json::Value;

use super::place::{Place, Step, suggest};
use super::yaml::Document;
use crate::error::Result;
use crate::time::Ttl;

/// A value of a document.
#[derive(Debug, Clone)]
pub(super) struct Node<'d> {
    document: &'d Arc<Document>,
    path: Vec<Step>,
    value: &'d Value,
}

impl<'d> Node<'d> {
    /// Returns the whole of `document`.
    pub(super) fn root(document: &'d Arc<Document>) -> Self {
        Node { document, path: Vec::new(), value: document.value() }
    }

    /// Returns where it stands.
    pub(super) fn place(&self) -> Place {
        Place::new(Arc::clone(self.document), self.path.clone())
    }

    /// Returns where its key stands, or the item of a list.
    pub(super) fn key_place(&self) -> Place {
        self.place().of_key()
    }

    /// Returns the value as it is.
    pub(super) fn value(&self) -> &'d Value {
        self.value
    }

    /// Returns the field `key` of a mapping, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<Node<'d>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(self.below(key.into(), value))
    }

    /// Refuses anything but a mapping with keys of `known`; null is an empty one.
    pub(super) fn only(&self, known: &[&str]) -> Result<()> {
        for (key, node) in self.entries()? {
            if !known.contains(&key) {
                let error = node.key_place().error(format!("unknown key `{key}`"));
                return Err(suggest(error, key, known.iter().copied()));
            }
        }
        Ok(())
    }

    /// Returns keys and values of a mapping, in the order of the file; null is an empty one.
    pub(super) fn entries(&self) -> Result<Vec<(&'d str, Node<'d>)>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(map) => Ok(map
                .iter()
                .map(|(key, value)| (key.as_str(), self.below(key.into(), value)))
                .collect()),
            _ => Err(self.place().error("a mapping is expected here")),
        }
    }

    /// Returns the items of a list; null is an empty one.
    pub(super) fn items(&self) -> Result<Vec<Node<'d>>> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, value)| self.below(Step::Index(index), value))
                .collect()),
            _ => Err(self.place().error("a list is expected here")),
        }
    }

    /// Returns ids with what is said about each: a mapping, or a list of the ids alone.
    pub(super) fn named(&self) -> Result<Vec<(String, Node<'d>)>> {
        if !self.value.is_array() {
            let entries = self.entries()?;
            return Ok(entries.into_iter().map(|(id, node)| (id.to_owned(), node)).collect());
        }
        let nothing = &Value::Null;
        self.items()?
            .into_iter()
            .map(|item| Ok((item.text()?, Node { value: nothing, ..item })))
            .collect()
    }

    /// Returns a text, which must not be empty.
    pub(super) fn text(&self) -> Result<String> {
        match self.value {
            Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
            _ => Err(self.place().error("a text is expected here")),
        }
    }

    /// Returns a list of texts.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        self.items()?.iter().map(Node::text).collect()
    }

    /// Returns `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.place().error("`true` or `false` is expected here"))
    }

    /// Returns a number above 0.
    pub(super) fn number(&self) -> Result<f64> {
        self.value
            .as_f64()
            .filter(|number| *number > 0.0)
            .ok_or_else(|| self.place().error("a number above 0 is expected here"))
    }

    /// Returns a whole number above 0.
    pub(super) fn whole(&self) -> Result<u32> {
        self.value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| self.place().error("a whole number above 0 is expected here"))
    }

    /// Returns a duration such as `7d`.
    pub(super) fn ttl(&self) -> Result<Ttl> {
        Ttl::parse(&self.text()?).map_err(|why| self.place().error(why))
    }

    /// Returns a duration between `shortest` and `longest`.
    pub(super) fn ttl_between(&self, shortest: Ttl, longest: Ttl) -> Result<Ttl> {
        let length = self.ttl()?;
        if length < shortest || length > longest {
            let what = format!("a duration between {shortest} and {longest} is expected here");
            return Err(self.place().error(what));
        }
        Ok(length)
    }

    fn below(&self, step: Step, value: &'d Value) -> Node<'d> {
        Node { document: self.document, path: [&self.path[..], &[step]].concat(), value }
    }
}
