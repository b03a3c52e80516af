//! YAML files: read once with anchors and merge keys applied, and asked afterwards where something stands.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::locate::position;
use super::place::{Place, Step};
use crate::error::{Error, Kind, Result};

/// Key whose value is merged into the mapping that holds it.
const MERGE_KEY: &str = "<<";

/// A YAML (or JSON) file as it was read.
#[derive(Debug)]
pub(crate) struct Document {
    shown: String,
    folder: PathBuf,
    text: String,
    value: Value,
}

impl Document {
    /// Reads `root/relative`; errors show the file as `relative`.
    pub(super) fn read(root: &Path, relative: &str) -> Result<Arc<Document>> {
        let path = root.join(relative);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::new(Kind::Usage, format!("`{relative}` cannot be read")).why(error.to_string())
        })?;
        let folder = path.parent().unwrap_or(root).to_owned();
        Document::parse(relative, folder, text)
    }

    /// Reads `text`, the contents of the file `shown` in `folder`.
    pub(super) fn parse(
        shown: impl Into<String>,
        folder: PathBuf,
        text: String,
    ) -> Result<Arc<Document>> {
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let mut document = Document { shown: shown.into(), folder, text, value: Value::Null };
        let reading = Reading::default();
        let result = Tree(&reading).deserialize(serde_yaml::Deserializer::from_str(&document.text));
        match result {
            Ok(value) => document.value = value,
            Err(_) if document.is_blank() => {}
            Err(error) => return Err(document.refuse(&error, reading)),
        }
        Ok(Arc::new(document))
    }

    /// Returns the contents.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Returns the name errors show.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the folder relative paths in this file start from.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns line and column, both from 1, of the value at `path`, or of its key with `at_key`;
    /// of what holds it when it is not there.
    pub(super) fn locate(&self, path: &[Step], at_key: bool) -> (usize, usize) {
        (0..=path.len())
            .rev()
            .find_map(|length| self.find(&path[..length], at_key && length == path.len()))
            .unwrap_or((1, 1))
    }

    /// Returns the position of `path`, which may come out of a merge key.
    fn find(&self, path: &[Step], at_key: bool) -> Option<(usize, usize)> {
        position(&self.text, path, at_key).or_else(|| {
            (0..path.len()).rev().find_map(|at| {
                let mut merged = path.to_vec();
                merged.insert(at, Step::Key(MERGE_KEY.to_owned()));
                position(&self.text, &merged, at_key)
            })
        })
    }

    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }

    /// Says why the file could not be read.
    fn refuse(&self, error: &serde_yaml::Error, reading: Reading) -> Error {
        let here = match error.location() {
            Some(at) => format!("{}:{}:{}", self.shown, at.line(), at.column()),
            None => self.shown.clone(),
        };
        match reading.refusal.into_inner() {
            Some(Refusal::Duplicate(key)) => {
                let mut first = reading.path.into_inner();
                first.push(Step::Key(key.clone()));
                let (line, column) = self.locate(&first, true);
                Error::new(Kind::Usage, format!("{here}: `{key}` is there twice"))
                    .why(format!("first at {}:{line}:{column}", self.shown))
            }
            Some(Refusal::Unsupported(what)) => Error::new(Kind::Usage, format!("{here}: {what}")),
            None => self.not_yaml(&here, error),
        }
    }

    /// Says what the YAML crate stumbled over, and where that begins.
    fn not_yaml(&self, here: &str, error: &serde_yaml::Error) -> Error {
        let text = error.to_string();
        let line = error.location().and_then(|at| self.text.lines().nth(at.line().max(1) - 1));
        let indent = |line: &str| line.len() - line.trim_start().len();
        let tab = line.and_then(|line| line[..indent(line)].find('\t'));
        if let (Some(tab), Some(at)) = (tab, error.location()) {
            let here = format!("{}:{}:{}", self.shown, at.line(), tab + 1);
            return Error::new(Kind::Usage, format!("{here}: a tab indents this line"))
                .hint("indent with spaces");
        }
        let open = [("mapping", '{'), ("sequence", '[')].into_iter().find_map(|(kind, bracket)| {
            let (_, from) = text.split_once(&format!("while parsing a flow {kind} at line "))?;
            let (line, column) = from.split_once(" column ")?;
            Some((bracket, line, column))
        });
        match open {
            Some((bracket, line, column)) => {
                let what = format!(
                    "{}:{line}:{column}: `{bracket}` is not closed, or a comma is missing",
                    self.shown
                );
                Error::new(Kind::Usage, what).why(format!("what follows at {here} does not fit"))
            }
            None => {
                let what = text.split(" at line ").next().unwrap_or(&text);
                Error::new(Kind::Usage, format!("{here}: this is not YAML")).why(what)
            }
        }
    }
}

/// Names a place in `document`.
pub(super) fn place(document: &Arc<Document>, path: &[Step]) -> Place {
    Place::new(Arc::clone(document), path.to_vec())
}

/// What is known when reading stops early.
#[derive(Default)]
struct Reading {
    path: RefCell<Vec<Step>>,
    refusal: RefCell<Option<Refusal>>,
}

enum Refusal {
    Duplicate(String),
    Unsupported(String),
}

impl Reading {
    /// Stops with a reason of ours; the YAML crate adds the position.
    fn refuse<T, E: serde::de::Error>(&self, refusal: Refusal) -> Result<T, E> {
        *self.refusal.borrow_mut() = Some(refusal);
        Err(E::custom("refused"))
    }

