//! Templates: those that come with the program, each replaced by a file of the same name in a folder of one's own.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::files::{create, relative};
use crate::bundle::Config;
use crate::error::{Doing, Error, Kind, Result, nearest};

/// Folder that `--eject` writes to when nobody says otherwise, relative to the bundle.
const FOLDER: &str = "templates";

/// A template that comes with the program.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BuiltIn {
    /// Name of the file, relative to a folder of templates.
    pub(crate) name: &'static str,
    /// What it makes.
    pub(crate) makes: &'static str,
    #[serde(skip)]
    text: &'static str,
}

/// Template of the bundle's Postgres resources.
pub(super) const LAKEBASE: &str = "lakebase.yml";

/// All of them.
const ALL: [BuiltIn; 7] = [
    BuiltIn {
        name: LAKEBASE,
        makes: "resources/lakebase.yml: projects, branches and endpoints",
        text: include_str!("../../../templates/lakebase.yml"),
    },
    BuiltIn {
        name: "init/databricks.yml",
        makes: "the databricks.yml of `init`",
        text: include_str!("../../../templates/init/databricks.yml"),
    },
    BuiltIn {
        name: "init/lakeforge.yml",
        makes: "the lakeforge.yml of `init`",
        text: include_str!("../../../templates/init/lakeforge.yml"),
    },
    BuiltIn {
        name: "workflows/deploy.yml",
        makes: "a workflow that deploys to each target",
        text: include_str!("../../../templates/workflows/deploy.yml"),
    },
    BuiltIn {
        name: "workflows/pull-request.yml",
        makes: "a workflow with branches for a pull request",
        text: include_str!("../../../templates/workflows/pull-request.yml"),
    },
    BuiltIn {
        name: "workflows/gc.yml",
        makes: "a workflow that runs gc each night",
        text: include_str!("../../../templates/workflows/gc.yml"),
    },
    BuiltIn {
        name: "gitlab/lakeforge.yml",
        makes: "the same jobs for GitLab CI",
        text: include_str!("../../../templates/gitlab/lakeforge.yml"),
    },
];

/// A template and who wrote it.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    /// The template.
    #[serde(flatten)]
    pub(crate) template: BuiltIn,
    /// The file that replaces it, relative to the bundle when it is inside.
    pub(crate) replaced_by: Option<String>,
}

/// A template that was written out, or was there.
#[derive(Debug, Serialize)]
pub(crate) struct Ejected {
    /// The file, relative to the bundle when it is inside.
    pub(crate) path: String,
    /// Whether it was written; a file that is there stays as it is.
    pub(crate) wrote: bool,
}

/// Where templates come from.
#[derive(Debug)]
pub(crate) struct Templates {
    root: PathBuf,
    folder: Option<PathBuf>,
}

/// The text of a template and the name under which errors know it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) shown: String,
    pub(super) text: String,
}

impl Templates {
    /// Takes templates from `folder`, else from the folder that `config` names, and what is missing there from the program.
    ///
    /// Fails as `Usage` when the folder does not exist.
    pub(crate) fn open(root: &Path, folder: Option<&Path>, config: &Config) -> Result<Self> {
        let templates = Templates::locate(root, folder, config);
        match &templates.folder {
            Some(folder) if !folder.is_dir() => {
                let shown = relative(root, folder)?;
                Err(Error::new(
                    Kind::Usage,
                    format!("the folder of templates `{shown}` does not exist"),
                )
                .hint(format!("lakeforge gen --eject --template-dir {shown}")))
            }
            _ => Ok(templates),
        }
    }

    /// Takes templates from the same place, which need not exist yet.
    pub(crate) fn locate(root: &Path, folder: Option<&Path>, config: &Config) -> Self {
        let folder = folder.map(|folder| root.join(folder)).or_else(|| config.templates.clone());
        Templates { root: root.to_owned(), folder }
    }

