//! The client against a server that answers from a script: what is sent again, and what is not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, DeletableBranch, Error};
use crate::auth::{Login, Origin, Setting, Settings};
use crate::error::Kind;
use crate::wire::names::{BranchName, ProjectName};
use crate::wire::postgres::{Body, Branch, BranchSpec};

/// One answer of the script.
#[derive(Clone, Copy)]
enum Reply {
    /// A status, more headers, and a body.
    Says(u16, &'static str, &'static str),
    /// The connection ends after the request was read.
    Hangs,
}

/// A server that gives the answers of its script in turn, the last one for ever.
struct Script {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn start(replies: &'static [Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = kept.lock().unwrap().len();
                let reply = replies[count.min(replies.len() - 1)];
                let line = answer(stream, reply).await;
                kept.lock().unwrap().push(line);
            }
        });
        Script { host, seen }
    }

    fn client(&self, budget: Duration) -> Client {
        let origin = || Origin::Variable("DATABRICKS_X");
        let settings = Settings {
            host: Some(Setting::new(self.host.clone(), origin())),
            token: Some(Setting::new("dapi-secret".to_owned().into(), origin())),
            ..Settings::default()
        };
        Client::with_budget(Login::resolve(settings).unwrap(), budget, None)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Reads a request, answers it, ends the connection, and returns the first line.
async fn answer(mut stream: TcpStream, reply: Reply) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut chunk).await.unwrap() {
            0 => break,
            count => request.extend_from_slice(&chunk[..count]),
        }
    }
    if let Reply::Says(status, headers, body) = reply {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
    }
    let text = String::from_utf8_lossy(&request);
    text.lines().next().unwrap_or_default().to_owned()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

