//! What is known of pull requests: a state for each number, as forges and their tools print it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::open_prs::{self, WITH_STATES};
use crate::error::{Error, Kind, Result};

/// Whether a pull request is over.
///
/// Source of the words: `gh` 2.83 (`OPEN`, `CLOSED`, `MERGED`), GitHub REST "List pull requests"
/// (`open`, `closed`), GitLab REST "Merge requests" (`opened`, `closed`, `locked` while it is being
/// merged, `merged`), read 2026-11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum State {
    /// It is open, or on its way to be merged.
    #[serde(rename = "OPEN", alias = "open", alias = "opened", alias = "locked")]
    Open,
    /// It is closed or merged.
    #[serde(rename = "CLOSED", alias = "closed", alias = "MERGED", alias = "merged")]
    Closed,
}

/// What is known of the pull requests of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PullRequests {
    /// The state of each.
    States(States),
    /// All that are open.
    Open(BTreeSet<u64>),
}

/// A state for each number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct States(BTreeMap<u64, State>);

impl PullRequests {
    /// Reads the state of each pull request: a JSON array of objects with `number` (or `iid`) and
    /// `state`, an array of such arrays, or one such object.
    ///
    /// A list that was cut is no JSON. A number that is there twice is open when one of them says
    /// so. Fails with `Usage`, with line and column, for anything else, an unknown state included.
    pub(crate) fn parse_states(text: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}');
        let Pages(entries) = serde_json::from_str(text).map_err(|error| {
            Error::new(Kind::Usage, "the list of pull requests is not understood")
                .code("PULL_REQUESTS_UNREADABLE")
                .why(error.to_string())
                .hint(WITH_STATES)
        })?;
        Ok(PullRequests::States(entries.into_iter().collect()))
    }

    /// Reads the numbers of the pull requests that are open, one per line and then `end COUNT`.
    ///
    /// Fails with `Usage` for anything else, so also for a list that was cut.
    pub(crate) fn parse_open(text: &str) -> Result<Self> {
        open_prs::parse(text).map(PullRequests::Open)
    }

    /// Returns the state of pull request `number`, unless nothing is known of it.
    ///
    /// A list of open ones knows nothing of numbers above its own: those may be newer than it.
    pub(super) fn state(&self, number: u64) -> Option<State> {
        match self {
            PullRequests::States(States(states)) => states.get(&number).copied(),
            PullRequests::Open(open) if open.contains(&number) => Some(State::Open),
            PullRequests::Open(open) => {
                open.last().filter(|newest| number < **newest).map(|_| State::Closed)
            }
        }
    }
}

impl FromIterator<PullRequest> for States {
    fn from_iter<I: IntoIterator<Item = PullRequest>>(entries: I) -> Self {
        let mut states = BTreeMap::new();
        for PullRequest { number, state } in entries {
            let known = states.entry(number).or_insert(state);
            if state == State::Open {
                *known = State::Open;
            }
        }
        States(states)
    }
}

/// A pull request as a list shows it; what else is said of it does not matter.
#[derive(Debug, Deserialize)]
struct PullRequest {
    #[serde(alias = "iid")]
    number: u64,
    state: State,
}

/// One pull request, a list of them, or a list of such pages.
struct Pages(Vec<PullRequest>);

impl<'de> Deserialize<'de> for Pages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PagesVisitor)
    }
}

struct PagesVisitor;

