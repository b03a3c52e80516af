//! Every key that `lakeforge.yml` may have, by what holds it; the shipped JSON Schema says the same.

pub(super) const FILE: &[&str] =
    &["projects", "branch", "apps", "gc", "templates", "out", "previews"];
pub(super) const PROJECT: &[&str] = &[
    "branches",
    "endpoints",
    "roles",
    "databases",
    "pg_version",
    "retention",
    "min_cu",
    "max_cu",
    "suspend_after",
    "display_name",
    "prevent_destroy",
];
pub(super) const BRANCH: &[&str] =
    &["source", "ttl", "expires_at", "no_expiry", "protected", "endpoints", "roles", "databases"];
pub(super) const ENDPOINT: &[&str] = &["type", "min_cu", "max_cu", "suspend_after"];
pub(super) const ROLE: &[&str] =
    &["name", "identity", "login", "superuser", "createdb", "createrole", "bypassrls"];
pub(super) const DATABASE: &[&str] = &["name", "owner"];
pub(super) const BRANCH_POLICY: &[&str] = &["ttl"];
pub(super) const APP: &[&str] = &["health", "expect", "migrate"];
pub(super) const EXPECT: &[&str] = &["status", "body"];
pub(super) const MIGRATE: &[&str] = &["command", "directory", "project"];
pub(super) const GC: &[&str] = &["prefix", "grace", "protected_names"];
