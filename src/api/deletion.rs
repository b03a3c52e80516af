//! What may be deleted: a project or a branch goes only as a value of this file, which is made from
//! the resource as it was just read, and where it is dear, from the names that somebody confirmed.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::error::{Error, Kind};
use crate::wire::names::{BranchName, ProjectName, ROOT_BRANCH};
use crate::wire::postgres::{Branch, Project};

/// Something that is deleted only when it is named exactly, and was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unconfirmed {
    /// What `--confirm` has to say.
    pub(crate) name: String,
    /// Why its deletion has to be confirmed.
    pub(crate) why: String,
}

/// A branch that may be deleted.
#[derive(Debug, Clone)]
pub(crate) struct DeletableBranch {
    identity: Identity<BranchName>,
    protected: bool,
    confirmed: bool,
    /// When it ends, and when it was last changed: what somebody refreshes stays.
    expire_time: Option<Timestamp>,
    update_time: Option<Timestamp>,
}

/// A project that may be deleted, with all its branches.
#[derive(Debug, Clone)]
pub(crate) struct DeletableProject {
    identity: Identity<ProjectName>,
    protected: Vec<BranchName>,
}

/// What tells a resource from another one that is made under the same name later.
#[derive(Debug, Clone)]
struct Identity<Name> {
    name: Name,
    uid: String,
    create_time: Option<Timestamp>,
}

impl DeletableBranch {
    /// Takes a branch that nobody has to confirm.
    ///
    /// Fails for a default, protected or production branch, and for one whose state is not known.
    pub(crate) fn disposable(branch: &Branch) -> Result<Self, Unconfirmed> {
        DeletableBranch::confirmed(branch, &[] as &[&str])
    }

    /// Takes a branch that nobody has to confirm, or that `names` confirms: `shop/dev` or
    /// `projects/shop/branches/dev`.
    pub(crate) fn confirmed(
        branch: &Branch,
        names: &[impl AsRef<str>],
    ) -> Result<Self, Unconfirmed> {
        let name = &branch.name;
        let confirmed = is_named(&[name.short(), name.to_string()], names);
        if let Some(what) = dear(branch)
            && !confirmed
        {
            return Err(Unconfirmed { name: name.short(), why: format!("`{name}` is {what}") });
        }
        Ok(DeletableBranch {
            identity: Identity::of_branch(branch),
            protected: branch.status.is_protected,
            confirmed,
            expire_time: branch.status.expire_time,
            update_time: branch.update_time,
        })
    }

    /// Returns its full name.
    pub(crate) fn name(&self) -> &BranchName {
        &self.identity.name
    }

    /// Returns whether its protection has to be taken off first.
    pub(crate) fn is_protected(&self) -> bool {
        self.protected
    }

    /// Checks that `now` is the branch that was looked at, and that it has neither become dear nor
    /// been changed since; one that was confirmed is changed by taking its protection off.
    pub(super) fn recheck(&self, now: &Branch) -> Result<(), Error> {
        self.identity.recheck(&Identity::of_branch(now))?;
        let how = match dear(now) {
            _ if self.confirmed => return Ok(()),
            Some(what) => format!("is {what}"),
            None if now.status.expire_time != self.expire_time => "got another expiry".to_owned(),
            None if now.update_time != self.update_time => "was refreshed or changed".to_owned(),
            None => return Ok(()),
        };
        Err(changed(&self.identity.name, &how))
    }
}

