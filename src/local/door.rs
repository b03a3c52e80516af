//! The doors of the HTTP listeners: how many may come in, how long they may take, and when they go.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long a client may take for the head of a request, and how long a connection may be idle.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// Most connections of a listener at once; the next ones wait.
const MOST_CONNECTIONS: usize = 1000;

/// Serves `router` on `listener` until `stop` becomes true or its sender is gone; requests under way are
/// answered first. Dropped, it ends with its connections.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    head_limit: Duration,
    stop: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::from_fn(refuse_ambiguous));
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept_all = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answered = answer(stream, router.clone(), head_limit, stop.clone());
                    connections.spawn(async move {
                        // A client that breaks off needs no answer.
                        let _ = answered.await;
                        drop(place);
                    });
                }
                // Out of file descriptors, most likely: some will be free again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    };
    let mut told = stop.clone();
    tokio::select! {
        () = accept_all => {}
        _ = told.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Answers the requests of one connection.
async fn answer(
    stream: TcpStream,
    router: Router,
    head_limit: Duration,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    // Without it answers are slower, and nothing else.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Refuses a request with several hosts: who passes it on and who answers it could disagree which one counts. And
/// one for a tunnel, which nothing here is.
async fn refuse_ambiguous(request: Request, next: Next) -> Result<Response, Infallible> {
    if request.method() == Method::CONNECT {
        let closed = [(CONNECTION, "close")];
        return Ok((StatusCode::METHOD_NOT_ALLOWED, closed, "no tunnels here\n").into_response());
    }
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Ok((StatusCode::BAD_REQUEST, "more than one Host\n").into_response());
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    /// How long what takes no time may take on a slow machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Served {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        ended: JoinHandle<()>,
    }

    async fn served(router: Router, head_limit: Duration) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let ended = tokio::spawn(serve(listener, router, head_limit, stopped));
        Served { address, stop, ended }
    }

    impl Served {
        /// Sends `said` and returns all that comes until the server closes the connection.
        async fn answer(&self, said: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            tokio::time::timeout(PATIENCE, read).await.expect("it is closed").unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_is_cut_off() {
        let router = Router::new().route("/", get(async || "here"));
        let served = served(router, Duration::from_millis(300)).await;

        for said in ["", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            assert!(!served.answer(said).await.contains("here"), "{said:?}");
        }
        let answer = served.answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("here"), "idle connections end as well: {answer}");
    }

    #[tokio::test]
    async fn a_request_with_two_hosts_is_refused() {
        let served = served(Router::new().route("/", get(async || "here")), HEAD_LIMIT).await;

        let answer = served
            .answer("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n")
            .await;

        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn a_tunnel_is_refused() {
        let served = served(Router::new().fallback(async || "here"), HEAD_LIMIT).await;

        let answer = served
            .answer("CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test:443\r\n\r\n")
            .await;

        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_before_the_end() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begin, wait) = (Arc::clone(&begun), Arc::clone(&go_on));
        let slow = async move || {
            begin.notify_one();
            wait.notified().await;
            "here"
        };
        let served = served(Router::new().route("/", get(slow)), HEAD_LIMIT).await;
        let idle = TcpStream::connect(served.address).await.unwrap();

        let asked = async {
            let answer = served.answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.ends_with("here"), "{answer}");
        };
        let stopped = async {
            begun.notified().await;
            served.stop.send_replace(true);
            go_on.notify_one();
        };
        tokio::join!(asked, stopped);

        tokio::time::timeout(PATIENCE, served.ended).await.expect("it ends").unwrap();
        drop(idle);
    }
}
