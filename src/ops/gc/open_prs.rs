//! The list of open pull requests, as people and tools write it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// Numbers of the pull requests that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenPullRequests(BTreeSet<u64>);

impl OpenPullRequests {
    /// Reads one number per line, or a JSON array of numbers or of objects with a `number`.
    ///
    /// Fails with `Usage` when the text is anything else, and when it is empty: an empty list
    /// would let every branch go, and is far more often a failed query than the truth.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(empty());
        }
        let numbers = if text.starts_with(['[', '{']) { json(text)? } else { lines(text)? };
        if numbers.is_empty() {
            return Err(empty());
        }
        Ok(OpenPullRequests(numbers))
    }

    /// Returns the list that says that none is open.
    pub(crate) fn none() -> Self {
        OpenPullRequests::default()
    }

    /// Returns whether pull request `number` is open.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// Returns the list of `numbers`.
    #[cfg(test)]
    pub(super) fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        OpenPullRequests(numbers.into_iter().collect())
    }
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(Kind::Usage, "the list of open pull requests is not understood")
        .why(why)
        .hint("write one number per line, or what `gh pr list --json number` prints")
}

fn empty() -> Error {
    Error::new(Kind::Usage, "the list of open pull requests is empty")
        .code("OPEN_PRS_EMPTY")
        .why("taken at its word, every pull request's branch would go")
        .hint("--no-open-prs, if really none is open")
}

fn lines(text: &str) -> Result<BTreeSet<u64>> {
    let number = |(index, line): (usize, &str)| {
        let digits = line.trim().trim_start_matches('#');
        digits
            .parse()
            .map_err(|_| refuse(format!("line {} is not a number: `{}`", index + 1, line.trim())))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(number).collect()
}

fn json(text: &str) -> Result<BTreeSet<u64>> {
    let value: Value = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let Value::Array(entries) = value else { return Err(refuse("it is not an array")) };
    entries
        .iter()
        .map(|entry| {
            entry
                .as_u64()
                .or_else(|| entry.get("number").and_then(Value::as_u64))
                .ok_or_else(|| refuse(format!("`{entry}` holds no number")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_is_read() {
        let expected = OpenPullRequests::of([7, 12]);
        for text in [
            "7\n12\n",
            "\u{feff}7\r\n\r\n12\r\n",
            "#7\n #12",
            "[7, 12]",
            r#"[{"number":7,"title":"x"},{"number":12}]"#,
        ] {
            assert_eq!(OpenPullRequests::parse(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn doubtful_lists_are_refused() {
        for text in [
            "",
            " \r\n",
            "[]",
            "7\nseven",
            "-1",
            "7,12",
            "{\"number\":7}",
            "[\"7\"]",
            "[7",
            "[null]",
        ] {
            assert_eq!(OpenPullRequests::parse(text).unwrap_err().kind(), Kind::Usage, "{text:?}");
        }
    }
}
