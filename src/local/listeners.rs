//! The endpoints' sockets: an address each, and who may come in.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::fault::Fault;
use super::sql::{self, Gate, Method, Password, Proof, Refusal, Verifier};
use super::tokens::Refused;
use super::workspace::Workspace;
use super::world::{Address, BranchRecord, Challenge, EndpointRecord};
use crate::error::{Doing, Error, Result};
use crate::secret::Secret;
use crate::wire::names::EndpointName;
use crate::wire::postgres::EndpointType;
use crate::wire::roles::AuthMethod;

/// Port every unmodified client expects.
const POSTGRES_PORT: u16 = 5432;
/// Addresses that are tried before an endpoint gets a port of its own instead.
const TRIES: u32 = 512;

/// The open sockets of endpoints, which are known by their uids.
pub(crate) struct Listeners {
    /// Second and third number of the first address.
    network: u16,
    next: AtomicU32,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_uid: HashMap<String, Listener>,
    /// Uids of the open endpoints.
    names: HashMap<EndpointName, String>,
}

struct Listener {
    endpoint: EndpointName,
    /// Uid of the branch.
    branch: String,
    stop: watch::Sender<bool>,
    connections: usize,
    last_use: Timestamp,
    /// The same by a clock that nobody sets.
    idle_since: Instant,
}

impl Listener {
    fn note_use(&mut self) {
        (self.last_use, self.idle_since) = (Workspace::now(), Instant::now());
    }
}

impl Listeners {
    /// Creates an empty set whose addresses begin at `127.<network>.1`.
    pub(crate) fn new(network: u16) -> Self {
        Listeners { network, next: AtomicU32::new(0), open: Mutex::default() }
    }

    /// Returns how many sessions are open on an endpoint.
    pub(crate) fn connections(&self, uid: &str) -> usize {
        self.lock().by_uid.get(uid).map_or(0, |listener| listener.connections)
    }

    /// Returns how many sessions are open on all endpoints of a branch.
    pub(crate) fn branch_connections(&self, uid: &str) -> usize {
        let open = self.lock();
        let of_branch = open.by_uid.values().filter(|listener| listener.branch == uid);
        of_branch.map(|listener| listener.connections).sum()
    }

    /// Returns when an endpoint was last connected to, since this server began.
    pub(crate) fn last_use(&self, uid: &str) -> Option<Timestamp> {
        self.lock().by_uid.get(uid).map(|listener| listener.last_use)
    }

    /// Returns how long an open endpoint has been without a session.
    pub(crate) fn idle_time(&self, uid: &str) -> Option<Duration> {
        let open = self.lock();
        let listener = open.by_uid.get(uid).filter(|listener| listener.connections == 0)?;
        Some(listener.idle_since.elapsed())
    }

    /// Closes the socket of an endpoint and its sessions.
    pub(crate) fn close(&self, uid: &str) {
        self.close_those(|open, _| open == uid);
    }

    /// Closes the sockets of a branch's endpoints and their sessions.
    pub(crate) fn close_branch(&self, uid: &str) {
        self.close_those(|_, listener| listener.branch == uid);
    }

    fn close_those(&self, chosen: impl Fn(&str, &Listener) -> bool) {
        let mut open = self.lock();
        let Open { by_uid, names } = &mut *open;
        for (_, listener) in by_uid.extract_if(|uid, listener| chosen(uid, listener)) {
            names.remove(&listener.endpoint);
            listener.stop.send_replace(true);
        }
    }

    /// Closes all sockets and sessions.
    pub(crate) fn close_all(&self) {
        let open = std::mem::take(&mut *self.lock());
        for listener in open.by_uid.into_values() {
            listener.stop.send_replace(true);
        }
    }

