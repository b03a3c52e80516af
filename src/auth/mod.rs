//! Where a token comes from: flags, environment, profile file, and the ways to log in.

mod choose;
mod cli;
mod host;
mod http;
mod login;
mod oauth;
mod oidc;
mod profile;
mod settings;

pub(crate) use host::{Host, is_loopback};
pub(crate) use http::{BodyError, body, install_provider};
pub(crate) use login::Login;
pub(crate) use settings::{GithubOidc, Origin, Setting, Settings};
