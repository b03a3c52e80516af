//! What is deleted only when somebody names it exactly: projects, and branches that are default,
//! protected or called `production`.

use crate::api::{Client, there};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::parallel;
use crate::wire::names::{BranchName, ProjectName, ROOT_BRANCH};
use crate::wire::postgres::Branch;

/// Says why a branch is not deleted just so.
fn reason(branch: &Branch) -> Option<&'static str> {
    if branch.status.default {
        Some("the default branch of its project")
    } else if branch.status.is_protected {
        Some("protected")
    } else if branch.name.branch == ROOT_BRANCH {
        Some("a production branch")
    } else {
        None
    }
}

/// Refuses the deletion of a precious branch unless `confirmed` holds its id or name.
pub(crate) fn refuse_branch(branch: &Branch, confirmed: &[impl AsRef<str>]) -> Result<()> {
    let name = &branch.name;
    let Some(what) = reason(branch) else { return Ok(()) };
    let agreed = [name.branch.clone(), name.short(), name.to_string()];
    if confirmed.iter().any(|id| agreed.iter().any(|name| name == id.as_ref())) {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, format!("branch `{}` is not deleted just so", name.short()))
        .code("NEEDS_CONFIRMATION")
        .why(format!("it is {what}"))
        .hint(format!("--confirm {}", name.branch)))
}

/// Something precious that is about to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Precious {
    /// The names by which it can be confirmed, the usual one first.
    names: Vec<String>,
    why: String,
}

/// Refuses to delete the resources called `doomed` unless `confirmed` names each precious one among
/// them, and each protected branch that would go with its project.
///
/// Returns the protected branches that were confirmed.
pub(crate) async fn refuse_unconfirmed(
    api: &Client,
    doomed: &[&str],
    confirmed: &[String],
) -> Result<Vec<BranchName>> {
    let projects: Vec<ProjectName> = doomed.iter().filter_map(|name| name.parse().ok()).collect();
    let branches: Vec<BranchName> = doomed
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|name: &BranchName| !projects.contains(&name.parent()))
        .collect();
    let doing = || "could not look at what would be deleted".to_owned();
    let of_project = |project: ProjectName| async move {
        let branches = there(api.list_branches(&project).await).doing(doing)?;
        Ok((project, branches.unwrap_or_default()))
    };
    let one = |name: BranchName| async move { there(api.get_branch(&name).await).doing(doing) };
    let mut precious = Vec::new();
    let mut watched: Vec<Branch> =
        parallel::all(branches, one).await?.into_iter().flatten().collect();
    for (project, branches) in parallel::all(projects, of_project).await? {
        let mut ids: Vec<&str> =
            branches.iter().map(|branch| branch.name.branch.as_str()).collect();
        ids.sort_unstable();
        precious.push(Precious {
            names: vec![project.project.clone(), project.to_string()],
            why: format!("`{project}` takes its branches along: {}", ids.join(", ")),
        });
        watched.extend(branches.into_iter().filter(|branch| branch.status.is_protected));
    }
    for branch in &watched {
        let Some(what) = reason(branch) else { continue };
        precious.push(Precious {
            names: vec![branch.name.short(), branch.name.to_string()],
            why: format!("`{}` is {what}", branch.name),
        });
    }
    let is_confirmed =
        |precious: &&Precious| precious.names.iter().any(|name| confirmed.contains(name));
    let missing: Vec<&Precious> = precious.iter().filter(|one| !is_confirmed(one)).collect();
    if missing.is_empty() {
        let protected = watched.into_iter().filter(|branch| branch.status.is_protected);
        return Ok(protected.map(|branch| branch.name).collect());
    }
    let flags: Vec<String> =
        missing.iter().map(|one| format!("--confirm {}", one.names[0])).collect();
    let error = Error::new(Kind::Refused, "a project or a precious branch goes only by name")
        .code("NEEDS_CONFIRMATION")
        .hint(flags.join(" "));
    Err(missing.iter().fold(error, |error, one| error.why(&one.why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(id: &str, status: &str) -> Branch {
        serde_json::from_str(&format!(
            r#"{{"name":"projects/shop/branches/{id}","status":{{"branch_id":"{id}"{status}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn precious_branches_need_their_exact_name() {
        let none: [&str; 0] = [];
        for (id, status) in [
            ("production", ""),
            ("main", r#","default":true"#),
            ("kept", r#","is_protected":true"#),
        ] {
            let branch = branch(id, status);
            assert_eq!(refuse_branch(&branch, &none).unwrap_err().kind(), Kind::Refused);
            assert!(refuse_branch(&branch, &["other"]).is_err());
            assert!(refuse_branch(&branch, &[id]).is_ok());
            assert!(refuse_branch(&branch, &[branch.name.to_string()]).is_ok());
        }
        assert!(refuse_branch(&branch("dev", ""), &none).is_ok());
    }
}
