//! Looking at branches.

use serde::Serialize;

use crate::api::Client;
use crate::error::{Doing, Result};
use crate::ops::{names, parallel};
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Branch, Endpoint};

/// A branch with its endpoints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Detail {
    /// The branch.
    #[serde(flatten)]
    pub(crate) branch: Branch,
    /// Its endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Returns the branches of `projects`, or of all there are when none is named.
///
/// Fails with `NotFound` when a project does not exist.
pub(crate) async fn list(api: &Client, projects: Vec<ProjectName>) -> Result<Vec<Branch>> {
    let projects = if projects.is_empty() {
        let all = api.list_projects().await.doing(|| "could not list projects".to_owned())?;
        all.into_iter().map(|project| project.name).collect()
    } else {
        projects
    };
    let one = |project: ProjectName| async move {
        let what = || format!("could not list branches of `{}`", project.project);
        match api.list_branches(&project).await {
            Ok(branches) => Ok(branches),
            Err(error) => Err(names::explain_project(api, &project, error).await).doing(what),
        }
    };
    let branches = parallel::all(projects, one).await?;
    Ok(branches.into_iter().flatten().collect())
}

/// Returns the branch `name` and its endpoints.
///
/// Fails with `NotFound`, naming the nearest one there is.
pub(crate) async fn get(api: &Client, name: &BranchName) -> Result<Detail> {
    let what = || format!("could not read branch `{}`", name.short());
    let (branch, endpoints) = tokio::join!(api.get_branch(name), api.list_endpoints(name));
    match branch {
        Ok(branch) => Ok(Detail { branch, endpoints: endpoints.doing(what)? }),
        Err(error) if error.is_not_found() => {
            let project = name.parent();
            Err(match api.list_branches(&project).await {
                Ok(known) => names::unknown_branch(name, &known),
                Err(error) => names::explain_project(api, &project, error).await,
            })
        }
        Err(error) => Err(error).doing(what),
    }
}
