//! `init`: the first bundle of a repository, new or existing. Writes what is missing and nothing else.

mod find;
mod plan;

pub(crate) use find::{Found, search};
pub(crate) use plan::{Planned, Request, plan};

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::wire::names::check_id;

/// Returns the id that the folder or app called `text` gets: what an id cannot hold becomes a hyphen.
///
/// Nothing comes back when nothing is left of it.
pub(crate) fn id_from(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let joined = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let id = joined.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let id = id[..id.len().min(MOST_CHARACTERS)].trim_end_matches('-');
    (id.len() > 1 && check_id(id).is_ok()).then(|| id.to_owned())
}

/// Longest name made here: an app's is at most 30 characters, and a suffix such as `-pr-1234` follows it.
const MOST_CHARACTERS: usize = 22;

/// Returns the name of the folder itself.
pub(crate) fn folder_name(root: &Path) -> String {
    root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Refuses an id of a project that the platform refuses.
pub(crate) fn check_project(id: &str) -> Result<()> {
    check_id(id).map_err(|why| Error::new(Kind::Usage, format!("`--project`: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_name_as_far_as_an_id_goes() {
        for (text, id) in [
            ("shop", Some("shop")),
            ("My Shop_2", Some("my-shop-2")),
            ("2-fast", Some("fast")),
            ("--a--b--", Some("a-b")),
            ("Größe", Some("gr-e")),
            ("a-very-long-name-of-a-folder", Some("a-very-long-name-of-a")),
            ("42", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(id_from(text).as_deref(), id, "{text}");
        }
    }
}
