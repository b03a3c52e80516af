//! The doors of the HTTP listeners: how many may come in, how long they may take, and when they go.
//!
//! A connection is a stranger's until a request on it shows who sends it. Strangers have places of their own, and the
//! one that has stayed longest goes when another comes and there is none left: whoever has a token always gets in,
//! however many only stand in the door.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Most bytes of a connection that are read ahead: the longest head of a request.
const READ_AHEAD: usize = 32 << 10;

/// Most connections that wait to be accepted. The default of 128 is full after a burst, and whoever comes then tries
/// again a second later.
const BACKLOG: u32 = 1024;

/// What a listener takes of its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a client may take for the head of a request, and how long a connection may be idle.
    pub(crate) head: Duration,
    /// Most connections of strangers at once.
    pub(crate) strangers: usize,
    /// How long each of them may stay while others wait for its place.
    pub(crate) patience: Duration,
    /// Most connections of clients that showed who they are; the next ones stay strangers.
    pub(crate) known: usize,
}

impl Limits {
    /// The limits of the REST API.
    pub(crate) const USUAL: Limits = Limits {
        head: Duration::from_secs(60),
        strangers: 512,
        patience: Duration::from_millis(250),
        known: 1000,
    };
    /// Those of the gateway of an app, of which there can be many.
    pub(crate) const GATEWAY: Limits = Limits { strangers: 128, ..Limits::USUAL };
}

/// The places at one door.
struct Places {
    limits: Limits,
    /// Those of strangers, the oldest first, each with what tells it to go.
    strangers: Mutex<BTreeMap<u64, (Instant, Arc<Notify>)>>,
    /// Told when a stranger has gone.
    freed: Notify,
    known: Arc<Semaphore>,
}

/// The place of one connection, for as long as anything of the connection is left.
#[derive(Clone)]
pub(crate) struct Place(Arc<Seat>);

struct Seat {
    places: Arc<Places>,
    number: u64,
    known: OnceLock<OwnedSemaphorePermit>,
}

