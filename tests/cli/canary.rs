//! The canary sweep: every command with secrets that are known, and none of them anywhere they do not belong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::apps::{App, bundle};
use crate::forge::Forge;
use crate::help;
use crate::own::Own;

/// Secrets of the environment: the variable, its value, and which part of that is the secret.
const CANARIES: [(&str, &str, &str); 6] = [
    ("DATABRICKS_TOKEN", "dapi-canary/+pat=0001", "dapi-canary/+pat=0001"),
    ("DATABRICKS_CLIENT_SECRET", "dose-canary-0002", "dose-canary-0002"),
    ("DATABRICKS_OIDC_TOKEN", "oidc-canary-0003", "oidc-canary-0003"),
    ("BUNDLE_VAR_api_token", "bundle canary & 0004", "bundle canary & 0004"),
    ("PIP_INDEX_URL", "https://me:url-canary-0005@pypi.test/simple", "url-canary-0005"),
    ("MY_PASSWORD", "other-canary-0006", "other-canary-0006"),
];

/// A migration that says all it knows, as it is and encoded, and fails so that its end is shown.
const CHATTY: &str = "printenv; printenv | base64; printenv | base64 -w0; echo; \
                      printf %s \"$PGPASSWORD\" | base64 -w0; printf %s \"$MY_PASSWORD\" | fold -w 3; exit 1";

/// Every command there is, in an order in which each has something to do; `*` marks those whose
/// answer is a secret.
const COMMANDS: [&str; 40] = [
    "init --yes",
    "gen --overwrite",
    "gen --check",
    "gen schema",
    "gen workflows",
    "deploy --yes",
    "deploy --dry-run",
    "deploy --only nothing",
    "migrate --dry-run",
    "migrate",
    "migrate --only nothing",
    "branch create pr-7",
    "branch create pr-7 --from nothing",
    "branch restore pr-8 --at '1 second ago'",
    "branch list",
    "branch list --project x/y",
    "branch get pr-7",
    "branch get nothing",
    "creds mint pr-7*",
    "creds mint --workspace*",
    "creds mint nothing",
    "creds env pr-7*",
    "creds exec pr-7 -- true",
    "creds exec pr-7 -- psql -XAtqc 'select 1'",
    "creds exec pr-7 -- nothing",
    "smoke --wait-timeout 5s",
    "gc --prs list.json --dry-run",
    "gc --prs nothing.json",
    "branch delete pr-7 --yes",
    "branch delete nothing --yes",
    "destroy --dry-run",
    "local status",
    "local env",
    "local logs",
    "local logs canary-app",
    "local start",
    "local serve --until-eof",
    "local reset --dry-run",
    "local stop --nothing",
    "completions bash",
];

#[test]
fn no_command_lets_a_secret_out() {
    let forge = workspace();
    let forms: Vec<String> = secrets(&forge).iter().flat_map(|secret| forms(secret)).collect();
    for command in help::commands(&forge, "") {
        let is_leaf = help::commands(&forge, &command).len() == 1;
        let tried = COMMANDS.iter().any(|tried| format!("{tried} ").starts_with(&command));
        assert!(!is_leaf || tried, "`{command}` is not swept");
    }
    let (watch, mut leaks, mut runs) = (Watch::start(forms.clone()), Vec::new(), 0);
    for format in ["text", "json"] {
        for (flags, log) in [("-vv", None), ("", Some("trace"))] {
            for command in COMMANDS {
                let (line, answers) = match command.strip_suffix('*') {
                    Some(line) => (line, true),
                    None => (command, false),
                };
                let line = format!("-p local -o {format} {flags} {line}");
                let output = run(&forge, &line, log);
                runs += 1;
                let code = output.status.code();
                if !expected(command).contains(&code) {
                    leaks.push(format!("`{line}`: {}", forge.shown(&output)));
                }
                if answers && code == Some(0) {
                    let text = String::from_utf8_lossy(&output.stdout);
                    assert!(forms.iter().any(|form| text.contains(form.as_str())), "{text}");
                }
                let answer = if answers { &[][..] } else { &output.stdout[..] };
                for (name, text) in [("stdout", answer), ("stderr", &output.stderr[..])] {
                    let text = String::from_utf8_lossy(text);
                    let found = forms.iter().filter(|form| text.contains(form.as_str()));
                    leaks.extend(found.map(|form| format!("`{line}`, {name}: {form}")));
                    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
                    assert!(!text.contains(steers), "`{line}`, {name}: {text:?}");
                }
            }
        }
    }
    leaks.extend(watch.end());
    search(&forge.path().join(".databricks"), &forms, &mut leaks);
    for log in ["server.log", "apps/canary-app/log"] {
        search(&forge.data().join(log), &forms, &mut leaks);
    }
    let log = forge.read(".databricks/lakeforge/local/logs/migrate-canary_app.log");
    assert!(log.contains("PGPASSWORD=***") && log.contains("MY_PASSWORD=***"), "{log}");
    let log = fs::read_to_string(forge.data().join("apps/canary-app/log")).unwrap();
    assert!(log.contains("DATABRICKS_CLIENT_SECRET=***"), "{log}");
    assert!(leaks.is_empty(), "{runs} runs: {}", leaks.join("\n"));
    assert_eq!(runs, 4 * COMMANDS.len());
}

