//! The embedded workspace: the platform's REST API in front of real Postgres and real app processes.

mod apps;
mod catalogs;
mod clock;
pub(crate) mod control;
mod disk;
mod door;
mod fault;
mod faults;
mod files;
mod folder;
mod gateway;
mod http;
mod ids;
mod jobs;
pub(crate) mod layout;
mod listeners;
mod loopback;
mod paths;
mod pid;
mod postgres;
mod serve;
mod sql;
mod state;
mod store;
mod tether;
mod tls;
mod tokens;
mod workspace;
mod world;

pub(crate) use serve::{Options, Ready, serve};

#[cfg(test)]
mod tests;
