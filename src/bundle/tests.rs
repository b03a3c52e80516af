//! What a bundle is after loading, and what is refused.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Writes files into a fresh folder.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn target(name: &str) -> Choice {
    Choice { target: Some(name.to_owned()), ..Choice::default() }
}

fn load(text: &str) -> Result<Bundle> {
    Bundle::load(folder(&[("databricks.yml", text)]).path(), &Choice::default())
}

/// Returns headline, reasons and hint of why `text` is refused.
fn refusal(text: &str) -> String {
    let error = load(text).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    match error.hint_text() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

const SHOP: &str = "\
bundle: {name: shop}
include: ['resources/*.yml']
variables:
  branch: {default: production}
  suffix: {default: ''}
  size: {default: 2}
targets:
  local:
    default: true
    workspace: {profile: local}
  dev:
    mode: development
    variables: {branch: dev, suffix: '-${bundle.target}'}
    resources:
      apps:
        web:
          description: from dev
          resources:
            - {name: db, description: the dev one}
  prod:
    mode: production
    workspace: {profile: shop-prod, root_path: /Shared/shop}
";

const APPS: &str = "\
resources:
  apps:
    web:
      name: web${var.suffix}
      source_code_path: ../apps/web
      config:
        command: [sh, -c, 'echo ${HOME:-/} $PGHOST']
      resources:
        - name: db
          postgres:
            branch: ${resources.postgres_branches.main.id}
            database: ${resources.postgres_branches.main.id}/databases/databricks-postgres
";

const LAKEBASE: &str = "\
resources:
  postgres_branches:
    main:
      branch_id: ${var.branch}
      parent: ${resources.postgres_projects.shop.id}
      no_expiry: true
  postgres_projects:
    shop: {project_id: shop, pg_version: 17, size: '${var.size}'}
";

fn shop() -> TempDir {
    folder(&[
        ("databricks.yml", SHOP),
        ("resources/apps.yml", APPS),
        ("resources/lakebase.yml", LAKEBASE),
    ])
}

#[test]
fn the_root_is_found_upwards_and_must_be_the_only_one() {
    let folder = folder(&[("databricks.yml", SHOP), ("apps/web/app.py", "")]);

    let found = find_root(&folder.path().join("apps/web"), None).unwrap();
    assert_eq!(found.as_deref(), Some(folder.path()));
    assert!(find_root(folder.path(), Some(Path::new("apps"))).is_err());

    std::fs::write(folder.path().join("bundle.yml"), "").unwrap();
    assert!(find_root(folder.path(), None).unwrap_err().message().contains("both"));
}

#[test]
fn the_default_target_leaves_the_defaults_of_variables() {
    let folder = shop();
    let bundle = Bundle::load(folder.path(), &Choice::default()).unwrap();

    assert_eq!(bundle.target.name, "local");
    assert_eq!(bundle.target.profile.as_deref(), Some("local"));
    assert_eq!(bundle.apps[0].name, "web");
    assert_eq!(bundle.apps[0].source.as_deref(), Some(&*folder.path().join("apps/web")));
    assert_eq!(
        bundle.file_path,
        "/Workspace/Users/${workspace.current_user.userName}/.bundle/shop/local/files"
    );
    assert_eq!(bundle.names("postgres_branches")[0], "projects/shop/branches/production");
    assert_eq!(bundle.tree["resources"]["postgres_projects"]["shop"]["size"], json!(2));
}

#[test]
fn a_target_is_laid_over_the_files() {
    let bundle = Bundle::load(shop().path(), &target("dev")).unwrap();
    let app = &bundle.tree["resources"]["apps"]["web"];

    assert_eq!(app["name"], "web-dev");
    assert_eq!(app["description"], "from dev");
    assert_eq!(app["resources"].as_array().unwrap().len(), 1);
    assert_eq!(app["resources"][0]["description"], "the dev one");
    assert_eq!(
        bundle.apps[0].databases,
        [Attachment {
            name: "db".to_owned(),
            branch: "projects/shop/branches/dev".to_owned(),
            database: Some("projects/shop/branches/dev/databases/databricks-postgres".to_owned()),
        }]
    );
}

#[test]
fn a_root_path_of_its_own_moves_the_other_paths() {
    let bundle = Bundle::load(shop().path(), &target("prod")).unwrap();

    assert_eq!(bundle.root_path, "/Workspace/Shared/shop");
    assert_eq!(bundle.file_path, "/Workspace/Shared/shop/files");
}

#[test]
fn the_first_source_of_a_variable_wins() {
    let folder = shop();
    std::fs::create_dir_all(folder.path().join(".databricks/bundle/dev")).unwrap();
    let file = folder.path().join(".databricks/bundle/dev/variable-overrides.json");
    std::fs::write(file, r#"{"branch": "from-file", "suffix": "-file"}"#).unwrap();
    let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let mut choice = target("dev");
    choice.environment = one("branch", "from-environment");
    choice.environment.insert("unrelated".to_owned(), "1".to_owned());

    let bundle = Bundle::load(folder.path(), &choice).unwrap();
    assert_eq!(bundle.apps[0].name, "web-file");
    assert_eq!(bundle.names("postgres_branches")[0], "projects/shop/branches/from-environment");

    choice.variables = Choice::parse_variables(&["branch=a=b,c".to_owned()]).unwrap();
    choice.variables.insert("size".to_owned(), "8".to_owned());
    let bundle = Bundle::load(folder.path(), &choice).unwrap();
    assert_eq!(bundle.tree["variables"]["branch"]["value"], "a=b,c");
    assert_eq!(bundle.tree["resources"]["postgres_projects"]["shop"]["size"], json!(8));

    choice.variables = one("brunch", "x");
    let error = Bundle::load(folder.path(), &choice).unwrap_err();
    assert_eq!(error.hint_text(), Some("did you mean `branch`?"));
}

#[test]
fn resources_come_after_what_they_depend_on() {
    let bundle = Bundle::load(shop().path(), &Choice::default()).unwrap();

    let order: Vec<&str> = bundle.resources().iter().map(|one| one.key.as_str()).collect();
    assert_eq!(order, ["shop", "main", "web"]);
    assert_eq!(
        bundle.resources()[2].depends_on,
        [("postgres_branches".to_owned(), "main".to_owned())]
    );
    assert_eq!(bundle.resources()[2].place.to_string(), "resources/apps.yml:3:5");
    assert_eq!(bundle.resources()[0].place.to_string(), "resources/lakebase.yml:8:5");
}

#[test]
fn a_written_out_name_is_a_dependency_too() {
    let bundle = load(
        "bundle: {name: x}
resources:
  apps:
    web: {name: web, source_code_path: ., resources: [{name: db, postgres: {branch: projects/p/branches/dev}}]}
  postgres_branches:
    b: {branch_id: dev, parent: projects/p}
  postgres_projects:
    p: {project_id: p, default_branch: projects/p/branches/dev}
    pp: {project_id: p-p}
",
    )
    .unwrap();

    let of = |key: &str| {
        let found = bundle.resources().iter().find(|one| one.key == key).unwrap();
        found.depends_on.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("web"), ["b", "p"]);
    assert_eq!(of("b"), ["p"]);
    assert_eq!(of("p"), [""; 0]);
}

#[test]
fn references_are_replaced_when_their_values_are_known() {
    let value = json!({"parent": "${resources.postgres_projects.p.id}", "n": ["${resources.apps.a.n}"],
        "source": "${resources.postgres_projects.p.id}/branches/production", "shell": "${HOME}"});

    let resolved = Bundle::resolve(&value, |path| match path {
        "resources.postgres_projects.p.id" => Some("projects/p".into()),
        "resources.apps.a.n" => Some(7.into()),
        _ => None,
    });

    assert_eq!(
        resolved.unwrap(),
        json!({"parent": "projects/p", "n": [7], "source": "projects/p/branches/production", "shell": "${HOME}"})
    );
    assert!(Bundle::resolve(&json!("${resources.apps.b.n}"), |_| None).is_err());
}

#[test]
fn variables_may_use_variables_and_keep_their_shape() {
    let bundle = load(
        "bundle: {name: x}
variables:
  a: {default: '${var.b}-${bundle.target}'}
  b: {default: '${var.c}'}
  c: {default: 7}
  env: {type: complex, default: [{name: A, value: '${var.a}'}]}
resources:
  apps:
    web: {name: 'n${var.env[0].value}', source_code_path: ., config: {env: '${var.env}'}}
",
    )
    .unwrap();

    assert_eq!(bundle.apps[0].config, Some(json!({"env": [{"name": "A", "value": "7-default"}]})));
    assert_eq!(bundle.apps[0].name, "n7-default");
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let head = "bundle: {name: x}\n";
    for (text, expected) in [
        ("resources: {}\n", "databricks.yml:1:1: `bundle.name` is missing"),
        (
            "bundle: {name: x}\nvariables:\n  size: {}\n",
            "databricks.yml:3:3: the variable `size` has no value (add `--var size=…`, or set BUNDLE_VAR_size)",
        ),
        (
            &format!(
                "{head}variables: {{size: {{default: 1}}}}\nresources:\n  apps:\n    a: {{name: 'a${{var.sise}}', source_code_path: .}}\n"
            ),
            "databricks.yml:5:15: `${var.sise}` refers to nothing (did you mean `size`?)",
        ),
        (
            &format!(
                "{head}resources:\n  apps:\n    a: {{name: '${{bundle.nam}}', source_code_path: .}}\n"
            ),
            "databricks.yml:4:15: `${bundle.nam}` refers to nothing (did you mean `name`?)",
        ),
        (
            &format!(
                "{head}resources:\n  apps:\n    a:\n      name: ${{resources.apps.bb.name}}\n    bbb: {{name: b}}\n"
            ),
            "databricks.yml:5:13: `${resources.apps.bb.name}` refers to a resource that is not there (did you mean `bbb`?)",
        ),
        (
            &format!(
                "{head}resources:\n  apps:\n    a: {{name: '${{resources.apps.b.name}}'}}\n    b: {{name: '${{resources.apps.a.name}}'}}\n"
            ),
            "databricks.yml:4:5: resources refer to each other in a circle: `a` → `b` → `a`",
        ),
        (
            &format!(
                "{head}resources:\n  apps:\n    a: {{name: a, source_code_path: .}}\n  jobs:\n    a: {{name: b}}\n"
            ),
            "databricks.yml:6:5: the resource key `a` is used twice: first at databricks.yml:4:5, in `apps` (keys are unique over all types and files: rename one)",
        ),
        (
            &format!("{head}targets: {{dev: {{}}, prod: {{}}}}\n"),
            "`databricks.yml` has several targets and no default: targets: dev, prod (add `--target NAME`)",
        ),
        (
            &format!("{head}targets:\n  dev: {{mode: developement}}\n"),
            "databricks.yml:3:15: there is no mode `developement` (did you mean `development`?)",
        ),
        (
            &format!(
                "{head}targets:\n  dev: {{variables: {{sice: 1}}}}\nvariables: {{size: {{default: 1}}}}\n"
            ),
            "databricks.yml:3:21: the variable `sice` is not declared (did you mean `size`?)",
        ),
        (
            &format!(
                "{head}variables: {{a: {{default: '${{var.b}}'}}, b: {{default: '${{var.a}}'}}}}\n"
            ),
            "databricks.yml:2:16: the references here lead in circles, or through too many others",
        ),
        (
            &format!("{head}resources:\n  apps:\n    a: {{name: a}}\n"),
            "databricks.yml:4:5: the app `a` has no `source_code_path`",
        ),
        (
            &format!("{head}workspace: [x]\ntargets: {{dev: {{workspace: {{host: y}}}}}}\n"),
            "databricks.yml:3:28: another place of this bundle has a value of another shape here",
        ),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn an_unknown_target_names_the_nearest() {
    let error = Bundle::load(shop().path(), &target("prd")).unwrap_err();

    assert_eq!(error.message(), "`databricks.yml` has no target `prd`");
    assert_eq!(error.hint_text(), Some("did you mean `prod`?"));
}
