//! What is known about the workspace and the caller before anything is asked for.

use std::fmt;
use std::path::PathBuf;

use crate::secret::{Mask, Secret};

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag, such as `--profile`.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// The target of the bundle.
    Bundle,
    /// A profile of a configuration file.
    Profile {
        /// Name of the profile.
        name: String,
        /// The file.
        file: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "{flag}"),
            Origin::Variable(name) => write!(f, "{name}"),
            Origin::Bundle => write!(f, "the bundle"),
            Origin::Profile { name, file } => write!(f, "profile {name} of {}", file.display()),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T = String> {
    /// The value.
    pub(crate) value: T,
    /// Where it was found.
    pub(crate) origin: Origin,
}

impl<T> Setting<T> {
    /// Puts a value and its origin together.
    pub(crate) fn new(value: T, origin: Origin) -> Self {
        Setting { value, origin }
    }
}

/// What flags, environment and bundle say; the profile file fills in the rest.
///
/// Names and meaning are those of the Databricks SDKs' unified authentication.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Address of the workspace.
    pub(crate) host: Option<Setting>,
    /// Personal access token, or any bearer token.
    pub(crate) token: Option<Setting<Secret<String>>>,
    /// Application id of a service principal.
    pub(crate) client_id: Option<Setting>,
    /// OAuth secret of that service principal.
    pub(crate) client_secret: Option<Setting<Secret<String>>>,
    /// The one way to log in that may be used, such as `pat`.
    pub(crate) auth_type: Option<Setting>,
    /// Profile to read.
    pub(crate) profile: Option<Setting>,
    /// The user's configuration file.
    pub(crate) config_file: Option<PathBuf>,
    /// The embedded workspace's own configuration file, for the profile `local`.
    pub(crate) local_config_file: Option<PathBuf>,
    /// The Databricks CLI, when it is not `databricks` on the search path.
    pub(crate) databricks_cli: Option<PathBuf>,
    /// Audience to ask identity tokens for.
    pub(crate) token_audience: Option<Setting>,
    /// Identity token of the environment (`DATABRICKS_OIDC_TOKEN`).
    pub(crate) oidc_token: Option<Setting<Secret<String>>>,
    /// Where GitHub Actions hands out identity tokens.
    pub(crate) github: Option<GithubOidc>,
    /// What hides secrets in all that is written.
    pub(crate) mask: Mask,
}

/// Where GitHub Actions hands out identity tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GithubOidc {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub(crate) url: String,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    pub(crate) token: Secret<String>,
}