    /// Returns every template and the file that replaces it.
    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        let listed = |template: BuiltIn| {
            let own = self.own(template.name).filter(|path| path.is_file());
            let replaced_by = own.map(|path| relative(&self.root, &path)).transpose()?;
            Ok(Listed { template, replaced_by })
        };
        ALL.into_iter().map(listed).collect()
    }

    /// Writes the template `name`, or all of them, where files of one's own are looked for.
    /// What is there stays as it is.
    ///
    /// Fails as `Usage` for a name that no template has.
    pub(crate) fn eject(&self, name: Option<&str>) -> Result<Vec<Ejected>> {
        let chosen = match name {
            None => ALL.to_vec(),
            Some(name) => vec![built_in(name)?],
        };
        let folder = self.folder.clone().unwrap_or_else(|| self.root.join(FOLDER));
        let eject = |template: BuiltIn| {
            let path = folder.join(template.name);
            let shown = relative(&self.root, &path)?;
            let wrote =
                create(&path, template.text).doing(|| format!("could not write `{shown}`"))?;
            Ok(Ejected { path: shown, wrote })
        };
        chosen.into_iter().map(eject).collect()
    }

    /// Returns how `lakeforge.yml` must name the folder that `eject` writes to, when nothing names it yet.
    pub(crate) fn unnamed(&self) -> Option<&'static str> {
        self.folder.is_none().then_some(FOLDER)
    }

    /// Returns what the user should know: files that are called almost like a template.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |(file, near)| format!("`{file}` replaces no template; did you mean `{near}`?");
        self.slips().into_iter().map(note).collect()
    }

    fn slips(&self) -> Vec<(String, &'static str)> {
        let names = || ALL.iter().map(|template| template.name);
        let mut slips = Vec::new();
        for below in names().map(parent).collect::<std::collections::BTreeSet<_>>() {
            let Some(folder) = self.own(below) else { return slips };
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let file = format!("{below}{}", entry.file_name().to_string_lossy());
                match nearest(&file, names()) {
                    Some(near) if near != file => slips.push((file, near)),
                    _ => {}
                }
            }
        }
        slips.sort();
        slips
    }

    /// Renders the template `name` with `context`.
    pub(crate) fn render(&self, name: &str, context: &impl Serialize) -> Result<String> {
        self.read(name)?.render(context)
    }

    /// Returns the text of the template `name`.
    pub(super) fn read(&self, name: &str) -> Result<Source> {
        if let Some(path) = self.own(name) {
            let shown = relative(&self.root, &path)?;
            match std::fs::read_to_string(&path) {
                Ok(text) => return Ok(Source { shown, text }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let what = format!("the template `{shown}` cannot be read");
                    return Err(Error::new(Kind::Usage, what).why(error.to_string()));
                }
            }
        }
        let template = built_in(name)?;
        Ok(Source { shown: template.name.to_owned(), text: template.text.to_owned() })
    }

    fn own(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }
}

fn built_in(name: &str) -> Result<BuiltIn> {
    let names = ALL.iter().map(|template| template.name);
    ALL.into_iter().find(|template| template.name == name).ok_or_else(|| {
        let error = Error::new(Kind::Usage, format!("there is no template `{name}`"));
        match nearest(name, names.clone()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.why(format!("known: {}", names.collect::<Vec<_>>().join(", "))),
        }
    })
}

/// Returns the folder of a template, with a slash, or nothing at the top.
fn parent(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..=at])
}

impl Source {
    /// Renders the template with `context`.
    ///
    /// Fails as `Usage` with file, line and column, also for a name that `context` does not hold.
    pub(super) fn render(&self, context: &impl Serialize) -> Result<String> {
        let fail = |error| self.located(&error);
        let environment = environment().map_err(fail)?;
        let template =
            environment.template_from_named_str(&self.shown, &self.text).map_err(fail)?;
        template.render(minijinja::value::Serde(context)).map_err(fail)
    }

    /// Says what is wrong and where, with the line itself.
    fn located(&self, error: &minijinja::Error) -> Error {
        let what = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        let Some((line, column)) = self.position(error) else {
            return Error::new(Kind::Usage, format!("{}: {what}", self.shown));
        };
        let located = Error::new(Kind::Usage, format!("{}:{line}:{column}: {what}", self.shown));
        match self.text.lines().nth(line - 1).map(str::trim) {
            Some(text) if !text.is_empty() => located.why(text),
            _ => located,
        }
    }

    /// Returns line and column, both from 1.
    fn position(&self, error: &minijinja::Error) -> Option<(usize, usize)> {
        if let Some(before) = error.range().and_then(|range| self.text.get(..range.start)) {
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            return Some((before.matches('\n').count() + 1, before[start..].chars().count() + 1));
        }
        error.line().filter(|line| *line > 0).map(|line| (line, 1))
    }
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .block_delimiters("{{%", "%}}")
        .variable_delimiters("{{{", "}}}")
        .comment_delimiters("{{#", "#}}")
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("tojson", json);
    environment.set_debug(true);
    Ok(environment)
}

/// Writes a value as JSON, which is YAML too; the built-in filter of this name also escapes for HTML.
fn json(value: minijinja::Value) -> Result<String, minijinja::Error> {
    let text = serde_json::to_string(&value).map_err(|error| {
        minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string())
    })?;
    // YAML takes no control characters, and JSON leaves some of them as they are.
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    Ok(escaped)
}