const BUDGET: Duration = Duration::from_secs(20);
const BUSY: Reply = Reply::Says(503, "retry-after: 0\r\n", r#"{"error_code":"UNAVAILABLE"}"#);
const BRANCH: &str = r#"{"name":"projects/shop/branches/dev"}"#;
const RUNNING: &str = r#"{"name":"projects/shop/branches/dev/operations/1"}"#;
const DONE: &str = r#"{"name":"projects/shop/branches/dev/operations/1","done":true,"response":{"name":"projects/shop/branches/dev"}}"#;

fn dev() -> BranchName {
    ProjectName::new("shop").branch("dev")
}

#[tokio::test]
async fn a_busy_workspace_is_asked_again_also_for_a_change() {
    let script = Script::start(&[BUSY, BUSY, Reply::Says(200, "", DONE)]).await;
    let api = script.client(BUDGET);

    let pending = api.create_branch(&dev(), &Body::<BranchSpec>::default(), false).await.unwrap();
    let branch: Branch = api.wait(pending, "creating", BUDGET).await.unwrap();

    assert_eq!(branch.name, dev());
    assert_eq!(
        script.seen(),
        ["POST /api/2.0/postgres/projects/shop/branches?branch_id=dev HTTP/1.1"; 3]
    );
}

#[tokio::test]
async fn a_read_survives_a_lost_answer_and_a_change_says_that_it_may_have_happened() {
    let script = Script::start(&[Reply::Hangs, Reply::Says(200, "", BRANCH)]).await;
    assert!(script.client(BUDGET).get_branch(&dev()).await.is_ok());
    assert_eq!(script.seen().len(), 2);

    let script = Script::start(&[Reply::Hangs]).await;
    let api = script.client(BUDGET);
    let error = api.create_branch(&dev(), &Body::default(), false).await.unwrap_err();
    assert!(error.is_reply_lost(), "{error:?}");
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_workspace_that_stays_busy_is_unavailable_within_the_budget() {
    let script = Script::start(&[BUSY]).await;
    let api = script.client(Duration::from_secs(1));

    let error = crate::error::Error::from(api.get_branch(&dev()).await.unwrap_err());

    assert_eq!(error.kind(), Kind::Unavailable);
    assert!((2..=4).contains(&script.seen().len()), "{:?}", script.seen());
}

#[tokio::test]
async fn a_change_is_waited_for_and_the_wait_ends() {
    let script = Script::start(&[Reply::Says(200, "", RUNNING), Reply::Says(200, "", DONE)]).await;
    let api = script.client(BUDGET);
    let pending = api.create_branch(&dev(), &Body::default(), false).await.unwrap();
    assert_eq!(api.wait(pending, "creating", BUDGET).await.unwrap().name, dev());
    assert_eq!(
        script.seen()[1],
        "GET /api/2.0/postgres/projects/shop/branches/dev/operations/1 HTTP/1.1"
    );

    let script = Script::start(&[Reply::Says(200, "", RUNNING)]).await;
    let api = script.client(BUDGET);
    let pending = api.create_branch(&dev(), &Body::default(), false).await.unwrap();
    let error = api.wait(pending, "creating", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn all_pages_are_read_and_a_circle_of_pages_ends() {
    const FIRST: &str =
        r#"{"branches":[{"name":"projects/shop/branches/a"}],"next_page_token":"x&y"}"#;
    const LAST: &str = r#"{"branches":[{"name":"projects/shop/branches/b"}],"next_page_token":""}"#;
    let script = Script::start(&[Reply::Says(200, "", FIRST), Reply::Says(200, "", LAST)]).await;
    let api = script.client(BUDGET);
    assert_eq!(api.list_branches(&ProjectName::new("shop")).await.unwrap().len(), 2);
    assert_eq!(
        script.seen()[1],
        "GET /api/2.0/postgres/projects/shop/branches?page_token=x%26y HTTP/1.1"
    );

    let script = Script::start(&[Reply::Says(200, "", FIRST)]).await;
    let api = script.client(BUDGET);
    assert!(api.list_branches(&ProjectName::new("shop")).await.is_err());
}

/// Answers with page after page, each naming another one.
async fn endless(turn: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((stream, _)) = listener.accept().await {
            count += 1;
            let body = format!(r#"{{"branches":[],"next_page_token":"{}"}}"#, count % turn);
            answer(stream, Reply::Says(200, "", Box::leak(body.into_boxed_str()))).await;
        }
    });
    host
}

#[tokio::test]
async fn a_list_without_end_and_a_longer_circle_are_given_up() {
    for (turn, reason) in [(u64::MAX, "does not end"), (3, "read already")] {
        let script = Script { host: endless(turn).await, seen: Arc::default() };
        let listed = script.client(BUDGET).list_branches(&ProjectName::new("shop")).await;
        let error = crate::error::Error::from(listed.unwrap_err());
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// Answers with `head` and then with zeros until the other side has enough; says how many it took.
async fn flood(head: &'static str) -> (String, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (zeros, mut sent) = (vec![b'0'; 1 << 20], 0);
        while stream.write_all(&zeros).await.is_ok() {
            sent += zeros.len();
        }
        sent
    });
    (host, task)
}

#[tokio::test]
async fn an_answer_of_gigabytes_is_given_up_after_64_mb() {
    let head = "HTTP/1.1 200 X\r\ncontent-length: 3221225472\r\n\r\n";
    let (host, task) = flood(head).await;
    let script = Script { host, seen: Arc::default() };

    let error = script.client(BUDGET).get_branch(&dev()).await.unwrap_err();

    let error = crate::error::Error::from(error);
    assert!(error.to_string().contains("longer than 64 MB"), "{error}");
    let sent = task.await.unwrap();
    assert!(sent < 128 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn an_app_that_shows_its_callers_token_shows_it_to_nobody_here() {
    let script =
        Script::start(&[Reply::Says(200, "", "Bearer dapi-secret, ZGFwaS1zZWNyZXQ=")]).await;

    let visit = script.client(BUDGET).visit(&script.host, BUDGET).await.unwrap();

    assert_eq!(visit.body, "Bearer ***, ***Q=");
}

/// Logs in as a service principal at `host`, and says why that fails.
async fn log_in(host: &str) -> crate::error::Error {
    let origin = || Origin::Variable("DATABRICKS_X");
    let settings = Settings {
        host: Some(Setting::new(host.to_owned(), origin())),
        client_id: Some(Setting::new("id".to_owned(), origin())),
        client_secret: Some(Setting::new("client-secret".to_owned().into(), origin())),
        ..Settings::default()
    };
    Login::resolve(settings).unwrap().token().await.unwrap_err()
}

#[tokio::test]
async fn a_client_secret_goes_to_no_other_host_and_follows_no_redirect() {
    const ELSEWHERE: &str = r#"{"oidc_endpoint":"{account_id}","authorization_endpoint":"","token_endpoint":"https://evil.test/oidc/v1/token"}"#;
    let script = Script::start(&[Reply::Says(200, "", ELSEWHERE)]).await;
    let error = log_in(&script.host).await;
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("evil.test"), "{error}");
    assert!(script.seen().iter().all(|line| line.starts_with("GET /")), "{:?}", script.seen());

    let other = Script::start(&[Reply::Says(200, "", "{}")]).await;
    let location: &'static str = format!("location: {}/\r\n", other.host).leak();
    let script = Script::start(Box::leak(Box::new([Reply::Says(307, location, "")]))).await;
    // The place is named by the workspace itself; what it answers there is not followed.
    let answer = format!(
        r#"{{"oidc_endpoint":"{{account_id}}","authorization_endpoint":"","token_endpoint":"{}/token"}}"#,
        script.host
    );
    let discovery = Box::leak(answer.into_boxed_str());
    let first = Script::start(Box::leak(Box::new([Reply::Says(200, "", discovery)]))).await;
    let error = log_in(&first.host).await;
    assert_eq!(error.kind(), Kind::Auth, "{error}");
    assert_eq!(script.seen(), ["POST /token HTTP/1.1"]);
    assert!(other.seen().is_empty(), "{:?}", other.seen());
}

#[tokio::test]
async fn a_strange_answer_names_the_field() {
    const STRANGE: &str =
        r#"{"name":"projects/shop/branches/dev","status":{"expire_time":"s3cret"}}"#;
    const PAGE: &str = "<html>s3cret</html>";
    for (body, part) in [(STRANGE, "status.expire_time"), (PAGE, "not JSON")] {
        let reply: &'static [Reply] = Box::leak(Box::new([Reply::Says(200, "", body)]));
        let script = Script::start(reply).await;
        let error = script.client(BUDGET).get_branch(&dev()).await.unwrap_err();
        let error = crate::error::Error::from(error);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_refused_token_is_told() {
    let script = Script::start(&[Reply::Says(302, "location: http://127.0.0.1:1/\r\n", "")]).await;
    let error = script.client(BUDGET).get_branch(&dev()).await.unwrap_err();
    assert!(crate::error::Error::from(error).to_string().contains("redirect"));

    let script = Script::start(&[Reply::Says(401, "", "")]).await;
    let error = script.client(BUDGET).get_branch(&dev()).await.unwrap_err();
    let error = crate::error::Error::from(error);
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!(error.hint_text(), Some("replace the token of DATABRICKS_X"));
    assert!(!error.to_string().contains("dapi-secret"));
}

#[tokio::test]
async fn a_deletion_looks_again_each_time_it_is_sent() {
    const SEEN: &str =
        r#"{"name":"projects/shop/branches/dev","uid":"br-1","status":{"branch_id":"dev"}}"#;
    const ANEW: &str =
        r#"{"name":"projects/shop/branches/dev","uid":"br-2","status":{"branch_id":"dev"}}"#;
    const THERE: Reply = Reply::Says(200, "", SEEN);
    const SCRIPT: &[Reply] = &[THERE, BUSY, THERE, Reply::Hangs, Reply::Says(200, "", ANEW)];
    let script = Script::start(SCRIPT).await;
    let seen: Branch = serde_json::from_str(SEEN).unwrap();
    let branch = DeletableBranch::disposable(&seen).unwrap();

    let error = script.client(BUDGET).delete_branch(&branch, false).await.unwrap_err();

    assert!(matches!(error, Error::Changed(_)), "{error:?}");
    let methods: Vec<String> =
        script.seen().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["GET", "DELETE", "GET", "DELETE", "GET"]);
}
