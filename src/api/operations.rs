//! Long-running changes: started, then waited for.

use std::marker::PhantomData;
use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::client::Client;
use super::error::{Error, Result};
use super::request::Request;
use crate::wire::postgres::Operation;

/// First pause between two looks at something that takes time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A change that was accepted and gives a `T` when it is finished.
#[derive(Debug, Clone)]
pub(crate) struct Pending<T> {
    operation: Operation,
    result: PhantomData<fn() -> T>,
}

impl<T> Pending<T> {
    /// Names what a started operation gives.
    pub(super) fn new(operation: Operation) -> Self {
        Pending { operation, result: PhantomData }
    }
}

/// The pauses of a wait: from 250 ms, half as long again each time, up to 5 s, until a limit.
#[derive(Debug)]
pub(crate) struct Poll {
    pause: Duration,
    end: Instant,
}

impl Poll {
    /// Starts a wait that lasts no longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        let far = Duration::from_secs(365 * 86_400);
        Poll { pause: FIRST_PAUSE, end: now + limit.min(far) }
    }

    /// Returns how much of the wait is left.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Pauses before the next look.
    ///
    /// Returns whether there is time for it; the last look comes at the limit itself.
    pub(crate) async fn pause(&mut self) -> bool {
        let left = self.left();
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        true
    }
}

impl Client {
    /// Starts the deletion `request`, each time it is sent after `look` found what is meant under its name.
    ///
    /// A deletion whose answer was lost may have taken place, and one that was turned away is sent
    /// again later: the name can be somebody else's by then.
    pub(super) async fn delete_checked<F: Future<Output = Result<()>>>(
        &self,
        request: Request,
        look: impl Fn() -> F,
    ) -> Result<Pending<Deleted>> {
        let checked = || async {
            look().await?;
            self.attempt(&request).await
        };
        let answer = self.repeated(&request, checked).await?;
        self.read(&request.title(), &answer).map(Pending::new)
    }

    /// Waits until `pending` is finished and returns what it gives.
    ///
    /// Fails with `Operation` when the change failed, and with `TimedOut`, naming `awaited`, when
    /// it takes longer than `limit`; it may then still be going on.
    pub(crate) async fn wait<T: DeserializeOwned>(
        &self,
        pending: Pending<T>,
        awaited: &str,
        limit: Duration,
    ) -> Result<T> {
        let operation = self.finished(pending.operation, awaited, limit).await?;
        let name = operation.name;
        let not_understood =
            |reason: String| Error::NotUnderstood { call: format!("operation `{name}`"), reason };
        let response = operation
            .response
            .ok_or_else(|| not_understood("it is done without a result".to_owned()))?;
        serde_path_to_error::deserialize(response)
            .map_err(|error| not_understood(error.to_string()))
    }

    async fn finished(
        &self,
        mut operation: Operation,
        awaited: &str,
        limit: Duration,
    ) -> Result<Operation> {
        let mut poll = Poll::new(limit);
        loop {
            if let Some(failure) = operation.error {
                return Err(Error::Operation { name: operation.name, failure: Box::new(failure) });
            }
            if operation.done {
                return Ok(operation);
            }
            if !poll.pause().await {
                return Err(Error::TimedOut { awaited: awaited.to_owned(), limit });
            }
            operation = self.json(Request::postgres(Method::GET, &operation.name, &[])).await?;
        }
    }
}

/// What a deletion gives: nothing.
pub(crate) type Deleted = Value;
