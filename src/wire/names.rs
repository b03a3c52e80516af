//! Resource names: `projects/shop/branches/dev/endpoints/primary` and its parts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of the branch every project starts with.
pub(crate) const ROOT_BRANCH: &str = "production";
/// Name of the read-write endpoint every branch starts with.
pub(crate) const PRIMARY_ENDPOINT: &str = "primary";
/// Resource id of the database every branch starts with.
pub(crate) const DEFAULT_DATABASE_ID: &str = "databricks-postgres";
/// Name in Postgres of the database every branch starts with.
pub(crate) const DEFAULT_DATABASE: &str = "databricks_postgres";

/// Longest id.
const LONGEST_ID: usize = 63;
/// How much of a longer one is said back.
const SHOWN: usize = 80;

/// Checks an id of a project, branch or endpoint: 1 to 63 characters of `[a-z0-9-]`, a lower-case
/// letter first, no hyphen last.
///
/// Fails with a sentence that says what is wrong with it.
///
/// Source: Python SDK 0.156.0 `service/postgres.py`; trailing hyphen: databricks-agent-skills, read 2026-08.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    let wrong = if id.is_empty() {
        "is empty"
    } else if id.len() > LONGEST_ID {
        "is longer than 63 characters"
    } else if !id.starts_with(|first: char| first.is_ascii_lowercase()) {
        "does not start with a lower-case letter"
    } else if !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        "may hold only lower-case letters, digits and hyphens"
    } else if id.ends_with('-') {
        "ends with a hyphen"
    } else {
        return Ok(());
    };
    match id.char_indices().nth(SHOWN) {
        Some((end, _)) => Err(format!("the id `{}…` {wrong}", &id[..end])),
        None => Err(format!("the id `{id}` {wrong}")),
    }
}

macro_rules! as_string {
    ($($name:ident),*) => { $(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }
    )* };
}

/// Full name of a project: `projects/{project}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ProjectName {
    /// Id of the project.
    pub(crate) project: String,
}

/// Full name of a branch: `projects/{project}/branches/{branch}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct BranchName {
    /// Id of the project.
    pub(crate) project: String,
    /// Id of the branch.
    pub(crate) branch: String,
}

/// Full name of an endpoint: `projects/{project}/branches/{branch}/endpoints/{endpoint}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct EndpointName {
    /// Id of the project.
    pub(crate) project: String,
    /// Id of the branch.
    pub(crate) branch: String,
    /// Id of the endpoint.
    pub(crate) endpoint: String,
}

as_string!(ProjectName, BranchName, EndpointName);

impl ProjectName {
    /// Names the project `project`.
    pub(crate) fn new(project: impl Into<String>) -> Self {
        ProjectName { project: project.into() }
    }

    /// Names the branch `branch` of this project.
    pub(crate) fn branch(&self, branch: impl Into<String>) -> BranchName {
        BranchName { project: self.project.clone(), branch: branch.into() }
    }
}

impl BranchName {
    /// Names the project this branch belongs to.
    pub(crate) fn parent(&self) -> ProjectName {
        ProjectName::new(&self.project)
    }

    /// Names the endpoint `endpoint` of this branch.
    pub(crate) fn endpoint(&self, endpoint: impl Into<String>) -> EndpointName {
        EndpointName {
            project: self.project.clone(),
            branch: self.branch.clone(),
            endpoint: endpoint.into(),
        }
    }

    /// Returns the short form people read: `shop/dev`.
    pub(crate) fn short(&self) -> String {
        format!("{}/{}", self.project, self.branch)
    }
}

impl EndpointName {
    /// Names the branch this endpoint belongs to.
    pub(crate) fn parent(&self) -> BranchName {
        BranchName { project: self.project.clone(), branch: self.branch.clone() }
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}", self.project)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/branches/{}", self.project, self.branch)
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/endpoints/{}", self.parent(), self.endpoint)
    }
}

impl FromStr for ProjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>()[..] {
            ["projects", project] if !project.is_empty() => Ok(ProjectName::new(project)),
            _ => Err(format!("`{text}` is not a project name such as `projects/shop`")),
        }
    }
}

impl FromStr for BranchName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "branches", branch]
                if !project.is_empty() && !branch.is_empty() =>
            {
                Ok(ProjectName::new(project).branch(branch))
            }
            _ => Err(format!("`{text}` is not a branch name such as `projects/shop/branches/dev`")),
        }
    }
}

impl FromStr for EndpointName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{text}` is not an endpoint name such as `projects/shop/branches/dev/endpoints/primary`"
            )
        };
        let (branch, endpoint) = text.split_once("/endpoints/").ok_or_else(refuse)?;
        let branch: BranchName = branch.parse().map_err(|_| refuse())?;
        if endpoint.is_empty() || endpoint.contains('/') {
            return Err(refuse());
        }
        Ok(branch.endpoint(endpoint))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_follow_the_platform_rule() {
        for id in ["a", "pr-7", "a--b", &"a".repeat(63)] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in ["", "7a", "Dev", "a_b", "a-", "-a", "é", &"a".repeat(64)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    proptest! {
        #[test]
        fn names_survive_a_round_trip(project in "[a-z][a-z0-9-]{0,20}", branch in "[a-z][a-z0-9-]{0,20}") {
            let name = ProjectName::new(project).branch(branch).endpoint("primary");
            prop_assert_eq!(name.to_string().parse::<EndpointName>(), Ok(name.clone()));
            prop_assert_eq!(name.parent().to_string().parse::<BranchName>(), Ok(name.parent()));
        }

        #[test]
        fn no_text_panics_the_parsers(text in ".*") {
            let _ = text.parse::<ProjectName>();
            let _ = text.parse::<BranchName>();
            let _ = text.parse::<EndpointName>();
        }
    }
}
