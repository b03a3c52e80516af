//! Generated files that nothing makes any more.

use std::path::{Path, PathBuf};

use super::{HEADER, OUT, Rendered, Request, out, relative};
use crate::bundle::{Config, Outline};
use crate::error::Result;

/// How the line of a generated file begins that says what makes it again.
const AGAIN: &str = "# Again: ";

/// Returns the generated files beside the one that `request` asks for that nothing makes any more:
/// the command that each names now writes another file.
pub(crate) fn orphans(request: &Request) -> Result<Vec<Rendered>> {
    let config = Config::load(&request.root)?;
    let shown = relative(&request.root, &out(request, &config))?;
    find(request, &config, &shown)?
        .into_iter()
        .map(|file| Rendered::orphan(request.root.join(&file), file))
        .collect()
}

/// Returns the bundle as it is without the file `shown` and without orphans.
pub(super) fn outline(request: &Request, config: &Config, shown: &str) -> Result<Outline> {
    let orphans = find(request, config, shown)?;
    let without: Vec<&str> =
        [shown].into_iter().chain(orphans.iter().map(String::as_str)).collect();
    Outline::read(&request.root, &without)
}

fn find(request: &Request, config: &Config, shown: &str) -> Result<Vec<String>> {
    let root = &request.root;
    let usual = config.out.as_deref().unwrap_or(OUT);
    let mut folders: Vec<PathBuf> = [root.join(OUT), root.join(usual), root.join(shown)]
        .iter()
        .filter_map(|file| file.parent().map(Path::to_owned))
        .filter(|folder| folder.starts_with(root))
        .collect();
    folders.sort();
    folders.dedup();
    let mut found = Vec::new();
    for path in folders.iter().flat_map(|folder| files(folder)) {
        let file = relative(root, &path)?;
        let Some(text) = std::fs::read_to_string(&path).ok() else { continue };
        let is_orphan = written_by(&text).is_some_and(|makes| makes.unwrap_or(usual) != file);
        if file != shown && is_orphan {
            found.push(file);
        }
    }
    Ok(found)
}

/// Returns the YAML files in `folder` by name.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "yml" || end == "yaml"))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Returns what `--out` says in the command of a generated text, if there is such a command.
fn written_by(text: &str) -> Option<Option<&str>> {
    let mut head = text.lines().take(2);
    head.next().filter(|first| first.starts_with(HEADER))?;
    let command = head.next()?.strip_prefix(AGAIN)?;
    let out = command.split_once(" --out ").map(|(_, rest)| match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    });
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_file_says_where_it_belongs() {
        let text = |command: &str| format!("{HEADER}; so\n{AGAIN}{command}\nresources:\n");
        assert_eq!(written_by(&text("lakeforge gen")), Some(None));
        assert_eq!(written_by(&text("lakeforge gen --out a.yml --from-apps")), Some(Some("a.yml")));
        assert_eq!(written_by(&text("lakeforge gen --out 'a b.yml'")), Some(Some("a b.yml")));
        assert_eq!(written_by("resources: {}\n"), None);
        assert_eq!(written_by(&format!("{HEADER}\nresources:\n")), None);
    }
}
