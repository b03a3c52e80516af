//! The address of a workspace as people write it, made one form.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// Address of a workspace: scheme, name and port, nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    url: Url,
    workspace_id: Option<String>,
}

impl Host {
    /// Reads an address; the scheme is added when missing, and path, query and user are left out.
    ///
    /// The workspace id is kept from `?o=` or `?w=`. Fails with a sentence.
    ///
    /// Source: Go SDK 0.175.0 `config`, read 2026-08.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let refuse = || {
            let shown = match text.rsplit_once('@') {
                Some((_, host)) => host,
                None => text,
            };
            format!(
                "`{shown}` is not the address of a workspace such as `https://example.cloud.databricks.com`"
            )
        };
        let with_scheme =
            if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut url = Url::parse(&with_scheme).map_err(|_| refuse())?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(refuse());
        }
        let workspace_id = url
            .query_pairs()
            .find(|(name, value)| matches!(&**name, "o" | "w") && !value.is_empty())
            .map(|(_, value)| value.into_owned());
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_path("/");
        url.set_query(None);
        url.set_fragment(None);
        Ok(Host { url, workspace_id })
    }

    /// Returns the address as a URL whose path is `/`.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the id of the workspace, when the address named it.
    pub(crate) fn workspace_id(&self) -> Option<&str> {
        self.workspace_id.as_deref()
    }

    /// Returns whether the address is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Checks that what is sent to `endpoint`, where this workspace says it hands out tokens, reaches
    /// the workspace itself or a login host of the platform.
    ///
    /// Fails with a sentence.
    pub(super) fn check_token_endpoint(&self, endpoint: &Url) -> Result<(), String> {
        check_private(endpoint)?;
        let place = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
        let both_here = self.is_loopback() && is_loopback(endpoint);
        if both_here || place(endpoint) == place(&self.url) || is_account_host(endpoint) {
            return Ok(());
        }
        Err(format!(
            "`{}` is neither `{self}` nor an account host of Databricks",
            endpoint.host_str().unwrap_or_default()
        ))
    }
}

/// Zones of the platform's hosts.
///
/// Source: Go SDK 0.175.0 `config/environment`, read 2026-08.
const ZONES: [&str; 7] = [
    ".cloud.databricks.com",
    ".cloud.databricks.us",
    ".cloud.databricks.mil",
    ".azuredatabricks.net",
    ".databricks.azure.us",
    ".databricks.azure.cn",
    ".gcp.databricks.com",
];

/// Returns whether `url` is where the platform logs in for a whole account.
fn is_account_host(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default();
    let zone = name.strip_prefix("accounts-dod").or_else(|| name.strip_prefix("accounts"));
    zone.is_some_and(|zone| ZONES.contains(&zone))
}

/// Checks that what is sent to `url` is encrypted or stays on this machine.
///
/// Fails with a sentence.
pub(super) fn check_private(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        _ => {
            Err(format!("`{}` is not encrypted, so no secret is sent there", without_secrets(url)))
        }
    }
}

/// Returns `url` without user, password and query, which can hold more than is good to show.
pub(super) fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    // It fails for addresses that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.as_str().trim_end_matches('/').to_owned()
}

impl fmt::Display for Host {
    /// Writes the address without a trailing slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

/// Returns whether `url` is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(name) = url.host_str() else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        // Other names below `.localhost` are looked up like any name, and may be anywhere.
        Err(_) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_one_form() {
        for (text, expected, workspace) in [
            ("example.cloud.databricks.test", "https://example.cloud.databricks.test", None),
            ("https://example.test/", "https://example.test", None),
            ("https://example.test/?o=42#home", "https://example.test", Some("42")),
            ("https://me:pw@example.test/sql?w=7", "https://example.test", Some("7")),
            (" http://127.0.0.1:8765/ ", "http://127.0.0.1:8765", None),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!(host.to_string(), expected, "{text}");
            assert_eq!(host.workspace_id(), workspace, "{text}");
        }
        for text in ["", "https://", "ftp://example.test", "a b"] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_asked_for_at_the_workspace_or_an_account_host() {
        let check = |host: &str, endpoint: &str| {
            Host::parse(host).unwrap().check_token_endpoint(&endpoint.parse().unwrap()).is_ok()
        };
        for (host, endpoint, expected) in [
            ("https://w.test", "https://w.test/oidc/v1/token", true),
            ("https://w.test", "https://w.test:443/oidc/v1/token", true),
            (
                "https://w.test",
                "https://accounts.cloud.databricks.com/oidc/accounts/1/v1/token",
                true,
            ),
            ("https://w.test", "https://accounts.azuredatabricks.net/x", true),
            ("https://w.test", "https://accounts-dod.cloud.databricks.mil/x", true),
            ("https://w.test", "https://accounts.evil.test/x", false),
            ("https://w.test", "https://accounts.cloud.databricks.com.evil.test/x", false),
            ("https://w.test", "https://evilaccounts.cloud.databricks.com/x", false),
            ("https://w.test", "https://w.test.evil.test/x", false),
            ("https://w.test", "https://w.test@evil.test/x", false),
            ("https://w.test", "https://w.test:8443/x", false),
            ("https://w.test", "http://w.test/oidc/v1/token", false),
            ("https://w.test", "http://127.0.0.1:1/x", false),
            ("https://w.test", "http://accounts.cloud.databricks.com/x", false),
            ("http://127.0.0.1:8765", "http://127.0.0.1:8765/oidc/v1/token", true),
            ("http://localhost:8765", "http://127.0.0.1:8765/oidc/v1/token", true),
            ("http://127.0.0.1:8765", "https://evil.test/x", false),
        ] {
            assert_eq!(check(host, endpoint), expected, "{host} {endpoint}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let error = Host::parse("ftp://me:s3cret@example.test").unwrap_err();
        assert!(!error.contains("s3cret") && error.contains("example.test"), "{error}");
    }

    #[test]
    fn this_machine_has_many_names() {
        for (text, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://127.9.8.7", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("https://localhost.example.test", false),
            ("http://app.localhost", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }
}