impl DeletableProject {
    /// Takes a project that `names` confirms by its id or full name, together with each protected
    /// branch among `branches`, which are all it has.
    ///
    /// Fails with everything that is not confirmed.
    pub(crate) fn confirmed(
        project: &Project,
        branches: &[Branch],
        names: &[impl AsRef<str>],
    ) -> Result<Self, Vec<Unconfirmed>> {
        let name = &project.name;
        let mut missing = Vec::new();
        if !is_named(&[name.project.clone(), name.to_string()], names) {
            let mut ids: Vec<&str> =
                branches.iter().map(|branch| branch.name.branch.as_str()).collect();
            ids.sort_unstable();
            let why = format!("`{name}` takes its branches along: {}", ids.join(", "));
            missing.push(Unconfirmed { name: name.project.clone(), why });
        }
        let protected = || branches.iter().filter(|branch| branch.status.is_protected);
        missing.extend(
            protected().filter_map(|branch| DeletableBranch::confirmed(branch, names).err()),
        );
        if !missing.is_empty() {
            return Err(missing);
        }
        Ok(DeletableProject {
            identity: Identity::of_project(project),
            protected: protected().map(|branch| branch.name.clone()).collect(),
        })
    }

    /// Returns its full name.
    pub(crate) fn name(&self) -> &ProjectName {
        &self.identity.name
    }

    /// Returns its branches whose protection has to be taken off first.
    pub(crate) fn protected(&self) -> &[BranchName] {
        &self.protected
    }

    /// Checks that `now` is the project that was looked at.
    pub(super) fn recheck(&self, now: &Project) -> Result<(), Error> {
        self.identity.recheck(&Identity::of_project(now))
    }
}

impl Identity<BranchName> {
    fn of_branch(branch: &Branch) -> Self {
        let Branch { name, uid, create_time, .. } = branch.clone();
        Identity { name, uid, create_time }
    }
}

impl Identity<ProjectName> {
    fn of_project(project: &Project) -> Self {
        let Project { name, uid, create_time, .. } = project.clone();
        Identity { name, uid, create_time }
    }
}

impl<Name: PartialEq + std::fmt::Display> Identity<Name> {
    fn recheck(&self, now: &Self) -> Result<(), Error> {
        let same =
            self.name == now.name && self.uid == now.uid && self.create_time == now.create_time;
        if same { Ok(()) } else { Err(changed(&self.name, "was made anew")) }
    }
}

impl From<Unconfirmed> for Error {
    fn from(one: Unconfirmed) -> Self {
        Unconfirmed::refuse(&[one])
    }
}

impl Unconfirmed {
    /// Refuses to delete what `missing` holds, with what to type for all of it.
    pub(crate) fn refuse(missing: &[Unconfirmed]) -> Error {
        let names: BTreeSet<&str> = missing.iter().map(|one| one.name.as_str()).collect();
        let reasons: BTreeSet<&str> = missing.iter().map(|one| one.why.as_str()).collect();
        let flags: Vec<String> = names.iter().map(|name| format!("--confirm {name}")).collect();
        let error = Error::new(Kind::Refused, "the deletion has to be confirmed by name")
            .code("NEEDS_CONFIRMATION")
            .hint(flags.join(" "));
        reasons.into_iter().fold(error, Error::why)
    }
}

/// Says why the deletion of a branch has to be confirmed; nothing when it has not.
fn dear(branch: &Branch) -> Option<&'static str> {
    let (name, status) = (&branch.name, &branch.status);
    if status.default {
        Some("the default branch of its project")
    } else if status.is_protected {
        Some("protected")
    } else if name.branch == ROOT_BRANCH {
        Some("a production branch")
    } else if status.branch_id != name.branch {
        // An answer without its status says nothing of default and protection.
        Some("in a state that the workspace does not tell")
    } else {
        None
    }
}

fn is_named(own: &[String], names: &[impl AsRef<str>]) -> bool {
    names.iter().any(|name| own.iter().any(|own| own == name.as_ref()))
}

