//! The TLS listener in front of an endpoint's compute: takes the login, then passes bytes through.

mod lanes;
mod packets;
mod scram;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) use self::scram::Verifier;

use self::packets::{First, Greeting, Start};
use crate::secret::Secret;
use crate::wire::names::EndpointName;

/// How long a client may take for its login, as in Postgres itself.
pub(crate) const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// How long a client may take to ask when it will be refused anyhow.
const BRIEF: Duration = Duration::from_secs(1);
/// How long a compute may take for each step of a login.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// How long the end of an answer may take to reach the client once the server is gone.
const FAREWELL: Duration = Duration::from_secs(5);
/// Most connections at once, those that are not logged in yet included: a few more than the largest
/// compute allows, so that it is Postgres who refuses.
const MOST_CONNECTIONS: usize = 4096;
/// Most logins under way at once; the next ones are refused, so that half-open ones never take every place.
/// Fewer in unit tests, where each is two open files of one process.
const MOST_LOGINS: usize = if cfg!(test) { 50 } else { 2048 };
/// Bytes read at once in each direction.
const BUFFER_BYTES: usize = 32 << 10;
/// Most bytes a server may say before it is ready for queries.
const GREETING_BYTES: usize = 1 << 20;
/// First byte of a TLS connection without Postgres' own request for it.
const TLS_RECORD: u8 = 0x16;

/// Why a login is refused, in Postgres' own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Class of the error, such as `28P01`.
    pub(crate) sqlstate: &'static str,
    /// Sentence the client shows.
    pub(crate) message: String,
}

/// What a login has to show.
#[derive(Clone)]
pub(crate) enum Method {
    /// A token, as its password in clear.
    Token,
    /// That it knows the password of this verifier.
    Password(Password),
}

/// A password that a role has.
#[derive(Clone)]
pub(crate) struct Password {
    /// What it is checked with.
    pub(crate) verifier: Verifier,
    /// Whether the role had it when last seen, and may have another by now.
    pub(crate) noted: bool,
}

/// What a login has shown.
#[derive(Clone)]
pub(crate) enum Proof {
    /// This password, which is to be a token.
    Token(Secret<String>),
    /// That it knows this password.
    Password(Password),
}

/// Decides about logins and counts sessions.
pub(crate) trait Gate: Send + Sync + 'static {
    /// Says what `user` has to show.
    fn method(
        &self,
        endpoint: &EndpointName,
        user: &str,
    ) -> impl Future<Output = Result<Method, Refusal>> + Send;

    /// Decides about a login; the answer is the socket of the compute, which runs.
    fn admit(
        &self,
        endpoint: &EndpointName,
        user: &str,
        database: &str,
        proof: Proof,
    ) -> impl Future<Output = Result<PathBuf, Refusal>> + Send;

    /// Notes that a session of `endpoint` was admitted.
    fn opened(&self, endpoint: &EndpointName);

    /// Notes that such a session has ended.
    fn closed(&self, endpoint: &EndpointName);
}

/// What all connections of a listener share.
struct Listener<G: Gate> {
    endpoint: EndpointName,
    tls: TlsAcceptor,
    gate: Arc<G>,
    /// Where the gate's work is done: starting a compute must not keep the sessions of a lane waiting.
    home: Handle,
    /// Sockets of the computes by the key of each session, for requests to cancel.
    keys: Mutex<HashMap<Vec<u8>, PathBuf>>,
}

/// Serves `endpoint` on `listener` until `stop` becomes true or its sender is gone, which ends all sessions.
pub(crate) async fn serve<G: Gate>(
    listener: TcpListener,
    endpoint: EndpointName,
    tls: Arc<ServerConfig>,
    gate: Arc<G>,
    login_limit: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let (tls, keys) = (tls.into(), Mutex::default());
    let shared = Arc::new(Listener { endpoint, tls, gate, home: Handle::current(), keys });
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let logins = Arc::new(Semaphore::new(MOST_LOGINS));
    let mut connections = JoinSet::new();
    let accept_all = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    let login = Login::begin(&logins, login_limit);
                    // It wakes with the reactor of its lane, no more with this one's.
                    let Ok(stream) = stream.into_std() else { continue };
                    let session = async move {
                        // A client that breaks off needs no answer.
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            let _ = shared.handle(stream, login).await;
                        }
                        drop(place);
                    };
                    connections.spawn_on(session, lanes::next());
                }
                // Out of file descriptors, most likely: some will be free again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accept_all => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connections.shutdown().await;
}

