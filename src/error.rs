//! What went wrong: one error type that says what was being done, why it failed and what to type next.

use std::fmt;

/// Result of everything that can fail in this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Class of a failure. It decides the exit code, and nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something went wrong that no other class describes.
    Failed = 1,
    /// The command line, a setting or a file is wrong.
    Usage = 2,
    /// A difference was found where none was expected (`--check`).
    Difference = 3,
    /// The caller could not be authenticated.
    Auth = 4,
    /// The caller is known and not allowed to do this.
    Denied = 5,
    /// Something named does not exist.
    NotFound = 6,
    /// A name is taken, or what exists has another lineage.
    Conflict = 7,
    /// A wait ran out; the work may still be going on.
    TimedOut = 8,
    /// Consent was needed and declined, or there was no terminal to ask.
    Declined = 9,
    /// A health assertion does not hold.
    Unhealthy = 10,
    /// Some of several targets failed.
    Partial = 11,
    /// The service did not answer after retries.
    Unavailable = 12,
    /// A safety rule refuses.
    Refused = 13,
    /// Interrupted by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGTERM or SIGHUP.
    Terminated = 143,
}

impl Kind {
    /// Returns the process exit code of this class.
    pub(crate) const fn exit_code(self) -> u8 {
        self as u8
    }

    /// Returns the stable word used in JSON when an error has no more precise one.
    const fn word(self) -> &'static str {
        match self {
            Kind::Failed => "FAILED",
            Kind::Usage => "USAGE",
            Kind::Difference => "DIFFERENCE_FOUND",
            Kind::Auth => "NOT_AUTHENTICATED",
            Kind::Denied => "NOT_ALLOWED",
            Kind::NotFound => "NOT_FOUND",
            Kind::Conflict => "CONFLICT",
            Kind::TimedOut => "TIMED_OUT",
            Kind::Declined => "CONSENT_NEEDED",
            Kind::Unhealthy => "UNHEALTHY",
            Kind::Partial => "PARTIAL_FAILURE",
            Kind::Unavailable => "SERVICE_UNAVAILABLE",
            Kind::Refused => "SAFETY_RULE",
            Kind::Interrupted | Kind::Terminated => "INTERRUPTED",
        }
    }
}

/// A failure as a person reads it: headline, reasons, hint.
#[derive(Debug, Clone)]
pub(crate) struct Error(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    code: &'static str,
    message: String,
    why: Vec<String>,
    hint: Option<String>,
    retryable: bool,
    request_id: Option<String>,
}

impl Error {
    /// Creates an error of class `kind`; `message` is the headline: lower case, no full stop, names in backticks.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Parts {
            kind,
            code: kind.word(),
            message: message.into(),
            why: Vec::new(),
            hint: None,
            retryable: matches!(kind, Kind::Unavailable | Kind::TimedOut),
            request_id: None,
        }))
    }

    /// Adds one reason below those there are.
    pub(crate) fn why(mut self, reason: impl Into<String>) -> Self {
        self.0.why.push(reason.into());
        self
    }

    /// Sets what the user can type next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the stable word of this failure, such as `BRANCH_LINEAGE_MISMATCH`.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Says whether trying again may help.
    pub(crate) fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Returns whether trying again may help.
    pub(crate) fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Sets the id under which the service logged the request.
    pub(crate) fn request_id(mut self, id: Option<String>) -> Self {
        self.0.request_id = id;
        self
    }

    /// Returns the class of this failure.
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the headline.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the reasons, outermost first.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.0.why
    }

    /// Returns what to type next, if anything would help.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the JSON form: `{"error":{"code","message","why","hint","retryable","request_id"}}`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let parts = &self.0;
        serde_json::json!({ "error": {
            "code": parts.code,
            "message": parts.message,
            "why": parts.why,
            "hint": parts.hint,
            "retryable": parts.retryable,
            "request_id": parts.request_id,
        } })
    }
}

impl fmt::Display for Error {
    /// Writes the headline and the reasons on one line; the terminal form is made by `ui`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for reason in &self.0.why {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    /// Replaces the headline by what was being done; the old headline becomes the first reason.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let Error(mut parts) = error.into();
            let headline = std::mem::replace(&mut parts.message, what());
            parts.why.insert(0, headline);
            Error(parts)
        })
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::new(Kind::Failed, error.to_string())
    }
}

/// Returns the entry of `known` nearest to `wanted`, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (edit_distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Returns how many single-character edits, a swap of neighbours counting as one, lead from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doing_keeps_the_old_headline_as_the_first_reason() {
        let result: Result<()> = Err(Error::new(Kind::NotFound, "branch id not found").why("404"));

        let error = result.doing(|| "could not read branch `dev`".to_owned()).unwrap_err();

        assert_eq!(error.to_string(), "could not read branch `dev`: branch id not found: 404");
        assert_eq!(error.kind().exit_code(), 6);
    }

    #[test]
    fn nearest_finds_a_typing_mistake_and_nothing_far_away() {
        let known = ["patient", "provider", "billing"];

        assert_eq!(nearest("pateint", known), Some("patient"));
        assert_eq!(nearest("biling", known), Some("billing"));
        assert_eq!(nearest("warehouse", known), None);
    }
}
