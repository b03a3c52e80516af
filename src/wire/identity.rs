//! Who is asking: OAuth tokens, discovery and the current user.

use serde::{Deserialize, Deserializer, Serialize};

use crate::secret::Secret;

/// Answer of the token endpoint.
///
/// `expires_in` is in seconds and comes as a number or as a numeric string.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Bearer token.
    pub(crate) access_token: Secret<String>,
    /// Always `Bearer`.
    pub(crate) token_type: String,
    /// Seconds until the token expires.
    #[serde(deserialize_with = "number_or_text")]
    pub(crate) expires_in: u64,
    /// Scopes granted, such as `all-apis`.
    #[serde(default)]
    pub(crate) scope: String,
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Answer of `GET /.well-known/databricks-config`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Discovery {
    /// Base of the OAuth endpoints, such as `https://example.cloud.databricks.com/oidc`.
    pub(crate) oidc_endpoint: String,
    /// Numeric id of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace_id: Option<String>,
    /// Present on the embedded workspace alone: its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lakeforge_local: Option<String>,
}

/// Answer of `GET /oidc/.well-known/oauth-authorization-server`, as far as clients read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AuthorizationServer {
    /// Where people log in.
    pub(crate) authorization_endpoint: String,
    /// Where tokens are asked for.
    pub(crate) token_endpoint: String,
}

/// The identity behind a token: `GET /api/2.0/preview/scim/v2/Me`.
///
/// For a service principal `user_name` is its application id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Me {
    /// Numeric id.
    pub(crate) id: String,
    /// E-mail address of a user, application id of a service principal: the login in Postgres.
    pub(crate) user_name: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// Whether the identity may log in.
    #[serde(default)]
    pub(crate) active: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shape: Databricks CLI `libs/testserver`, read 2026-08.
    #[test]
    fn a_token_answer_may_count_its_seconds_in_text() {
        let token: Token = serde_json::from_str(
            r#"{"access_token":"oauth-token","expires_in":"3600","scope":"all-apis","token_type":"Bearer"}"#,
        )
        .unwrap();

        assert_eq!(token.expires_in, 3600);
        assert_eq!(token.access_token.expose(), "oauth-token");
    }
}