/// A login under way: its place among the others, and the time its client has left.
struct Login {
    left: Duration,
    _place: OwnedSemaphorePermit,
}

impl Login {
    /// Takes a place; none when all are taken.
    fn begin(places: &Arc<Semaphore>, limit: Duration) -> Option<Self> {
        let _place = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Login { left: limit, _place })
    }

    /// Waits for the client, which has a limited time for all it has to do; what we do meanwhile does
    /// not count.
    async fn wait<T>(&mut self, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let begun = Instant::now();
        let done = limited(self.left, step).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        done
    }
}

impl<G: Gate> Listener<G> {
    /// Handles one connection from its first byte to its end.
    async fn handle(&self, mut stream: TcpStream, login: Option<Login>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(mut login) = login else {
            // An answer to a question that was not read would be lost with the connection.
            let _ = limited(BRIEF, packets::read_first(&mut stream)).await;
            return refuse(&mut stream, "53300", "sorry, too many logins are under way").await;
        };
        let mut first_byte = [0];
        if login.wait(stream.peek(&mut first_byte)).await? == 0 {
            return Ok(());
        }
        if first_byte[0] == TLS_RECORD {
            let client = login.wait(self.tls.accept(stream)).await?;
            return match client.get_ref().1.alpn_protocol() {
                Some(_) => self.handle_encrypted(client, login).await,
                // Without the protocol's name it was not meant for Postgres.
                None => Ok(()),
            };
        }
        let mut first = login.wait(packets::read_first(&mut stream)).await?;
        if matches!(first, Some(First::Gss)) {
            stream.write_all(b"N").await?;
            first = login.wait(packets::read_first(&mut stream)).await?;
        }
        match first {
            // Whoever asks for Kerberos again does not listen.
            None | Some(First::Gss) => Ok(()),
            Some(First::Cancel { key }) => self.cancel(&key).await,
            Some(First::Tls) => {
                stream.write_all(b"S").await?;
                let client = login.wait(self.tls.accept(stream)).await?;
                self.handle_encrypted(client, login).await
            }
            Some(First::Start(_)) => {
                refuse(&mut stream, "28000", "SSL connection is required").await
            }
        }
    }

    async fn handle_encrypted(
        &self,
        mut client: TlsStream<TcpStream>,
        mut login: Login,
    ) -> io::Result<()> {
        match login.wait(packets::read_first(&mut client)).await? {
            Some(First::Start(packet)) => match packets::parse_start(&packet) {
                Ok(start) => self.log_in(client, login, &start, &packet).await,
                Err((sqlstate, message)) => refuse(&mut client, sqlstate, &message).await,
            },
            Some(First::Cancel { key }) => self.cancel(&key).await,
            Some(First::Tls | First::Gss) | None => Ok(()),
        }
    }

    /// Asks for the password, lets the gate decide, and becomes the session.
    async fn log_in(
        &self,
        mut client: TlsStream<TcpStream>,
        mut login: Login,
        start: &Start,
        packet: &[u8],
    ) -> io::Result<()> {
        let proof = match self.prove(&mut client, &mut login, &start.user).await? {
            Ok(Some(proof)) => proof,
            Ok(None) => return Ok(()),
            Err(Refusal { sqlstate, message }) => {
                return refuse(&mut client, sqlstate, &message).await;
            }
        };
        let (socket, server) = match self.reach(start, proof).await {
            Ok(reached) => reached,
            Err(Refusal { sqlstate, message }) => {
                return refuse(&mut client, sqlstate, &message).await;
            }
        };
        drop(login);
        self.gate.opened(&self.endpoint);
        let mut session = Session { listener: self, key: None };
        session.run(client, server, &socket, packet).await
    }

