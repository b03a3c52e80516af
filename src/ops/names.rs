//! From a name as people type it to full names: `dev`, `shop/dev`, `projects/shop/branches/dev`.

use crate::api::Client;
use crate::error::{Error, Kind, Result, nearest};
use crate::wire::names::{BranchName, ProjectName, check_id};
use crate::wire::postgres::Branch;

/// Where a project was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the name itself.
    Name,
    /// By `--project`.
    Flag,
    /// By `LAKEFORGE_PROJECT`.
    Variable,
    /// By `lakeforge.yml`.
    Config,
}

impl Origin {
    fn text(self) -> &'static str {
        match self {
            Origin::Name => "as named",
            Origin::Flag => "project from --project",
            Origin::Variable => "project from LAKEFORGE_PROJECT",
            Origin::Config => "project from lakeforge.yml",
        }
    }
}

/// Which projects a command is about, before a name narrows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// What `--project` names.
    pub(crate) flag: Option<String>,
    /// What `LAKEFORGE_PROJECT` names.
    pub(crate) variable: Option<String>,
    /// The projects of `lakeforge.yml`.
    pub(crate) known: Vec<String>,
    /// Whether `--all` asks for every project of `lakeforge.yml`.
    pub(crate) all: bool,
}

/// A branch that a command is about, and where its project was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The branch.
    pub(crate) name: BranchName,
    /// Where its project was named.
    pub(crate) origin: Origin,
}

impl Resolved {
    /// Returns the line that is shown before anything changes.
    pub(crate) fn announcement(&self) -> String {
        format!("→ {} ({})", self.name, self.origin.text())
    }
}

impl Scope {
    /// Returns the branches that `text` names: one, or with `--all` one in every project.
    ///
    /// Fails with `Usage` when the project cannot be told, and when an id is none.
    pub(crate) fn branches(&self, text: &str) -> Result<Vec<Resolved>> {
        let (project, branch) = split(text)?;
        check_id(&branch).map_err(|why| match near_id(&branch) {
            Some(id) => Error::new(Kind::Usage, why).hint(format!("`{id}` is one")),
            None => Error::new(Kind::Usage, why),
        })?;
        let projects = match project {
            Some(project) => self.named_in_full(text, project)?,
            None => self.projects(text)?,
        };
        let resolve = |(project, origin): (String, Origin)| {
            check_id(&project).map_err(|why| Error::new(Kind::Usage, why))?;
            Ok(Resolved { name: ProjectName::new(project).branch(branch.clone()), origin })
        };
        projects.into_iter().map(resolve).collect()
    }

    /// Returns the one branch that `text` names.
    pub(crate) fn branch(&self, text: &str) -> Result<Resolved> {
        let mut branches = self.branches(text)?;
        match branches.len() {
            1 => Ok(branches.remove(0)),
            _ => {
                Err(Error::new(Kind::Usage, format!("`{text}` names a branch in several projects"))
                    .hint("name one: PROJECT/BRANCH"))
            }
        }
    }

    /// Returns the one project a command is about when no branch is named.
    pub(crate) fn project(&self) -> Result<(ProjectName, Origin)> {
        let mut projects = self.projects("")?;
        if projects.len() > 1 {
            return Err(self.which("which project?".to_owned()));
        }
        let (project, origin) = projects.remove(0);
        check_id(&project).map_err(|why| Error::new(Kind::Usage, why))?;
        Ok((ProjectName::new(project), origin))
    }

    /// Returns the projects that are named at all, or none when nothing names any.
    pub(crate) fn any_projects(&self) -> Vec<ProjectName> {
        match (&self.flag, &self.variable) {
            (Some(project), _) | (None, Some(project)) => vec![ProjectName::new(bare(project))],
            (None, None) => self.known.iter().map(ProjectName::new).collect(),
        }
    }

