//! Endpoints as ordinary clients meet them.

use std::process::Output;

use crate::forge::Forge;
use crate::own;

/// A client that starts TLS at once, as libpq 17 does with `sslnegotiation=direct`.
const DIRECT: &str = r#"
import os, socket, ssl, struct, sys
host = os.environ["PGHOST"]
context = ssl.create_default_context(cafile=sys.argv[1])
if sys.argv[2]:
    context.set_alpn_protocols([sys.argv[2]])
raw = socket.create_connection((host, int(os.environ["PGPORT"])), 60)
server = context.wrap_socket(raw, server_hostname=host)
def send(kind, body):
    server.sendall(kind + struct.pack("!i", len(body) + 4) + body)
def exactly(count):
    data = b""
    while len(data) < count:
        piece = server.recv(count - len(data))
        if not piece:
            sys.exit("closed")
        data += piece
    return data
def read():
    kind = exactly(1)
    return kind, exactly(struct.unpack("!i", exactly(4))[0] - 4)
user, database = os.environ["PGUSER"].encode(), os.environ["PGDATABASE"].encode()
send(b"", struct.pack("!i", 196608) + b"user\0" + user + b"\0database\0" + database + b"\0\0")
assert read() == (b"R", struct.pack("!i", 3))
send(b"p", os.environ["PGPASSWORD"].encode() + b"\0")
while read()[0] != b"Z":
    pass
send(b"Q", b"SELECT 6 * 7\0")
kind, body = read()
while kind != b"D":
    kind, body = read()
print(server.selected_alpn_protocol(), body[6:].decode())
"#;

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

/// Runs the client that starts TLS at once, naming `protocol`.
fn direct(forge: &Forge, protocol: &str) -> Output {
    let mut command = forge.command("-q creds exec direct/production -- python3 direct.py");
    let certificate = own::status(forge)["certificate_file"].as_str().unwrap().to_owned();
    command.args([&certificate, protocol]).output().unwrap()
}

#[test]
fn a_client_may_start_tls_at_once_when_it_says_that_it_means_postgres() {
    let forge = Forge::with_project("direct");
    forge.write("direct.py", DIRECT);

    let output = direct(&forge, "postgresql");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "postgresql 42\n", "{stderr}");

    for protocol in ["", "http/1.1"] {
        let output = direct(&forge, protocol);
        assert!(!output.status.success(), "{protocol:?} was let in");
    }
}
