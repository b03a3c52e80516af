//! How the caller logs in: chosen once from the settings, then asked for tokens.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::choose::{Choice, LOCAL_PROFILE, Strategy, choose};
use super::host::Host;
use super::http::Http;
use super::settings::Settings;
use super::{cli, oauth, oidc};
use crate::error::{Error, Kind, Result};
use crate::secret::{Mask, Secret};

/// A token this close to its end counts as ended.
///
/// Source: Python SDK 0.156.0 `oauth.py`, read 2026-08.
const REFRESH_BEFORE: SignedDuration = SignedDuration::from_secs(40);

/// A token as it was handed out.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    /// The token.
    pub(super) token: Secret<String>,
    /// When it ends; never for a personal access token.
    pub(super) expires: Option<Timestamp>,
}

impl Fresh {
    fn is_usable(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now.duration_until(end) > REFRESH_BEFORE)
    }
}

/// A workspace and the way to log in to it.
#[derive(Debug)]
pub(crate) struct Login {
    host: Host,
    profile: Option<String>,
    profile_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    embedded: bool,
    mask: Mask,
    strategy: Strategy,
    http: Http,
    held: Mutex<Option<Fresh>>,
}

impl Login {
    /// Chooses workspace and way to log in from `settings` and the profile files; asks nobody yet.
    ///
    /// Fails with `Usage` when the settings contradict each other, with `Auth` when they do not
    /// suffice, and with `Unavailable` when the embedded workspace was never started.
    pub(crate) fn resolve(settings: Settings) -> Result<Self> {
        let mask = settings.mask.clone();
        let Choice { host, profile, profile_file, certificate, strategy } = choose(settings)?;
        strategy.secret().into_iter().for_each(|secret| mask.hide(secret));
        let embedded = profile.as_deref() == Some(LOCAL_PROFILE) && host.is_loopback();
        let http = Http::new(&host, embedded)?;
        tracing::debug!(%host, profile, auth_type = strategy.name(), "workspace chosen");
        let held = Mutex::default();
        Ok(Login { host, profile, profile_file, certificate, embedded, mask, strategy, http, held })
    }

    /// Returns the address of the workspace.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the profile that was read, if any.
    pub(crate) fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Returns the file that profile was read from.
    pub(crate) fn profile_file(&self) -> Option<&Path> {
        self.profile_file.as_deref()
    }

    /// Returns the certificate authority of the embedded workspace, when this is one.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref()
    }

    /// Returns what hides the secrets of this login, and all that are handed out to it.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Returns whether this is the embedded workspace of the profile `local`.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Returns the HTTP client to talk to the workspace with.
    pub(crate) fn http(&self) -> &reqwest::Client {
        self.http.client()
    }

    /// Returns a token that is good for a while.
    ///
    /// Concurrent callers share one request. Fails with `Auth`, or with `Unavailable` when the
    /// token endpoint does not answer.
    pub(crate) async fn token(&self) -> Result<Secret<String>> {
        let mut held = self.held.lock().await;
        if let Some(fresh) = held.as_ref().filter(|fresh| fresh.is_usable(Timestamp::now())) {
            return Ok(fresh.token.clone());
        }
        let fresh = self.fetch().await.map_err(|error| self.with_hint(error))?;
        self.mask.hide(&fresh.token);
        Ok(held.insert(fresh).token.clone())
    }

    /// Forgets `refused`, a token the workspace did not take.
    ///
    /// Returns whether asking for another one can help.
    pub(crate) async fn forget(&self, refused: &Secret<String>) -> bool {
        if matches!(self.strategy, Strategy::Token { .. }) {
            return false;
        }
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|fresh| fresh.token == *refused) {
            *held = None;
        }
        true
    }

    /// Says that nobody answered at the workspace.
    pub(crate) fn no_answer(&self, error: &reqwest::Error) -> Error {
        self.http.no_answer(error)
    }

    /// Returns what to type when the workspace does not take the token.
    pub(crate) fn hint(&self) -> String {
        match (&self.strategy, &self.profile) {
            _ if self.embedded => "lakeforge local start".to_owned(),
            (Strategy::Token { origin, .. }, _) => format!("replace the token of {origin}"),
            (Strategy::ServicePrincipal { origin, .. }, _) => {
                format!("check client id and secret of {origin}")
            }
            (Strategy::DatabricksCli { .. }, Some(profile)) => {
                format!("databricks auth login --profile {profile}")
            }
            (Strategy::DatabricksCli { .. }, None) => {
                format!("databricks auth login --host {}", self.host)
            }
            (Strategy::Github { .. } | Strategy::Environment { .. }, _) => {
                "check the federation policy of the service principal".to_owned()
            }
        }
    }

    fn with_hint(&self, error: Error) -> Error {
        if error.kind() == Kind::Auth && error.hint_text().is_none() {
            return error.hint(self.hint());
        }
        error
    }

    async fn fetch(&self) -> Result<Fresh> {
        let (http, host) = (&self.http, &self.host);
        match &self.strategy {
            Strategy::Token { token, .. } => Ok(Fresh { token: token.clone(), expires: None }),
            Strategy::ServicePrincipal { client_id, secret, .. } => {
                oauth::client_credentials(http, host, client_id, secret).await
            }
            Strategy::DatabricksCli { cli, profile } => {
                cli::token(cli, profile.as_deref(), host).await
            }
            Strategy::Github { github, client_id, audience } => {
                let endpoint = oauth::token_endpoint(http, host).await?;
                let audience = audience.as_deref().unwrap_or(endpoint.as_str());
                let identity = oidc::github(http, github, audience).await?;
                self.mask.hide(&identity);
                oauth::exchange(http, endpoint, &identity, client_id.as_deref()).await
            }
            Strategy::Environment { token, client_id } => {
                let endpoint = oauth::token_endpoint(http, host).await?;
                oauth::exchange(http, endpoint, token, client_id.as_deref()).await
            }
        }
    }
}
