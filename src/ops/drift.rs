//! Two descriptions of one topology that should agree: what only the one has, and what only the other.

use std::collections::BTreeSet;

use crate::error::{Error, Kind};

/// How many names of a list are shown.
const SHOWN: usize = 20;

/// What two descriptions do not have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drift {
    /// What describes first.
    pub(crate) first: String,
    /// What only the first has, in order.
    pub(crate) only_first: Vec<String>,
    /// What describes second.
    pub(crate) second: String,
    /// What only the second has, in order.
    pub(crate) only_second: Vec<String>,
}

impl Drift {
    /// Compares the names that `first` and `second` have; nothing comes back when they are the same.
    pub(crate) fn between(
        first: (&str, BTreeSet<String>),
        second: (&str, BTreeSet<String>),
    ) -> Option<Drift> {
        let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect();
        let drift = Drift {
            only_first: only(&first.1, &second.1),
            only_second: only(&second.1, &first.1),
            first: first.0.to_owned(),
            second: second.0.to_owned(),
        };
        (!drift.only_first.is_empty() || !drift.only_second.is_empty()).then_some(drift)
    }

    /// Returns both lists, one a line.
    pub(crate) fn lists(&self) -> Vec<String> {
        [(&self.first, &self.only_first), (&self.second, &self.only_second)]
            .into_iter()
            .map(|(who, names)| format!("only {who}: {}", listed(names)))
            .collect()
    }

    /// Refuses to go on, with both lists.
    pub(crate) fn refuse(&self) -> Error {
        let what = format!("{} and {} do not agree", self.first, self.second);
        let error = Error::new(Kind::Refused, what).code("TOPOLOGY_DIFFERS");
        self.lists().into_iter().fold(error, Error::why)
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("n{number:02}")).collect()
    }

    #[test]
    fn both_sides_are_listed_and_long_lists_are_cut() {
        assert_eq!(Drift::between(("the file", names(3)), ("the record", names(3))), None);

        let drift = Drift::between(("the file", names(23)), ("the record", names(1))).unwrap();

        let lists = drift.lists();
        assert!(lists[0].starts_with("only the file: n01, n02, "), "{}", lists[0]);
        assert!(lists[0].ends_with(", n20 and 2 more"), "{}", lists[0]);
        assert_eq!(lists[1], "only the record: nothing");
        assert_eq!(drift.refuse().message(), "the file and the record do not agree");
    }
}
