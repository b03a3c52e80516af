//! `lakeforge help TOPIC`: what holds for every command.

use std::ffi::OsString;

use clap::{Args, CommandFactory};

use super::settings::Global;
use super::{Cli, environment};
use crate::ui;

/// The promise that scripts build on.
const EXIT_CODES: &str = "\
Exit codes

    0  done
    1  failed (unclassified)
    2  usage or configuration
    3  a difference was found (--check, --exit-code)
    4  not authenticated
    5  not allowed
    6  not found
    7  conflict (name taken, other lineage)
    8  timed out; it may still be running
    9  needed consent: declined, or no terminal to ask
   10  unhealthy (smoke)
   11  some of several targets failed
   12  service unavailable after retries
   13  refused by a safety rule
  130  interrupted (Ctrl-C); what was left behind is printed
  143  terminated; what was left behind is printed

`creds exec` answers with the child's own code; 125, 126 or 127 when it could not start.
";

/// Returns the text that `args` ask for; options of every command may stand among them.
pub(super) fn asked_for(args: &[OsString]) -> Option<String> {
    let command = Global::augment_args(clap::Command::new("lakeforge"));
    let words = clap::Arg::new("words").num_args(2);
    let matches = command.arg(words).try_get_matches_from(args).ok()?;
    let words: Vec<&String> = matches.get_many("words")?.collect();
    let [help, topic] = words[..] else { return None };
    match Some(topic.as_str()).filter(|_| help == "help")? {
        "exit-codes" => Some(EXIT_CODES.to_owned()),
        "environment" => Some(environment::help(&Cli::command())),
        _ => None,
    }
}

/// Writes a text to stdout and returns the exit code.
pub(super) fn show(text: &str) -> u8 {
    match ui::write_stdout(text) {
        Ok(()) => 0,
        Err(error) => error.kind().exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_class_of_failure_is_in_the_table() {
        for kind in [
            Kind::Failed,
            Kind::Usage,
            Kind::Difference,
            Kind::Auth,
            Kind::Denied,
            Kind::NotFound,
            Kind::Conflict,
            Kind::TimedOut,
            Kind::Declined,
            Kind::Unhealthy,
            Kind::Partial,
            Kind::Unavailable,
            Kind::Refused,
            Kind::Interrupted,
            Kind::Terminated,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n{:>5}  ", kind.exit_code())), "{kind:?}");
        }
    }
}
