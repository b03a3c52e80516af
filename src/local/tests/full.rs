//! A data folder on a disk without room.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{PRODUCTION, Server, folder};

/// Bytes of the disk: enough for a project and a branch.
const ROOM: u64 = 320 << 20;
/// Bytes left on a full disk: objects and log can still be written, clusters cannot.
const LEFT: u64 = 8 << 20;

/// A small disk in memory, which only root can mount.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = folder();
        let options = format!("size={ROOM},mode=711");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Disk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, so that a failed test with a running server leaves no mount behind either.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn a_full_disk_fails_what_needs_room_and_nothing_else() {
    let Some(disk) = Disk::mount() else {
        let _ = writeln!(std::io::stderr(), "skipped: only root can mount a small disk");
        return;
    };
    let server = Server::start(disk.path());
    server.shop();
    server.ask(PRODUCTION, "CREATE TABLE notes AS SELECT 1 AS n");
    let filler = disk.path().join("filler");
    let size = usize::try_from(disk.free() - LEFT).unwrap();
    std::fs::write(&filler, vec![0; size]).unwrap();

    let path = "/api/2.0/postgres/projects/shop/branches?branch_id=dev";
    let (status, operation) = server.call("POST", path, &json!({ "spec": { "ttl": "60s" } }));

    assert_eq!(status, 200, "{operation}");
    let name = operation["name"].as_str().unwrap().to_owned();
    let done = server.until(|| {
        let operation = server.get(&format!("/api/2.0/postgres/{name}"));
        operation["done"].as_bool().unwrap().then_some(operation)
    });
    let message = done["error"]["message"].as_str().unwrap();
    assert!(message.contains("No space left on device"), "{message}");
    assert!(disk.free() > LEFT / 2, "what was begun is removed: {} bytes are free", disk.free());
    assert_eq!(server.ask(PRODUCTION, "SELECT n FROM notes"), ["1"]);

    std::fs::remove_file(&filler).unwrap();
    server.branch("later", &json!({ "ttl": "60s" }));
    assert_eq!(server.ask("projects/shop/branches/later", "SELECT n FROM notes"), ["1"]);
    server.stop();
}
