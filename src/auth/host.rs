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
            format!(
                "`{text}` is not the address of a workspace such as `https://example.cloud.databricks.com`"
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
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
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
    fn this_machine_has_many_names() {
        for (text, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://127.9.8.7", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("https://localhost.example.test", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }
}