fn changed(name: &dyn std::fmt::Display, how: &str) -> Error {
    Error::new(Kind::Conflict, format!("`{name}` changed before it was deleted"))
        .code("CHANGED_MEANWHILE")
        .why(format!("it {how} since it was looked at"))
        .hint("look at it and run the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn branch(id: &str, status: &str) -> Branch {
        serde_json::from_str(&format!(
            r#"{{"name":"projects/shop/branches/{id}","uid":"br-1","status":{{"branch_id":"{id}"{status}}}}}"#
        ))
        .unwrap()
    }

    fn project() -> Project {
        serde_json::from_str(r#"{"name":"projects/shop","uid":"p-1"}"#).unwrap()
    }

    #[test]
    fn dear_branches_need_their_exact_name() {
        for (id, status) in [
            ("production", ""),
            ("main", r#","default":true"#),
            ("kept", r#","is_protected":true"#),
        ] {
            let branch = branch(id, status);
            let short = branch.name.short();
            assert_eq!(DeletableBranch::disposable(&branch).unwrap_err().name, short);
            for wrong in ["shop/other", id, "shop", "projects/shop", "lab/kept", ""] {
                assert!(DeletableBranch::confirmed(&branch, &[wrong]).is_err(), "{wrong}");
            }
            assert!(DeletableBranch::confirmed(&branch, &[short]).is_ok());
            assert!(DeletableBranch::confirmed(&branch, &[branch.name.to_string()]).is_ok());
        }
        assert!(DeletableBranch::disposable(&branch("dev", "")).is_ok());
    }

    #[test]
    fn a_branch_whose_state_is_not_told_is_dear() {
        let unknown: Branch =
            serde_json::from_str(r#"{"name":"projects/shop/branches/dev"}"#).unwrap();

        assert!(DeletableBranch::disposable(&unknown).is_err());
    }

    #[test]
    fn a_project_needs_its_name_and_those_of_its_protected_branches() {
        let branches = [
            branch("production", r#","default":true"#),
            branch("kept", r#","is_protected":true"#),
            branch("dev", ""),
        ];
        let missing = |names: &[&str]| -> Vec<String> {
            let answer = DeletableProject::confirmed(&project(), &branches, names);
            answer.err().into_iter().flatten().map(|one| one.name).collect()
        };

        assert_eq!(missing(&NONE), ["shop", "shop/kept"]);
        assert_eq!(missing(&["shop"]), ["shop/kept"]);
        assert_eq!(missing(&["shop/kept", "dev"]), ["shop"]);
        assert_eq!(missing(&["projects/shop", "shop/kept"]), NONE);
        let gone = DeletableProject::confirmed(&project(), &branches, &["shop", "shop/kept"]);
        assert_eq!(gone.unwrap().protected(), [branches[1].name.clone()]);
    }

    #[test]
    fn what_was_made_anew_or_became_dear_is_not_what_was_looked_at() {
        let seen = branch("dev", "");
        let deletable = DeletableBranch::disposable(&seen).unwrap();
        assert!(deletable.recheck(&seen).is_ok());

        let anew = Branch { uid: "br-2".to_owned(), ..seen.clone() };
        assert_eq!(deletable.recheck(&anew).unwrap_err().kind(), Kind::Conflict);
        assert!(deletable.recheck(&branch("dev", r#","default":true"#)).is_err());
        assert!(deletable.recheck(&branch("dev", r#","is_protected":true"#)).is_err());

        let refreshed = Branch { update_time: Some(Timestamp::UNIX_EPOCH), ..seen.clone() };
        let later = branch("dev", r#","expire_time":"2026-01-03T03:04:05Z""#);
        let grown = branch("dev", r#","logical_size_bytes":7"#);
        assert!(deletable.recheck(&refreshed).is_err());
        assert!(deletable.recheck(&later).is_err());
        assert!(deletable.recheck(&grown).is_ok());

        let kept = branch("kept", r#","is_protected":true"#);
        let confirmed = DeletableBranch::confirmed(&kept, &["shop/kept"]).unwrap();
        assert!(confirmed.recheck(&branch("kept", "")).is_ok());
        let project_anew = Project { uid: "p-2".to_owned(), ..project() };
        let gone = DeletableProject::confirmed(&project(), &[], &["shop"]).unwrap();
        assert!(gone.recheck(&project()).is_ok() && gone.recheck(&project_anew).is_err());
    }
}
