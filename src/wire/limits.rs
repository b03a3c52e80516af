//! Limits of the platform that both sides of the API know.

use jiff::SignedDuration;

/// Longest life of a branch that expires.
///
/// Source: Lakebase documentation, "Branch expiration", read 2026-08.
pub(crate) const LONGEST_BRANCH_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
