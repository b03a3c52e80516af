//! A server that the system lets write nothing more, as on a full disk: with a limit on the size of files that is
//! taken off again.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::forge::{Forge, PROGRAM};
use crate::http::Admin;
use crate::own::within;

const PROJECT: &str = "/api/2.0/postgres/projects/shop";
const GRANTS: &str = "/api/2.0/permissions/database-projects/full";
const GRANT: &str =
    r#"{"access_control_list":[{"user_name":"eve@shop.test","permission_level":"CAN_MANAGE"}]}"#;
const FILE: &str = "/api/2.0/workspace-files/import-file/Users/ana/notes.txt?overwrite=true";

#[test]
fn what_cannot_be_written_is_refused_and_works_when_there_is_room() {
    let forge = Forge::offline();
    // A write beyond the limit is to fail, and not to kill.
    let mut server = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", PROGRAM])
        .args(["local", "serve", "--port", "0", "--until-eof", "--data-dir"])
        .arg(forge.data())
        .env("LAKEFORGE_LOG", "lakeforge=warn")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let admin = Admin::of(&forge);
    forge.bundle(&["full"]);
    forge.succeed("gen");
    forge.succeed("deploy");
    forge.sql("full/production", "create table notes as select 1 as n");
    let mkdirs = r#"{"path":"/Users/ana"}"#;
    admin.send("POST", "/api/2.0/workspace/mkdirs", mkdirs).expect(200);
    admin.send("POST", FILE, "before").expect(200);
    let pid = Pid::from_child(&server);
    let limit = |current| {
        let limit = Rlimit { current, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    };

    limit(Some(0));
    let create = || admin.send("POST", "/api/2.0/postgres/projects?project_id=shop", "{}");
    let refused = create().expect(500);
    assert!(refused["message"].as_str().unwrap().contains("could not write"), "{refused}");
    admin.send("PATCH", GRANTS, GRANT).expect(500);
    admin.send("POST", FILE, "after").expect(500);

    admin.send("GET", PROJECT, "").expect(404);
    assert!(!admin.send("GET", GRANTS, "").body.contains("eve"));
    let export = "/api/2.0/workspace/export?path=/Users/ana/notes.txt&direct_download=true";
    assert_eq!(admin.send("GET", export, "").body, "before");
    assert_eq!(forge.sql("full/production", "select n from notes"), "1");

    limit(None);
    create().expect(200);
    admin.send("PATCH", GRANTS, GRANT).expect(200);
    admin.send("POST", FILE, "after").expect(200);
    let branch = format!("{PROJECT}/branches/production");
    let ready = || admin.send("GET", &branch, "").body.contains("READY");
    assert!(within(Duration::from_secs(60), ready));
    assert_eq!(admin.send("GET", export, "").body, "after");
    drop(server.stdin.take());
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(server.wait().unwrap().success(), "{log}");
    assert!(log.contains("could not write") && log.contains("can be written again"), "{log}");
    assert_eq!(fs::metadata(forge.data().join("objects/journal")).unwrap().len(), 0);
}
