//! Consent to what the Databricks CLI would delete: a stand-in for it says what it plans and what is
//! deployed, and writes down what it was asked to do.

use insta::assert_snapshot;

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::http::Admin;

/// Answers as Databricks CLI 1.13.0 does, from files beside it; read 2026-08.
const STAND_IN: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
echo "$*" >>calls
case "$1 $2" in
"version -o") echo '{"Version": "1.13.0"}' ;;
"bundle plan")
  if [ -f plan-again.json ] && [ "$(grep -c '^bundle plan' calls)" -gt 1 ]; then cat plan-again.json
  else cat plan.json; fi ;;
"bundle summary")
  if [ -f summary-again.json ] && [ "$(grep -c '^bundle summary' calls)" -gt 1 ]; then cat summary-again.json
  else cat summary.json; fi ;;
"bundle destroy" | "bundle deploy") [ ! -f fails ] || { cat fails >&2; exit 1; } ;;
esac
"#;

/// A bundle with a project of its own, and the stand-in for the Databricks CLI.
struct StandIn {
    forge: Forge,
}

impl StandIn {
    /// Makes the bundle; what it describes is not deployed.
    fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let forge = Forge::new();
        forge.bundle(&[name]);
        forge.write(
            "lakeforge.yml",
            &format!("projects: {{{name}: {{prevent_destroy: false, endpoints: []}}}}\n"),
        );
        forge.succeed("gen");
        forge.write("cli/databricks", STAND_IN);
        let program = forge.path().join("cli/databricks");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let stand_in = StandIn { forge };
        stand_in.summary("{}");
        stand_in
    }

    /// Sets what the Terraform engine plans.
    fn plan(&self, entries: &str) {
        self.write("plan.json", &format!(r#"{{"cli_version": "1.13.0", "plan": {entries}}}"#));
    }

    /// Sets what the direct engine plans.
    fn direct_plan(&self, entries: &str) {
        self.write("plan.json", &format!(r#"{{"plan_version": 2, "plan": {entries}}}"#));
    }

    /// Sets what the state of the deployment holds.
    fn summary(&self, resources: &str) {
        self.write("summary.json", &format!(r#"{{"resources": {resources}}}"#));
    }

    fn write(&self, file: &str, text: &str) {
        self.forge.write(&format!("cli/{file}"), text);
    }

    fn command(&self, arguments: &str) -> std::process::Command {
        let mut command = self.forge.command(arguments);
        command
            .env("LAKEFORGE_ENGINE", "cli")
            .env("DATABRICKS_CLI_PATH", self.forge.path().join("cli/databricks"));
        command
    }

    fn run(&self, arguments: &str) -> String {
        self.forge.shown(&self.command(arguments).output().unwrap())
    }

    /// Returns whether the Databricks CLI was told to do `what`, and forgets what it was told.
    fn was_told_to(&self, what: &str) -> bool {
        let calls = self.forge.read("cli/calls");
        std::fs::remove_file(self.forge.path().join("cli/calls")).unwrap();
        calls.lines().any(|call| call.starts_with(&format!("bundle {what} --auto-approve")))
    }
}

#[test]
fn a_project_that_a_plan_does_not_name_goes_only_by_its_label() {
    let stand_in = StandIn::new("consent-label");
    for action in ["delete", "recreate", "replace_in_place", ""] {
        stand_in
            .plan(&format!(r#"{{"resources.postgres_projects.shop": {{"action": "{action}"}}}}"#));
        for command in ["deploy --yes", "deploy --dry-run", "deploy --yes --confirm shop"] {
            let shown = stand_in.run(command);
            assert!(shown.contains("try: --confirm postgres_projects.shop\n"), "{action}: {shown}");
            assert!(shown.ends_with("--- exit 13"), "{action}: {shown}");
            assert!(!stand_in.was_told_to("deploy"), "{action}");
        }
        let shown = stand_in.run("deploy --yes --confirm postgres_projects.shop");
        assert!(shown.ends_with("--- exit 0"), "{action}: {shown}");
        assert!(stand_in.was_told_to("deploy"), "{action}");
    }
}

#[test]
fn what_a_plan_does_not_name_is_named_by_the_state_of_the_deployment() {
    let stand_in = StandIn::new("consent-state");
    stand_in.forge.succeed("deploy");
    stand_in.plan(r#"{"resources.postgres_projects.shop": {"action": "recreate"}}"#);
    stand_in.summary(r#"{"postgres_projects": {"shop": {"id": "projects/consent-state"}}}"#);

    assert_snapshot!(stand_in.run("deploy --dry-run"), @r"
        --- stdout
        ACTION    RESOURCE                NAME
        recreate  postgres_projects.shop  projects/consent-state
        --- stderr
        → with the Databricks CLI 1.13.0 ([DIR]/cli/databricks)
        Validating the bundle
        Planning the deployment
        error: the deletion has to be confirmed by name
          why: `projects/consent-state` takes its branches along: dev, production
          try: --confirm consent-state
        --- exit 13
        ");
    assert!(!stand_in.was_told_to("deploy"));
    let shown = stand_in.run("deploy --yes --confirm consent-state");
    assert!(shown.ends_with("--- exit 0") && stand_in.was_told_to("deploy"), "{shown}");
}

#[test]
fn an_instance_and_a_project_with_an_odd_id_go_only_by_name() {
    let stand_in = StandIn::new("consent-odd");
    stand_in.direct_plan(
        r#"{"resources.database_instances.old": {"action": "delete", "id": "old-one"},
            "resources.postgres_projects.bare": {"action": "delete", "id": "bare"},
            "resources.postgres_branches.uid": {"action": "recreate", "id": "0b9c64bd-2f39-4c4c-8d0a-5d3b8f1c9e11"}}"#,
    );

    assert_snapshot!(stand_in.run("deploy --yes"), @r"
        --- stderr
        → with the Databricks CLI 1.13.0 ([DIR]/cli/databricks)
        Validating the bundle
        Planning the deployment
        → bundle `consent-odd`, target `local`, [HOST]
        error: the deletion has to be confirmed by name
          why: `database_instances.old` (`old-one`) is a database instance, with all it holds
          why: `postgres_branches.uid` (`[ID]`) is a branch whose full name is not known
          why: `postgres_projects.bare` (`bare`) is a project whose full name is not known
          try: --confirm [ID] --confirm bare --confirm old-one
        --- exit 13
        ");
    assert!(!stand_in.was_told_to("deploy"));
    let two = "deploy --yes --confirm old-one --confirm bare";
    assert!(stand_in.run(two).ends_with("--- exit 13") && !stand_in.was_told_to("deploy"));
    let all = format!("{two} --confirm 0b9c64bd-2f39-4c4c-8d0a-5d3b8f1c9e11");
    assert!(stand_in.run(&all).ends_with("--- exit 0") && stand_in.was_told_to("deploy"));
}

#[test]
fn what_the_databricks_cli_deletes_silently_is_asked_for() {
    let stand_in = StandIn::new("consent-ask");
    for (kind, action) in [
        ("apps", "delete"),
        ("apps", "recreate"),
        ("postgres_endpoints", "recreate"),
        ("postgres_roles", "delete"),
        ("postgres_catalogs", "delete"),
        ("jobs", "shred"),
    ] {
        stand_in.direct_plan(&format!(
            r#"{{"resources.{kind}.x": {{"action": "{action}", "id": "x"}}}}"#
        ));
        let shown = stand_in.run("deploy");
        assert!(shown.contains(&format!("warning: {action} {kind}.x x\n")), "{shown}");
        assert!(shown.ends_with("--- exit 9"), "{shown}");
        assert!(!stand_in.was_told_to("deploy"), "{kind} {action}");
    }
    stand_in.direct_plan(
        r#"{"resources.apps.a": {"action": "update", "id": "a"}, "resources.apps.b": {"action": "create"},
            "resources.jobs.c": {"action": "skip", "id": "1"}, "resources.jobs.d": {"action": "resize", "id": "2"},
            "resources.postgres_projects.e": {"action": "delete", "id": "projects/e", "gone": true}}"#,
    );
    let shown = stand_in.run("deploy");
    assert!(shown.ends_with("--- exit 0") && stand_in.was_told_to("deploy"), "{shown}");
}

#[test]
fn a_plan_that_is_not_understood_is_not_deployed() {
    let stand_in = StandIn::new("consent-garbled");
    for plan in
        ["{}", r#"{"plan": []}"#, r#"{"plan_version": 3, "changes": {}}"#, "null", "[]", "x"]
    {
        stand_in.write("plan.json", plan);
        let shown = stand_in.run("deploy --yes");
        assert!(shown.ends_with("--- exit 1"), "{plan}: {shown}");
        assert!(!stand_in.was_told_to("deploy"), "{plan}");
    }
}

#[test]
fn a_plan_that_cannot_be_handed_over_is_deployed_only_while_it_stays_the_same() {
    let stand_in = StandIn::new("consent-moved");
    stand_in.plan(r#"{"resources.apps.web": {"action": "update"}}"#);
    stand_in.write(
        "plan-again.json",
        r#"{"plan": {"resources.apps.web": {"action": "update"}, "resources.postgres_projects.shop": {"action": "delete"}}}"#,
    );

    assert_snapshot!(stand_in.run("deploy --yes"), @r"
        --- stderr
        → with the Databricks CLI 1.13.0 ([DIR]/cli/databricks)
        Validating the bundle
        Planning the deployment
        → bundle `consent-moved`, target `local`, [HOST]
        Deploying the bundle
        error: what was agreed to and the plan as it is now do not agree
          why: only what was agreed to: nothing
          why: only the plan as it is now: delete postgres_projects.shop
          try: run the same command again
        --- exit 13
        ");
    assert!(!stand_in.was_told_to("deploy"));
}

#[test]
fn destroy_confirms_by_kind_what_the_state_holds() {
    let stand_in = StandIn::new("consent-destroy");
    stand_in.summary(
        r#"{"apps": {"web": {"id": "web"}}, "database_instances": {"old": {"id": "old-one"}},
            "postgres_projects": {"a": {"id": "bare"}, "b": {"id": ""}}}"#,
    );
    for command in ["destroy --as-deployed --yes", "destroy --as-deployed --dry-run"] {
        let shown = stand_in.run(command);
        let hint = "try: --confirm bare --confirm old-one --confirm postgres_projects.b\n";
        assert!(shown.contains(hint) && shown.ends_with("--- exit 13"), "{shown}");
        assert!(!stand_in.was_told_to("destroy"));
    }
    let all = "destroy --as-deployed --yes --confirm bare --confirm old-one --confirm postgres_projects.b";
    assert!(stand_in.run(all).ends_with("--- exit 0") && stand_in.was_told_to("destroy"));

    // Somebody deploys between the consent and the deletion.
    stand_in.write(
        "summary-again.json",
        r#"{"resources": {"apps": {"web": {"id": "web"}}, "postgres_projects": {"shop": {"id": "projects/shop"}}}}"#,
    );
    let shown = stand_in.run(all);
    assert!(shown.contains("delete postgres_projects.shop projects/shop"), "{shown}");
    assert!(shown.ends_with("--- exit 13") && !stand_in.was_told_to("destroy"), "{shown}");
}

#[test]
fn a_dry_run_refuses_what_the_bundle_guards() {
    let stand_in = StandIn::new("consent-guard");
    stand_in.forge.write("lakeforge.yml", "projects: {consent-guard: {endpoints: []}}\n");
    stand_in.forge.succeed("gen");
    let label = "postgres_projects.lakebase_project_consent_guard";
    stand_in.plan(&format!(r#"{{"resources.{label}": {{"action": "recreate"}}}}"#));
    stand_in.summary(&format!(
        r#"{{"postgres_projects": {{"{}": {{"id": "projects/consent-guard"}}}}}}"#,
        &label["postgres_projects.".len()..]
    ));
    for command in [
        "deploy --dry-run --confirm consent-guard",
        "deploy --yes --confirm consent-guard",
        "destroy --dry-run --confirm consent-guard",
        "destroy --yes --confirm consent-guard --as-deployed",
    ] {
        let shown = stand_in.run(command);
        let why = "guarded by `lifecycle.prevent_destroy`: projects/consent-guard\n";
        assert!(shown.contains(why) && shown.ends_with("--- exit 13"), "{command}: {shown}");
    }
    assert!(!stand_in.was_told_to("deploy"));
    Admin::of(&stand_in.forge).get("/api/2.0/postgres/projects/consent-guard").expect(404);
}

#[test]
fn what_another_bundle_manages_is_neither_taken_over_nor_deleted_silently() {
    let mine = Forge::new();
    bundle(&mine, "consent-mine", &["consent-mine"], &[("consent-mine-app", App::Healthy)]);
    let free =
        "projects: {consent-mine: {prevent_destroy: false, endpoints: [], branches: [dev]}}\n";
    mine.write("lakeforge.yml", free);
    mine.succeed("gen");
    mine.succeed("deploy");
    let admin = Admin::of(&mine);
    let deployment = || admin.app("consent-mine-app")["active_deployment"]["deployment_id"].clone();
    let before = deployment();

    let other = Forge::new();
    bundle(&other, "consent-other", &["consent-mine"], &[("consent-mine-app", App::Healthy)]);
    other.write("lakeforge.yml", free);
    other.succeed("gen");
    let shown = other.run("deploy");
    for name in
        ["projects/consent-mine", "projects/consent-mine/branches/dev", "apps/consent-mine-app"]
    {
        let why = format!(
            "why: `{name}` is managed by bundle `consent-mine`, target `local`, deployed by "
        );
        assert!(shown.contains(&why), "{shown}");
    }
    assert!(
        shown.contains("try: --take-over, or another name") && shown.ends_with("--- exit 13"),
        "{shown}"
    );
    assert!(other.run("deploy --dry-run").ends_with("--- exit 13"));
    assert_eq!(deployment(), before);

    let shown = mine.run("branch delete dev --yes");
    assert!(shown.contains("managed by bundle `consent-mine`, target `local`"), "{shown}");
    assert!(
        shown.contains("try: --confirm consent-mine/dev\n") && shown.ends_with("--- exit 13"),
        "{shown}"
    );
    assert!(mine.run("branch delete dev --dry-run").ends_with("--- exit 13"));

    other.succeed("deploy --take-over");
    assert_ne!(deployment(), before);
    // Both hold it now: neither destroys what the other would miss without its name.
    let shown = other.run("destroy --yes --confirm consent-mine");
    assert!(
        shown.contains("`apps/consent-mine-app` is managed by bundle `consent-mine`"),
        "{shown}"
    );
    let hint = "try: --confirm consent-mine-app --confirm consent-mine/dev\n";
    assert!(shown.contains(hint) && shown.ends_with("--- exit 13"), "{shown}");
    mine.succeed("branch delete dev --yes --confirm dev");
    other.succeed("destroy --yes --confirm consent-mine --confirm consent-mine-app");
}
