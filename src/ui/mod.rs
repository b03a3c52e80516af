//! The terminal: the answer on stdout, everything else on stderr.

mod ask;
mod facts;
mod plain;
mod steps;
mod table;

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use serde::Serialize;

pub(crate) use facts::{ColorChoice, Facts};
pub(crate) use plain::plain;
pub(crate) use steps::{Hold, Interrupt, Step, Steps};
pub(crate) use table::Table;

use ask::Question;

use crate::error::{Error, Kind, Result};
use plain::plain_json;

/// Shape of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document, or one object per line for long commands.
    Json,
}

/// An answer: `Serialize` is its JSON, `text` is what people read.
pub(crate) trait Show: Serialize {
    /// Writes the answer for people, each line ended.
    fn text(&self, f: &mut dyn fmt::Write) -> fmt::Result;
}

/// The terminal of one process.
#[derive(Debug)]
pub(crate) struct Ui {
    facts: Facts,
    output: Output,
    question: Question,
    /// Steps, notices and warnings, on stderr.
    pub(crate) steps: Steps,
}

impl Ui {
    /// Creates the terminal from what was found out about it; `quiet` silences steps, never the answer.
    pub(crate) fn new(facts: Facts, output: Output, quiet: bool) -> Self {
        let steps = Steps::new(&facts, output, quiet);
        console::set_colors_enabled(facts.color_stdout());
        console::set_colors_enabled_stderr(facts.color_stderr());
        Ui { facts, output, question: Question::default(), steps }
    }

    /// Returns the shape of the answer.
    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// Returns whether the answer is for people.
    pub(crate) fn is_text(&self) -> bool {
        self.output == Output::Text
    }

    /// Returns whether stdout is a terminal, where a secret must not go unasked.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.facts.stdout_terminal
    }

    /// Writes the answer of a command to stdout.
    pub(crate) fn show(&self, answer: &impl Show) -> Result<()> {
        let text = match self.output {
            Output::Text => text_of(answer),
            Output::Json => {
                let json = serde_json::to_string_pretty(answer).expect("answers are plain data");
                format!("{}\n", plain_json(&json))
            }
        };
        write_stdout(&text)
    }

    /// Writes one event of a long command to stdout: a line of JSON, or its text.
    pub(crate) fn event(&self, event: &impl Show) -> Result<()> {
        let text = match self.output {
            Output::Text => text_of(event),
            Output::Json => {
                let json = serde_json::to_string(event).expect("events are plain data");
                format!("{}\n", plain_json(&json))
            }
        };
        self.steps.suspended(|| write_stdout(&text))
    }

    /// Asks for consent; `flag` is what to type where nobody can be asked.
    ///
    /// Fails with `Declined` when the answer is no or there is no terminal. A signal that comes
    /// meanwhile ends the program: see [`Ui::leave_question`].
    pub(crate) async fn confirm(&self, question: &str, flag: &str) -> Result<()> {
        if !self.facts.can_ask() {
            return Err(Error::new(Kind::Declined, format!("needs consent: {question}"))
                .why("there is no terminal to ask")
                .hint(format!("add `{flag}`")));
        }
        self.steps.clear();
        self.question.confirm(&plain(question)).await
    }

    /// Asks for a line of text that `check` takes; nothing comes back where nobody can be asked.
    pub(crate) async fn input(
        &self,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<Option<String>> {
        if !self.facts.can_ask() {
            return Ok(None);
        }
        self.steps.clear();
        self.question.input(&plain(question), default, check).await.map(Some)
    }

    /// Leaves the question that is open, if one is, with the terminal as it was before; returns
    /// whether one was.
    pub(crate) fn leave_question(&self) -> bool {
        self.question.leave()
    }

    /// Writes a failure to stderr, in the shape of the answer.
    pub(crate) fn fail(&self, error: &Error) {
        let text = match self.output {
            Output::Text => render(error, &|part| self.steps.shown(part)),
            Output::Json => {
                format!("{}\n", plain_json(&self.steps.mask().text(&error.to_json().to_string())))
            }
        };
        self.steps.suspended(|| write_stderr(&text));
    }
}

fn text_of(answer: &impl Show) -> String {
    let mut text = String::new();
    answer.text(&mut text).expect("a String takes everything");
    plain(&text).into_owned()
}

/// Writes `text`, which is ours alone, to stdout; a reader that went away ends the program quietly.
pub(crate) fn write_stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            Err(Error::new(Kind::Failed, "could not write the answer").why(error.to_string()))
        }
        Ok(()) => Ok(()),
    }
}

/// Writes `text`, which is fit to be shown, to stderr; nobody can be told when that fails.
pub(crate) fn write_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Shows the cursor again, which a question hides; for panics and Ctrl-C.
pub(crate) fn restore_cursor() {
    let term = console::Term::stderr();
    if term.is_term() {
        let _ = term.show_cursor();
    }
}

/// Returns the text form of a failure; `shown` makes what others wrote fit to be shown.
fn render(error: &Error, shown: &dyn Fn(&str) -> String) -> String {
    let mut text = String::new();
    let label = |word: &str| console::style(word.to_owned()).red().bold().for_stderr();
    let dim = |word: &str| console::style(word.to_owned()).bold().for_stderr();
    let mut write = || -> fmt::Result {
        writeln!(text, "{} {}", label("error:"), shown(error.message()))?;
        for reason in error.reasons() {
            let reason = shown(reason);
            for (index, line) in reason.lines().enumerate() {
                let head = if index == 0 { dim("why:").to_string() } else { "    ".to_owned() };
                writeln!(text, "  {head} {line}")?;
            }
        }
        if let Some(hint) = error.hint_text() {
            writeln!(text, "  {} {}", dim("try:"), shown(hint))?;
        }
        Ok(())
    };
    write().expect("a String takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_what_why_and_what_to_type() {
        console::set_colors_enabled_stderr(false);
        let error = Error::new(Kind::Auth, "could not list branches of `shop`")
            .why("the access token has expired (401 UNAUTHENTICATED)\nissued yesterday")
            .hint("databricks auth login");

        insta::assert_snapshot!(render(&error, &str::to_owned), @r"
        error: could not list branches of `shop`
          why: the access token has expired (401 UNAUTHENTICATED)
               issued yesterday
          try: databricks auth login
        ");
    }
}
