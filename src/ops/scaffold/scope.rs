//! Where the generated resources belong: which deployment, and which targets.
//!
//! Deployments of projects that are named one at a time are kept apart: each has a folder of its own.

use super::Request;
use crate::bundle::Outline;

/// The variable that names the projects of a deployment, as existing generators have it.
pub(super) const VARIABLE: &str = "project_name";
/// Folder of the deployment in the workspace, where the bundle says nothing.
const ROOT_PATH: &str = "~/.bundle/${bundle.name}/${bundle.target}/${var.project_name}";

/// What the generated file says beside the resources.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Value of the variable; nothing when the projects are those of the whole bundle.
    pub(super) name: Option<String>,
    /// Folder of the deployment, when the bundle leaves it open.
    pub(super) root_path: Option<&'static str>,
    /// Targets that hold the resources; all of them when there are none here.
    pub(super) targets: Vec<String>,
}

impl Scope {
    /// Works out what `request` needs in the bundle `outline`.
    pub(super) fn of(request: &Request, outline: &Outline) -> Self {
        if request.projects.is_empty() {
            return Scope::default();
        }
        Scope {
            name: Some(request.projects.join("-")),
            root_path: outline.root_paths.is_empty().then_some(ROOT_PATH),
            targets: Vec::new(),
        }
    }

    /// Returns what the user should know: a folder that deployments of different projects would share.
    pub(super) fn note(&self, outline: &Outline) -> Option<String> {
        self.name.as_ref()?;
        let shares = |path: &&String| !path.contains(&format!("${{var.{VARIABLE}}}"));
        let path = outline.root_paths.iter().find(shares)?;
        Some(format!(
            "deployments of other projects share the state in `{path}`; add `/${{var.{VARIABLE}}}` to that `root_path`"
        ))
    }
}
