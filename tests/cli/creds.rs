//! `lakeforge creds` from the outside, and who is let in by Postgres with what it mints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::forge::{Forge, assert_snake_case};

#[test]
fn mint_prints_the_password_alone() {
    let forge = Forge::with_project("mint");

    let output = forge.output("creds mint dev");
    let token = String::from_utf8(output.stdout).unwrap();
    let answer = forge.json("creds mint mint/dev --ttl 5m");

    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    assert_eq!(token.lines().count(), 1);
    assert!(!String::from_utf8(output.stderr).unwrap().contains(token.trim_end()));
    assert_snake_case(&answer);
    assert_eq!(answer["endpoint"], "projects/mint/branches/dev/endpoints/primary");
    assert_eq!(answer["database"], "databricks_postgres");
    let life = &claims(answer["token"].as_str().unwrap());
    assert_eq!(life["exp"].as_i64().unwrap() - life["iat"].as_i64().unwrap(), 300);
    assert_snapshot!(forge.run("creds mint dev --ttl 4m"), @r#"
        --- stderr
        error: a password cannot live for 4m
          try: --ttl 5m to --ttl 1h
        --- exit 2
        "#);
    assert_snapshot!(forge.run("creds mint dev --ttl 2h"), @r#"
        --- stderr
        error: a password cannot live for 2h
          try: --ttl 5m to --ttl 1h
        --- exit 2
        "#);
    assert_snapshot!(forge.run("creds mint dve"), @r#"
        --- stderr
        error: could not get credentials for `mint/dve`
          why: there is no branch `mint/dve`
          try: did you mean `mint/dev`?
        --- exit 6
        "#);
    assert_snapshot!(forge.run("creds mint dev --endpoint primry"), @r#"
        --- stderr
        error: could not get credentials for `mint/dev`
          why: `mint/dev` has no endpoint `primry`
          try: did you mean `primary`?
        --- exit 6
        "#);
}

#[test]
fn env_is_what_a_shell_and_psql_understand() {
    let forge = Forge::with_project("vars");
    let lines = forge.succeed("creds env dev");

    let mut shell = Command::new("sh");
    let script = format!(
        "{lines}psql -XAtqc 'select 40 + 2, ssl from pg_stat_ssl where pid = pg_backend_pid()'"
    );
    let output = shell.args(["-euc", &script]).output().unwrap();

    assert!(output.status.success(), "{}", forge.shown(&output));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("42|"));
    let answer = forge.json("creds env dev");
    assert_eq!(answer["PGSSLMODE"], "require");
    for (name, value) in answer.as_object().unwrap() {
        assert!(lines.contains(&format!("export {name}=")), "{lines} has no {name}");
        assert!(value.is_string());
    }
}

#[test]
fn exec_ends_as_its_command_does() {
    let forge = Forge::with_project("exec");
    forge.write("plain.txt", "not a program\n");

    let rows = forge.succeed("-q creds exec dev -- psql -XAtqc 'select 7'");
    assert_eq!(rows, "7\n");
    assert_eq!(forge.succeed("-q creds exec -- sh -c 'echo $PGDATABASE'"), "databricks_postgres\n");
    assert_eq!(forge.output("-q creds exec dev -- sh -c 'exit 42'").status.code(), Some(42));
    assert_eq!(
        forge.output("-q creds exec dev -- psql -XAtqc 'select nonsense'").status.code(),
        Some(1)
    );
    assert_snapshot!(forge.run("-q creds exec dev -- no-such-program"), @r#"
        --- stderr
        error: could not start `no-such-program`
          why: No such file or directory (os error 2)
        --- exit 127
        "#);
    assert_snapshot!(forge.run("-q creds exec dev -- ./plain.txt"), @r#"
        --- stderr
        error: could not start `./plain.txt`
          why: Permission denied (os error 13)
        --- exit 126
        "#);
    assert_snapshot!(forge.run("-q creds exec dve -- true"), @r#"
        --- stderr
        error: could not get credentials for `exec/dve`
          why: there is no branch `exec/dve`
          try: did you mean `exec/dev`?
        --- exit 125
        "#);
    assert_snapshot!(forge.run("creds exec dev"), @r#"
        --- stderr
        error: the following required arguments were not provided:
          <COMMAND>...

        Usage: lakeforge creds exec --data-dir <DIR> <BRANCH> -- <COMMAND>...

        For more information, try '--help'.
        --- exit 2
        "#);
}

#[test]
fn a_signal_reaches_what_exec_runs() {
    let forge = Forge::with_project("exec-signal");
    let script = "trap 'exit 7' TERM; echo here; while :; do sleep 0.02; done";
    let mut exec = forge
        .command("-q creds exec dev -- sh -c")
        .arg(script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");

    kill_process(Pid::from_child(&exec), Signal::TERM).unwrap();

    assert_eq!(exec.wait().unwrap().code(), Some(7));
}

#[test]
fn github_hides_what_is_minted_before_it_is_shown() {
    let forge = Forge::with_project("hide");
    let mint = |command: &str, variable: &str| {
        forge.command(command).env(variable, "true").output().unwrap()
    };
    for command in ["creds mint dev", "creds env dev", "creds mint --workspace"] {
        let output = mint(command, "GITHUB_ACTIONS");
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let hidden = stderr.lines().find_map(|line| line.strip_prefix("::add-mask::")).unwrap();
        assert!(stdout.contains(hidden), "{stdout}");
        let output = mint(command, "GITLAB_CI");
        assert!(!String::from_utf8(output.stderr).unwrap().contains("eyJ"));
    }
}

#[test]
fn exec_without_a_workspace_does_not_start_its_command() {
    let forge = Forge::offline();
    forge.bundle(&["shop"]);

    assert_snapshot!(forge.run("creds exec dev -- touch started"), @r#"
        --- stderr
        error: the embedded workspace is not running
          try: lakeforge local start
        --- exit 125
        "#);
    assert!(!forge.path().join("started").exists());
}

#[test]
fn postgres_lets_in_who_has_a_fresh_password_and_nobody_else() {
    let forge = Forge::with_project("door");
    let dev = forge.json("creds mint dev");
    let token = dev["token"].as_str().unwrap();
    let other = forge.succeed("-q creds mint production");

    assert_snapshot!(psql(&forge, &dev, "require", token), @r#"
        --- stdout
        let in
        --- exit 0
        "#);
    assert_snapshot!(psql(&forge, &dev, "require", ""), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: fe_sendauth: no password supplied
        --- exit 2
        "#);
    assert_snapshot!(psql(&forge, &dev, "require", "secret"), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  Provided authentication token is not a valid JWT encoding
        --- exit 2
        "#);
    assert_snapshot!(psql(&forge, &dev, "require", &tampered(token)), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  External authorization failed: the token was not signed by this workspace
        --- exit 2
        "#);
    assert_snapshot!(psql(&forge, &dev, "require", other.trim_end()), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  OAuth: User is not authorized: the token is for another endpoint or identity
        --- exit 2
        "#);
    assert_snapshot!(psql(&forge, &dev, "require", &expired(&forge, token)), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  External authorization failed: the token has expired
        --- exit 2
        "#);
    assert_snapshot!(psql(&forge, &dev, "disable", token), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  SSL connection is required
        --- exit 2
        "#);
    let stranger = json!({"host": dev["host"], "port": dev["port"], "database": dev["database"], "user": "stranger"});
    assert_snapshot!(psql(&forge, &stranger, "require", token), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  OAuth: User is not authorized: the token is for another endpoint or identity
        --- exit 2
        "#);
}

#[test]
fn a_password_of_another_workspace_is_refused() {
    let forge = Forge::with_project("foreign");
    let dev = forge.json("creds mint dev");
    let token = dev["token"].as_str().unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();

    let forged = signed(&key.serialize_der(), token, &claims(token));

    assert_snapshot!(psql(&forge, &dev, "require", &forged), @r#"
        --- stderr
        psql: error: connection to server at "[ADDRESS]", port [PORT] failed: FATAL:  External authorization failed: the token was not signed by this workspace
        --- exit 2
        "#);
}

/// Connects with plain `psql`, and shows what came of it.
fn psql(forge: &Forge, target: &Value, mode: &str, password: &str) -> String {
    let text = |name: &str| match &target[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let output: Output = Command::new("psql")
        .args(["-w", "-XAtqc", "select 'let in'"])
        .env("PGHOST", text("host"))
        .env("PGPORT", text("port"))
        .env("PGUSER", text("user"))
        .env("PGDATABASE", text("database"))
        .env("PGSSLMODE", mode)
        .env("PGPASSWORD", password)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    forge.shown(&output)
}

fn claims(token: &str) -> Value {
    let middle = token.trim_end().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

/// Returns the token with a later end in it, the signature as it was.
fn tampered(token: &str) -> String {
    let mut claims = claims(token);
    claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 3600);
    let parts: Vec<&str> = token.split('.').collect();
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.to_string()), parts[2])
}

/// Returns the token as the workspace itself would have signed it two hours ago.
fn expired(forge: &Forge, token: &str) -> String {
    let mut claims = claims(token);
    for name in ["iat", "exp"] {
        claims[name] = json!(claims[name].as_i64().unwrap() - 7200);
    }
    signed(&fs::read(forge.data().join("keys/token.der")).unwrap(), token, &claims)
}

/// Signs `claims` under the header of `token`.
fn signed(key: &[u8], token: &str, claims: &Value) -> String {
    let key = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).unwrap();
    let header = token.split('.').next().unwrap();
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    format!("{message}.{signature}")
}
