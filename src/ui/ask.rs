//! Questions: every prompt of the program.

use dialoguer::{Confirm, Input, theme::ColorfulTheme};

use crate::error::{Error, Kind, Result};

/// Asks a yes-or-no question on stderr; no is the default.
///
/// Fails with `Declined` on no and on Escape, with `Interrupted` on Ctrl-C.
pub(super) fn confirm(question: &str) -> Result<()> {
    let answer = Confirm::with_theme(&ColorfulTheme::default())
        .with_prompt(question)
        .default(false)
        .interact_opt();
    match answer {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false) | None) => Err(Error::new(Kind::Declined, "declined; nothing was changed")),
        Err(error) => Err(refused(error)),
    }
}

/// Asks for a line of text on stderr that `check` takes; `default` is what Enter alone says.
pub(super) fn input(
    question: &str,
    default: &str,
    check: &dyn Fn(&str) -> Result<(), String>,
) -> Result<String> {
    let theme = ColorfulTheme::default();
    let mut input = Input::<String>::with_theme(&theme).with_prompt(question);
    if !default.is_empty() {
        input = input.default(default.to_owned());
    }
    input.validate_with(|text: &String| check(text)).interact_text().map_err(refused)
}

/// Says why there is no answer, after the cursor is back.
fn refused(error: dialoguer::Error) -> Error {
    super::restore_cursor();
    let dialoguer::Error::IO(error) = error;
    if error.kind() == std::io::ErrorKind::Interrupted {
        return Error::new(Kind::Interrupted, "interrupted; nothing was changed");
    }
    Error::new(Kind::Failed, "could not ask").why(error.to_string())
}
