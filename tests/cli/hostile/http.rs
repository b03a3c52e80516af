//! What can be said wrongly to the REST API and to the gateway of an app.

use std::net::{SocketAddr, TcpStream};

use super::sql::{connect, listen, noise, say, token};
use crate::dice::Dice;

/// Paths that try to leave the folder they are in.
const TRICKS: [&str; 9] = [
    "/api/2.0/workspace/../../etc/passwd",
    "/api/2.0/workspace/..%2f..%2f..%2fetc%2fpasswd",
    "/api/2.0/workspace/export?path=/../../../../etc/passwd",
    "/api/2.0/workspace/export?path=%2F..%2F..%2F..%2Fetc%2Fpasswd",
    "/api/2.0/workspace/get-status?path=/Users/%00/etc/passwd",
    "/api/2.0/workspace-files/import-file/..%2F..%2Fpwned?overwrite=true",
    "/api/2.0/postgres/projects/..%2F..%2Fkeys/branches/%2e%2e",
    "/api/2.0/apps/..%2F..%2Fkeys",
    "//////%ff%fe%fd?%zz=%",
];

/// Makes one connection that no sane client would make; returns it when it is to stay open.
///
/// Panics when the answer shows what it must not, or says that something of ours broke.
pub(crate) fn attack(address: SocketAddr, bearer: &str, dice: &mut Dice) -> Option<TcpStream> {
    let mut stream = connect(address);
    let bearer = match dice.below(3) {
        0 => token(dice),
        _ => bearer.to_owned(),
    };
    let head = format!("Host: {address}\r\nAuthorization: Bearer {bearer}\r\n");
    let path = *dice.one_of(&["/", "/logz/stream", "/api/2.0/apps", "/oidc/v1/token"]);
    let said: Vec<u8> = match dice.below(18) {
        0 => noise(dice, 2000),
        1 => [&b"GET "[..], &noise(dice, 100), b" HTTP/1.1\r\n\r\n"].concat(),
        2 => format!("GET {path} HTTP/9.9\r\n{head}\r\n").into(),
        3 => format!("GET {path} HTTP/1.1\r\n{head}{}\r\n", "X-Flood: 1\r\n".repeat(3000)).into(),
        4 => format!("GET {path} HTTP/1.1\r\n{head}X-Long: {}\r\n\r\n", "y".repeat(1 << 20)).into(),
        5 => format!("GET /{} HTTP/1.1\r\n{head}\r\n", "a/".repeat(100_000)).into(),
        6 => {
            let size = *dice.one_of(&["zz", "-1", "ffffffffffffffff", "FFFFFFFFFFFFFFFFF", "5;x=", ""]);
            format!("POST {path} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\nhello").into()
        }
        7 => {
            let length = *dice.one_of(&["99999999999", "18446744073709551616", "-1", "1, 2", "x", "50"]);
            format!("POST {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{{}}").into()
        }
        8 => format!(
            "POST {path} HTTP/1.1\r\n{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        )
        .into(),
        9 => format!("GET {} HTTP/1.1\r\n{head}\r\n", dice.one_of(&TRICKS)).into(),
        10 => format!("GET {path} HTTP/1.1\r\n{head}Host: elsewhere.test\r\n\r\n").into(),
        11 => {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
            let frames = noise(dice, 500);
            [format!("GET {path} HTTP/1.1\r\n{head}{upgrade}\r\n").as_bytes(), &frames].concat()
        }
        12 => {
            let scheme = *dice.one_of(&["Bearer", "Bearer ", "Basic ====", "\u{1f980}", "Bearer a b c"]);
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {scheme}\r\n\r\n").into()
        }
        13 => format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\n{head}\r\nSSH-2.0-tunnel\r\n").into(),
        14 => {
            let other = *dice.one_of(&["h2c", "websocket, h2c", "TLS/1.2", "h2c\r\nUpgrade: websocket"]);
            let upgrade = format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {other}\r\nHTTP2-Settings: AAMAAABk\r\n");
            format!("GET {path} HTTP/1.1\r\n{head}{upgrade}\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").into()
        }
        15 => {
            let coding = *dice.one_of(&["xchunked", "chunked, identity", "identity, chunked", "\tchunked", "chunked\r\nTransfer-Encoding: x"]);
            format!("POST {path} HTTP/1.1\r\n{head}Transfer-Encoding: {coding}\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n").into()
        }
        16 => {
            let list = *dice.one_of(&["host", "content-length, x-forwarded-email", "authorization", "close, transfer-encoding"]);
            format!("POST {path} HTTP/1.1\r\n{head}Connection: {list}\r\nX_Forwarded_Email: a@b\r\nContent-Length: 2\r\n\r\n{{}}").into()
        }
        _ => {
            // Says half of a request and waits.
            say(&mut stream, format!("GET {path} HTTP/1.1\r\n{head}").as_bytes());
            return Some(stream);
        }
    };
    say(&mut stream, &said);
    let answer = String::from_utf8_lossy(&listen(&mut stream)).into_owned();
    let asked = String::from_utf8_lossy(&said[..said.len().min(300)]).into_owned();
    assert!(!answer.contains("root:x:"), "{asked:?} shows a file of the system");
    let tunnel =
        answer.starts_with("HTTP/1.1 101") && !asked.contains("Upgrade: websocket\r\nSec-");
    assert!(!tunnel, "{asked:?} made a tunnel: {answer}");
    assert!(!answer.starts_with("HTTP/1.1 500"), "{asked:?} broke something: {answer}");
    None
}