impl<'de> Visitor<'de> for PagesVisitor {
    type Value = Pages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pull request with its `number` and `state`, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pages, A::Error> {
        let one = PullRequest::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Pages(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pages, A::Error> {
        let mut all = Vec::new();
        while let Some(Pages(page)) = list.next_element()? {
            all.extend(page);
        }
        Ok(Pages(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(of: &[(u64, State)]) -> PullRequests {
        let entry = |&(number, state): &(u64, State)| PullRequest { number, state };
        PullRequests::States(of.iter().map(entry).collect())
    }

    #[test]
    fn the_lists_of_every_forge_are_read() {
        let expected = states(&[(7, State::Open), (12, State::Closed)]);
        for text in [
            r#"[{"number":12,"state":"MERGED"},{"number":7,"state":"OPEN"}]"#,
            "\u{feff}[\r\n{\"state\":\"CLOSED\",\"number\":12},\r\n{\"number\":7,\"state\":\"OPEN\"}]\r\n",
            r#"[{"id":1,"number":12,"state":"closed","merged_at":null,"user":{"id":7}},
                {"id":2,"number":7,"state":"open","merged_at":null}]"#,
            r#"[[{"id":1,"iid":12,"state":"merged"}],[{"id":7,"iid":7,"state":"opened"}],[]]"#,
            r#"[{"iid":12,"state":"closed"},{"iid":7,"state":"locked"}]"#,
        ] {
            assert_eq!(PullRequests::parse_states(text).unwrap(), expected, "{text}");
        }
        let one = PullRequests::parse_states(r#"{"number":12,"state":"MERGED"}"#).unwrap();
        assert_eq!(one, states(&[(12, State::Closed)]));
        assert_eq!(PullRequests::parse_states("[]").unwrap(), states(&[]));
    }

    #[test]
    fn a_number_that_is_open_once_is_open() {
        for (first, second) in [("OPEN", "CLOSED"), ("CLOSED", "OPEN")] {
            let text =
                format!(r#"[{{"number":7,"state":"{first}"}},{{"number":7,"state":"{second}"}}]"#);
            let known = PullRequests::parse_states(&text).unwrap();
            assert_eq!(known.state(7), Some(State::Open));
            assert_eq!(known.state(8), None);
        }
    }

    #[test]
    fn a_list_without_states_or_with_other_words_is_refused() {
        for (text, part) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("7\n12\n", "invalid type: integer `7`"),
            ("[7, 12]", "invalid type: integer `7`, expected a pull request with its `number`"),
            (r#"[{"number":7}]"#, "missing field `state` at line 1 column 13"),
            (r#"[{"state":"OPEN"}]"#, "missing field `number`"),
            ("[{\"number\":7,\n\"state\":\"gone\"}]", "unknown variant `gone`, expected one of"),
            ("[{\"number\":7,\n\"state\":\"gone\"}]", "at line 2 column 14"),
            (r#"[{"number":7,"state":"Open"}]"#, "unknown variant `Open`"),
            (r#"[{"number":7,"state":null}]"#, "line 1"),
            (r#"[{"number":-7,"state":"OPEN"}]"#, "expected u64"),
            (r#"[{"number":7.5,"state":"OPEN"}]"#, "expected u64"),
            (r#"[{"number":"7","state":"OPEN"}]"#, "expected u64"),
            (r#"[{"number":18446744073709551616,"state":"OPEN"}]"#, "expected u64"),
            (r#"[{"number":7,"iid":8,"state":"OPEN"}]"#, "duplicate field"),
            (r#"[{"number":7,"state":"OPEN","state":"CLOSED"}]"#, "duplicate field `state`"),
            (r#"[{"number":7,"state":"CLOSED"}] [{"number":7,"state":"OPEN"}]"#, "trailing"),
            (r#"{"message":"API rate limit exceeded"}"#, "missing field"),
            (&"[".repeat(100_000), "recursion limit exceeded"),
        ] {
            let error = PullRequests::parse_states(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_list_of_open_ones_knows_nothing_of_newer_ones() {
        let open = PullRequests::parse_open("7\n12\nend 2\n").unwrap();

        let known = [6, 7, 8, 12, 13].map(|number| open.state(number));

        let (open, closed) = (Some(State::Open), Some(State::Closed));
        assert_eq!(known, [closed, open, closed, open, None]);
        assert_eq!(PullRequests::parse_open("end 0\n").unwrap().state(1), None);
    }

    /// What is left of a list that was cut at any byte is refused, unless all that it lost is blank.
    #[test]
    fn a_list_that_was_cut_is_refused() {
        for text in [
            "[{\"number\":1350,\"state\":\"CLOSED\"},\r\n {\"number\":135,\"state\":\"OPEN\"}] \n",
            r#"[{"number":1350,"state":"closed","merged_at":"2026-11-20T12:00:00Z"},
                {"number":1350,"state":"open"}]"#,
            r#"[[{"iid":1350,"state":"merged"}],[{"iid":135,"state":"opened"}]]"#,
            r#"{"number":1350,"state":"MERGED"}"#,
        ] {
            let whole = PullRequests::parse_states(text).unwrap();
            for cut in (0..text.len()).filter_map(|end| text.get(..end)) {
                if let Ok(known) = PullRequests::parse_states(cut) {
                    assert_eq!(cut.trim_end(), text.trim_end(), "{cut:?} passes for a whole list");
                    assert_eq!(known, whole);
                }
            }
        }
        for text in [
            "1\n2\n12\n130\n135\n1350\nend 6\n",
            "\u{feff}#1350\r\n\r\n#13\r\nend 2\r\n",
            "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n1350\nend 12\n",
        ] {
            assert!(PullRequests::parse_open(text).is_ok());
            for cut in (0..text.len()).filter_map(|end| text.get(..end)) {
                assert!(PullRequests::parse_open(cut).is_err(), "{cut:?} passes for a whole list");
            }
        }
    }

    #[test]
    fn a_list_of_open_ones_that_lost_a_line_is_refused() {
        let text = "1\n2\n12\n130\n135\n1350\nend 6\n";
        for line in text.split_inclusive('\n') {
            assert!(PullRequests::parse_open(&text.replacen(line, "", 1)).is_err(), "{line:?}");
        }
    }
}
