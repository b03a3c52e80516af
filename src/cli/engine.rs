//! What applies the resources of a bundle: the Databricks CLI, or our own engine for the embedded workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cx::Cx;
use crate::api::Client;
use crate::bundle::{Bundle, Choice, Config};
use crate::error::{Doing, Error, Kind, Result};
use crate::ops::deploy::{Call, Databricks, Engine};
use crate::ops::scaffold;

/// How a command reaches the resources of a bundle.
#[derive(Debug, clap::Args)]
pub(super) struct With {
    /// What applies the resources
    #[arg(long, value_enum, default_value_t)]
    engine: EngineChoice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum EngineChoice {
    /// The Databricks CLI where it is installed
    #[default]
    Auto,
    /// The Databricks CLI
    Cli,
    /// Our own, for the embedded workspace alone
    Builtin,
}

impl With {
    /// Chooses what applies the resources, and says so.
    pub(super) async fn open(&self, cx: &Cx, api: &Client, bundle: &Bundle) -> Result<Engine> {
        let program = match self.engine {
            EngineChoice::Builtin => None,
            EngineChoice::Auto | EngineChoice::Cli => cx.databricks_cli(),
        };
        if let Some(program) = program {
            let cli = Databricks::open(program, call(cx, api, bundle).await?, &cx.ui.steps).await?;
            cx.ui.steps.note(format!("→ with the {}", cli.name()));
            return Ok(Engine::Databricks(Box::new(cli)));
        }
        if self.engine == EngineChoice::Cli {
            return Err(no_cli("the Databricks CLI is not installed"));
        }
        if !api.is_embedded().await.doing(|| "could not look at the workspace".to_owned())? {
            return Err(no_cli("a real workspace is deployed to with the Databricks CLI"));
        }
        cx.ui.steps.note("→ with the built-in engine, for the embedded workspace alone");
        Ok(Engine::BuiltIn)
    }
}

/// The inputs that the generated resources must agree with.
#[derive(Debug, clap::Args)]
pub(super) struct Inputs {
    /// Project that `gen` was given [default: those of lakeforge.yml] (can be repeated)
    #[arg(long, value_name = "PROJECT", value_delimiter = ',')]
    project: Vec<String>,
    /// Branches that `gen` was given with `--project`
    #[arg(long, value_name = "BRANCH,…", value_delimiter = ',')]
    branches: Vec<String>,
}

impl Inputs {
    /// Fails as `Refused`, with both lists, when the generated file holds another topology, and for a
    /// preview that holds a project.
    pub(super) fn check(&self, cx: &Cx, bundle: &Bundle) -> Result<()> {
        let config = Config::load(&bundle.root)?;
        config.check_apps(bundle)?;
        scaffold::refuse_projects(bundle, &config)?;
        let inputs = cx.generated_from(&self.project, &self.branches, false, &config);
        let request = scaffold::Request { root: bundle.root.clone(), ..inputs };
        match scaffold::drift(&request, bundle)? {
            None => Ok(()),
            Some((drift, command)) => Err(drift.refuse().hint(command)),
        }
    }
}

async fn call(cx: &Cx, api: &Client, bundle: &Bundle) -> Result<Call> {
    let mut environment = BTreeMap::new();
    // The CLI keys its local state by target alone; deployments of other inputs stay apart, and
    // so do workspaces: it takes what another one has for deployed here.
    let workspace = workspace_name(api).await?;
    let state = bundle.root.join(".databricks/lakeforge/state").join(workspace);
    let state = state.join(plain_name(&bundle.root_path));
    environment.insert("DATABRICKS_BUNDLE_TMP".to_owned(), state.display().to_string());
    let mut profile = api.login().profile().map(str::to_owned);
    if api.login().is_embedded() {
        let file = cx.data_dir()?.join("databrickscfg");
        environment.insert("DATABRICKS_CONFIG_FILE".to_owned(), file.display().to_string());
    } else if cx.environment.get("DATABRICKS_HOST").is_some() && cx.global.profile.is_none() {
        profile = None;
    }
    Ok(Call {
        root: bundle.root.clone(),
        target: bundle.target.name.clone(),
        profile,
        variables: Choice::parse_variables(&cx.global.var)?,
        environment,
    })
}

/// Returns a folder name that differs where the workspace does.
///
/// An embedded one is another after a reset, at the address it had.
async fn workspace_name(api: &Client) -> Result<String> {
    let known = if api.login().is_embedded() {
        let asked = api.discovery().await.doing(|| "could not look at the workspace".to_owned())?;
        asked.workspace_id
    } else {
        None
    };
    Ok(known.unwrap_or_else(|| plain_name(&api.host().to_string())))
}

/// Returns a folder name for a path or an address.
fn plain_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    let keep = name.len().saturating_sub(100);
    name[keep..].to_owned()
}

fn no_cli(what: &str) -> Error {
    Error::new(Kind::Usage, what)
        .code("DATABRICKS_CLI_NEEDED")
        .hint("install it: https://docs.databricks.com/dev-tools/cli/install.html")
}

impl Cx {
    /// Returns the Databricks CLI: `DATABRICKS_CLI_PATH`, else `databricks` on the search path.
    fn databricks_cli(&self) -> Option<PathBuf> {
        if let Some(program) = self.environment.get("DATABRICKS_CLI_PATH") {
            return Some(PathBuf::from(program));
        }
        let path = self.environment.get("PATH")?;
        std::env::split_paths(path)
            .map(|folder| folder.join("databricks"))
            .find(|file| is_program(file))
    }
}

fn is_program(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}
