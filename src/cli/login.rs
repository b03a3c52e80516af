//! From settings to a workspace: what flags and environment say about the login.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::cx::Cx;
use super::settings::Environment;
use crate::api::{self, Client, Delays};
use crate::auth::{GithubOidc, Login, Origin, Setting, Settings};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::secret::{Secret, is_login_secret};

impl Cx {
    /// Returns the workspace to talk to; connects on first use.
    ///
    /// Where neither flags nor environment name one, the bundle's target does. Fails with `Auth`
    /// when nothing says which workspace.
    pub(crate) fn api_for(&self, bundle: Option<&Bundle>) -> Result<Client> {
        api::install_provider();
        let mut settings = self.login_settings()?;
        if settings.host.is_none() && settings.profile.is_none() {
            let target = bundle.map(|bundle| &bundle.target);
            let set = |value: &String| Setting::new(value.clone(), Origin::Bundle);
            settings.host = target.and_then(|target| target.host.as_ref()).map(set);
            settings.profile = target.and_then(|target| target.profile.as_ref()).map(set);
        }
        let steps = self.ui.steps.clone();
        let delays = Delays::new(move |text| steps.note(text));
        Ok(Client::new(Login::resolve(settings)?, delays))
    }

    /// Returns the variables that let a child log in to the workspace of `login` by its profile, and
    /// the names of those it must not have: secrets that it does not need, and what would win over
    /// the profile.
    pub(super) fn variables_of_children(
        &self,
        login: &Login,
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let names = self.environment.names().filter(|name| is_login_secret(name));
        let mut unset: Vec<String> = names.map(str::to_owned).collect();
        let mut set = BTreeMap::new();
        match (login.profile(), login.profile_file()) {
            (Some(profile), Some(file)) => {
                set.insert("DATABRICKS_CONFIG_PROFILE".to_owned(), profile.to_owned());
                set.insert("DATABRICKS_CONFIG_FILE".to_owned(), file.display().to_string());
                let others = ["DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_AUTH_TYPE"];
                unset.extend(others.map(str::to_owned));
            }
            _ => {
                set.insert("DATABRICKS_HOST".to_owned(), login.host().to_string());
            }
        }
        (set, unset)
    }

    /// Collects what flags and environment say about workspace and login.
    fn login_settings(&self) -> Result<Settings> {
        let environment = &self.environment;
        let flag = self.global.profile.clone();
        let profile = flag
            .map(|name| match self.variable_of("profile") {
                Some(_) => Setting::new(name, Origin::Flag("LAKEFORGE_PROFILE")),
                None => Setting::new(name, Origin::Flag("--profile")),
            })
            .or_else(|| variable(environment, "DATABRICKS_CONFIG_PROFILE"));
        let token_variable = environment.get("DATABRICKS_OIDC_TOKEN_ENV");
        let oidc_token = environment
            .get(token_variable.unwrap_or("DATABRICKS_OIDC_TOKEN"))
            .map(|token| secret(token, Origin::Variable("DATABRICKS_OIDC_TOKEN")));
        Ok(Settings {
            host: variable(environment, "DATABRICKS_HOST"),
            token: secret_variable(environment, "DATABRICKS_TOKEN"),
            client_id: variable(environment, "DATABRICKS_CLIENT_ID"),
            client_secret: secret_variable(environment, "DATABRICKS_CLIENT_SECRET"),
            auth_type: variable(environment, "DATABRICKS_AUTH_TYPE"),
            profile,
            config_file: config_file(environment),
            local_config_file: Some(self.data_dir()?.join("databrickscfg")),
            databricks_cli: environment.get("DATABRICKS_CLI_PATH").map(PathBuf::from),
            token_audience: variable(environment, "DATABRICKS_TOKEN_AUDIENCE"),
            oidc_token,
            github: github(environment),
            mask: self.ui.steps.mask().clone(),
        })
    }
}

fn variable(environment: &Environment, name: &'static str) -> Option<Setting> {
    let value = environment.get(name)?;
    Some(Setting::new(value.to_owned(), Origin::Variable(name)))
}

fn secret_variable(
    environment: &Environment,
    name: &'static str,
) -> Option<Setting<Secret<String>>> {
    environment.get(name).map(|value| secret(value, Origin::Variable(name)))
}

fn secret(value: &str, origin: Origin) -> Setting<Secret<String>> {
    Setting::new(Secret::new(value.to_owned()), origin)
}

fn config_file(environment: &Environment) -> Option<PathBuf> {
    let home = || environment.get("HOME").map(PathBuf::from);
    match environment.get("DATABRICKS_CONFIG_FILE") {
        Some(path) => match path.strip_prefix("~/") {
            Some(below) => home().map(|home| home.join(below)),
            None => Some(PathBuf::from(path)),
        },
        None => home().map(|home| home.join(".databrickscfg")),
    }
}

fn github(environment: &Environment) -> Option<GithubOidc> {
    Some(GithubOidc {
        url: environment.get("ACTIONS_ID_TOKEN_REQUEST_URL")?.to_owned(),
        token: Secret::new(environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?.to_owned()),
    })
}
