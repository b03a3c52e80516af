//! Faults on demand: what is to go wrong with which requests, so that others can see how they bear it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::fault::Fault;
use crate::error::{Doing, Error, Kind, Result};
use crate::time::Ttl;
use crate::wire::names::{BranchName, EndpointName};
use crate::wire::postgres::Operation;

tokio::task_local! {
    /// How much longer the change that this request makes is to take.
    static EXTRA: Duration;
    /// How far the clock is off that this request sees.
    static SKEW: SignedDuration;
}

/// Furthest a clock may be off, by all rules together.
const FURTHEST: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Longest that a request or an operation may be made to take, by all rules together.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

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
    /// Tokens are issued and checked by a clock that is this far off.
    ClockSkew(Skew),
    /// A compute is suspended first, sessions or not.
    Suspend(Target),
    /// A compute is killed first.
    Kill(Target),
}

/// How far a clock is off: ahead, or behind with a minus. On the wire `"3600s"` or `"-3600s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skew(SignedDuration);

impl Serialize for Skew {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sign = if self.0.is_negative() { "-" } else { "" };
        serializer.collect_str(&format_args!("{sign}{}s", self.0.unsigned_abs().as_secs_f64()))
    }
}

impl<'de> Deserialize<'de> for Skew {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (behind, length) = match text.strip_prefix('-') {
            Some(length) => (true, length),
            None => (false, text.as_str()),
        };
        let Ttl(length) = Ttl::deserialize(de::value::StrDeserializer::<D::Error>::new(length))?;
        let length = SignedDuration::try_from(length).map_err(de::Error::custom)?;
        Ok(Skew(if behind { -length } else { length }))
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How far the clock is off.
    pub(crate) skew: SignedDuration,
    /// What happens to computes first.
    pub(crate) blows: Vec<Blow>,
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
            Trouble::ClockSkew(Skew(skew)) if skew.unsigned_abs() > FURTHEST.unsigned_abs() => {
                Err("clock_skew must not be longer than a year".to_owned())
            }
            Trouble::Latency(Ttl(wait)) | Trouble::SlowOperation(Ttl(wait)) if *wait > LONGEST => {
                Err("latency and slow_operation must not be longer than a day".to_owned())
            }
            _ if self.times == Some(0) => Err("times must be 1 or more".to_owned()),
            _ => Ok(()),
        }
    }

    fn meets(&self, method: &str, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.path.as_ref().is_none_or(|pattern| like(pattern, path))
    }

    /// Returns how far off the clock is for whoever comes without a request: at the endpoints.
    fn standing_skew(&self) -> SignedDuration {
        match self {
            Rule { method: None, path: None, fault: Trouble::ClockSkew(Skew(skew)), .. } => *skew,
            _ => SignedDuration::ZERO,
        }
    }
}

/// Reads rules from a YAML or JSON file: a list of them.
///
/// Fails with `Usage`, naming the file and what is wrong.
pub(crate) fn read(file: &Path) -> Result<Vec<Rule>> {
    let doing = || format!("could not read the faults in `{}`", file.display());
    let wrong = |why: String| Error::new(Kind::Usage, doing()).why(why);
    let text = std::fs::read_to_string(file).doing(doing)?;
    let rules: Vec<Rule> = parse(&text).map_err(wrong)?;
    for (index, rule) in rules.iter().enumerate() {
        rule.check().map_err(|why| wrong(format!("[{index}]: {why}")))?;
    }
    Ok(rules)
}

/// Reads one rule from YAML or JSON.
///
/// Fails with `Usage`, naming the text and what is wrong.
pub(crate) fn read_rule(text: &str) -> Result<Rule> {
    let wrong = |why: String| {
        Error::new(Kind::Usage, format!("`{text}` is not a fault"))
            .why(why)
            .hint("write one such as `{path: \"*/branches\", fault: lost_reply, times: 1}`")
    };
    let rule: Rule = parse(text).map_err(wrong)?;
    rule.check().map_err(wrong)?;
    Ok(rule)
}

