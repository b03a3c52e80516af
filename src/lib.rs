//! `lakeforge`: the whole life of a Databricks Lakebase database, from a template to production and back.

mod api;
mod auth;
mod bundle;
mod cli;
mod error;
mod local;
mod ops;
mod secret;
mod time;
mod ui;
mod wire;

pub use cli::main;
