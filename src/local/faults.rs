//! Faults on demand: what is to go wrong with which requests, so that others can see how they bear it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::error::{Doing, Error, Kind, Result};
use crate::time::Ttl;
use crate::wire::names::{BranchName, EndpointName};
use crate::wire::postgres::Operation;

tokio::task_local! {
    /// How much longer the change that this request makes is to take.
    static EXTRA: Duration;
}

/// Something that goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Trouble {
    /// It waits this long before it is looked at.
    Latency(Ttl),
    /// It is refused and changes nothing.
    Refuse(Refuse),
    /// It does what it does, and the connection is cut instead of an answer.
    LostReply,
    /// The operation it starts takes this much longer.
    SlowOperation(Ttl),
}

/// A refusal in place of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refuse {
    /// Status, 400 to 599.
    pub(crate) status: u16,
    /// Seconds of the header `Retry-After`; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after: Option<u64>,
    /// Sentence of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// Which requests a trouble meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Method; nothing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Path without query, in which `*` stands for any text; nothing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What goes wrong.
    pub(crate) fault: Trouble,
    /// How many more requests it meets; nothing for all until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) times: Option<u32>,
}

/// What happens to a compute, at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Blow {
    /// It is suspended, sessions or not.
    Suspend(Target),
    /// It is killed; what was not committed is lost.
    Kill(Target),
}

/// Whose compute is struck.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "the full name of a branch or an endpoint is expected")]
pub(crate) enum Target {
    /// That of an endpoint.
    Endpoint(EndpointName),
    /// That of a branch's read-write endpoint.
    Branch(BranchName),
}

/// What meets one request.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    latency: Duration,
    slow: Duration,
    /// What it is answered with, if not by itself.
    pub(crate) end: Option<End>,
}

/// How a request ends that is not answered by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With this refusal.
    Refuse(Refuse),
    /// With nothing, when all is done.
    Nothing,
}

/// The rules in force, and the operations that are to seem unfinished.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    slow: Mutex<HashMap<String, Instant>>,
}

impl Rule {
    /// Refuses what no answer can be.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        match &self.fault {
            Trouble::Refuse(refuse) if !(400..600).contains(&refuse.status) => {
                Err(format!("status {} is no refusal; use 400 to 599", refuse.status))
            }
            _ if self.times == Some(0) => Err("times must be 1 or more".to_owned()),
            _ => Ok(()),
        }
    }

    fn meets(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_ref().is_none_or(|pattern| like(pattern, path))
    }
}

/// Reads rules from a YAML or JSON file: a list of them.
///
/// Fails with `Usage`, naming the file and what is wrong.
pub(crate) fn read(file: &Path) -> Result<Vec<Rule>> {
    let doing = || format!("could not read the faults in `{}`", file.display());
    let wrong = |why: String| Error::new(Kind::Usage, doing()).why(why);
    let text = std::fs::read_to_string(file).doing(doing)?;
    // Through JSON, because YAML writes a choice with a tag and people do not.
    let value: serde_json::Value =
        serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let rules: Vec<Rule> =
        serde_path_to_error::deserialize(value).map_err(|error| wrong(error.to_string()))?;
    for (index, rule) in rules.iter().enumerate() {
        rule.check().map_err(|why| wrong(format!("[{index}]: {why}")))?;
    }
    Ok(rules)
}

impl Faults {
    /// Puts `rules` in force.
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Faults { rules: Mutex::new(rules), slow: Mutex::default() }
    }

    /// Adds rules after those in force.
    pub(crate) fn add(&self, rules: Vec<Rule>) {
        locked(&self.rules).extend(rules);
    }

    /// Returns the rules in force, with what is left of them.
    pub(crate) fn list(&self) -> Vec<Rule> {
        locked(&self.rules).clone()
    }

    /// Forgets all rules; operations that seem unfinished are finished.
    pub(crate) fn clear(&self) {
        locked(&self.rules).clear();
        locked(&self.slow).clear();
    }

    /// Returns what meets a request, and counts it.
    ///
    /// Waits add up; of what ends a request the first rule counts, and later ones are kept for later.
    pub(crate) fn meet(&self, method: &str, path: &str) -> Troubles {
        let mut troubles = Troubles::default();
        let mut rules = locked(&self.rules);
        for rule in rules.iter_mut().filter(|rule| rule.meets(method, path)) {
            match &rule.fault {
                Trouble::Latency(Ttl(wait)) => troubles.latency += *wait,
                Trouble::SlowOperation(Ttl(wait)) => troubles.slow += *wait,
                Trouble::Refuse(_) | Trouble::LostReply if troubles.end.is_some() => continue,
                Trouble::Refuse(refuse) => troubles.end = Some(End::Refuse(refuse.clone())),
                Trouble::LostReply => troubles.end = Some(End::Nothing),
            }
            rule.times = rule.times.map(|times| times - 1);
        }
        rules.retain(|rule| rule.times != Some(0));
        troubles
    }

    /// Lets an operation seem unfinished for `extra` longer; returns that time.
    pub(crate) fn hold(&self, operation: &str, extra: Duration) -> Duration {
        let mut slow = locked(&self.slow);
        slow.retain(|_, until| *until > Instant::now());
        slow.insert(operation.to_owned(), Instant::now() + extra);
        extra
    }

    /// Returns the operation as it is to seem.
    pub(crate) fn veil(&self, mut operation: Operation) -> Operation {
        let id = operation.name.rsplit('/').next().unwrap_or_default();
        if locked(&self.slow).get(id).is_some_and(|until| *until > Instant::now()) {
            operation.done = false;
            operation.response = None;
            operation.error = None;
        }
        operation
    }
}

