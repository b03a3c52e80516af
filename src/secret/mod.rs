//! A value that never shows itself, and what hides it in everything that is written.

mod known;
mod mask;

use std::fmt;

pub(crate) use known::{is_login_secret, is_secret_name, secret_in};
pub(crate) use mask::{Mask, Stream};

use serde::{Deserialize, Serialize};

/// A secret: prints as `***` and is read only through [`Secret::expose`].
///
/// Serialises as the value itself, because the wire and the 0600 files need it; what must not
/// leave the process is therefore never put into a serialisable type.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Secret(value)
    }

    /// Returns the value, for the moment it is used.
    pub(crate) const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Secret(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let token = Secret::new("dapi123".to_owned());

        assert_eq!(format!("{token} {token:?}"), "*** ***");
        assert_eq!(token.expose(), "dapi123");
    }
}