    fn named_in_full(&self, text: &str, project: String) -> Result<Vec<(String, Origin)>> {
        let other = self.flag.as_deref().map(bare).filter(|flag| *flag != project);
        if let Some(other) = other {
            return Err(Error::new(Kind::Usage, "two projects are named")
                .why(format!("`{text}` and `--project {other}`")));
        }
        if self.all {
            return Err(Error::new(
                Kind::Usage,
                format!("`{text}` names one project, `--all` all"),
            )
            .hint("leave out one of them"));
        }
        Ok(vec![(project, Origin::Name)])
    }

    fn projects(&self, text: &str) -> Result<Vec<(String, Origin)>> {
        match (&self.flag, &self.variable, &self.known[..]) {
            (Some(_), ..) if self.all => {
                Err(Error::new(Kind::Usage, "`--project` names one project, `--all` all"))
            }
            (.., []) if self.all => Err(Error::new(Kind::Usage, "`--all` needs lakeforge.yml")
                .why("it means every project listed there, and none is")),
            (.., known) if self.all => {
                Ok(known.iter().map(|project| (project.clone(), Origin::Config)).collect())
            }
            (Some(project), ..) => Ok(vec![(bare(project).to_owned(), Origin::Flag)]),
            (None, Some(project), _) => Ok(vec![(bare(project).to_owned(), Origin::Variable)]),
            (None, None, [project]) => Ok(vec![(project.clone(), Origin::Config)]),
            (None, None, _) if text.is_empty() => Err(self.which("which project?".to_owned())),
            (None, None, _) => Err(self.which(format!("in which project is the branch `{text}`?"))),
        }
    }

    fn which(&self, message: String) -> Error {
        let error = Error::new(Kind::Usage, message).code("PROJECT_UNKNOWN");
        match &self.known[..] {
            [] => error
                .why("no project is named, and there is no lakeforge.yml that lists any")
                .hint("--project NAME, or PROJECT/BRANCH"),
            known => error
                .why(format!("lakeforge.yml lists {}", known.join(", ")))
                .hint("--project NAME, or --all where a command has it"),
        }
    }
}

/// Leaves out `projects/` before an id.
fn bare(project: &str) -> &str {
    project.strip_prefix("projects/").unwrap_or(project)
}

/// Returns the id that comes nearest to `text`: what an id cannot hold becomes a hyphen.
fn near_id(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let id = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    check_id(&id).is_ok().then_some(id)
}

/// Splits a name into project and branch.
fn split(text: &str) -> Result<(Option<String>, String)> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [branch] => Ok((None, branch.to_owned())),
        ["projects", project] => {
            Err(Error::new(Kind::Usage, format!("`{text}` is a project, not a branch"))
                .hint(format!("{project}/BRANCH")))
        }
        [project, branch] | ["projects", project, "branches", branch] => {
            Ok((Some(project.to_owned()), branch.to_owned()))
        }
        _ => Err(Error::new(Kind::Usage, format!("`{text}` is not the name of a branch"))
            .hint("write `dev`, `shop/dev` or `projects/shop/branches/dev`")),
    }
}

/// Says that a branch does not exist, with the nearest one that does.
pub(crate) fn unknown_branch(name: &BranchName, known: &[Branch]) -> Error {
    let error = Error::new(Kind::NotFound, format!("there is no branch `{}`", name.short()))
        .code("BRANCH_NOT_FOUND");
    match nearest(&name.branch, known.iter().map(|branch| branch.name.branch.as_str())) {
        Some(near) => error.hint(format!("did you mean `{}/{near}`?", name.project)),
        None => error.hint(format!("lakeforge branch list --project {}", name.project)),
    }
}

