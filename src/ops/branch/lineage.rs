//! Whether a branch that is there already is the one that is wanted, and what it lacks.

use jiff::{SignedDuration, Timestamp};

use super::request::Create;
use crate::error::{Error, Kind, Result};
use crate::time::distance;
use crate::wire::names::BranchName;
use crate::wire::postgres::{Branch, BranchSpec};

/// How far behind the moment asked for a restored branch may start and still count as the same:
/// only what is lost in writing a moment down.
///
/// The workspace goes back to the last commit before the moment, so a branch that starts earlier
/// may be the same one. It may as well lack the very commit that is looked for, and the workspace
/// does not remember what was asked for.
const SAME_MOMENT: SignedDuration = SignedDuration::from_millis(1);

/// Returns what to change on an existing branch so that it is as `request` wants it, and always its
/// expiry: who made the branch sees by that that somebody else uses it.
///
/// A length counts from now, not from the creation of the branch, hence always a moment.
pub(super) fn refreshed(request: &Create, existing: &Branch) -> (BranchSpec, Vec<&'static str>) {
    let end = request.expiry.moment(Timestamp::now());
    let mut spec = BranchSpec {
        expire_time: end,
        no_expiry: end.is_none().then_some(true),
        ..BranchSpec::default()
    };
    let mut mask = vec!["spec.expiration"];
    if request.protected && !existing.status.is_protected {
        spec.is_protected = Some(true);
        mask.push("spec.is_protected");
    }
    (spec, mask)
}

/// Refuses a branch that was copied from something else, or from another moment.
pub(super) fn same_lineage(request: &Create, source: &BranchName, existing: &Branch) -> Result<()> {
    let name = existing.name.short();
    let refuse = |is: String, wanted: String| {
        Error::new(Kind::Conflict, format!("branch `{name}` exists with another lineage"))
            .code("BRANCH_LINEAGE_MISMATCH")
            .why(format!("it {is}"))
            .why(format!("wanted: {wanted}"))
            .hint("choose another name, or delete it first")
    };
    let theirs = match &existing.status.source_branch {
        Some(theirs) if theirs == source => theirs,
        Some(theirs) => {
            return Err(refuse(
                format!("comes from `{}`", theirs.short()),
                format!("a copy of `{}`", source.short()),
            ));
        }
        None => {
            return Err(refuse(
                "is the root branch of its project".to_owned(),
                format!("a copy of `{}`", source.short()),
            ));
        }
    };
    let (Some(at), Some(is)) = (request.at, existing.status.source_branch_time) else {
        return Ok(());
    };
    let behind = at.duration_since(is);
    if (SignedDuration::ZERO..=SAME_MOMENT).contains(&behind) {
        return Ok(());
    }
    let now = Timestamp::now();
    let theirs = theirs.short();
    Err(refuse(
        format!("holds `{theirs}` as of {is} ({})", distance(is, now)),
        format!("`{theirs}` as of {at} ({})", distance(at, now)),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ops::branch::Expiry;
    use crate::time::Ttl;

    fn request(at: Option<&str>, expiry: Expiry) -> Create {
        Create {
            branches: Vec::new(),
            from: None,
            at: at.map(|text| text.parse().unwrap()),
            expiry,
            protected: false,
            wait: Duration::ZERO,
        }
    }

    fn branch(status: &str) -> Branch {
        serde_json::from_str(&format!(
            r#"{{"name":"projects/shop/branches/dev","status":{status}}}"#
        ))
        .unwrap()
    }

    fn production() -> BranchName {
        "projects/shop/branches/production".parse().unwrap()
    }

    #[test]
    fn a_branch_is_reused_only_with_the_same_source() {
        let any = request(None, Expiry::Never);
        let same = branch(r#"{"source_branch":"projects/shop/branches/production"}"#);
        assert!(same_lineage(&any, &production(), &same).is_ok());

        for status in [r#"{"source_branch":"projects/shop/branches/test"}"#, "{}"] {
            let error = same_lineage(&any, &production(), &branch(status)).unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict);
            assert_eq!(error.to_json()["error"]["code"], "BRANCH_LINEAGE_MISMATCH");
            assert!(error.to_string().contains("shop/production"), "{error}");
        }
    }

    #[test]
    fn a_restored_branch_is_reused_only_for_the_same_moment() {
        let existing = branch(
            r#"{"source_branch":"projects/shop/branches/production","source_branch_time":"2026-11-20T10:00:00Z"}"#,
        );
        for (at, same) in [
            ("2026-11-20T10:00:00Z", true),
            ("2026-11-20T10:00:12Z", false),
            ("2026-11-20T10:05:00Z", false),
            ("2026-11-20T09:59:59Z", false),
        ] {
            let wanted = request(Some(at), Expiry::Never);
            assert_eq!(same_lineage(&wanted, &production(), &existing).is_ok(), same, "{at}");
        }
    }

    #[test]
    fn reusing_refreshes_the_expiry_from_now() {
        let soon = branch(r#"{"expire_time":"2026-01-01T00:00:00Z"}"#);
        let (spec, mask) = refreshed(&request(None, Expiry::After(Ttl::from_secs(3600))), &soon);
        assert_eq!(mask, ["spec.expiration"]);
        assert!(spec.expire_time.unwrap() > Timestamp::now());
        assert_eq!(spec.ttl, None);

        let (spec, mask) = refreshed(&request(None, Expiry::Never), &soon);
        assert_eq!((spec.no_expiry, mask), (Some(true), vec!["spec.expiration"]));

        // It says nothing new, and marks the branch all the same.
        let (spec, mask) = refreshed(&request(None, Expiry::Never), &branch("{}"));
        assert_eq!((spec.no_expiry, mask), (Some(true), vec!["spec.expiration"]));
    }
}