    /// Reads something below `step`; the path is left as it is when that fails.
    fn below<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let value = read()?;
        self.path.borrow_mut().pop();
        Ok(value)
    }
}

/// Reads any node.
struct Tree<'a>(&'a Reading);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => self.0.refuse(Refusal::Unsupported(format!("`{value}` is not a number here"))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let index = Step::Index(items.len());
            match self.0.below(index, || sequence.next_element_seed(Tree(self.0)))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Value, A::Error> {
        let mut own = Map::new();
        let mut inherited = Vec::new();
        while let Some(key) = mapping.next_key_seed(NewKey { reading: self.0, taken: &own })? {
            let step = Step::Key(key.clone());
            let value = self.0.below(step, || mapping.next_value_seed(Tree(self.0)))?;
            if key != MERGE_KEY {
                own.insert(key, value);
                continue;
            }
            match value {
                Value::Object(map) => inherited.push(map),
                Value::Array(items) if items.iter().all(Value::is_object) => {
                    inherited.extend(items.into_iter().filter_map(|item| match item {
                        Value::Object(map) => Some(map),
                        _ => None,
                    }));
                }
                _ => {
                    let what = "`<<` takes a mapping or a list of mappings".to_owned();
                    return self.0.refuse(Refusal::Unsupported(what));
                }
            }
        }
        for (key, value) in inherited.into_iter().flatten() {
            own.entry(key).or_insert(value);
        }
        Ok(Value::Object(own))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (tag, _) = access.variant::<String>()?;
        self.0.refuse(Refusal::Unsupported(format!("the tag `!{tag}` has no meaning here")))
    }
}

/// Reads a key that the mapping does not have yet.
struct NewKey<'a> {
    reading: &'a Reading,
    taken: &'a Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.taken.contains_key(key) {
            return self.reading.refuse(Refusal::Duplicate(key.to_owned()));
        }
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arc<Document>> {
        Document::parse("databricks.yml", PathBuf::from("/bundle"), text.to_owned())
    }

    fn at(text: &str, path: &[&str], at_key: bool) -> (usize, usize) {
        let steps: Vec<Step> = path
            .iter()
            .map(|step| step.parse().map_or_else(|_| Step::Key((*step).to_owned()), Step::Index))
            .collect();
        parse(text).unwrap().locate(&steps, at_key)
    }

    #[test]
    fn anchors_and_merge_keys_are_applied() {
        let document = parse(
            "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nx:\n  <<: [*base, *more]\n  a: 9\n",
        )
        .unwrap();

        assert_eq!(document.value()["x"], serde_json::json!({"a": 9, "b": 2, "c": 4}));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_both_places() {
        let error = parse("apps:\n  a: 1\n  b: 2\n  a: 3\n").unwrap_err();

        assert_eq!(
            error.to_string(),
            "databricks.yml:4:3: `a` is there twice: first at databricks.yml:2:3"
        );
    }

    #[test]
    fn broken_yaml_says_where() {
        let error = parse("a: [1, 2\nb: 3\n").unwrap_err();

        assert_eq!(
            error.to_string(),
            "databricks.yml:1:4: `[` is not closed, or a comma is missing: \
             what follows at databricks.yml:2:2 does not fit"
        );
        assert!(parse("a: !secret x\n").unwrap_err().to_string().contains("`!secret`"));
        assert!(parse("a: 1\n---\nb: 2\n").is_err());
    }

    #[test]
    fn a_tab_and_an_open_bracket_are_told_where_they_stand() {
        for (text, expected) in [
            ("a:\n\tb: 1\n", "databricks.yml:2:1: a tab indents this line"),
            ("a:\n  b: 1\n  \tc: 1\n", "databricks.yml:3:3: a tab indents this line"),
            (
                "a: 1\nb: {c: 1\nd: 2\ne: 3\n",
                "databricks.yml:2:4: `{` is not closed, or a comma is missing",
            ),
            (
                "a: 1\nb: [c,\nd: 2\n\n",
                "databricks.yml:2:4: `[` is not closed, or a comma is missing",
            ),
            ("a: {b: {c: 1}\n", "databricks.yml:1:4: `{` is not closed, or a comma is missing"),
        ] {
            assert_eq!(parse(text).unwrap_err().message(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let document = parse("\u{feff}a: 1\n").unwrap();

        assert_eq!(document.value(), &serde_json::json!({"a": 1}));
        assert_eq!(document.locate(&["a".into()], true), (1, 1));
    }

    #[test]
    fn an_empty_file_is_null_and_only_true_and_false_are_booleans() {
        assert_eq!(parse("").unwrap().value(), &Value::Null);
        assert_eq!(parse("# nothing\n\n").unwrap().value(), &Value::Null);
        assert_eq!(
            parse("{on: yes, 7: off, t: true}").unwrap().value(),
            &serde_json::json!({"on": "yes", "7": "off", "t": true})
        );
    }

    #[test]
    fn places_are_found_by_path() {
        let text = "a:\n  b: [x, y]\n  c: &c {d: 1}\ne:\n  <<: *c\n  f:\n    - g: 1\n    - g: 2\n";

        assert_eq!(at(text, &["a", "b"], true), (2, 3));
        assert_eq!(at(text, &["a", "b", "1"], false), (2, 10));
        assert_eq!(at(text, &["e", "f", "1", "g"], false), (8, 10));
        assert_eq!(at(text, &["e", "d"], false), (3, 13));
        assert_eq!(at(text, &["e", "nothing"], true), (5, 3));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }

        assert!(parse(&text).is_err());
    }
}
