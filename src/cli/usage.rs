//! What is said when the command line itself is not understood, or help is asked for.

use std::ffi::OsString;

use super::environment::Refusal;
use super::settings::Environment;
use crate::error::{Error, Kind};
use crate::ui::{self, ColorChoice, Output, Ui, plain};

/// Prints why, as JSON where JSON was asked for, or the help that was asked for, and returns the
/// exit code.
pub(super) fn answer(refusal: Refusal, args: &[OsString], environment: &Environment) -> u8 {
    let json = wants_json(args, environment);
    let error = match refusal {
        Refusal::Clap(error) if !error.use_stderr() || !json => {
            show(&error);
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
        Refusal::Clap(error) => to_error(&error.to_string()),
        Refusal::Ours(error) => error,
    };
    let output = if json { Output::Json } else { Output::Text };
    Ui::new(environment.terminal(ColorChoice::Auto), output, false).fail(&error);
    error.kind().exit_code()
}

/// Prints `error` in colour; one that repeats what steers a terminal without.
fn show(error: &clap::Error) {
    let text = error.render().to_string();
    let shown = plain(&text);
    // Nobody can be told when printing fails.
    if shown == text {
        let _ = error.print();
    } else if error.use_stderr() {
        ui::write_stderr(&shown);
    } else {
        let _ = ui::write_stdout(&shown);
    }
}

/// Returns whether the answer was to be JSON, by a command line that could not be read as a whole.
fn wants_json(args: &[OsString], environment: &Environment) -> bool {
    let words: Vec<&str> = args
        .iter()
        .skip(1)
        .map(|word| word.to_str().unwrap_or_default())
        .take_while(|word| *word != "--")
        .collect();
    let value = |at: usize| match words[at] {
        "-o" | "--output" => words.get(at + 1).copied(),
        word => word.strip_prefix("--output=").or_else(|| {
            let value = word.strip_prefix("-o")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        }),
    };
    let named = (0..words.len()).rev().find_map(value);
    named.or_else(|| environment.get("LAKEFORGE_OUTPUT")) == Some("json")
}

/// Takes apart what clap would print: a headline, details, a tip.
fn to_error(text: &str) -> Error {
    let text = text.split("\nUsage:").next().unwrap_or_default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let headline = lines.next().unwrap_or_default();
    let mut error = Error::new(Kind::Usage, headline.strip_prefix("error: ").unwrap_or(headline))
        .hint("lakeforge --help");
    for line in lines.filter(|line| !line.starts_with("For more information")) {
        error = match line.strip_prefix("tip: ") {
            Some(tip) => error.hint(tip),
            None => error.why(line),
        };
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_where_it_was_asked_for() {
        for (line, wanted) in [
            ("lakeforge gc -o json", true),
            ("lakeforge -ojson gc", true),
            ("lakeforge gc --output=json", true),
            ("lakeforge gc --output json --nonsense", true),
            ("lakeforge gc -o json -o text", false),
            ("lakeforge gc", false),
            ("lakeforge creds exec dev -- tool -o json", false),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(wants_json(&args, &Environment::default()), wanted, "{line}");
        }
    }

    #[test]
    fn a_tip_becomes_the_hint_and_details_the_reasons() {
        let error = to_error(
            "error: unexpected argument '--projct' found\n\n  tip: a similar argument exists: '--project'\n\n\
             Usage: lakeforge branch list --project <NAME>\n\nFor more information, try '--help'.\n",
        );
        assert_eq!(error.message(), "unexpected argument '--projct' found");
        assert_eq!(error.hint_text(), Some("a similar argument exists: '--project'"));

        let error = to_error("error: the following arguments were not provided:\n  <NAME>\n");
        assert_eq!(error.reasons(), ["<NAME>"]);
        assert_eq!(error.hint_text(), Some("lakeforge --help"));
    }
}