impl Places {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Places {
            limits,
            strangers: Mutex::default(),
            freed: Notify::new(),
            known: Arc::new(Semaphore::new(limits.known)),
        })
    }

    /// Waits until there is a place for a stranger, and tells the oldest one to go if it has stayed long enough.
    async fn wait_for_room(&self) {
        while let Err(wait) = self.make_room() {
            // Either a place is free then, or the oldest has stayed long enough.
            let _ = tokio::time::timeout(wait, self.freed.notified()).await;
        }
    }

    /// Makes room for a stranger, or returns how long it takes until the oldest one may be told to go.
    fn make_room(&self) -> Result<(), Duration> {
        let mut strangers = self.lock();
        if strangers.len() < self.limits.strangers {
            return Ok(());
        }
        let Some(oldest) = strangers.first_entry() else { return Ok(()) };
        let (since, cut) = oldest.get();
        match self.limits.patience.checked_sub(since.elapsed()) {
            Some(left) if !left.is_zero() => Err(left),
            _ => {
                cut.notify_one();
                oldest.remove();
                Ok(())
            }
        }
    }

    /// Gives a stranger the place `number`; what comes back is told when it has to go.
    fn seat(self: &Arc<Self>, number: u64) -> (Place, Arc<Notify>) {
        let cut = Arc::new(Notify::new());
        self.lock().insert(number, (Instant::now(), Arc::clone(&cut)));
        let seat = Seat { places: Arc::clone(self), number, known: OnceLock::new() };
        (Place(Arc::new(seat)), cut)
    }

    fn leave(&self, number: u64) {
        if self.lock().remove(&number).is_some() {
            self.freed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, Arc<Notify>)>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns the place of the connection that a request came on; nothing for one that did not come through a door.
    pub(crate) fn of(request: &Request) -> Option<Place> {
        request.extensions().get::<Place>().cloned()
    }

    /// Keeps the place, because whoever has it has shown who that is. Where all such places are taken it stays a
    /// stranger's: what is asked is answered all the same.
    pub(crate) fn keep(&self) {
        let Seat { places, number, known } = &*self.0;
        if known.get().is_none()
            && let Ok(permit) = Arc::clone(&places.known).try_acquire_owned()
            && known.set(permit).is_ok()
        {
            places.leave(*number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.leave(self.number);
    }
}

/// Listens on `port` of loopback, on any free one for 0.
pub(crate) fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // As `TcpListener::bind` does: connections of a server that ended do not hold its port.
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

/// Serves `router` on `listener` until `stop` becomes true or its sender is gone; requests under way are
/// answered first. Dropped, it ends with its connections.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::from_fn(refuse_ambiguous));
    let places = Places::new(limits);
    let mut connections = JoinSet::new();
    let accept_all = async {
        for number in 0.. {
            let stream = accept(&listener).await;
            places.wait_for_room().await;
            let (place, cut) = places.seat(number);
            let answered = answer(stream, router.clone(), place, limits.head, stop.clone());
            connections.spawn(async move {
                tokio::select! {
                    // A client that breaks off needs no answer.
                    _ = answered => {}
                    () = cut.notified() => {}
                }
            });
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

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of file descriptors, most likely: some will be free again.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Answers the requests of one connection.
async fn answer(
    stream: TcpStream,
    router: Router,
    place: Place,
    head_limit: Duration,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    // Without it answers are slower, and nothing else.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: axum::http::Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .max_buf_size(READ_AHEAD)
        .serve_connection(TokioIo::new(stream), service)
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

    async fn served(router: Router, limits: Limits) -> Served {
        let listener = listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let ended = tokio::spawn(serve(listener, router, limits, stopped));
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
        let head = Duration::from_millis(300);
        let served = served(router, Limits { head, ..Limits::USUAL }).await;

        for said in ["", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            assert!(!served.answer(said).await.contains("here"), "{said:?}");
        }
        let answer = served.answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("here"), "idle connections end as well: {answer}");
    }

    #[tokio::test]
    async fn a_request_with_two_hosts_is_refused() {
        let served = served(Router::new().route("/", get(async || "here")), Limits::USUAL).await;

        let answer = served
            .answer("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n")
            .await;

        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn a_tunnel_is_refused() {
        let served = served(Router::new().fallback(async || "here"), Limits::USUAL).await;

        let answer = served
            .answer("CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test:443\r\n\r\n");

        let answer = answer.await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    /// Few places, so that few clients fill them.
    const NARROW: Limits = Limits {
        head: Duration::from_secs(600),
        strangers: 4,
        patience: Duration::from_millis(20),
        known: 2,
    };
    const ASK: &[u8] = b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Answers `/known` to whoever is taken for known from then on, and `/body` once a body has come.
    fn known() -> Router {
        let keep = async |request: Request| {
            Place::of(&request).expect("it came through a door").keep();
            "here"
        };
        Router::new()
            .route("/known", get(keep))
            .route("/body", axum::routing::post(async |_: bytes::Bytes| "read"))
    }

    /// Makes `count` clients that say something unfinished and wait.
    async fn stall(served: &Served, count: usize) -> Vec<TcpStream> {
        let unfinished = [
            "",
            "GET / HTTP/1.1\r\nHost: x\r\n",
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nhalf",
        ];
        let mut stalled = Vec::new();
        for said in unfinished.iter().cycle().take(count) {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            stalled.push(stream);
        }
        stalled
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(ASK).await.unwrap();
        let mut answer = Vec::new();
        let mut bytes = [0; 1024];
        while !answer.ends_with(b"here") {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap();
            match read {
                Ok(count @ 1..) => answer.extend_from_slice(&bytes[..count]),
                _ => break,
            }
        }
        String::from_utf8(answer).unwrap()
    }

    /// Waits until the server has closed a connection.
    async fn closed(stream: &mut TcpStream) {
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert!(matches!(ended.expect("it is closed"), Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn strangers_that_only_stand_in_the_door_give_way() {
        let served = served(known(), NARROW).await;
        let mut stalled = stall(&served, 40).await;

        let mut newcomer = TcpStream::connect(served.address).await.unwrap();
        let answer = ask(&mut newcomer).await;

        assert!(answer.ends_with("here"), "{answer}");
        // The newcomer was the last of 41 for four places; whoever came first went first.
        for stream in &mut stalled[..37] {
            closed(stream).await;
        }
    }

    #[tokio::test]
    async fn whoever_is_known_stays_whatever_strangers_do() {
        let served = served(known(), NARROW).await;
        let mut friends = Vec::new();
        for _ in 0..NARROW.known {
            let mut friend = TcpStream::connect(served.address).await.unwrap();
            assert!(ask(&mut friend).await.ends_with("here"));
            friends.push(friend);
        }
        // All places of the known are taken: the next one is answered, and is a stranger still.
        let mut third = TcpStream::connect(served.address).await.unwrap();
        assert!(ask(&mut third).await.ends_with("here"));
        let _stalled = stall(&served, 40).await;

        closed(&mut third).await;
        for friend in &mut friends {
            assert!(ask(friend).await.ends_with("here"));
        }
    }

    #[test]
    fn a_stranger_stays_while_nobody_waits_and_for_a_while_when_somebody_does() {
        let places = Places::new(Limits { patience: PATIENCE, ..NARROW });
        let seats: Vec<_> = (0..4).map(|number| places.seat(number)).collect();
        assert!(places.make_room().is_err_and(|left| left <= PATIENCE));
        assert_eq!(places.lock().len(), 4);
        seats[0].0.keep();
        seats[0].0.keep();
        assert_eq!((places.lock().len(), places.known.available_permits()), (3, 1));
        drop(seats);
        assert_eq!((places.lock().len(), places.known.available_permits()), (0, 2));
        places.make_room().unwrap();
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
        let served = served(Router::new().route("/", get(slow)), Limits::USUAL).await;
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
