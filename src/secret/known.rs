//! Which settings hold a secret: told by their names, and passwords inside addresses.

use super::Secret;

/// How names end whose values are secrets, such as `DATABRICKS_TOKEN` and `PGPASSWORD`.
const ENDINGS: [&str; 10] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
];
/// Last words of such names that are the end of other words too.
const LAST_WORDS: [&str; 2] = ["_PWD", "_PAT"];

/// How names of variables begin that are for the login to a workspace and for a bundle.
const OURS: [&str; 4] = ["DATABRICKS_", "BUNDLE_VAR_", "ARM_", "ACTIONS_"];

/// Returns whether a variable called `name` is for a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    ENDINGS.iter().chain(&LAST_WORDS).any(|ending| name.ends_with(ending))
}

/// Returns whether the variable `name` is for a secret of the login to a workspace or of a bundle, which
/// no child of ours needs but the Databricks CLI.
pub(crate) fn is_login_secret(name: &str) -> bool {
    is_secret_name(name) && OURS.iter().any(|ours| name.starts_with(ours))
}

/// Returns the secret that the variable `name` holds, or a password in its value.
pub(crate) fn secret_in(name: &str, value: &str) -> Option<Secret<String>> {
    let value = if is_secret_name(name) { Some(value) } else { password_in(value) };
    value.map(|value| Secret::new(value.to_owned()))
}

/// Returns the password that stands in the address `text`: `postgres://me:PASSWORD@host/db`.
fn password_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, _) = rest[..end].rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_secret() {
        for (name, expected) in [
            ("DATABRICKS_TOKEN", true),
            ("DATABRICKS_CLIENT_SECRET", true),
            ("BUNDLE_VAR_api_token", true),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", true),
            ("PGPASSWORD", true),
            ("AWS_SECRET_ACCESS_KEY", true),
            ("api-key", true),
            ("DATABRICKS_OIDC_TOKEN_ENV", false),
            ("DATABRICKS_TOKEN_AUDIENCE", false),
            ("BUNDLE_VAR_partition_key", false),
            ("PWD", false),
            ("PATH", false),
            ("LAKEFORGE_FORMAT", false),
        ] {
            assert_eq!(is_secret_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_password_is_found_in_an_address() {
        for (text, expected) in [
            ("postgres://me:s3cret@host:5432/db?sslmode=require", Some("s3cret")),
            ("https://me:a@b@proxy.test", Some("a@b")),
            ("https://me@proxy.test/a:b@c", None),
            ("https://proxy.test", None),
            ("https://:@x", None),
            ("me:s3cret@host", None),
        ] {
            assert_eq!(password_in(text), expected, "{text}");
        }
    }

    #[test]
    fn a_child_gets_no_secret_of_the_login_and_keeps_its_own() {
        for (name, expected) in [
            ("DATABRICKS_TOKEN", true),
            ("DATABRICKS_CLIENT_SECRET", true),
            ("DATABRICKS_OIDC_TOKEN", true),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", true),
            ("ARM_CLIENT_SECRET", true),
            ("BUNDLE_VAR_api_token", true),
            ("BUNDLE_VAR_region", false),
            ("DATABRICKS_HOST", false),
            ("DATABRICKS_CONFIG_PROFILE", false),
            ("PIP_INDEX_PASSWORD", false),
            ("PATH", false),
        ] {
            assert_eq!(is_login_secret(name), expected, "{name}");
        }
    }
}
