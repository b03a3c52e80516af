//! Endpoints as ordinary clients meet them.

use crate::forge::Forge;

/// Runs SQL on the endpoint `id` of a branch and returns what `psql` said, rows or refusal.
fn sql_at(forge: &Forge, branch: &str, id: &str, statement: &str) -> String {
    let output = forge
        .command(&format!("-q creds exec {branch} --endpoint {id} -- psql -XAtqc"))
        .arg(statement)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap().trim_end().to_owned()
}

#[test]
fn a_read_only_endpoint_of_the_bundle_is_deployed_and_only_reads() {
    let forge = Forge::new();
    forge.bundle(&["reports"]);
    forge.write("lakeforge.yml", "projects: {reports: {endpoints: [readers]}}\n");
    forge.succeed("gen");
    forge.succeed("deploy");
    forge.sql("reports/dev", "CREATE TABLE notes AS SELECT 7 AS n");

    let ask = |statement: &str| sql_at(&forge, "reports/dev", "readers", statement);

    assert_eq!(ask("SELECT n FROM notes"), "7");
    assert_eq!(
        ask("INSERT INTO notes VALUES (8)"),
        "ERROR:  cannot execute INSERT in a read-only transaction"
    );
    forge.sql("reports/dev", "UPDATE notes SET n = 8");
    assert_eq!(ask("SELECT n FROM notes"), "8");
    forge.succeed("deploy");
    assert_eq!(ask("SELECT n FROM notes"), "8");
}