    fn insert(&self, uid: &str, listener: Listener) {
        let mut open = self.lock();
        open.names.insert(listener.endpoint.clone(), uid.to_owned());
        open.by_uid.insert(uid.to_owned(), listener);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a session's begin or end.
    fn count(&self, endpoint: &EndpointName, change: impl FnOnce(usize) -> usize) {
        let mut open = self.lock();
        let Open { by_uid, names } = &mut *open;
        if let Some(listener) = names.get(endpoint).and_then(|uid| by_uid.get_mut(uid)) {
            listener.connections = change(listener.connections);
            listener.note_use();
        }
    }

    fn touch(&self, uid: &str) {
        if let Some(listener) = self.lock().by_uid.get_mut(uid) {
            listener.note_use();
        }
    }

    /// Binds the address an endpoint had, or a new one.
    async fn bind(&self, known: Option<Address>) -> Result<(TcpListener, Address)> {
        if let Some(Address { ip, port }) = known
            && let Ok(listener) = TcpListener::bind((ip, port)).await
        {
            return Ok((listener, Address { ip, port }));
        }
        // Only Linux answers on every 127.x.y.z without set-up.
        let tries = if cfg!(target_os = "linux") { TRIES } else { 0 };
        for _ in 0..tries {
            let ip = self.candidate(self.next.fetch_add(1, Ordering::Relaxed));
            if let Ok(listener) = TcpListener::bind((ip, POSTGRES_PORT)).await {
                return Ok((listener, Address { ip, port: POSTGRES_PORT }));
            }
        }
        let ip = Ipv4Addr::LOCALHOST;
        let listener = TcpListener::bind((ip, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok((listener, Address { ip, port }))
    }

    /// Returns the `number`th address: 254 in each network of three numbers.
    fn candidate(&self, number: u32) -> Ipv4Addr {
        let network = self.network.wrapping_add((number / 254) as u16);
        let [second, third] = network.to_be_bytes();
        // 127.0.… is where systems keep addresses of their own.
        Ipv4Addr::new(127, second.max(1), third, (number % 254) as u8 + 1)
    }
}

impl Workspace {
    /// Opens the sockets of a branch's endpoints and writes their addresses down.
    pub(crate) async fn open_endpoints(self: &Arc<Self>, uid: &str) -> Result<()> {
        let Some(branch) = self.read(|world| world.branch_by_uid(uid).cloned()) else {
            return Ok(());
        };
        // One that is still being made is opened when it is there.
        for endpoint in branch.endpoints.iter().filter(|endpoint| endpoint.operation.is_none()) {
            self.open_endpoint(&branch, endpoint).await?;
        }
        Ok(())
    }

    /// Opens the socket of one endpoint and writes its address down.
    pub(crate) async fn open_endpoint(
        self: &Arc<Self>,
        branch: &BranchRecord,
        endpoint: &EndpointRecord,
    ) -> Result<()> {
        let name = branch.name().endpoint(&endpoint.id);
        self.postgres.resize(endpoint.compute(branch), endpoint.size()).await?;
        let address = self
            .listen(&branch.uid, &name, endpoint)
            .await
            .doing(|| format!("could not open endpoint `{name}`"))?;
        if endpoint.address != Some(address) {
            self.note(|world| {
                world.with_branch(&branch.uid, |branch| {
                    let mut all = branch.endpoints.iter_mut();
                    if let Some(found) = all.find(|found| found.uid == endpoint.uid) {
                        found.address = Some(address);
                    }
                });
            })
            .await;
        }
        Ok(())
    }

    async fn listen(
        self: &Arc<Self>,
        branch: &str,
        name: &EndpointName,
        endpoint: &EndpointRecord,
    ) -> Result<Address> {
        self.listeners.close(&endpoint.uid);
        let (socket, address) = self.listeners.bind(endpoint.address).await?;
        let tls =
            self.authority.server_config(&[address.ip.to_string(), "localhost".to_owned()])?;
        let (stop, stopped) = watch::channel(false);
        let listener = Listener {
            endpoint: name.clone(),
            branch: branch.to_owned(),
            stop,
            connections: 0,
            last_use: Workspace::now(),
            idle_since: Instant::now(),
        };
        self.listeners.insert(&endpoint.uid, listener);
        let gate = Arc::clone(self);
        tokio::spawn(sql::serve(socket, name.clone(), tls, gate, sql::LOGIN_LIMIT, stopped));
        Ok(address)
    }

    /// Returns what is behind an endpoint that takes this login, or why it does not.
    async fn check_login(
        &self,
        name: &EndpointName,
        user: &str,
        proof: &Proof,
    ) -> Result<Door, Refusal> {
        let door = self.door(name)?;
        if let Proof::Token(token) = proof {
            self.check_token(name, &door, user, token).await?;
        }
        if door.disabled {
            return Err(refusal("57P03", "endpoint is disabled"));
        }
        Ok(door)
    }

    fn door(&self, name: &EndpointName) -> Result<Door, Refusal> {
        let found = self.read(|world| {
            let (branch, endpoint) = world.endpoint(name)?;
            Ok::<_, Fault>(Door {
                uid: branch.uid.clone(),
                endpoint_uid: endpoint.uid.clone(),
                kind: endpoint.kind,
                disabled: endpoint.disabled,
                passwords: world.project(&name.project)?.enable_pg_native_login,
            })
        });
        found.map_err(|_| refusal("08001", "endpoint does not exist"))
    }

    /// Refuses a token that is not good for a login as `user`. The compute is only started for one that was
    /// issued to somebody for this endpoint.
    async fn check_token(
        &self,
        name: &EndpointName,
        door: &Door,
        user: &str,
        token: &Secret<String>,
    ) -> Result<(), Refusal> {
        let now = self.token_time();
        let holder = match self.keys.check_credential(token.expose(), &door.endpoint_uid, now) {
            Ok(holder) => holder,
            // Passwords of roles come here only where they are not taken.
            Err(Refused::NotJwt) if !door.passwords && self.wants_password(&door.uid, user) => {
                return Err(refusal("28P01", NO_PASSWORDS));
            }
            Err(refused) => return Err(refusal("28P01", explain(refused))),
        };
        if self.read(|world| world.identity(&holder).is_none()) {
            return Err(refusal("28P01", GONE));
        }
        self.get_to_know(name, &door.uid, user).await;
        let stands_for = || self.read(|world| world.stands_for(&door.uid, user, &holder));
        if holder != user && !stands_for() {
            return Err(refusal("28P01", explain(Refused::Elsewhere)));
        }
        let method = self.read(|world| world.login_method(&door.uid, user));
        match method {
            Some(AuthMethod::Password) => Err(refusal("28P01", NO_PASSWORDS)),
            _ => Ok(()),
        }
    }

    /// Says whether a login as `user` is asked for a password.
    fn wants_password(&self, uid: &str, user: &str) -> bool {
        let challenge = self.read(|world| world.challenge(uid, user, Workspace::now()));
        matches!(challenge, Challenge::Password(_))
    }

    /// Refuses a password that was the role's when its compute went to sleep, and is no more.
    async fn check_again(&self, door: &Door, user: &str, shown: &Password) -> Result<(), Refusal> {
        let looked = self.look_at_catalog(&door.uid).await;
        let known = looked.map_err(|error| unavailable(&door.uid, &error))?;
        match self.read(|world| world.challenge(&door.uid, user, Workspace::now())) {
            Challenge::Password(Some(text))
                if known && Verifier::parse(text.expose()).as_ref() == Some(&shown.verifier) =>
            {
                Ok(())
            }
            _ => Err(refusal(
                "28P01",
                &format!("password authentication failed for user \"{user}\""),
            )),
        }
    }

    /// Asks the cluster about a role that nobody has told of: it may have been made with SQL.
    async fn get_to_know(&self, name: &EndpointName, uid: &str, user: &str) {
        if self.read(|world| world.login_method(uid, user)).is_none()
            && let Err(fault) = self.refresh_catalog(&name.parent()).await
        {
            tracing::warn!("{name}: {}", fault.failure.message);
        }
    }
}

/// What a login comes to.
struct Door {
    /// Uid of the branch.
    uid: String,
    endpoint_uid: String,
    kind: EndpointType,
    disabled: bool,
    /// Whether roles may log in with passwords of their own.
    passwords: bool,
}

impl Gate for Workspace {
    async fn method(&self, endpoint: &EndpointName, user: &str) -> Result<Method, Refusal> {
        let door = self.door(endpoint)?;
        let known = self.read(|world| world.login_method(&door.uid, user));
        if !door.passwords || door.disabled || known == Some(AuthMethod::Oauth) {
            return Ok(Method::Token);
        }
        let looked = self.look_at_catalog(&door.uid).await;
        let noted = !looked.map_err(|error| unavailable(&door.uid, &error))?;
        Ok(match self.read(|world| world.challenge(&door.uid, user, Workspace::now())) {
            Challenge::Token => Method::Token,
            Challenge::Password(text) => {
                let verifier = text.and_then(|text| Verifier::parse(text.expose()));
                let mock = || Verifier::of_nothing(self.keys.mock_salt(&door.uid, user));
                Method::Password(Password { verifier: verifier.unwrap_or_else(mock), noted })
            }
        })
    }

    async fn admit(
        &self,
        endpoint: &EndpointName,
        user: &str,
        _database: &str,
        proof: Proof,
    ) -> Result<PathBuf, Refusal> {
        let door = self.check_login(endpoint, user, &proof).await?;
        self.listeners.touch(&door.endpoint_uid);
        let woken = match door.kind {
            EndpointType::ReadWrite => self.postgres.wake(&door.uid).await,
            EndpointType::ReadOnly => {
                self.postgres.wake_standby(&door.uid, &door.endpoint_uid).await
            }
        };
        let socket = woken.map_err(|error| unavailable(&door.uid, &error))?;
        if let Proof::Password(shown) = &proof
            && shown.noted
        {
            self.check_again(&door, user, shown).await?;
        }
        self.note_states(&door.uid).await;
        Ok(socket)
    }

    fn opened(&self, endpoint: &EndpointName) {
        self.listeners.count(endpoint, |count| count + 1);
    }

    fn closed(&self, endpoint: &EndpointName) {
        self.listeners.count(endpoint, |count| count.saturating_sub(1));
    }
}

/// What a role with a password hears where passwords are switched off.
///
/// Source: answers of the live service reported by its users, read 2026-08.
const NO_PASSWORDS: &str = "native postgres login is disabled for this endpoint";

/// What a login hears whose identity was deleted since its token was issued.
const GONE: &str = "External authorization failed: the identity of the token is gone";

fn unavailable(uid: &str, error: &Error) -> Refusal {
    tracing::warn!("`{uid}`: {error}");
    refusal("57P03", "the compute could not be started")
}

fn refusal(sqlstate: &'static str, message: &str) -> Refusal {
    Refusal { sqlstate, message: message.to_owned() }
}

/// Says why a password is refused, beginning with the platform's own words.
///
/// Source: answers of the live service reported by its users, read 2026-08.
const fn explain(refused: Refused) -> &'static str {
    match refused {
        Refused::NotJwt => "Provided authentication token is not a valid JWT encoding",
        Refused::Foreign => {
            "External authorization failed: the token was not signed by this workspace"
        }
        Refused::Expired => "External authorization failed: the token has expired",
        Refused::Early => "External authorization failed: the token is not valid yet",
        Refused::Elsewhere => {
            "OAuth: User is not authorized: the token is for another endpoint or identity"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_do_not_repeat_and_stay_clear_of_the_systems_own() {
        let listeners = Listeners::new(0x00ff);
        let all: Vec<Ipv4Addr> = (0..600).map(|number| listeners.candidate(number)).collect();

        assert_eq!(all[0], Ipv4Addr::new(127, 1, 255, 1));
        assert_eq!(all[253], Ipv4Addr::new(127, 1, 255, 254));
        assert!(all.iter().all(|ip| ip.octets()[1] != 0 && ip.octets()[3] != 0));
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_passed_over() {
        let listeners = Listeners::new(0x7b2d);
        let (first, address) = listeners.bind(None).await.unwrap();

        let (_second, other) = listeners.bind(Some(address)).await.unwrap();

        assert_ne!(address, other);
        drop(first);
    }
}
