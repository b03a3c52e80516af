//! Variables of the environment: every flag has one, and none is passed over.

use std::os::unix::ffi::OsStrExt;

use insta::assert_snapshot;

use crate::forge::Forge;
use crate::terminal::Terminal;

/// Runs the program with variables.
fn run(forge: &Forge, variables: &[(&str, &str)], arguments: &str) -> String {
    let output = forge.command(arguments).envs(variables.iter().copied()).output().unwrap();
    forge.shown(&output)
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest() {
    let forge = Forge::offline();
    forge.write("lakeforge.yml", "projects: [shop]\n");

    assert_snapshot!(run(&forge, &[("LAKEFORGE_TARGT", "dev")], "gen"), @r#"
        --- stderr
        error: nothing knows the variable LAKEFORGE_TARGT
          try: did you mean LAKEFORGE_TARGET?
        --- exit 2
        "#);
    assert_snapshot!(run(&forge, &[("LAKEFORGE_WHATEVER_THIS_IS", "")], "gen"), @r#"
        --- stderr
        error: nothing knows the variable LAKEFORGE_WHATEVER_THIS_IS
          try: lakeforge help environment
        --- exit 2
        "#);
    assert!(!forge.path().join("resources").exists());
    let mut latin = forge.command("gen");
    latin.env("LAKEFORGE_TARGET", std::ffi::OsStr::from_bytes(b"d\xe9v"));
    assert_snapshot!(forge.shown(&latin.output().unwrap()), @r#"
        --- stderr
        error: the variable LAKEFORGE_TARGET is not UTF-8
        --- exit 2
        "#);
    let json = run(&forge, &[("LAKEFORGE_OUTPUT", "json"), ("LAKEFORGE_TARGT", "x")], "gen");
    assert!(json.contains(r#""code":"UNKNOWN_VARIABLE""#), "{json}");
}

#[test]
fn a_value_that_is_wrong_is_blamed_on_its_variable() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);

    assert_snapshot!(run(&forge, &[("LAKEFORGE_TARGET", "nope")], "-q deploy"), @r#"
        --- stderr
        error: `databricks.yml` has no target `nope`
          why: known: local
        --- exit 2
        "#);
    assert_snapshot!(run(&forge, &[("LAKEFORGE_ENGINE", "foo")], "-q deploy"), @r#"
        --- stderr
        error: invalid value 'foo' for 'LAKEFORGE_ENGINE'
          [possible values: auto, cli, builtin]

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(run(&forge, &[("LAKEFORGE_WAIT_TIMEOUT", "soon")], "-q migrate"), @r#"
        --- stderr
        error: invalid value 'soon' for 'LAKEFORGE_WAIT_TIMEOUT': `soon` is not a duration; write `[LENGTH]`, `15m`, `24h` or `7d`

        For more information, try '--help'.
        --- exit 2
        "#);
    assert_snapshot!(run(&forge, &[("LAKEFORGE_PROFILE", "nope")], "-q branch list --project shop"), @r#"
        --- stderr
        error: [DIR]/databrickscfg has no profile `nope`
          why: it is named by LAKEFORGE_PROFILE
          try: databricks auth login --profile nope --host <workspace>
        --- exit 2
        "#);
    assert_snapshot!(run(&forge, &[("LAKEFORGE_DRY_RUN", "perhaps")], "gen"), @r#"
        --- stderr
        error: LAKEFORGE_DRY_RUN is `perhaps`, which is neither true nor false
          try: write 1 or 0
        --- exit 2
        "#);
}

#[test]
fn a_flag_wins_over_its_variable_and_over_those_that_contradict_it() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);
    let targets = "targets: {one: , two: }\n";
    forge.write("databricks.yml", &format!("bundle: {{name: shop}}\n{targets}"));
    let error = |variables: &[(&str, &str)], arguments: &str| {
        run(&forge, variables, &format!("-q {arguments}"))
    };

    let both = [("LAKEFORGE_TARGET", "one"), ("DATABRICKS_BUNDLE_TARGET", "no")];
    assert!(error(&both, "migrate --dry-run").ends_with("--- exit 0"));
    assert!(error(&both, "migrate --dry-run -t two").ends_with("--- exit 0"));
    assert!(error(&both, "migrate --dry-run -t not").contains("no target `not`"));
    let empty = [("LAKEFORGE_TARGET", ""), ("DATABRICKS_BUNDLE_TARGET", "no")];
    assert!(error(&empty, "migrate --dry-run").contains("no target `no`"));

    let ttl = [("LAKEFORGE_TTL", "nonsense")];
    assert!(error(&ttl, "branch create shop/dev").contains("for 'LAKEFORGE_TTL'"));
    assert!(!error(&ttl, "branch create shop/dev --no-expiry").contains("LAKEFORGE_TTL"));
    assert!(!error(&ttl, "branch create shop/dev --ttl 1d").contains("LAKEFORGE_TTL"));
    let two = [("LAKEFORGE_TTL", "1d"), ("LAKEFORGE_NO_EXPIRY", "1")];
    assert!(
        error(&two, "branch create shop/dev").contains("'LAKEFORGE_NO_EXPIRY'"),
        "{}",
        error(&two, "branch create shop/dev")
    );
}

#[test]
fn a_dry_run_that_a_variable_asks_for_is_one() {
    let forge = Forge::offline();
    forge.write("lakeforge.yml", "projects: [shop]\n");
    for (variable, value, exit) in [("DRY_RUN", "1", 0), ("DIFF", "true", 0), ("CHECK", "yes", 3)] {
        let name = format!("LAKEFORGE_{variable}");
        let shown = run(&forge, &[(&name, value)], "gen");
        assert!(shown.ends_with(&format!("--- exit {exit}")), "{name}: {shown}");
        assert!(!forge.path().join("resources").exists(), "{name}");
    }
    assert!(run(&forge, &[("LAKEFORGE_DRY_RUN", "0")], "gen").ends_with("--- exit 0"));
    assert!(forge.path().join("resources/lakebase.yml").exists());
}

#[test]
fn consent_by_variable_names_the_command_and_is_said() {
    let forge = Forge::offline();
    let yes = |value: &'static str| [("LAKEFORGE_YES", value)];

    assert_snapshot!(run(&forge, &yes("1"), "-q init --project shop"), @r#"
        --- stderr
        error: LAKEFORGE_YES names no command
          why: it is `1`; what it agrees to would hold for every command
          try: LAKEFORGE_YES='init' holds for that command alone
        --- exit 2
        "#);
    let other = run(&forge, &yes("branch delete,destroy"), "-q init --project shop");
    assert!(other.contains("error: needs consent"), "{other}");
    assert!(!forge.path().join("databricks.yml").exists());

    let own = run(&forge, &yes("destroy, init"), "-q init --project shop");
    assert!(own.contains("warning: --yes is set by LAKEFORGE_YES\n"), "{own}");
    assert!(forge.path().join("databricks.yml").exists(), "{own}");
}

#[test]
fn a_variable_that_agrees_to_another_command_leaves_the_question() {
    let forge = Forge::offline();
    let mut command = forge.command("init --project shop");
    command.env("LAKEFORGE_YES", "branch delete");

    let mut terminal = Terminal::run(&command, "");
    terminal.wait_for("[y/N]");
    terminal.press("\r");

    assert_eq!(terminal.end().0, Some(9));
}

#[test]
fn plain_variables_of_ci_systems_never_change_what_lakeforge_yml_says() {
    let forge = Forge::offline();
    forge.write("lakeforge.yml", "projects: [shop]\n");
    forge.succeed("gen");
    let before = forge.read("resources/lakebase.yml");
    let job = [("PROJECT_NAME", "ci-job"), ("CUSTOM_BRANCHES", "main")];

    assert_snapshot!(run(&forge, &job, "gen"), @r#"
        --- stdout
        unchanged resources/lakebase.yml
        --- stderr
        PROJECT_NAME is left aside: lakeforge.yml names the projects
        CUSTOM_BRANCHES is left aside: lakeforge.yml names the projects
        --- exit 0
        "#);
    assert_eq!(forge.read("resources/lakebase.yml"), before);
    forge.write(
        "databricks.yml",
        "bundle: {name: shop}\ninclude: [resources/*.yml]\n\
         targets: {local: {workspace: {profile: local}}}\n",
    );
    // Nothing runs here: the inputs agree, and the workspace is what is missing.
    let shown = run(&forge, &job, "-q deploy");
    assert!(shown.contains("lakeforge local start"), "{shown}");

    forge.write("lakeforge.yml", "");
    let shown = run(&forge, &job, "-q deploy");
    assert!(
        shown.contains("error: PROJECT_NAME and `resources/lakebase.yml` do not agree"),
        "{shown}"
    );
    assert!(shown.ends_with("--- exit 13"), "{shown}");
}

#[test]
fn with_v_it_is_said_which_variable_sets_a_flag() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);
    let shown = run(&forge, &[("LAKEFORGE_TARGET", "local")], "-v migrate --dry-run");
    assert!(shown.contains("--target is set by LAKEFORGE_TARGET"), "{shown}");
    let verbose = [("LAKEFORGE_VERBOSE", "1"), ("DATABRICKS_BUNDLE_TARGET", "local")];
    let shown = run(&forge, &verbose, "migrate --dry-run");
    assert!(shown.contains("--target is set by DATABRICKS_BUNDLE_TARGET"), "{shown}");
}

#[test]
fn lists_values_and_folders_come_from_variables_too() {
    let forge = Forge::offline();
    forge.write(
        "in/databricks.yml",
        "bundle: {name: shop}\nvariables: {b: {default: one}}\nresources:\n  apps:\n\
         \x20   x: {name: x, source_code_path: ., resources: [{name: d, postgres: {branch: 'projects/p/branches/${var.b}'}}]}\n\
         \x20   y: {name: y, source_code_path: ., resources: [{name: d, postgres: {branch: 'projects/p/branches/${var.b}'}}]}\n\
         \x20   z: {name: z, source_code_path: ., resources: [{name: d, postgres: {branch: 'projects/p/branches/${var.b}'}}]}\n",
    );
    let one = "{migrate: {command: make, directory: .}}";
    forge.write("in/lakeforge.yml", &format!("apps: {{x: {one}, y: {one}, z: {one}}}\n"));

    let root = forge.path().join("in").display().to_string();
    let shown = run(
        &forge,
        &[
            ("LAKEFORGE_ROOT", root.as_str()),
            ("DATABRICKS_BUNDLE_ROOT", "/nowhere"),
            ("LAKEFORGE_ONLY", "x,z"),
            ("LAKEFORGE_VAR", "b=two"),
        ],
        "migrate --dry-run",
    );

    assert_snapshot!(shown, @r#"
        --- stdout
        APP  BRANCH  DIRECTORY
        x    p/two   [DIR]/in
        z    p/two   [DIR]/in
        --- exit 0
        "#);
    let shown = run(&forge, &[("DATABRICKS_BUNDLE_ROOT", root.as_str())], "migrate --dry-run");
    assert!(shown.contains("p/one"), "{shown}");
}