/// Returns the exit codes that show that `command` came as far as it should.
fn expected(command: &str) -> &'static [Option<i32>] {
    match command {
        "migrate" => &[Some(11)],
        "local serve --until-eof" => &[Some(7)],
        // The project of the bundle is guarded.
        "destroy --dry-run" => &[Some(13)],
        // The second one is of another moment.
        _ if command.starts_with("branch restore") => &[Some(0), Some(7)],
        _ if command.contains("nothing") || command.contains("x/y") => {
            &[Some(2), Some(6), Some(127)]
        }
        _ => &[Some(0)],
    }
}

/// Starts a workspace with a bundle of a project and an app, and a migration that says all it knows.
fn workspace() -> Own {
    let forge = Own::start();
    bundle(&forge, "canary", &["canary"], &[("canary-app", App::Healthy)]);
    let text = forge.read("databricks.yml");
    let project = "${resources.postgres_projects.lakebase_project_canary.id}";
    let resource = format!(
        "resources: [{{name: database, postgres: {{branch: '{project}/branches/production', \
         database: '{project}/branches/production/databases/databricks-postgres', \
         permission: CAN_CONNECT_AND_CREATE}}}}]"
    );
    let text = text.replace("apps/canary-app}", &format!("apps/canary-app, {resource}}}"));
    forge.write("databricks.yml", &format!("{text}variables: {{api_token: {{description: x}}}}\n"));
    forge.write(
        "apps/canary-app/app.yaml",
        "command: [sh, -c, 'printenv; printenv | base64; exec python3 app.py']\n",
    );
    let command = serde_json::to_string(CHATTY).unwrap();
    let app = format!("apps: {{canary_app: {{migrate: {{directory: ., command: {command}}}}}}}\n");
    forge.write("lakeforge.yml", &format!("{}{app}", forge.read("lakeforge.yml")));
    let target = "  dev: {workspace: {host: https://dev.example.test}}\n";
    let text = forge.read("databricks.yml").replace(
        "targets: {local: {default: true, workspace: {profile: local}}}\n",
        &format!("targets:\n  local: {{default: true, workspace: {{profile: local}}}}\n{target}"),
    );
    forge.write("databricks.yml", &text);
    forge.write("list.json", r#"[{"number": 7, "state": "OPEN"}]"#);
    forge
}

/// Returns the secrets that are looked for: the canaries and those of the workspace itself; of its tokens
/// and the passwords it mints, what all of them begin with and those of no other workspace.
fn secrets(forge: &Forge) -> Vec<String> {
    let profiles = fs::read_to_string(forge.data().join("databrickscfg")).unwrap();
    let own = profiles.lines().filter_map(|line| line.strip_prefix("client_secret"));
    let own = own.map(|rest| rest.trim_start_matches([' ', '=']).to_owned());
    let canaries = CANARIES.iter().map(|(_, _, secret)| (*secret).to_owned());
    let mut all: Vec<String> = own.chain(canaries).collect();
    assert!(all.len() > CANARIES.len(), "the workspace has secrets of its own");
    let token = forge.succeed("-q -p local creds mint --workspace");
    all.push(token.split('.').next().unwrap().to_owned());
    all
}

/// Returns every form of `secret`.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), url_encoded(secret)];
    for before in 0..3 {
        forms.push(inside(secret, before, &STANDARD));
        forms.push(inside(secret, before, &URL_SAFE));
    }
    forms
}

fn url_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(one).collect()
}

/// Returns the digits of the base64 of `text` that are the same whatever stands around it.
fn inside(text: &str, before: usize, engine: &impl Engine) -> String {
    let digits = engine.encode([&vec![0; before][..], text.as_bytes()].concat());
    let end = (before + text.len()) * 8 / 6;
    digits[(before * 8).div_ceil(6)..end].to_owned()
}

fn run(forge: &Forge, line: &str, log: Option<&str>) -> Output {
    let mut command: Command = forge.command(line);
    command.envs(CANARIES.map(|(name, value, _)| (name, value)));
    command.envs(log.map(|level| ("LAKEFORGE_LOG", level)));
    command.output().unwrap()
}

/// Adds to `leaks` the files below `place` that hold one of `forms`.
fn search(place: &Path, forms: &[String], leaks: &mut Vec<String>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            search(&entry.unwrap().path(), forms, leaks);
        }
        return;
    }
    let bytes = fs::read(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let text = String::from_utf8_lossy(&bytes);
    let found = forms.iter().filter(|form| text.contains(form.as_str()));
    leaks.extend(found.map(|form| format!("{}: {form}", place.display())));
}

/// Watches the command lines of all processes.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Watch {
    fn start(forms: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut leaks = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    // Most entries are no processes, and processes end.
                    let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line);
                    let found = forms.iter().filter(|form| line.contains(form.as_str()));
                    leaks.extend(found.map(|form| format!("a process says {form}: {line}")));
                }
                // Shorter than any process of ours lives.
                thread::sleep(Duration::from_millis(2));
            }
            leaks
        });
        Watch { stop, thread }
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