    /// Lets the client show what the gate wants of `user`; nothing when the client goes away.
    async fn prove(
        &self,
        client: &mut TlsStream<TcpStream>,
        login: &mut Login,
        user: &str,
    ) -> io::Result<Result<Option<Proof>, Refusal>> {
        let method = {
            let (gate, endpoint, user) =
                (self.gate.clone(), self.endpoint.clone(), user.to_owned());
            self.at_home(async move { gate.method(&endpoint, &user).await }).await
        };
        let shown = match method {
            Ok(Method::Token) => login
                .wait(packets::ask_password(client))
                .await?
                .map(|password| password.map(Proof::Token)),
            Ok(Method::Password(password)) => {
                let checked = packets::check_password(client, user, password.verifier.clone());
                login.wait(checked).await?.map(|right| right.then_some(Proof::Password(password)))
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(shown.map_err(|(sqlstate, message)| Refusal { sqlstate, message }))
    }

    /// Asks the gate and connects to the compute it names; asks again when that has just gone to sleep.
    async fn reach(&self, start: &Start, proof: Proof) -> Result<(PathBuf, UnixStream), Refusal> {
        let Start { user, database } = start;
        for _ in 0..2 {
            let (gate, endpoint) = (self.gate.clone(), self.endpoint.clone());
            let (user, database, proof) = (user.clone(), database.clone(), proof.clone());
            let admitted =
                self.at_home(async move { gate.admit(&endpoint, &user, &database, proof).await });
            let socket = admitted.await?;
            if let Ok(server) = UnixStream::connect(&socket).await {
                return Ok((socket, server));
            }
        }
        Err(unavailable())
    }

    /// Asks the gate where its work is done.
    async fn at_home<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.home.spawn(question).await.unwrap_or_else(|broken| {
            tracing::error!("{}: a login broke off: {broken}", self.endpoint);
            Err(unavailable())
        })
    }

    /// Passes a request to cancel to the compute that gave out `key`; foreign keys are ignored.
    async fn cancel(&self, key: &[u8]) -> io::Result<()> {
        let Some(socket) = self.keys().get(key).cloned() else { return Ok(()) };
        let mut server = UnixStream::connect(socket).await?;
        server.write_all(&packets::cancel(key)).await?;
        // The server closes when it has sent the signal; clients wait for the same.
        limited(STEP_LIMIT, server.read(&mut [0])).await.map(drop)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Vec<u8>, PathBuf>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An admitted session; its end is noted however it comes.
struct Session<'a, G: Gate> {
    listener: &'a Listener<G>,
    key: Option<Vec<u8>>,
}

impl<G: Gate> Drop for Session<'_, G> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.listener.keys().remove(key);
        }
        self.listener.gate.closed(&self.listener.endpoint);
    }
}

impl<G: Gate> Session<'_, G> {
    async fn run(
        &mut self,
        mut client: TlsStream<TcpStream>,
        mut server: UnixStream,
        socket: &Path,
        packet: &[u8],
    ) -> io::Result<()> {
        server.write_all(packet).await?;
        let mut greeting = Greeting::default();
        let mut said = 0;
        let mut buffer = vec![0; 4096];
        while !greeting.ready {
            let count = limited(STEP_LIMIT, server.read(&mut buffer)).await?;
            if count == 0 || said > GREETING_BYTES {
                // It has said why, and the client has it.
                return client.shutdown().await;
            }
            said += count;
            greeting.take(&buffer[..count]);
            if self.key.is_none()
                && let Some(key) = greeting.key.take()
            {
                self.listener.keys().insert(key.clone(), socket.to_owned());
                self.key = Some(key);
            }
            client.write_all(&buffer[..count]).await?;
            client.flush().await?;
        }
        drop(buffer);
        splice(client, server).await
    }
}

/// Passes bytes both ways until the server is done, or the client is and the server has taken note.
async fn splice(mut client: TlsStream<TcpStream>, server: UnixStream) -> io::Result<()> {
    let ended = Notify::new();
    let mut server = Watched { stream: server, ended: &ended };
    let both = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut server,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    tokio::select! {
        done = both => done.map(drop),
        () = async {
            ended.notified().await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
    }
}

/// A server's stream that tells when the server has closed it: a client that does not notice must not
/// keep the connection for ever.
struct Watched<'a> {
    stream: UnixStream,
    ended: &'a Notify,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() && buffer.filled().len() == before {
            self.ended.notify_one();
        }
        polled
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn unavailable() -> Refusal {
    Refusal { sqlstate: "57P03", message: "the compute is not available".to_owned() }
}

/// Tells the client why it is refused, and closes.
async fn refuse(
    client: &mut (impl AsyncWrite + Unpin),
    sqlstate: &str,
    message: &str,
) -> io::Result<()> {
    client.write_all(&packets::fatal(sqlstate, message)).await?;
    client.shutdown().await
}

/// Gives up on a step of the login that takes too long.
async fn limited<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, step).await.unwrap_or_else(|late| Err(late.into()))
}