/// Reads YAML through JSON, because YAML writes a choice with a tag and people do not.
fn parse<T: de::DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    let value: serde_json::Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
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

    /// Returns how far the clock is off that tokens are issued and checked by: as this task's request sees
    /// it, elsewhere as rules for every request say.
    pub(crate) fn skew(&self) -> SignedDuration {
        SKEW.try_with(|skew| *skew).unwrap_or_else(|_| {
            let rules = locked(&self.rules);
            rules.iter().fold(SignedDuration::ZERO, |sum, rule| further(sum, rule.standing_skew()))
        })
    }

    /// Returns what meets a request, and counts it.
    ///
    /// Waits and skews add up; of what ends a request the first rule counts, and later ones are kept for later.
    pub(crate) fn meet(&self, method: &str, path: &str) -> Troubles {
        let mut troubles = Troubles::default();
        let mut rules = locked(&self.rules);
        for rule in rules.iter_mut().filter(|rule| rule.meets(method, path)) {
            match &rule.fault {
                Trouble::Latency(Ttl(wait)) => troubles.latency = longer(troubles.latency, *wait),
                Trouble::SlowOperation(Ttl(wait)) => troubles.slow = longer(troubles.slow, *wait),
                Trouble::ClockSkew(Skew(skew)) => troubles.skew = further(troubles.skew, *skew),
                Trouble::Suspend(whose) => troubles.blows.push(Blow::Suspend(whose.clone())),
                Trouble::Kill(whose) => troubles.blows.push(Blow::Kill(whose.clone())),
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

/// Adds two waits, up to the longest there is.
fn longer(one: Duration, other: Duration) -> Duration {
    one.saturating_add(other).min(LONGEST)
}

/// Adds two skews, up to the furthest there is.
fn further(one: SignedDuration, other: SignedDuration) -> SignedDuration {
    one.saturating_add(other).clamp(-FURTHEST, FURTHEST)
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
        EXTRA.scope(self.slow, SKEW.scope(self.skew, answer)).await
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
    use jiff::Timestamp;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use serde_json::json;

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
            ("- {fault: {clock_skew: --5s}}", "[0].fault"),
            ("- {fault: {clock_skew: -40000000s}}", "a year"),
            ("- {fault: {latency: 1e19s}}", "a day"),
            ("- {fault: {slow_operation: 86401s}}", "a day"),
            ("- {fault: {suspend: dev}}", "[0].fault"),
        ] {
            let error = rules(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_json().to_string().contains(part), "{text}: {}", error.to_json());
        }
    }

    #[test]
    fn one_rule_can_be_written_on_a_command_line() {
        for (text, fault) in [
            ("fault: lost_reply", Trouble::LostReply),
            (r#"{"fault": {"clock_skew": "-90s"}}"#, Trouble::ClockSkew(skewed(-90))),
            (
                "fault: {kill: projects/shop/branches/dev}",
                Trouble::Kill(Target::Branch("projects/shop/branches/dev".parse().unwrap())),
            ),
        ] {
            let rule = read_rule(text).unwrap();
            assert_eq!(rule.fault, fault);
            assert_eq!(read_rule(&serde_json::to_string(&rule).unwrap()).unwrap(), rule);
        }
        for text in ["lost_reply", "fault: {refuse: {status: 200}}", "{"] {
            assert_eq!(read_rule(text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }

    fn skewed(seconds: i64) -> Skew {
        Skew(SignedDuration::from_secs(seconds))
    }

    #[tokio::test]
    async fn skews_add_up_for_the_requests_they_meet_and_standing_ones_hold_elsewhere() {
        let faults = Faults::new(
            rules(
                "- {fault: {clock_skew: 60s}}\n\
                 - {fault: {clock_skew: -10.5s}}\n\
                 - {path: '*/x', fault: {clock_skew: 3600s}, times: 1}\n",
            )
            .unwrap(),
        );
        let seen = async |path: &str| {
            let troubles = faults.meet("GET", path);
            troubles.delay(async { faults.skew().as_millis() }).await
        };

        assert_eq!(faults.skew().as_millis(), 49_500);
        assert_eq!(
            [seen("/y").await, seen("/x").await, seen("/x").await],
            [49_500, 3_649_500, 49_500]
        );
        faults.clear();
        assert!(faults.skew().is_zero());
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

    /// Returns a length as a client may write it, with what has broken clocks before.
    fn length() -> impl Strategy<Value = String> {
        let known = [
            "0s",
            "-0s",
            "1s",
            "0.5s",
            "86400s",
            "86400.000000001s",
            "86401s",
            "-86400s",
            "31622400s",
            "31622401s",
            "-31622400s",
            "1e19s",
            "-1e19s",
            "18446744073709551615s",
            "1e308s",
            "1e-320s",
            "NaNs",
            "infs",
            "-infs",
            "--5s",
            "s",
            "",
            "1d",
            "9223372036854775807s",
            "-9223372036854775808s",
        ];
        prop_oneof![
            prop::sample::select(known.to_vec()).prop_map(str::to_owned),
            any::<f64>().prop_map(|seconds| format!("{seconds}s")),
            (0..200_000_u32).prop_map(|seconds| format!("{seconds}s")),
        ]
    }

    /// Returns a rule as JSON, and whether its numbers are in bounds.
    fn rule() -> impl Strategy<Value = (serde_json::Value, bool)> {
        let within = |text: &str, least: f64, most: f64| {
            let number = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
            number.is_some_and(|number| (least..=most).contains(&number))
        };
        let year = 366.0 * 86_400.0;
        let fault = prop_oneof![
            length().prop_map(move |l| (json!({ "latency": l }), within(&l, 0.0, 86_400.0))),
            length().prop_map(move |l| (json!({ "slow_operation": l }), within(&l, 0.0, 86_400.0))),
            length().prop_map(move |l| {
                let twice = l.starts_with("--");
                (json!({ "clock_skew": l }), !twice && within(&l, -year, year))
            }),
            (any::<u16>(), any::<Option<u64>>(), any::<Option<String>>()).prop_map(
                |(status, after, message)| {
                    let refuse =
                        json!({ "status": status, "retry_after": after, "message": message });
                    (json!({ "refuse": refuse }), (400..600).contains(&status))
                }
            ),
            Just((json!("lost_reply"), true)),
        ];
        let pattern = prop::option::of("[*/a-c]{0,12}");
        (fault, prop::option::of("GET|get|.{0,3}"), pattern, any::<Option<u32>>()).prop_map(
            |((fault, good), method, path, times)| {
                let rule =
                    json!({ "fault": fault, "method": method, "path": path, "times": times });
                (rule, good && times != Some(0))
            },
        )
    }

    /// Reads a rule as the route does.
    fn taken_from(document: &serde_json::Value) -> std::result::Result<Rule, String> {
        let rule = Rule::deserialize(document).map_err(|error| error.to_string())?;
        rule.check().map(|()| rule)
    }

    /// Lets a request meet `faults` in all that they can do to it, without the wait.
    async fn suffer(faults: &Faults) {
        use axum::response::IntoResponse as _;
        let mut troubles = faults.meet("GET", "/a/b/c");
        assert!(troubles.latency <= LONGEST && troubles.slow <= LONGEST);
        assert!(troubles.skew.abs() <= FURTHEST && faults.skew().abs() <= FURTHEST);
        troubles.latency = Duration::ZERO;
        let under_way = async {
            let now = Timestamp::now().saturating_add(faults.skew()).unwrap();
            let _ends = now + crate::local::tokens::ACCESS_LIFE;
            if let Some(extra) = extra_time() {
                faults.hold("operation", extra);
                // As long as it may take, so much of it as takes no time.
                let _ = tokio::time::timeout(Duration::ZERO, tokio::time::sleep(extra)).await;
            }
        };
        troubles.delay(under_way).await;
        let wait = tokio::time::sleep(LONGEST);
        let _ = tokio::time::timeout(Duration::ZERO, wait).await;
        if let Some(End::Refuse(refuse)) = troubles.end {
            let _ = refuse.into_response();
        }
        serde_json::to_string(&faults.list()).unwrap();
    }

    #[test]
    fn no_rule_breaks_the_server_and_those_in_bounds_are_taken() {
        const CASES: u32 = 1024;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (mut taken, mut refused) = (0, 0);
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) };
        let mut runner = TestRunner::new(config);
        let counts = std::cell::RefCell::new((&mut taken, &mut refused));
        let result = runner.run(&prop::collection::vec(rule(), 1..6), |drawn| {
            let mut rules = Vec::new();
            for (document, good) in drawn {
                let read = taken_from(&document);
                prop_assert_eq!(read.is_ok(), good, "{}", document);
                let mut counts = counts.borrow_mut();
                *(if good { &mut *counts.0 } else { &mut *counts.1 }) += 1;
                // Many of one kind add up.
                rules.extend(read.into_iter().flat_map(|rule| vec![rule; 3]));
            }
            runtime.block_on(suffer(&Faults::new(rules)));
            Ok(())
        });
        result.unwrap();
        assert!(taken > 500 && refused > 500, "{taken} rules were taken, {refused} refused");
    }

    #[test]
    fn the_waits_and_skews_of_ten_thousand_rules_end_somewhere() {
        let far = json!({ "fault": { "clock_skew": "31622400s" } });
        let long = json!({ "fault": { "slow_operation": "86400s" } });
        let rules = [far, long].map(|rule| vec![taken_from(&rule).unwrap(); 10_000]).concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(suffer(&Faults::new(rules)));
    }

    proptest! {
        #[test]
        fn no_text_breaks_what_reads_rules(text in ".{0,200}") {
            let _ = read_rule(&text);
        }
    }
}
