//! Hostile clients: whatever they send, the others are served, and nothing of them stays behind.

mod escape;
mod http;
mod sql;
mod stalled;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use self::sql::Endpoint;
use crate::apps::{App, bundle};
use crate::dice::{Dice, seed};
use crate::forge::Forge;
use crate::http::{Admin, send};
use crate::own::{self, Own, within};
use crate::processes;

const BRANCH: &str = "doors/production";
/// Connections of each attacker.
const EACH: usize = 60;
/// Attackers at the same time on each door.
const ATTACKERS: u64 = 3;
/// How long it may take until the server has noticed that clients are gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most that the server's memory may grow, in kilobytes: far less than what was sent to it.
const GROWTH_KB: u64 = 200 << 10;

/// Starts a workspace with a project and an app.
fn workspace() -> Own {
    let forge = Own::start();
    bundle(&forge, "doors", &["doors"], &[("doors-app", App::Healthy)]);
    forge.succeed("deploy");
    forge
}

#[test]
fn nothing_listens_beyond_this_machine() {
    let forge = workspace();
    forge.sql(BRANCH, "select 1");
    let server = own::server(&forge);
    let mut all = own::descendants(server);
    assert!(all.len() > 2, "a compute and an app run: {all:?}");
    all.push(server);

    let open = processes::listening(&all);

    let ports: BTreeSet<u16> = open.iter().map(|(_, port)| *port).collect();
    let rest = address(own::status(&forge)["host"].as_str().unwrap());
    let gateway = address(Admin::of(&forge).app("doors-app")["url"].as_str().unwrap());
    for known in [rest, gateway, endpoint(&forge)] {
        assert!(open.contains(&(known.ip(), known.port())), "{known} is not among {open:?}");
    }
    // Two endpoints, the REST API, the gateway and the app itself.
    assert!(open.len() >= 5 && ports.len() >= 4, "{open:?}");
    // What an app opens is its own affair; this one keeps to itself.
    let beyond: Vec<&(IpAddr, u16)> = open.iter().filter(|(ip, _)| !ip.is_loopback()).collect();
    assert!(beyond.is_empty(), "reachable from elsewhere: {beyond:?}");
}

#[test]
fn hostile_clients_leave_nothing_behind_and_others_are_served() {
    let forge = workspace();
    let server = own::server(&forge);
    let admin = Admin::of(&forge);
    let app = admin.app("doors-app")["url"].as_str().unwrap().to_owned();
    let user = forge.sql(BRANCH, "select current_user");
    let endpoint = Endpoint::new(endpoint(&forge), &user, &forge.data().join("tls/ca.pem"));
    let doors = [address(&admin.host), address(&app)];
    serves(&forge, &admin, &app);
    let (files, memory) = (settled_files(&forge), memory_kb(server));

    let bearer = admin.token();
    thread::scope(|scope| {
        for attacker in 0..ATTACKERS {
            let endpoint = &endpoint;
            scope.spawn(move || attack(attacker, |dice| endpoint.attack(dice)));
            for (number, door) in doors.into_iter().enumerate() {
                let seed = 100 * (number as u64 + 1) + attacker;
                scope.spawn(move || attack(seed, |dice| http::attack(door, bearer, dice)));
            }
        }
        // Others are served meanwhile.
        serves(&forge, &admin, &app);
    });

    serves(&forge, &admin, &app);
    assert_eq!(own::server(&forge), server, "it is not the same server any more");
    let mut now = 0;
    let back = within(PATIENCE, || {
        now = processes::open_files(server);
        now <= files
    });
    assert!(back, "{files} files were open, now {now}");
    let sessions = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
         and application_name <> 'lakeforge'";
    let alone = within(PATIENCE, || forge.sql(BRANCH, sessions) == "1");
    assert!(alone, "sessions are left over: {}", forge.sql(BRANCH, sessions));
    let grown = memory_kb(server).saturating_sub(memory);
    assert!(grown < GROWTH_KB, "the server grew by {grown} kB");
}

/// Makes the connections of one attacker; half-open ones are held until its end.
fn attack(attacker: u64, one: impl Fn(&mut Dice) -> Option<TcpStream>) {
    let mut dice = Dice::new(seed().wrapping_mul(1000) + attacker);
    let open: Vec<TcpStream> = (0..EACH).filter_map(|_| one(&mut dice)).collect();
    drop(open);
}

/// Expects every door to answer who asks properly.
fn serves(forge: &Forge, admin: &Admin, app: &str) {
    assert_eq!(forge.sql(BRANCH, "select 1 + 1"), "2");
    admin.get("/api/2.0/preview/scim/v2/Me").expect(200);
    let answer = send("GET", &format!("{app}/healthz"), &[("Authorization", &admin.bearer())], "");
    assert_eq!(answer.body, r#"{"ok": true}"#);
}

/// Returns how many files the server has open once what was asked of it has ended.
fn settled_files(forge: &Forge) -> usize {
    let server = own::server(forge);
    let mut last = 0;
    let mut same = 0;
    let settled = within(PATIENCE, || {
        let now = processes::open_files(server);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 50
    });
    assert!(settled, "the number of open files does not settle");
    last
}

fn memory_kb(process: rustix::process::Pid) -> u64 {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns the address of the branch's endpoint.
fn endpoint(forge: &Forge) -> SocketAddr {
    let text = forge.succeed(&format!("-q creds env {BRANCH}"));
    let value = |name: &str| {
        let line = text.lines().find(|line| line.contains(&format!("{name}="))).unwrap();
        line.rsplit_once('=').unwrap().1.trim_matches(['\'', '"']).to_owned()
    };
    format!("{}:{}", value("PGHOST"), value("PGPORT")).parse().unwrap()
}

/// Returns where `url` leads.
fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap()
}
