//! Apps that need nothing but Python, and bundles of them.

use crate::forge::Forge;

/// Answers each path with what `answers.json` says, else with the headers it was sent.
const STEADY: &str = r#"
import http.server, json, os, pathlib

ANSWERS = json.loads(pathlib.Path("answers.json").read_text())

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = ANSWERS.get(self.path, {"body": json.dumps(headers)})
        body = answer["body"].encode()
        self.send_response(answer.get("status", 200))
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

print("serving as", os.environ["DATABRICKS_APP_NAME"], flush=True)
address = ("127.0.0.1", int(os.environ["DATABRICKS_APP_PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"#;

/// What an app does.
#[derive(Clone, Copy)]
pub(crate) enum App<'a> {
    /// Serves these paths, given as JSON.
    Answers(&'a str),
    /// Is healthy at `/healthz`.
    Healthy,
    /// Is healthy, after this many seconds.
    Late(u32),
    /// Prints a few lines and ends with exit code 3.
    Crashes,
    /// Runs and never listens.
    Deaf,
}

impl App<'_> {
    fn source(self) -> String {
        match self {
            App::Answers(_) | App::Healthy => STEADY.to_owned(),
            App::Late(seconds) => format!("import time\ntime.sleep({seconds})\n{STEADY}"),
            App::Crashes => "import sys\nprint('reading settings', flush=True)\n\
                 sys.stderr.write('the setting COLOUR is missing\\n')\nsys.exit(3)\n"
                .to_owned(),
            App::Deaf => {
                "import time\nprint('not listening', flush=True)\ntime.sleep(600)\n".to_owned()
            }
        }
    }

    fn answers(&self) -> &str {
        match self {
            App::Answers(answers) => answers,
            _ => r#"{"/healthz": {"body": "{\"ok\": true}"}}"#,
        }
    }
}

/// Writes a bundle called `name` with `apps`, and with `projects` when there are any.
pub(crate) fn bundle(forge: &Forge, name: &str, projects: &[&str], apps: &[(&str, App)]) {
    let include = if projects.is_empty() { "" } else { "include: [resources/*.yml]\n" };
    let mut text = format!(
        "bundle: {{name: {name}}}\n{include}\
         targets: {{local: {{default: true, workspace: {{profile: local}}}}}}\n\
         resources:\n  apps:\n"
    );
    for (app, does) in apps {
        let key = app.replace('-', "_");
        text.push_str(&format!("    {key}: {{name: {app}, source_code_path: ./apps/{app}}}\n"));
        forge.write(&format!("apps/{app}/app.py"), &does.source());
        forge.write(&format!("apps/{app}/app.yaml"), "command: [python3, app.py]\n");
        forge.write(&format!("apps/{app}/answers.json"), does.answers());
    }
    forge.write("databricks.yml", &text);
    if !projects.is_empty() {
        let list: Vec<String> =
            projects.iter().map(|id| format!("{id}: {{endpoints: []}}")).collect();
        let list = list.join(", ");
        forge.write("lakeforge.yml", &format!("projects: {{{list}}}\nbranch: {{ttl: 1d}}\n"));
        forge.will_make(projects);
        forge.succeed("gen");
    }
}