/// Turns a 404 of a project into the nearest one that exists; leaves other failures alone.
pub(crate) async fn explain_project(
    api: &Client,
    project: &ProjectName,
    error: crate::api::Error,
) -> Error {
    if !error.is_not_found() {
        return error.into();
    }
    let known = api.list_projects().await.unwrap_or_default();
    let missing = Error::new(Kind::NotFound, format!("there is no project `{}`", project.project))
        .code("PROJECT_NOT_FOUND")
        .why(Error::from(error).to_string());
    match nearest(&project.project, known.iter().map(|known| known.name.project.as_str())) {
        Some(near) => missing.hint(format!("did you mean `{near}`?")),
        None => missing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(flag: Option<&str>, variable: Option<&str>, known: &[&str], all: bool) -> Scope {
        Scope {
            flag: flag.map(str::to_owned),
            variable: variable.map(str::to_owned),
            known: known.iter().map(|&project| project.to_owned()).collect(),
            all,
        }
    }

    #[test]
    fn every_form_of_a_name_is_understood() {
        let two = &["shop", "lab"][..];
        for (scope, text, expected) in [
            (scope(None, None, &[], false), "shop/dev", "shop/dev Name"),
            (scope(None, None, &[], false), "projects/shop/branches/dev", "shop/dev Name"),
            (scope(Some("shop"), None, &[], false), "dev", "shop/dev Flag"),
            (scope(Some("projects/shop"), None, two, false), "dev", "shop/dev Flag"),
            (scope(None, Some("lab"), two, false), "dev", "lab/dev Variable"),
            (scope(Some("shop"), Some("lab"), two, false), "dev", "shop/dev Flag"),
            (scope(None, None, &["shop"], false), "dev", "shop/dev Config"),
            (scope(None, None, two, true), "dev", "shop/dev Config, lab/dev Config"),
            (scope(None, Some("x"), two, true), "dev", "shop/dev Config, lab/dev Config"),
            (scope(Some("shop"), None, &[], false), "shop/dev", "shop/dev Name"),
        ] {
            let found: Vec<String> = scope
                .branches(text)
                .unwrap()
                .iter()
                .map(|found| format!("{} {:?}", found.name.short(), found.origin))
                .collect();
            assert_eq!(found.join(", "), expected, "{text} in {scope:?}");
        }
    }

    #[test]
    fn a_project_is_never_guessed() {
        let two = &["shop", "lab"][..];
        for (scope, text, part) in [
            (scope(None, None, &[], false), "dev", "no project is named"),
            (scope(None, None, two, false), "dev", "lakeforge.yml lists shop, lab"),
            (scope(Some("lab"), None, two, false), "shop/dev", "two projects"),
            (scope(None, None, two, true), "shop/dev", "`--all` all"),
            (scope(Some("lab"), None, two, true), "dev", "`--all` all"),
            (scope(None, None, &[], true), "dev", "needs lakeforge.yml"),
            (scope(None, None, two, false), "projects/shop", "is a project"),
            (scope(Some("shop"), None, two, false), "feature_a", "may hold only"),
            (scope(Some("Shop"), None, two, false), "dev", "lower-case letter"),
            (scope(None, None, two, false), "a/b/c", "not the name of a branch"),
            (scope(Some("shop"), None, two, false), "", "is empty"),
        ] {
            let error = scope.branches(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_that_is_no_id_offers_the_one_that_is_near() {
        let hint = |text: &str| {
            let error = scope(Some("shop"), None, &[], false).branches(text).unwrap_err();
            error.hint_text().map(str::to_owned)
        };
        assert_eq!(hint("Feature_X.1").as_deref(), Some("`feature-x-1` is one"));
        assert_eq!(hint("shop/dev-").as_deref(), Some("`dev` is one"));
        assert_eq!(hint("42"), None);
        assert_eq!(hint(&"a".repeat(64)), None);
    }

    #[test]
    fn the_announcement_says_where_the_project_comes_from() {
        let found = scope(None, None, &["shop"], false).branch("dev").unwrap();

        assert_eq!(
            found.announcement(),
            "→ projects/shop/branches/dev (project from lakeforge.yml)"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_name_is_a_valid_one(text in ".*") {
            if let Ok(found) = scope(Some("shop"), None, &[], false).branches(&text) {
                for found in found {
                    prop_assert!(check_id(&found.name.branch).is_ok());
                    prop_assert!(check_id(&found.name.project).is_ok());
                }
            }
        }
    }
}
