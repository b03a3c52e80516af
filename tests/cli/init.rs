//! `lakeforge init` from the outside: what it finds, writes and leaves alone.

use insta::assert_snapshot;

use crate::forge::Forge;

#[test]
fn init_makes_a_bundle_that_is_current_and_deploys() {
    let forge = Forge::new();

    assert_snapshot!(forge.run("init --project initshop --yes"), @r"
        --- stdout
        wrote databricks.yml
        wrote lakeforge.yml
        wrote resources/lakebase.yml
        --- exit 0
        ");
    forge.succeed("gen --check");
    forge.succeed("deploy");
    assert!(forge.succeed("branch list --project initshop").contains("dev"));
    let before = forge.read("databricks.yml");
    assert_snapshot!(forge.run("init --project other --yes"), @r"
        --- stdout
        kept databricks.yml
        kept lakeforge.yml
        kept resources/lakebase.yml
        --- stderr
        warning: lakeforge.yml is there and names the projects; `--project` changes nothing
        --- exit 0
        ");
    assert_eq!(forge.read("databricks.yml"), before);
}

#[test]
fn init_finds_the_apps_of_a_repository() {
    let forge = Forge::new();
    forge.write("repo/services/patient/app.yaml", "command: [python, app.py]\n");
    forge.write("repo/services/patient/migrations/001.sql", "select 1;\n");
    forge.write("repo/services/lab/app.py", "");
    forge.write("repo/services/lab/requirements.txt", "");
    forge.write("repo/tools/pyproject.toml", "");

    assert_snapshot!(forge.run("init repo --profile clinic-dev --dry-run"), @r"
        --- stdout
        would write databricks.yml
        would write lakeforge.yml
        would write resources/lakebase.yml
        --- stderr
        warning: `tools` is left out: neither app.yaml nor app.py says how it starts (`--app tools` takes it)
        app `lab` in services/lab
        app `patient` in services/patient
        --- exit 0
        ");
    assert!(!forge.path().join("repo/databricks.yml").exists());
    assert_snapshot!(forge.run("init repo --profile clinic-dev --yes"), @r"
        --- stdout
        wrote databricks.yml
        wrote lakeforge.yml
        wrote resources/lakebase.yml
        --- stderr
        warning: `tools` is left out: neither app.yaml nor app.py says how it starts (`--app tools` takes it)
        app `lab` in services/lab
        app `patient` in services/patient
        --- exit 0
        ");
    assert_snapshot!(forge.read("repo/databricks.yml"), @r#"
        bundle:
          name: "repo"
          engine: direct

        include:
          - resources/*.yml

        variables:
          lakebase_branch:
            description: Branch of every Lakebase project that the apps use
            default: production
          app_name_suffix:
            description: Distinguishes the apps of one environment from another's, such as -pr-7
            default: ""

        workspace:
          # With the suffix, a preview is a deployment of its own beside the environment's.
          root_path: /Workspace/Users/${workspace.current_user.userName}/.bundle/${bundle.name}/${bundle.target}${var.app_name_suffix}

        resources:
          apps:
            lab:
              name: lab${var.app_name_suffix}
              source_code_path: "./services/lab"
              resources:
                - name: database
                  postgres:
                    branch: ${var.lakebase_project_lab}/branches/${var.lakebase_branch}
                    database: ${var.lakebase_project_lab}/branches/${var.lakebase_branch}/databases/databricks-postgres
                    permission: CAN_CONNECT_AND_CREATE
            patient:
              name: patient${var.app_name_suffix}
              source_code_path: "./services/patient"
              resources:
                - name: database
                  postgres:
                    branch: ${var.lakebase_project_patient}/branches/${var.lakebase_branch}
                    database: ${var.lakebase_project_patient}/branches/${var.lakebase_branch}/databases/databricks-postgres
                    permission: CAN_CONNECT_AND_CREATE

        targets:
          local: # the embedded workspace: lakeforge local start
            default: true
            workspace:
              profile: local

          preview: # apps of a pull request on branches of their own: --var app_name_suffix=-pr-7 --var lakebase_branch=pr-7
            workspace:
              profile: "clinic-dev"

          dev:
            mode: development
            workspace:
              profile: "clinic-dev"
        "#);
    assert_snapshot!(forge.read("repo/lakeforge.yml"), @r#"
        # What the bundle cannot say; `lakeforge gen schema` describes every key.

        projects:
          "lab": {branches: [dev]}
          "patient": {branches: [dev]}

        branch: {ttl: 7d}

        # Targets that hold the apps of pull requests and never the projects.
        previews: [preview]

        apps:
          "lab":
            health: /healthz
          "patient":
            health: /healthz
            migrate:
              directory: "services/patient"
              command: "for file in migrations/*.sql; do psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction --file \"$file\" || exit; done"

        gc: {prefix: pr-, grace: 24h}
        "#);
    forge.succeed("gen --check --root repo");
    let plan = forge.succeed("deploy --dry-run --root repo");
    assert!(plan.contains("lakebase_project_patient") && plan.contains("apps.lab"), "{plan}");

    std::fs::remove_file(forge.path().join("repo/resources/lakebase.yml")).unwrap();
    assert_snapshot!(forge.run("-q init repo --yes -o json"), @r#"
        --- stdout
        {
          "files": [
            {
              "path": "databricks.yml",
              "write": false
            },
            {
              "path": "lakeforge.yml",
              "write": false
            },
            {
              "path": "resources/lakebase.yml",
              "write": true
            }
          ],
          "dry_run": false
        }
        --- stderr
        warning: `tools` is left out: neither app.yaml nor app.py says how it starts (`--app tools` takes it)
        --- exit 0
        "#);
    forge.succeed("gen --check --root repo");
}

#[test]
fn init_adds_to_a_bundle_that_is_there() {
    let forge = Forge::offline();
    forge.write("databricks.yml", "bundle: {name: old}\n");

    assert_snapshot!(forge.run("init --project shop --yes"), @r"
        --- stdout
        kept databricks.yml
        wrote lakeforge.yml
        wrote resources/lakebase.yml
        --- stderr
        warning: the bundle does not include `resources/lakebase.yml`; add it to `include:`
        --- exit 0
        ");
    assert_eq!(forge.read("databricks.yml"), "bundle: {name: old}\n");
    forge.succeed("gen --check");
}

#[test]
fn init_writes_nothing_when_something_is_wrong() {
    let forge = Forge::offline();

    assert_snapshot!(forge.run("init 42"), @r"
        --- stderr
        error: the folder's name cannot name a project
          try: lakeforge init --project NAME
        --- exit 2
        ");
    assert_snapshot!(forge.run("init --project My_Shop --yes"), @r"
        --- stderr
        error: `--project`: the id `My_Shop` does not start with a lower-case letter
        --- exit 2
        ");
    assert_snapshot!(forge.run("init new --project shop"), @r"
        --- stderr
        error: needs consent: write databricks.yml, lakeforge.yml, resources/lakebase.yml?
          why: there is no terminal to ask
          try: add `--yes`
        --- exit 9
        ");
    assert_snapshot!(forge.run("init --project shop --app none --yes"), @r"
        --- stderr
        error: `--app none`: there is no such folder
        --- exit 2
        ");
    forge.write(
        "databricks.yml",
        "bundle: {name: x}\nresources: {jobs: {lakebase_project_shop: {name: x}}}\n",
    );
    assert_snapshot!(forge.run("init --project shop --yes"), @r"
        --- stderr
        error: lakeforge.yml:4:3: project `shop` needs the resource key `lakebase_project_shop`
          why: it is taken at databricks.yml:2:20
        --- exit 2
        ");
    assert!(!forge.path().join("lakeforge.yml").exists());
    assert!(!forge.path().join("new").exists());
}

#[test]
fn init_names_the_folder_of_templates_in_lakeforge_yml() {
    let forge = Forge::offline();
    forge.write("own/lakebase.yml", "# Generated by lakeforge\n# {{{ command }}}\n");

    forge.succeed("init --project shop --template-dir own --yes");

    assert!(forge.read("lakeforge.yml").contains("\ntemplates: \"own\"\n"));
    let text = forge.read("resources/lakebase.yml");
    assert!(text.starts_with("# Generated by lakeforge\n# lakeforge gen\n"), "{text}");
    forge.succeed("gen --check");
}
