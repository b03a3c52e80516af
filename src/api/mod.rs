//! The workspace over HTTP: one method per call, with its retries and its errors.

mod apps;
mod branches;
mod client;
mod credentials;
mod delays;
mod deletion;
mod endpoints;
mod error;
mod identity;
mod operations;
mod projects;
mod request;
mod retry;
mod roles;
mod visit;
mod workspace;

pub(crate) use crate::auth::install_provider;
pub(crate) use apps::DeploymentRequest;
pub(crate) use client::Client;
pub(crate) use delays::Delays;
pub(crate) use deletion::{DeletableBranch, DeletableProject, Unconfirmed};
pub(crate) use error::{Error, Result, there};
pub(crate) use operations::{Pending, Poll};
pub(crate) use visit::Visit;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
pub(crate) use stand_in::Call;
#[cfg(test)]
mod tests;
