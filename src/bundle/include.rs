//! `include:` of the root file: which files belong to the bundle.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::ROOT_FILES;
use super::place::Step;
use super::yaml::{Document, place};
use crate::error::Result;

/// Returns the root file and the files it includes, in the order in which they are merged:
/// as the patterns are written, and by name for one pattern; those of `without` are passed over.
///
/// Fails for a plain path that is not there, an absolute path and a file of another kind.
///
/// Source: Databricks CLI 1.13 `process_root_includes.go`, read 2026-11.
pub(super) fn documents(
    root: &Path,
    root_file: &str,
    without: &[&str],
) -> Result<Vec<Arc<Document>>> {
    let first = Document::read(root, root_file)?;
    let mut documents = vec![Arc::clone(&first)];
    let mut seen: BTreeSet<String> = ROOT_FILES.iter().map(|&name| name.to_owned()).collect();
    seen.extend(without.iter().map(|&name| name.to_owned()));
    let entries = match first.value().get("include") {
        None | Some(Value::Null) => return Ok(documents),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            return Err(place(&first, &["include".into()]).error("`include` is a list of paths"));
        }
    };
    for (index, entry) in entries.iter().enumerate() {
        let here = || place(&first, &["include".into(), Step::Index(index)]);
        let Some(pattern) = entry.as_str().filter(|pattern| !pattern.is_empty()) else {
            return Err(here().error("a path is missing"));
        };
        if Path::new(pattern).is_absolute() {
            return Err(here().error(format!("`{pattern}` must be relative to the bundle")));
        }
        let files = matches(root, pattern);
        if without.iter().any(|without| names(pattern, without)) && files.is_empty() {
            continue;
        }
        if files.is_empty() && !pattern.contains(['*', '?', '[']) {
            return Err(here().error(format!("`{pattern}` does not exist")));
        }
        for file in files {
            if !seen.insert(file.clone()) {
                continue;
            }
            let kind = Path::new(&file).extension().and_then(|kind| kind.to_str());
            if !matches!(kind, Some("yml" | "yaml" | "json")) {
                return Err(here()
                    .error(format!("`{file}` is neither YAML nor JSON"))
                    .hint("files to upload belong in `sync.include`"));
            }
            documents.push(Document::read(root, &file)?);
        }
    }
    Ok(documents)
}

/// Returns a warning for each pattern of the root file that names no file: what it was to name
/// would be missing.
pub(super) fn unmatched(root: &Path, first: &Arc<Document>) -> Vec<String> {
    let entries = first.value().get("include").and_then(Value::as_array);
    let patterns = entries.into_iter().flatten().filter_map(Value::as_str).enumerate();
    patterns
        .filter(|(_, pattern)| matches(root, pattern).is_empty())
        .map(|(index, pattern)| {
            let here = place(first, &["include".into(), Step::Index(index)]);
            format!("{here}: no file is called `{pattern}`")
        })
        .collect()
}

/// Returns whether `pattern` names the file `relative`, whether or not it is there.
pub(super) fn names(pattern: &str, relative: &str) -> bool {
    let parts = |path: &str| -> Vec<Vec<char>> {
        let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
        parts.map(|part| part.as_os_str().to_string_lossy().chars().collect()).collect()
    };
    let (pattern, relative) = (parts(pattern), parts(relative));
    pattern.len() == relative.len()
        && pattern.iter().zip(&relative).all(|(pattern, name)| glob(pattern, name))
}

/// Returns the files that `pattern` names, relative to `root`, sorted.
fn matches(root: &Path, pattern: &str) -> Vec<String> {
    let mut found = vec![PathBuf::new()];
    for part in Path::new(pattern).components() {
        found = match part {
            Component::CurDir => found,
            Component::Normal(name) if name.to_string_lossy().contains(['*', '?', '[']) => {
                let name: Vec<char> = name.to_string_lossy().chars().collect();
                found.iter().flat_map(|folder| children(root, folder, &name)).collect()
            }
            other => found.into_iter().map(|folder| folder.join(other)).collect(),
        };
    }
    let mut files: Vec<String> = found
        .into_iter()
        .filter(|path| root.join(path).is_file())
        .map(|path| path.to_string_lossy().replace('\\', "/"))
        .collect();
    files.sort();
    files
}

/// Returns the entries of `folder` whose names match; a folder that cannot be read has none.
fn children(root: &Path, folder: &Path, pattern: &[char]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| glob(pattern, &name.to_string_lossy().chars().collect::<Vec<_>>()))
        .map(|name| folder.join(name))
        .collect()
}

/// Returns whether `name` matches `*`, `?` and `[a-z]` of `pattern`.
fn glob(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|skip| glob(rest, &name[skip..])),
        ['[', rest @ ..] => match (rest.iter().position(|&c| c == ']'), name) {
            (Some(end), [first, tail @ ..]) if end > 0 => {
                in_class(&rest[..end], *first) && glob(&rest[end + 1..], tail)
            }
            _ => false,
        },
        [wanted, rest @ ..] => match name {
            [first, tail @ ..] => (*wanted == '?' || wanted == first) && glob(rest, tail),
            [] => false,
        },
    }
}

/// Returns whether `c` is in the class `a-z_` or, after `^`, is not.
fn in_class(class: &[char], c: char) -> bool {
    let (negated, mut class) = match class {
        ['^', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    while let [first, rest @ ..] = class {
        let (last, rest) = match rest {
            ['-', last, rest @ ..] => (last, rest),
            rest => (first, rest),
        };
        found |= (*first..=*last).contains(&c);
        class = rest;
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches_name(pattern: &str, name: &str) -> bool {
        glob(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in
            [("*.yml", "a.yml"), ("a?.y*ml", "ab.yaml"), ("[a-c]*", "bus"), ("[^x]", "y")]
        {
            assert!(matches_name(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.yml", "a.yaml"), ("[a-c]", "d"), ("?", ""), ("[", "[")] {
            assert!(!matches_name(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn files_come_in_the_order_of_the_patterns_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("resources/more")).unwrap();
        for file in ["resources/b.yml", "resources/a.yml", "resources/more/c.yaml", "z.yml"] {
            std::fs::write(root.join(file), "{}").unwrap();
        }
        std::fs::write(
            root.join("databricks.yml"),
            "include: [z.yml, 'resources/*.yml', '*.yml', './resources/*/*.yaml']\n",
        )
        .unwrap();

        let documents = documents(root, "databricks.yml", &[]).unwrap();

        let shown: Vec<&str> = documents.iter().map(|document| document.shown()).collect();
        assert_eq!(
            shown,
            [
                "databricks.yml",
                "z.yml",
                "resources/a.yml",
                "resources/b.yml",
                "resources/more/c.yaml"
            ]
        );
    }

    #[test]
    fn a_plain_path_that_is_not_there_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("databricks.yml"),
            "bundle: {name: x}\ninclude:\n  - resources/*.yml\n  - gone.yml\n",
        )
        .unwrap();

        let error = documents(folder.path(), "databricks.yml", &[]).unwrap_err();

        assert_eq!(error.message(), "databricks.yml:4:5: `gone.yml` does not exist");
    }
}