/// Returns how much longer the operation is to take that this task's request starts, if any.
pub(crate) fn extra_time() -> Option<Duration> {
    EXTRA.try_with(|extra| *extra).ok().filter(|extra| !extra.is_zero())
}

impl Troubles {
    /// Answers a request by `answer`, as late as it is to be.
    pub(crate) async fn delay<T>(&self, answer: impl Future<Output = T>) -> T {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        EXTRA.scope(self.slow, answer).await
    }
}

impl Refuse {
    /// Returns the refusal in the platform's envelope.
    pub(crate) fn fault(&self) -> Fault {
        let (code, message) = match self.status {
            429 => ("RESOURCE_EXHAUSTED", "Too many requests; try again later"),
            503 => ("TEMPORARILY_UNAVAILABLE", "The service is temporarily unavailable"),
            500..600 => ("INTERNAL_ERROR", "An internal error occurred"),
            403 => ("PERMISSION_DENIED", "The request was refused on demand"),
            404 => ("NOT_FOUND", "The request was refused on demand"),
            _ => ("BAD_REQUEST", "The request was refused on demand"),
        };
        Fault::new(self.status, code, self.message.as_deref().unwrap_or(message))
    }
}

/// Returns whether `text` is like `pattern`, in which `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Vec<Rule>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*/branches", "/api/projects/shop/branches", true),
            ("*/branches", "/api/projects/shop/branches/dev", false),
            ("*/branches/*", "/api/projects/shop/branches/dev", true),
            ("/api/*/shop/*/dev", "/api/projects/shop/branches/dev", true),
            ("/api", "/api", true),
            ("/api", "/api/2.0", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_are_read_from_yaml_and_json_and_wrong_ones_are_named() {
        let yaml = "- {method: POST, path: '*/branches', fault: lost_reply, times: 1}\n\
                    - fault: {refuse: {status: 429, retry_after: 2}}\n\
                    - fault: {latency: 0.5s}\n";
        let list = rules(yaml).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].fault, Trouble::LostReply);
        assert_eq!(rules(&serde_json::to_string(&list).unwrap()).unwrap(), list);

        for (text, part) in [
            ("- {fault: {refuse: {status: 200}}}", "status 200"),
            ("- {fault: sleepy}", "sleepy"),
            ("- {fault: lost_reply, times: 0}", "times"),
            ("- {fault: lost_reply, colour: red}", "colour"),
            ("fault: lost_reply", "sequence"),
            ("- {fault: {latency: soon}}", "[0].fault"),
        ] {
            let error = rules(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_json().to_string().contains(part), "{text}: {}", error.to_json());
        }
    }

    #[test]
    fn rules_take_turns_and_wear_out() {
        let faults = Faults::new(
            rules(
                "- {path: '*/x', fault: {refuse: {status: 429}}, times: 2}\n\
                 - {method: get, fault: lost_reply, times: 1}\n\
                 - {fault: {latency: 1s}}\n",
            )
            .unwrap(),
        );
        let status = |end: Option<End>| match end {
            Some(End::Refuse(refuse)) => refuse.status,
            Some(End::Nothing) => 0,
            None => 200,
        };
        let met = |path: &str| {
            let troubles = faults.meet("GET", path);
            assert_eq!(troubles.latency, Duration::from_secs(1));
            status(troubles.end)
        };

        assert_eq!([met("/x"), met("/x"), met("/x"), met("/x")], [429, 429, 0, 200]);
        assert_eq!(faults.list().len(), 1);
        faults.clear();
        assert!(faults.list().is_empty());
    }
}
