//! Where something stands: file, line and column, worked out when somebody wants to read it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::yaml::Document;
use crate::error::{Error, Kind};

/// One step down a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Step::Key(key.clone())
    }
}

/// A place in a file of the bundle; prints as `resources/apps.yml:3:5`.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    document: Arc<Document>,
    path: Vec<Step>,
    at_key: bool,
}

impl Place {
    /// Names the value at `path`.
    pub(super) fn new(document: Arc<Document>, path: Vec<Step>) -> Self {
        Place { document, path, at_key: false }
    }

    /// Names the key instead of the value.
    pub(super) fn of_key(mut self) -> Self {
        self.at_key = true;
        self
    }

    /// Returns the folder of the file, from which relative paths in it start.
    pub(super) fn folder(&self) -> &Path {
        self.document.folder()
    }

    /// Returns the file, relative to the root of the bundle.
    pub(crate) fn file(&self) -> &str {
        self.document.shown()
    }

    /// Returns line and column, both from 1.
    pub(crate) fn position(&self) -> (usize, usize) {
        self.document.locate(&self.path, self.at_key)
    }

    /// Puts this place in front of `error`.
    pub(super) fn locate(&self, error: &Error) -> Error {
        let mut located = Error::new(error.kind(), format!("{self}: {}", error.message()));
        for reason in error.reasons() {
            located = located.why(reason);
        }
        match error.hint_text() {
            Some(hint) => located.hint(hint),
            None => located,
        }
    }

    /// Creates a usage error that begins with this place.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        Error::new(Kind::Usage, format!("{self}: {what}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}", self.file())
    }
}

/// Adds the nearest of `known` to an error about the unknown name `wanted`, or all of them when few.
pub(super) fn suggest<'a>(
    error: Error,
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    match crate::error::nearest(wanted, known.iter().copied()) {
        Some(name) => error.hint(format!("did you mean `{name}`?")),
        None if known.is_empty() || known.len() > 20 => error,
        None => error.why(format!("known: {}", known.join(", "))),
    }
}
