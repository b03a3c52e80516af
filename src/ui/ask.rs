//! Questions: every prompt of the program.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use dialoguer::{Input, theme::ColorfulTheme};
use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

use crate::error::{Error, Kind, Result};

/// How the terminal was before the question that is open, if one is.
#[derive(Debug, Clone, Default)]
pub(super) struct Question(Arc<Mutex<Option<Termios>>>);

impl Question {
    /// Asks a yes-or-no question on stderr that only a whole line answers; no is the default.
    ///
    /// Fails with `Declined` on anything but yes, also when the terminal goes away.
    pub(super) async fn confirm(&self, question: &str) -> Result<()> {
        // The library's own `Confirm` takes the last y or n that was typed: "no way" would agree.
        let prompt = format!("{question} [y/N]");
        let check = |text: &str| match agreed(text) {
            Some(_) => Ok(()),
            None => Err("answer `y` or `n`".to_owned()),
        };
        match agreed(&self.input(&prompt, "", check).await?) {
            Some(true) => Ok(()),
            _ => Err(Error::new(Kind::Declined, "declined; nothing was changed")),
        }
    }

    /// Asks for a line of text on stderr that `check` takes; `default` is what Enter alone says.
    ///
    /// Asks on a thread of its own, so that signals are answered meanwhile. What was typed before
    /// the question is no answer to it.
    pub(super) async fn input(
        &self,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<(), String> + Send + 'static,
    ) -> Result<String> {
        let (open, question, default) = (self.clone(), question.to_owned(), default.to_owned());
        let asked = move || {
            let theme = ColorfulTheme::default();
            let mut input = Input::<String>::with_theme(&theme).with_prompt(question);
            input = match default.is_empty() {
                true => input.allow_empty(true),
                false => input.default(default),
            };
            open.open()?;
            let answer = input.validate_with(|text: &String| check(text)).interact_text();
            let dialoguer::Error::IO(error) = match answer {
                Ok(text) => {
                    open.take();
                    return Ok(text);
                }
                Err(error) => error,
            };
            Err(error)
        };
        match tokio::task::spawn_blocking(asked).await.map_err(io::Error::from)? {
            Ok(text) => Ok(text),
            // Ctrl-C: the library has raised the signal, which ends the program in its own way.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                std::future::pending().await
            }
            Err(error) => {
                self.leave();
                Err(Error::new(Kind::Declined, "not answered; nothing was changed")
                    .why(error.to_string()))
            }
        }
    }

    /// Gives the terminal back and ends the line of the question; returns whether one was open.
    pub(super) fn leave(&self) -> bool {
        let Some(before) = self.take() else { return false };
        // A terminal that went away has nothing to be given back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        super::restore_cursor();
        super::write_stderr("\n");
        true
    }

    fn open(&self) -> io::Result<()> {
        let before = tcgetattr(io::stdin())?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(before);
        Ok(tcflush(io::stdin(), QueueSelector::IFlush)?)
    }

    fn take(&self) -> Option<Termios> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Returns what a line says; nothing for one that is neither yes nor no.
fn agreed(line: &str) -> Option<bool> {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" => Some(true),
        "" | "n" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_agrees() {
        for (line, expected) in [
            ("y", Some(true)),
            (" Yes ", Some(true)),
            ("", Some(false)),
            ("n", Some(false)),
            ("No", Some(false)),
            ("no way", None),
            ("yy", None),
            ("да", None),
        ] {
            assert_eq!(agreed(line), expected, "{line}");
        }
    }
}
