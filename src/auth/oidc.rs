//! Identity tokens of CI systems, for exchange.

use reqwest::Url;
use serde::Deserialize;

use super::host::check_private;
use super::http::Http;
use super::oauth;
use super::settings::GithubOidc;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Asks GitHub Actions for an identity token for `audience`.
///
/// Source: Go SDK 0.175.0 `github-oidc`, read 2026-08.
pub(super) async fn github(
    http: &Http,
    github: &GithubOidc,
    audience: &str,
) -> Result<Secret<String>> {
    #[derive(Deserialize)]
    struct Answer {
        value: Secret<String>,
    }
    let refuse = |why: String| {
        Error::new(Kind::Auth, "GitHub Actions gave no identity token")
            .why(why)
            .hint("give the job `permissions: id-token: write`")
    };
    let mut url: Url =
        github.url.parse().map_err(|_| refuse("its address is not a URL".to_owned()))?;
    check_private(&url).map_err(refuse)?;
    url.query_pairs_mut().append_pair("audience", audience);
    let response =
        http.send(|| http.client().get(url.clone()).bearer_auth(github.token.expose())).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(refuse(format!("it answered {status}")));
    }
    let answer: Answer = serde_json::from_str(&oauth::text(response).await)
        .map_err(|_| refuse("its answer holds no token".to_owned()))?;
    Ok(answer.value)
}
