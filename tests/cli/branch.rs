//! `lakeforge branch` from the outside, against real Postgres.

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::forge::{Forge, assert_snake_case};
use crate::job::Job;

#[test]
fn create_makes_a_branch_once_and_then_keeps_it_alive() {
    let forge = Forge::with_project("make");

    assert_snapshot!(forge.run("branch create pr-1 --ttl 2h"), @r#"
        --- stdout
        make/pr-1  created from production, expires in [LENGTH], takes SQL after [LENGTH]
        --- stderr
        → projects/make/branches/pr-1 (project from lakeforge.yml)
        make/pr-1: looking at the project
        make/pr-1: copying `make/production`
        make/pr-1: waiting for SQL
        --- exit 0
        "#);
    let again = forge.json("branch create make/pr-1 --ttl 30d");
    assert_snapshot!(forge.run("branch get make/pr-1"), @r#"
        --- stdout
        projects/make/branches/pr-1
        state     READY
        source    production as of [TIME] ([LENGTH] ago)
        created   [TIME] ([LENGTH] ago)
        expires   [TIME] (in [LENGTH])
        endpoint  primary ACTIVE [ADDRESS]
        --- exit 0
        "#);
    let fresh = forge.json("branch create make/pr-2");

    assert_eq!(again["name"], "projects/make/branches/pr-1");
    assert_eq!(again["created"], false);
    assert_eq!(fresh["created"], true);
    assert_eq!(again["source"], "projects/make/branches/production");
    assert!(
        again["expire_time"].as_str() > fresh["expire_time"].as_str(),
        "30d were asked for after 1d by lakeforge.yml"
    );
    assert!(fresh["elapsed_ms"].is_u64());
    assert_snake_case(&again);
    assert_eq!(forge.branches("make"), ["make/dev", "make/pr-1", "make/pr-2", "make/production"]);
}

#[test]
fn create_refuses_a_name_with_another_lineage() {
    let forge = Forge::with_project("lineage");
    forge.succeed("branch create pr-1 --from dev");

    assert_snapshot!(forge.run("branch create pr-1"), @r#"
        --- stderr
        → projects/lineage/branches/pr-1 (project from lakeforge.yml)
        lineage/pr-1: looking at the project
        error: could not create branch `lineage/pr-1`
          why: branch `lineage/pr-1` exists with another lineage
          why: it comes from `lineage/dev`
          why: wanted: a copy of `lineage/production`
          try: choose another name, or delete it first
        --- exit 7
        "#);
    assert_snapshot!(forge.run("branch restore pr-1 --at '1 second ago'"), @r#"
        --- stderr
        → as of [TIME] ([LENGTH] ago)
        → projects/lineage/branches/pr-1 (project from lakeforge.yml)
        lineage/pr-1: looking at the project
        error: could not restore branch `lineage/pr-1`
          why: branch `lineage/pr-1` exists with another lineage
          why: it comes from `lineage/dev`
          why: wanted: a copy of `lineage/production`
          try: choose another name, or delete it first
        --- exit 7
        "#);
    let error = forge.json_error("branch create lineage/pr-1");

    assert_eq!(error["code"], "BRANCH_LINEAGE_MISMATCH");
    assert_eq!(error["retryable"], false);
    assert_snake_case(&error);
}

#[test]
fn create_in_all_projects_is_all_or_nothing() {
    let forge = Forge::with_projects(&["every-a", "every-b"]);
    forge.succeed("branch create every-b/taken --from dev");
    forge.succeed("branch create every-a/base --no-expiry");
    forge.succeed("branch create every-b/base --ttl 1d");

    let shown = forge.run("-q branch create taken --all");
    assert!(shown.contains("why: it comes from `every-b/dev`\n"), "{shown}");
    assert!(shown.contains("why: wanted: a copy of `every-b/production`\n"), "{shown}");
    assert!(shown.ends_with("--- exit 7"), "{shown}");
    // The platform refuses to branch from a branch that expires: here that is the one of `every-b`.
    let refusal = "why: `every-b/base` expires, so it cannot be copied";
    let shown = forge.run("-q branch create pr-1 --all --from base");
    assert!(shown.contains(refusal) && !shown.ends_with("--- exit 0"), "{shown}");
    assert_eq!(forge.branches("every-a"), ["every-a/base", "every-a/dev", "every-a/production"]);

    forge.succeed("branch create every-a/pr-1 --from base");
    let shown = forge.run("-q branch create pr-1 --all --from base");
    assert!(shown.contains(refusal) && !shown.contains("removed"), "{shown}");
    let kept = forge.branches("every-a");
    assert_eq!(kept, ["every-a/base", "every-a/dev", "every-a/pr-1", "every-a/production"]);
}

#[test]
fn create_in_all_projects_says_for_each_whether_it_was_created() {
    let forge = Forge::with_projects(&["both-a", "both-b"]);
    forge.succeed("branch create both-a/pr-1");

    let all = forge.json("branch create pr-1 --all");

    assert_eq!(all[0]["name"], "projects/both-a/branches/pr-1");
    assert_eq!(all[0]["created"], false);
    assert_eq!(all[1]["name"], "projects/both-b/branches/pr-1");
    assert_eq!(all[1]["created"], true);
    assert_snake_case(&all);
}

#[test]
fn create_wants_to_know_how_long_the_branch_lives() {
    let forge = Forge::offline();
    forge.write("databricks.yml", "bundle: {name: life}\n");
    forge.write("lakeforge.yml", "projects: [life]\n");

    assert_snapshot!(forge.run("branch create dev"), @r#"
        --- stderr
        error: how long is the branch to live?
          why: the workspace wants to know, and lakeforge.yml sets no branch.ttl
          try: --ttl 7d, --expires-at TIME or --no-expiry
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch create dev --ttl 31d"), @r#"
        --- stderr
        error: no workspace to talk to
          why: no host is set, and there is no default profile
          try: lakeforge local start, then `-p local`; or databricks auth login --host <workspace>
        --- exit 4
        "#);
    assert_snapshot!(forge.run("branch create dev --expires-at '2020-01-01T00:00:00Z'"), @r#"
        --- stderr
        error: the branch would expire in the past
          why: [TIME] was [LENGTH] ago
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch create dev --expires-at '2099-01-01 00:00'"), @r#"
        --- stderr
        error: `--expires-at` is not understood
          why: `2099-01-01 00:00` has no time zone; write `[TIME]`, `10 minutes ago`, or add a zone such as `Europe/Berlin`
        --- exit 2
        "#);
}

#[test]
fn names_that_the_platform_refuses_never_reach_it() {
    let forge = Forge::offline();
    let long = "a".repeat(64);
    for name in ["Dev", "feature_a", "1a", "a-", "-a", "ä", "a.b", long.as_str()] {
        for command in [
            format!("branch create --project shop --ttl 1d -- {name}"),
            format!("branch create --ttl 1d -- shop/{name}"),
            format!("branch create dev --ttl 1d --project={name}"),
        ] {
            let shown = forge.run(&command);
            assert!(shown.ends_with("--- exit 2"), "{command}: {shown}");
            assert!(shown.contains(&format!("`{name}`")), "{command}: {shown}");
        }
    }
    assert_snapshot!(forge.run("branch create shop/feature_a --ttl 1d"), @r#"
        --- stderr
        error: the id `feature_a` may hold only lower-case letters, digits and hyphens
          try: `feature-a` is one
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch create 'shop/dev/x' --ttl 1d"), @r#"
        --- stderr
        error: `shop/dev/x` is not the name of a branch
          try: write `dev`, `shop/dev` or `projects/shop/branches/dev`
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch create 'projects/shop/branches/' --ttl 1d"), @r#"
        --- stderr
        error: the id `` is empty
        --- exit 2
        "#);
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let forge = Forge::with_project("near");

    assert_snapshot!(forge.run("branch get naer/production"), @r#"
        --- stderr
        error: there is no project `naer`
          why: project id not found [TRACE] (404 NOT_FOUND)
          try: did you mean `near`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("branch get near/prodution"), @r#"
        --- stderr
        error: there is no branch `near/prodution`
          try: did you mean `near/production`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-q branch create near/pr-1 --from dve"), @r#"
        --- stderr
        error: could not create branch `near/pr-1`
          why: there is no branch `near/dve`
          try: did you mean `near/dev`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-q branch create naer/pr-1"), @r#"
        --- stderr
        error: could not create branch `naer/pr-1`
          why: there is no project `naer`
          why: project id not found [TRACE] (404 NOT_FOUND)
          try: did you mean `near`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-q branch delete near/dve --yes"), @r#"
        --- stderr
        error: there is no branch `near/dve`
          try: did you mean `near/dev`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("-t lcoal branch list"), @r#"
        --- stderr
        error: `databricks.yml` has no target `lcoal`
          try: did you mean `local`?
        --- exit 2
        "#);
    assert_eq!(forge.json_error("branch get near/prodution")["code"], "BRANCH_NOT_FOUND");
    assert_eq!(forge.json_error("branch get naer/production")["code"], "PROJECT_NOT_FOUND");
}

#[test]
fn a_branch_is_named_in_three_ways() {
    let forge = Forge::with_projects(&["three", "three-b"]);

    for arguments in [
        "branch get dev --project three",
        "branch get three/dev",
        "branch get projects/three/branches/dev",
    ] {
        assert_eq!(forge.json(arguments)["name"], "projects/three/branches/dev", "{arguments}");
    }
    let output = forge.command("-o json branch get dev").env("LAKEFORGE_PROJECT", "three").output();
    assert!(
        String::from_utf8(output.unwrap().stdout).unwrap().contains("projects/three/branches/dev")
    );

    assert_snapshot!(forge.run("branch get dev"), @r#"
        --- stderr
        error: in which project is the branch `dev`?
          why: lakeforge.yml lists three, three-b
          try: --project NAME, or --all where a command has it
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch get three/dev --project three-b"), @r#"
        --- stderr
        error: two projects are named
          why: `three/dev` and `--project three-b`
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch create pr-1 --dry-run --project three"), @r#"
        --- stdout
        three/pr-1  would be created from production, expires in [LENGTH]
        --- stderr
        → projects/three/branches/pr-1 (project from --project)
        three/pr-1: looking at the project
        --- exit 0
        "#);
    assert_eq!(forge.branches("three"), ["three/dev", "three/production"]);
}

#[test]
fn branches_keep_apart_and_a_past_moment_has_the_rows_back() {
    let forge = Forge::with_project("past");
    forge.sql("production", "create table note (id int); insert into note values (1), (2), (3)");
    forge.succeed("branch create pr-1");
    forge.sql("pr-1", "insert into note values (4)");
    let moment = forge.sql(
        "production",
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    forge.sql("production", "delete from note");

    assert_snapshot!(forge.run(&format!("branch restore rescue --at {moment}")), @r#"
        --- stdout
        past/rescue  created from production, asked for [TIME] ([LENGTH] ago), is [TIME] ([LENGTH] ago), expires in [LENGTH], takes SQL after [LENGTH]
        --- stderr
        → as of [TIME] ([LENGTH] ago)
        → projects/past/branches/rescue (project from lakeforge.yml)
        past/rescue: looking at the project
        past/rescue: copying `past/production`
        past/rescue: waiting for SQL
        --- exit 0
        "#);

    let ids = "select coalesce(string_agg(id::text, ',' order by id), 'none') from note";
    assert_eq!(forge.sql("rescue", ids), "1,2,3");
    assert_eq!(forge.sql("production", ids), "none");
    assert_eq!(forge.sql("pr-1", ids), "1,2,3,4");
    forge.sql("rescue", "insert into note values (9)");
    assert_eq!(forge.sql("production", ids), "none");

    // What the workspace went back to is known, what it was asked for is not: only the former is
    // surely the same.
    let first = forge.json("branch get rescue");
    let actual = first["status"]["source_branch_time"].as_str().unwrap();
    let again = forge.json(&format!("branch restore rescue --at {actual}"));
    assert_eq!(again["created"], false);
    assert_eq!(again["requested_time"], actual);
    assert_eq!(again["source_time"], actual);
    assert!(actual <= moment.as_str(), "{actual} is after {moment}");
    assert_snake_case(&again);
    assert_eq!(forge.sql("rescue", ids), "1,2,3,9");
    assert_snapshot!(forge.run("-q branch restore rescue --at now"), @r#"
        --- stderr
        error: could not restore branch `past/rescue`
          why: branch `past/rescue` exists with another lineage
          why: it holds `past/production` as of [TIME] ([LENGTH] ago)
          why: wanted: `past/production` as of [TIME] ([LENGTH] ago)
          try: choose another name, or delete it first
        --- exit 7
        "#);
}

#[test]
fn restore_refuses_a_moment_without_a_zone_or_history() {
    let forge = Forge::with_project("moment");

    assert_snapshot!(forge.run("branch restore r --at '2026-01-01 00:00'"), @r#"
        --- stderr
        error: `--at` is not understood
          why: `2026-01-01 00:00` has no time zone; write `[TIME]`, `10 minutes ago`, or add a zone such as `Europe/Berlin`
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch restore r --at '2099-01-01T00:00:00Z'"), @r#"
        --- stderr
        → as of [TIME] (in [LENGTH])
        → projects/moment/branches/r (project from lakeforge.yml)
        error: cannot restore to a moment in the future
          why: [TIME] has not come yet
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch restore r --at 'in 5 minutes'"), @r#"
        --- stderr
        → as of [TIME] (in [LENGTH])
        → projects/moment/branches/r (project from lakeforge.yml)
        error: cannot restore to a moment in the future
          why: [TIME] has not come yet
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch restore r --at soonish"), @r#"
        --- stderr
        error: `--at` is not understood
          why: `soonish` is not a time; write `[TIME]` or `10 minutes ago`
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch restore r --at '2020-01-01T00:00:00Z'"), @r#"
        --- stderr
        → as of [TIME] ([LENGTH] ago)
        → projects/moment/branches/r (project from lakeforge.yml)
        moment/r: looking at the project
        error: could not restore branch `moment/r`
          why: `moment/production` has no history as of [TIME]
          why: its history begins at [TIME] ([LENGTH] ago)
        --- exit 2
        "#);
    assert_snapshot!(forge.run("branch restore r"), @r#"
        --- stderr
        error: the following required arguments were not provided:
          --at <MOMENT>

        Usage: lakeforge branch restore --at <MOMENT> --data-dir <DIR> <NAME>

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_eq!(forge.branches("moment"), ["moment/dev", "moment/production"]);
}

#[test]
fn delete_asks_and_without_a_terminal_refuses() {
    let forge = Forge::with_project("bury");

    assert_snapshot!(forge.run("branch delete dev --confirm dev"), @r#"
        --- stderr
        → projects/bury/branches/dev (project from lakeforge.yml)
        error: needs consent: delete bury/dev?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        "#);
    assert_snapshot!(forge.run("branch delete production --yes"), @r#"
        --- stderr
        → projects/bury/branches/production (project from lakeforge.yml)
        error: the deletion has to be confirmed by name
          why: `projects/bury/branches/production` is the default branch of its project
          try: --confirm bury/production
        --- exit 13
        "#);
    assert_snapshot!(forge.run("branch delete production --yes --confirm prod"), @r#"
        --- stderr
        → projects/bury/branches/production (project from lakeforge.yml)
        error: the deletion has to be confirmed by name
          why: `projects/bury/branches/production` is the default branch of its project
          try: --confirm bury/production
        --- exit 13
        "#);
    assert_snapshot!(forge.run("branch delete dev --dry-run --confirm dev"), @r#"
        --- stdout
        WOULD DELETE  SOURCE      CREATED
        bury/dev      production  [LENGTH] ago
        --- stderr
        → projects/bury/branches/dev (project from lakeforge.yml)
        --- exit 0
        "#);
    assert_eq!(forge.branches("bury"), ["bury/dev", "bury/production"]);
    assert_snapshot!(forge.run("branch delete dev --yes --confirm dev"), @r#"
        --- stdout
        bury/dev  deleted
        --- stderr
        → projects/bury/branches/dev (project from lakeforge.yml)
        bury/dev: deleting
        --- exit 0
        "#);
    assert_snapshot!(forge.run("branch delete dev --yes"), @r"
        --- stderr
        → projects/bury/branches/dev (project from lakeforge.yml)
        bury/dev is deleted already
        --- exit 0
        ");
    assert_snapshot!(forge.run("branch delete production --yes --confirm production"), @r#"
        --- stderr
        → projects/bury/branches/production (project from lakeforge.yml)
        bury/production: deleting
        error: could not delete branch `bury/production`
          why: Cannot delete root branch 'projects/bury/branches/production'. Root branches cannot be deleted independently (400 BAD_REQUEST)
        --- exit 13
        "#);
    assert_eq!(forge.branches("bury"), ["bury/production"]);
}

#[test]
fn delete_keeps_parents_and_protected_branches() {
    let forge = Forge::with_project("guard");
    forge.succeed("branch create kept --protected");
    forge.succeed("branch create child --from dev");

    assert_snapshot!(forge.run("branch delete kept --yes"), @r#"
        --- stderr
        → projects/guard/branches/kept (project from lakeforge.yml)
        error: the deletion has to be confirmed by name
          why: `projects/guard/branches/kept` is protected
          try: --confirm guard/kept
        --- exit 13
        "#);
    assert_snapshot!(forge.run("branch delete dev --yes --confirm dev"), @r#"
        --- stderr
        → projects/guard/branches/dev (project from lakeforge.yml)
        error: branch `guard/dev` has children
          why: copied from it: child
          try: delete those first, or name them too
        --- exit 13
        "#);
    assert_snapshot!(forge.run("-q branch delete dev child no-such --yes"), @r#"
        --- stderr
        error: there is no branch `guard/no-such`
          try: lakeforge branch list --project guard
        --- exit 6
        "#);
    let all = ["guard/child", "guard/dev", "guard/kept", "guard/production"];
    assert_eq!(forge.branches("guard"), all);
    let gone = forge.json("branch delete dev child --yes --confirm dev");
    assert_snake_case(&gone);
    assert_eq!(forge.branches("guard"), ["guard/kept", "guard/production"]);
}

#[test]
fn list_and_get_answer_in_json() {
    let forge = Forge::with_project("shape");

    let list = forge.json("branch list");
    let production = forge.json("branch get production");

    assert_snake_case(&list);
    assert_snake_case(&production);
    assert_eq!(list[0]["status"]["source_branch"], "projects/shape/branches/production");
    assert_eq!(production["status"]["default"], true);
    assert_eq!(production["endpoints"][0]["status"]["endpoint_type"], "ENDPOINT_TYPE_READ_WRITE");
}

#[test]
fn a_workspace_that_does_not_run_is_unavailable() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);

    assert_snapshot!(forge.run("branch list"), @r#"
        --- stderr
        error: the embedded workspace is not running
          try: lakeforge local start
        --- exit 12
        "#);
    assert_snapshot!(forge.run("branch create pr-1"), @r#"
        --- stderr
        error: the embedded workspace is not running
          try: lakeforge local start
        --- exit 12
        "#);
    let error = forge.json_error("branch get dev");
    assert_snake_case(&error);
    assert!(error["hint"].as_str().unwrap().contains("lakeforge local start"), "{error}");
}

#[test]
fn create_that_is_interrupted_converges_when_run_again() {
    let forge = Forge::with_projects(&["stop-a", "stop-b", "stop-c"]);
    let before = forge.branches("stop-a");

    for moment in ["copying", "waiting for SQL"] {
        let shown = interrupt(&forge, "branch create pr-1 --all", moment);
        assert!(shown.ends_with("--- exit 130"), "{shown}");
        for project in ["stop-a", "stop-b", "stop-c"] {
            let left = forge.branches(project).contains(&format!("{project}/pr-1"));
            let said = shown
                .lines()
                .any(|line| line.contains("left") && line.contains(&format!("{project}/pr-1")));
            assert!(!left || said, "{project}/pr-1 is there, and nobody was told:\n{shown}");
        }
    }

    let all = forge.json("branch create pr-1 --all");
    for (index, project) in ["stop-a", "stop-b", "stop-c"].iter().enumerate() {
        assert_eq!(all[index]["name"], format!("projects/{project}/branches/pr-1"));
        assert_eq!(forge.sql(&format!("{project}/pr-1"), "select 1"), "1");
    }
    forge.succeed("branch delete pr-1 --all --yes");
    assert_eq!(forge.branches("stop-a"), before);
}

/// Runs a command, sends SIGINT as soon as its stderr says `moment`, and returns what it did.
fn interrupt(forge: &Forge, arguments: &str, moment: &str) -> String {
    let mut job = Job::start(forge, arguments);
    job.wait_until_it_says(moment);
    job.signal(Signal::INT);
    job.end()
}
