//! HTTP as bytes on a socket, so that no client of ours softens what the server says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use crate::forge::Forge;

/// An answer as it came.
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Headers, their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// Body.
    pub(crate) body: String,
}

impl Answer {
    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.body))
    }

    /// Expects `status` and returns the body as JSON.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }
}

/// Sends one request to `http://host:port/path` and returns the answer.
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut request = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));

    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&String::from_utf8(bytes).unwrap())
}

fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("answer {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    let body = if chunked { join(body) } else { body.to_owned() };
    Answer { status, headers, body }
}

/// Joins the chunks of a body.
fn join(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}

/// The administrator of an embedded workspace, and a token of theirs.
pub(crate) struct Admin {
    /// Address of the REST API.
    pub(crate) host: String,
    /// OAuth client.
    pub(crate) client_id: String,
    /// Its secret.
    pub(crate) client_secret: String,
    token: String,
}

impl Admin {
    /// Logs in to the workspace of `forge`, with what the profile `local` says.
    pub(crate) fn of(forge: &Forge) -> Self {
        let profiles = std::fs::read_to_string(forge.data().join("databrickscfg")).unwrap();
        let local = profiles.split("[local]").nth(1).unwrap().split('[').next().unwrap();
        let value = |key: &str| {
            local
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_else(|| panic!("no {key} in {}", forge.data().display()))
        };
        let mut admin = Admin {
            host: value("host"),
            client_id: value("client_id"),
            client_secret: value("client_secret"),
            token: String::new(),
        };
        let answer = admin.log_in(&admin.client_secret).expect(200);
        admin.token = answer["access_token"].as_str().unwrap().to_owned();
        admin
    }

    /// Asks for a token with `secret`.
    pub(crate) fn log_in(&self, secret: &str) -> Answer {
        self.ask_for_token(secret, "all-apis")
    }

    fn ask_for_token(&self, secret: &str, scope: &str) -> Answer {
        let pair = format!("{}:{secret}", self.client_id);
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        let headers = [
            ("Authorization", &*format!("Basic {pair}")),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let body = format!("grant_type=client_credentials&scope={scope}");
        send("POST", &format!("{}/oidc/v1/token", self.host), &headers, &body)
    }

    /// Returns a token of theirs that is good for `scope` alone.
    pub(crate) fn scoped(&self, scope: &str) -> String {
        let answer = self.ask_for_token(&self.client_secret, scope).expect(200);
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Returns the token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Returns the header that carries the token.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Sends a request with the token.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("Authorization", &*self.bearer()), ("Content-Type", "application/json")];
        send(method, &format!("{}{path}", self.host), &headers, body)
    }

    /// Reads `path`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    /// Returns an app as the API describes it.
    pub(crate) fn app(&self, name: &str) -> Value {
        self.get(&format!("/api/2.0/apps/{name}")).expect(200)
    }
}

/// Returns the token as the workspace would have signed it with a changed payload.
pub(crate) fn sign_again(forge: &Forge, token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut payload = claims(token);
    change(&mut payload);
    let key = std::fs::read(forge.data().join("keys/token.der")).unwrap();
    let key = ring::signature::Ed25519KeyPair::from_pkcs8(&key).unwrap();
    let head = token.split('.').next().unwrap();
    let signed = format!("{head}.{}", encode(payload.to_string().as_bytes()));
    format!("{signed}.{}", encode(key.sign(signed.as_bytes()).as_ref()))
}

/// Returns what a token says of itself.
pub(crate) fn claims(token: &str) -> Value {
    serde_json::from_slice(&decode(token.split('.').nth(1).unwrap())).unwrap()
}

/// Decodes a part of a token.
pub(crate) fn decode(part: &str) -> Vec<u8> {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// Encodes a part of a token.
pub(crate) fn encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
