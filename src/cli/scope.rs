//! Which workspace and which projects a command is about.

use super::cx::Cx;
use crate::api::Client;
use crate::bundle::{Config, find_config};
use crate::error::Result;
use crate::ops::names::Scope;

/// The project of a command.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProjectChoice {
    /// Project [default: LAKEFORGE_PROJECT, else the only one in lakeforge.yml]
    #[arg(long, value_name = "NAME")]
    pub(super) project: Option<String>,
}

/// The projects of a command that can work on all of them.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProjectsChoice {
    #[command(flatten)]
    one: ProjectChoice,
    /// Every project in lakeforge.yml
    #[arg(long, conflicts_with = "project")]
    pub(super) all: bool,
}

impl ProjectChoice {
    /// Returns which projects are meant.
    pub(super) fn scope(&self, cx: &Cx, config: &Config) -> Scope {
        Scope {
            flag: self.project.clone(),
            variable: cx.environment.get("LAKEFORGE_PROJECT").map(str::to_owned),
            known: config.projects.iter().map(|project| project.id.clone()).collect(),
            all: false,
        }
    }
}

impl ProjectsChoice {
    /// Returns which projects are meant.
    pub(super) fn scope(&self, cx: &Cx, config: &Config) -> Scope {
        Scope { all: self.all, ..self.one.scope(cx, config) }
    }
}

impl Cx {
    /// Reads `lakeforge.yml` here or in a folder above; without one it says nothing.
    pub(crate) fn config(&self) -> Result<Config> {
        let folder = match &self.global.root {
            Some(root) => Some(root.clone()),
            None => find_config(&self.folder()?),
        };
        folder.map_or_else(|| Ok(Config::default()), |folder| Config::load(&folder))
    }

    /// Returns the workspace to talk to: what flags and environment name, else the bundle's target.
    ///
    /// Connects on first use. Fails with `Auth` when nothing says which workspace.
    pub(crate) fn api(&self) -> Result<Client> {
        let named = self.global.profile.is_some()
            || self.environment.get("DATABRICKS_HOST").is_some()
            || self.environment.get("DATABRICKS_CONFIG_PROFILE").is_some();
        let bundle = match &self.global.target {
            // Also where it does not decide on the workspace, a target has to be one.
            Some(_) => Some(self.bundle()?),
            None if named => None,
            None => self.find_bundle()?,
        };
        self.api_for(bundle.as_ref())
    }
}
