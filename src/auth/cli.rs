//! Tokens of people: asked of the Databricks CLI, which did the login in the browser.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::process::Command;

use super::host::Host;
use super::login::Fresh;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How long the CLI may take; a locked keychain waits for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `databricks auth token` for `profile`, or for `host` without one.
///
/// Source: Python SDK 0.156.0 `credentials_provider.py`, read 2026-08.
pub(super) async fn token(cli: &Path, profile: Option<&str>, host: &Host) -> Result<Fresh> {
    let mut command = Command::new(cli);
    command.args(["auth", "token", "--output", "json"]);
    match profile {
        Some(profile) => command.args(["--profile", profile]),
        None => command.args(["--host", &host.to_string()]),
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| refuse(format!("it did not answer within {} s", LIMIT.as_secs())))?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::Auth, "not logged in")
                .why(format!(
                    "no token is set, and the Databricks CLI (`{}`) is not installed",
                    cli.display()
                ))
                .hint("set DATABRICKS_TOKEN, or install the Databricks CLI"),
            _ => refuse(error.to_string()),
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().rev().find(|line| !line.trim().is_empty());
        let line = line.unwrap_or("it failed without a word").trim();
        return Err(refuse(line.trim_start_matches("Error: ").to_owned()));
    }
    parse(&output.stdout)
}

fn parse(stdout: &[u8]) -> Result<Fresh> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Secret<String>,
        #[serde(default)]
        expiry: Option<Timestamp>,
    }
    // The answer is not shown: what cannot be read may still hold a token.
    let answer: Answer = serde_json::from_slice(stdout)
        .map_err(|_| refuse("its answer holds no token; is it the current CLI?".to_owned()))?;
    Ok(Fresh { token: answer.access_token, expires: answer.expiry })
}

fn refuse(why: String) -> Error {
    Error::new(Kind::Auth, "the Databricks CLI gave no token").why(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shape: `databricks auth token` of CLI 1.13.0, read 2026-08.
    #[test]
    fn the_answer_of_the_cli_is_read_and_never_shown() {
        let fresh = parse(
            br#"{"access_token":"eyJ","token_type":"Bearer","expiry":"2026-01-02T03:04:05.678+01:00"}"#,
        )
        .unwrap();
        assert_eq!(fresh.token.expose(), "eyJ");
        assert_eq!(fresh.expires.unwrap().to_string(), "2026-01-02T02:04:05.678Z");

        let error = parse(br#"{"token":"secret-thing"}"#).unwrap_err();
        assert!(!error.to_string().contains("secret-thing"));
    }
}
