//! Drives the real binary, against an embedded workspace with real Postgres where one is needed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![allow(clippy::disallowed_methods, reason = "a fixture hands on the environment of the test")]

mod apps;
mod beside;
mod branch;
#[cfg(target_os = "linux")]
mod canary;
mod consent;
mod contract;
mod creds;
mod deploy;
mod destroy;
#[cfg(target_os = "linux")]
mod dice;
#[cfg(target_os = "linux")]
mod disk;
mod endpoints;
mod environment;
mod faults;
mod folders;
mod forge;
mod gateway;
mod gc;
mod help;
#[cfg(target_os = "linux")]
mod hostile;
mod http;
mod init;
mod interrupted;
mod job;
mod layers;
mod local;
mod migrate;
mod names;
mod own;
#[cfg(target_os = "linux")]
mod processes;
mod questions;
mod scaffold;
mod secrets;
mod smoke;
#[cfg(target_os = "linux")]
mod soak;
mod terminal;
mod topologies;
mod workflows;
