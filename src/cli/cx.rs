//! What a command works with, built once per process; connects on first use.

use std::path::PathBuf;

use jiff::Timestamp;

use super::environment::Set;
use super::settings::{Environment, Global};
use crate::bundle::{self, Bundle, Choice, Outline};
use crate::error::{Error, Kind, Result};
use crate::ui::Ui;

/// Settings, terminal and clock of one command.
#[derive(Debug)]
pub(crate) struct Cx {
    /// The terminal.
    pub(crate) ui: Ui,
    /// Options of every command.
    pub(crate) global: Global,
    /// The environment as it was at start.
    pub(crate) environment: Environment,
    /// Flags that variables set.
    set: Vec<Set>,
}

impl Cx {
    /// Puts a command's surroundings together; touches nothing.
    pub(crate) fn new(ui: Ui, global: Global, environment: Environment, set: Vec<Set>) -> Self {
        Cx { ui, global, environment, set }
    }

    /// Returns the variable that sets `flag`, where one does.
    pub(crate) fn variable_of(&self, flag: &str) -> Option<&str> {
        self.set.iter().find(|set| set.flag == flag).map(|set| set.variable.as_str())
    }

    /// Says which flags variables set: always where one agrees to something, else with `-v`.
    pub(crate) fn announce_variables(&self) {
        for Set { flag, variable, agrees, .. } in &self.set {
            match agrees {
                true => self.ui.steps.warn(format!("--{flag} is set by {variable}")),
                false => tracing::debug!("--{flag} is set by {variable}"),
            }
        }
    }

    /// Returns the present moment.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Returns the folder the command was started in.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        std::env::current_dir().map_err(|error| {
            Error::new(Kind::Failed, "the current folder cannot be read").why(error.to_string())
        })
    }

    /// Reads the bundle, as the chosen target sees it.
    ///
    /// Fails with `Usage` when there is none here or upwards.
    pub(crate) fn bundle(&self) -> Result<Bundle> {
        let bundle = self.find_bundle()?.ok_or_else(|| {
            Error::new(Kind::Usage, "there is no databricks.yml here or in a folder above")
                .hint("change to the folder of the bundle, or add `--root DIR`")
        })?;
        bundle.warnings.iter().for_each(|warning| self.ui.steps.warn(warning));
        Ok(bundle)
    }

    /// Reads the bundle, if there is one here or upwards.
    pub(crate) fn find_bundle(&self) -> Result<Option<Bundle>> {
        let root = bundle::find_root(&self.folder()?, self.global.root.as_deref())?;
        let target = self.environment.get("DATABRICKS_BUNDLE_TARGET").map(str::to_owned);
        if target.is_some() && self.global.target.is_none() {
            tracing::debug!("--target is set by DATABRICKS_BUNDLE_TARGET");
        }
        let choice = self.choice(self.global.target.clone().or(target))?;
        root.map(|root| Bundle::load(&root, &choice)).transpose()
    }

    /// Reads the bundle as each of its targets sees it, the chosen one first; one that cannot be
    /// read is passed over with a warning.
    ///
    /// Fails with `Usage` when the chosen one cannot be read.
    pub(crate) fn bundle_of_each_target(&self) -> Result<Vec<Bundle>> {
        let mut all = vec![self.bundle()?];
        let root = all[0].root.clone();
        for (target, _) in Outline::read(&root, &[])?.targets {
            if target == all[0].target.name {
                continue;
            }
            match Bundle::load(&root, &self.choice(Some(target.clone()))?) {
                Ok(bundle) => all.push(bundle),
                Err(error) => self.ui.steps.warn(format!("target `{target}` passed over: {error}")),
            }
        }
        Ok(all)
    }

    fn choice(&self, target: Option<String>) -> Result<Choice> {
        Ok(Choice {
            target,
            variables: Choice::parse_variables(&self.global.var)?,
            environment: self.environment.with_prefix("BUNDLE_VAR_"),
        })
    }

    /// Returns the data folder of the embedded workspace: `--data-dir`, else below `XDG_DATA_HOME`
    /// or the home folder; for root `/var/lib/lakeforge`, because Postgres runs as another user
    /// and cannot look into root's home.
    pub(crate) fn data_dir(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.global.data_dir {
            return Ok(std::path::absolute(folder)?);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/lakeforge"));
        }
        let base = self.home_folder("XDG_DATA_HOME", ".local/share")?;
        Ok(base.join("lakeforge"))
    }

    /// Returns the folder for what can be made again: below `XDG_CACHE_HOME` or the home folder; for root
    /// `/var/cache/lakeforge`, because apps run as another user and cannot look into root's home.
    pub(crate) fn cache_dir(&self) -> Result<PathBuf> {
        let root = rustix::process::geteuid().is_root();
        if root && self.environment.get("XDG_CACHE_HOME").is_none() {
            return Ok(PathBuf::from("/var/cache/lakeforge"));
        }
        let base = self.home_folder("XDG_CACHE_HOME", ".cache")?;
        Ok(base.join("lakeforge"))
    }

    fn home_folder(&self, variable: &str, below_home: &str) -> Result<PathBuf> {
        if let Some(folder) = self.environment.get(variable) {
            return Ok(PathBuf::from(folder));
        }
        let home = self.environment.get("HOME").ok_or_else(|| {
            Error::new(Kind::Usage, "the home folder is not known").hint("set HOME")
        })?;
        Ok(PathBuf::from(home).join(below_home))
    }
}
