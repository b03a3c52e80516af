//! Which settings hold a secret: told by their names, and passwords inside addresses.

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

/// Returns whether a variable called `name` is for a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    ENDINGS.iter().chain(&LAST_WORDS).any(|ending| name.ends_with(ending))
}

/// Returns the password that stands in the address `text`: `postgres://me:PASSWORD@host/db`.
pub(crate) fn password_in(text: &str) -> Option<&str> {
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
}
