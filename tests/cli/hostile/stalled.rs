//! Clients that begin and do not go on: whoever has a token is answered as if they were not there.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{address, memory_kb, workspace};
use crate::http::{Admin, send};
use crate::own;

/// Clients that stall at one door at the same time: more than it has places.
const CLIENTS: usize = 1100;
/// Most that they may cost the server in memory, in kilobytes.
const GROWTH_KB: u64 = 50 << 10;

/// Makes clients that say `said` and wait.
fn stall(door: SocketAddr, said: &str) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(door).unwrap();
        // A client that had to go already has nothing to say any more.
        let _ = stream.write_all(said.as_bytes());
        stream
    };
    (0..CLIENTS).map(one).collect()
}

/// Lets clients stall in every way and returns how long the middle one of the others' requests took at each time.
///
/// Panics when the server grew by more than it may.
fn stall_and_ask() -> Vec<(String, Duration)> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let forge = workspace();
    let admin = Admin::of(&forge);
    let app = admin.app("doors-app")["url"].as_str().unwrap().to_owned();
    let (rest, gateway) = (address(&admin.host), address(&app));
    let head = "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let half = "x".repeat(9000);
    let ways = [
        ("REST: half a head", rest, format!("GET /api/2.0/apps HTTP/1.1\r\n{head}")),
        (
            "REST: a head of 30 kB",
            rest,
            format!("GET / HTTP/1.1\r\n{head}X-Long: {}", "y".repeat(30_000)),
        ),
        (
            "REST: no body",
            rest,
            format!("POST /oidc/v1/token HTTP/1.1\r\n{head}Content-Length: 9000\r\n\r\n"),
        ),
        (
            "REST: half a form",
            rest,
            format!("POST /oidc/v1/token HTTP/1.1\r\n{head}Content-Length: 12000\r\n\r\n{half}"),
        ),
        (
            "REST: half of 10 MB",
            rest,
            format!(
                "POST /oidc/v1/token HTTP/1.1\r\n{head}Content-Length: 10000000\r\n\r\n{}",
                half.repeat(20)
            ),
        ),
        ("gateway: half a head", gateway, format!("GET / HTTP/1.1\r\n{head}")),
        (
            "gateway: no body",
            gateway,
            format!("POST / HTTP/1.1\r\n{head}Content-Length: 9000\r\n\r\n"),
        ),
    ];
    let url = |door| {
        if door == rest { format!("{}/api/2.0/apps", admin.host) } else { format!("{app}/healthz") }
    };
    let ask = |door| {
        let begun = Instant::now();
        let answer = send("GET", &url(door), &[("Authorization", &admin.bearer())], "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        begun.elapsed()
    };
    ask(rest);
    ask(gateway);
    let server = own::server(&forge);
    let before = memory_kb(server);
    let mut middle = Vec::new();
    for (way, door, said) in ways {
        let stalled = stall(door, &said);
        // Those that wait to come in go first.
        ask(door);
        let mut times: Vec<Duration> = (0..21).map(|_| ask(door)).collect();
        times.sort_unstable();
        let grown = memory_kb(server).saturating_sub(before);
        assert!(grown < GROWTH_KB, "{way}: the server grew by {grown} kB");
        middle.push((format!("{way}, {grown} kB more"), times[10]));
        drop(stalled);
    }
    assert_eq!(own::server(&forge), server, "it is not the same server any more");
    // One may always stop it.
    let _stalled = stall(rest, "GET / HTTP/1.1\r\n");
    forge.succeed("local stop");
    middle
}

#[test]
fn stalled_clients_keep_nobody_out_and_cost_little_memory() {
    assert_eq!(stall_and_ask().len(), 7);
}

mod soak {
    use super::*;

    /// How long a request may take while others stall.
    const QUICK: Duration = Duration::from_millis(100);

    #[test]
    #[ignore = "measures time: `make soak`"]
    fn a_request_takes_no_time_while_others_stall() {
        for (way, took) in stall_and_ask() {
            assert!(took < QUICK, "{way}: {took:?}");
            let _ = writeln!(std::io::stderr(), "{way}: {took:?}");
        }
    }
}
