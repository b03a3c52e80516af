//! OAuth as the workspace speaks it: discovery, client credentials, token exchange.

use jiff::Timestamp;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::host::Host;
use super::http::{self, Http};
use super::login::Fresh;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::time::Ttl;
use crate::wire::identity::{AuthorizationServer, Discovery, Token};

/// Longest answer that is read; a token takes a few kilobytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Asks for a token as a service principal.
///
/// Source: Go SDK 0.175.0 `oauth-m2m`, read 2026-08.
pub(super) async fn client_credentials(
    http: &Http,
    host: &Host,
    client_id: &str,
    client_secret: &Secret<String>,
) -> Result<Fresh> {
    let endpoint = token_endpoint(http, host).await?;
    let request = http
        .client()
        .post(endpoint)
        .basic_auth(client_id, Some(client_secret.expose()))
        .form(&[("grant_type", "client_credentials"), ("scope", "all-apis")]);
    ask(http, request, &format!("service principal `{client_id}`")).await
}

/// Exchanges an identity token for a token of the workspace (RFC 8693).
pub(super) async fn exchange(
    http: &Http,
    endpoint: Url,
    identity: &Secret<String>,
    client_id: Option<&str>,
) -> Result<Fresh> {
    let mut form = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", identity.expose().as_str()),
        ("scope", "all-apis"),
    ];
    form.extend(client_id.map(|id| ("client_id", id)));
    ask(http, http.client().post(endpoint).form(&form), "the identity token").await
}

/// Finds where the workspace hands out tokens.
///
/// The workspace's own description wins; the well-known place below `/oidc` serves without it.
pub(super) async fn token_endpoint(http: &Http, host: &Host) -> Result<Url> {
    let well_known = |base: &str| {
        format!("{}/.well-known/oauth-authorization-server", base.trim_end_matches('/'))
    };
    let usual = format!("{host}/oidc");
    let (config, server) = tokio::join!(
        get::<Discovery>(http, format!("{host}/.well-known/databricks-config")),
        get::<AuthorizationServer>(http, well_known(&usual)),
    );
    let other = config.ok().map(|config| config.oidc_endpoint);
    let other = other.filter(|base| base.trim_end_matches('/') != usual && !base.contains('{'));
    let server = match other {
        Some(base) => get(http, well_known(&base)).await.or(server)?,
        None => server?,
    };
    let endpoint: Url = server.token_endpoint.parse().map_err(|_| {
        Error::new(Kind::Auth, format!("`{host}` does not say where it hands out tokens"))
            .why(format!("`{}` is not an address", server.token_endpoint))
    })?;
    host.check_token_endpoint(&endpoint).map_err(|why| {
        Error::new(Kind::Refused, format!("`{host}` sends logins elsewhere"))
            .code("LOGIN_ELSEWHERE")
            .why(why)
            .hint("check the address of the workspace")
    })?;
    Ok(endpoint)
}

/// Returns the JSON at `url`; an unanswered or unreadable reply is no authentication.
pub(super) async fn get<T: DeserializeOwned>(http: &Http, url: String) -> Result<T> {
    let response = http.send(|| http.client().get(&url)).await?;
    let status = response.status();
    let text = text(response).await;
    if !status.is_success() {
        return Err(Error::new(Kind::Auth, format!("`{url}` answered {status}"))
            .why("this does not look like a workspace"));
    }
    serde_json::from_str(&text).map_err(|error| {
        Error::new(Kind::Auth, format!("`{url}` does not answer like a workspace"))
            .why(error.to_string())
    })
}

/// Returns the body of `response`, or nothing when it cannot be had.
pub(super) async fn text(response: Response) -> String {
    let bytes = http::body(response, LONGEST_ANSWER).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(http: &Http, request: RequestBuilder, whose: &str) -> Result<Fresh> {
    let again = || request.try_clone().expect("forms are held in memory");
    let response = http.send(again).await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = text(response).await;
    if !status.is_success() {
        return Err(Error::new(Kind::Auth, format!("no token for {whose}"))
            .why(refusal(&text, status, &url)));
    }
    let token: Token = serde_json::from_str(&text).map_err(|error| {
        // The text may hold the token, so only the place of the mistake is told.
        let place = format!("line {} column {}", error.line(), error.column());
        Error::new(Kind::Auth, format!("no token for {whose}"))
            .why(format!("`{url}` answered {status} with something else than a token ({place})"))
    })?;
    let expires = Ttl::from_secs(token.expires_in).after(Timestamp::now());
    Ok(Fresh { token: token.access_token, expires: Some(expires) })
}

/// Says why a token endpoint refused; the two shapes of such answers are those of RFC 6749 and Okta.
fn refusal(text: &str, status: StatusCode, url: &Url) -> String {
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(default, alias = "errorCode", alias = "error_code")]
        error: String,
        #[serde(default, alias = "errorSummary", alias = "message")]
        error_description: String,
    }
    let body: Body = serde_json::from_str(text).unwrap_or_default();
    match (body.error.as_str(), body.error_description.as_str()) {
        ("", _) => format!("`{url}` answered {status}"),
        (error, "") => format!("{error} ({status})"),
        (error, sentence) => format!("{sentence} ({status} {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_endpoint_said() {
        let url: Url = "https://a.test/oidc/v1/token".parse().unwrap();
        let say = |text| refusal(text, StatusCode::UNAUTHORIZED, &url);

        assert_eq!(
            say(r#"{"error":"invalid_client","error_description":"Client authentication failed"}"#),
            "Client authentication failed (401 Unauthorized invalid_client)"
        );
        assert_eq!(say(r#"{"errorCode":"E1","errorSummary":"No"}"#), "No (401 Unauthorized E1)");
        assert_eq!(say("<html>"), "`https://a.test/oidc/v1/token` answered 401 Unauthorized");
    }
}
