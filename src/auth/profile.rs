//! The profile file, `~/.databrickscfg`: sections of `key = value`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// The keys of one profile.
pub(super) type Profile = BTreeMap<String, String>;

/// A profile file: its sections in alphabetical order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProfileFile {
    sections: BTreeMap<String, Profile>,
}

impl ProfileFile {
    /// Reads the file at `path`; a file that is not there has no profiles.
    ///
    /// Fails as `Usage`, with the line, for one that the SDKs would not read either.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => ProfileFile::parse(&text).map_err(|(line, why)| {
                // Never the line itself: it may hold a token.
                Error::new(Kind::Usage, format!("{}:{line}: {why}", path.display()))
                    .hint("write `[NAME]` for a profile and `key = value` below it")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(ProfileFile::default())
            }
            Err(error) => {
                Err(Error::new(Kind::Usage, format!("could not read `{}`", path.display()))
                    .why(error.to_string()))
            }
        }
    }

    /// Reads sections, keys and comments; keys above the first section belong to `DEFAULT`, and
    /// there is no inheritance. A comment starts a line, or follows a space.
    ///
    /// Fails with the number of the line that is neither, and what is wrong with it.
    ///
    /// Source: Go SDK 0.175.0 `config`, read 2026-08.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut file = ProfileFile::default();
        let mut section = "DEFAULT".to_owned();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = without_comment(line);
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').ok_or((index + 1, "`[` is not closed"))?;
                section = name.trim().to_owned();
                file.sections.entry(section.clone()).or_default();
            } else if let Some((key, value)) = line.split_once(['=', ':']) {
                let (key, value) = (key.trim().to_lowercase(), value.trim().to_owned());
                if !value.is_empty() {
                    file.sections.entry(section.clone()).or_default().insert(key, value);
                }
            } else if !line.is_empty() {
                return Err((index + 1, "neither a profile nor a key with a value"));
            }
        }
        Ok(file)
    }

    /// Returns the profile `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Profile> {
        self.sections.get(name)
    }

    /// Returns the profile that `[__settings__] default_profile` names.
    pub(super) fn default_profile(&self) -> Option<&str> {
        self.get("__settings__")?.get("default_profile").map(String::as_str)
    }

    /// Returns the names of all profiles.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str).filter(|name| *name != "__settings__")
    }
}

fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return "";
    }
    let end = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| line.find(mark)).min();
    line[..end.unwrap_or(line.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_keys_and_comments_are_read() {
        let file = ProfileFile::parse(
            "\u{feff}; mine\n[DEFAULT]\nhost = https://a.test\ntoken=dapi#1 # inline\r\n\n\
             [__settings__]\ndefault_profile = ci\n[ci]\nHost: https://b.test\nclient_id =\nclient_secret = a=b;c\n[empty]\n",
        )
        .unwrap();

        assert_eq!(file.get("DEFAULT").unwrap()["host"], "https://a.test");
        assert_eq!(file.get("DEFAULT").unwrap()["token"], "dapi#1");
        assert_eq!(file.get("ci").unwrap()["host"], "https://b.test");
        assert_eq!(file.get("ci").unwrap()["client_secret"], "a=b;c");
        assert!(!file.get("ci").unwrap().contains_key("client_id"), "nothing is not a value");
        assert!(!file.get("ci").unwrap().contains_key("token"), "nothing is inherited");
        assert_eq!(file.default_profile(), Some("ci"));
        assert_eq!(file.names().collect::<Vec<_>>(), ["DEFAULT", "ci", "empty"]);
    }

    #[test]
    fn a_line_that_is_neither_is_named() {
        for (text, line, part) in [
            ("[shop\nhost = https://a.test\n", 1, "not closed"),
            ("[shop]\nhost = https://a.test\ntoken dapi1\n", 3, "neither"),
            ("\u{feff}host\n", 1, "neither"),
        ] {
            let (found, why) = ProfileFile::parse(text).unwrap_err();
            assert_eq!(found, line, "{text}");
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_has_no_profiles() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ProfileFile::read(&folder.path().join("none")).unwrap(), ProfileFile::default());
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in ".*") {
            let _ = ProfileFile::parse(&text);
        }
    }
}
