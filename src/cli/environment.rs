//! Variables of the environment: every flag has one, and one that nothing knows is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::settings::Environment;
use crate::error::{Error, Kind, Result, nearest};

/// How every variable of ours begins.
const PREFIX: &str = "LAKEFORGE_";

/// Switches that may hold for every command. Any other agrees to something, or widens what a
/// command does: its variable names the command that it is meant for.
const HARMLESS: [&str; 11] = [
    "check",
    "diff",
    "dry-run",
    "from-apps",
    "list-templates",
    "no-expiry",
    "no-wait",
    "protected",
    "quiet",
    "skip-deploy",
    "stdout",
];

/// Variables of ours that stand for no flag.
const OTHERS: [(&str, &str); 5] = [
    ("LAKEFORGE_LOG", "filter of the log, such as lakeforge=debug"),
    ("LAKEFORGE_PROGRAM", "of lakeforge's own tests: the program"),
    ("LAKEFORGE_SEED", "of lakeforge's own tests: where the dice begin"),
    ("LAKEFORGE_SOAK_ROUNDS", "of lakeforge's own tests: how often a workspace is killed"),
    ("LAKEFORGE_TEST_POSTGRES", "of lakeforge's own tests: more versions of PostgreSQL"),
];

/// Why the command line was not understood.
#[derive(Debug)]
pub(super) enum Refusal {
    /// In clap's own words, which may be the help that was asked for.
    Clap(clap::Error),
    /// In ours.
    Ours(Error),
}

/// A flag that a variable sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    /// Id of the argument.
    id: String,
    /// Long name of the flag.
    pub(super) flag: String,
    /// The variable.
    pub(super) variable: String,
    /// Whether it agrees to something.
    pub(super) agrees: bool,
}

/// Reads the command line; what it leaves open is what the variables say.
///
/// A flag that is typed wins over every variable that contradicts it. Fails for a variable that
/// nothing knows, and for a value that its flag does not take.
pub(super) fn parse(
    command: &Command,
    args: &[OsString],
    environment: &Environment,
) -> Result<(ArgMatches, Vec<Set>), Refusal> {
    let typed = command.clone().ignore_errors(true).try_get_matches_from(args);
    let typed = typed.map_err(Refusal::Clap)?;
    let (path, typed) = leaf(&typed);
    let set = chosen(command, &path, typed, environment).map_err(Refusal::Ours)?;
    let matches = with_variables(command.clone(), &path, &set)
        .try_get_matches_from(args)
        .map_err(|error| Refusal::Clap(naming_variables(error, &set)))?;
    refuse_unknown(command, environment).map_err(Refusal::Ours)?;
    Ok((matches, set))
}

/// Returns the names of the subcommands that were typed, and what was typed after the last.
fn leaf(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let (mut path, mut matches) = (Vec::new(), matches);
    while let Some((name, below)) = matches.subcommand() {
        path.push(name.to_owned());
        matches = below;
    }
    (path, matches)
}

/// Returns the flags of the command at `path` that variables set.
fn chosen(
    command: &Command,
    path: &[String],
    typed: &ArgMatches,
    environment: &Environment,
) -> Result<Vec<Set>> {
    let mut command = command.clone();
    command.build();
    let known = commands(&command);
    let name = path.join(" ");
    let Some((_, leaf)) = known.iter().find(|(known, _)| *known == name) else {
        return Ok(Vec::new());
    };
    let is_typed = |arg: &Arg| {
        let source = typed.try_contains_id(arg.get_id().as_str()).ok().and_then(|is_there| {
            is_there.then(|| typed.value_source(arg.get_id().as_str())).flatten()
        });
        source == Some(ValueSource::CommandLine)
    };
    let all_typed: Vec<&Arg> = leaf.get_arguments().filter(|arg| is_typed(arg)).collect();
    let mut set = Vec::new();
    for arg in leaf.get_arguments().filter(|arg| !is_typed(arg) && !is_by_hand(&name, arg)) {
        let set_by = variables(&name, arg)
            .into_iter()
            .find_map(|(flag, variable)| Some((environment.get(&variable)?, flag, variable)));
        let Some((value, flag, variable)) = set_by else { continue };
        if all_typed.iter().any(|typed| excludes(leaf, typed, arg)) {
            continue;
        }
        let agrees = agrees(arg);
        if !is_switch(arg) || is_on(&variable, value, agrees, &name, &known)? {
            let id = arg.get_id().to_string();
            set.push(Set { id, flag, variable, agrees });
        }
    }
    Ok(set)
}

/// Returns the command with the variables of `set` behind their flags.
fn with_variables(command: Command, path: &[String], set: &[Set]) -> Command {
    let command = command.mut_args(|arg| {
        let found = set.iter().find(|set| arg.get_id() == set.id.as_str());
        match found {
            // That it is on was found out before.
            Some(set) if is_switch(&arg) => {
                arg.env(set.variable.clone()).value_parser(StringValueParser::new().map(|_| true))
            }
            Some(set) => arg.env(set.variable.clone()),
            None => arg,
        }
    });
    match path {
        [] => command,
        [next, rest @ ..] => command.mut_subcommand(next, |below| with_variables(below, rest, set)),
    }
}

/// Puts the variable in place of the flag that was not typed.
fn naming_variables(mut error: clap::Error, set: &[Set]) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let Some(ContextValue::String(arg)) = error.get(kind) else { continue };
        let flag = arg.split([' ', '=', '[']).next().and_then(|flag| flag.strip_prefix("--"));
        if let Some(set) = set.iter().find(|set| Some(set.flag.as_str()) == flag) {
            error.insert(kind, ContextValue::String(set.variable.clone()));
        }
    }
    error
}

/// Fails as `Usage` for a variable of ours that nothing knows, with the nearest one.
fn refuse_unknown(command: &Command, environment: &Environment) -> Result<()> {
    let of_flags = of_flags(command);
    let known: BTreeSet<&str> =
        of_flags.keys().map(String::as_str).chain(OTHERS.map(|(name, _)| name)).collect();
    if let Some(name) = environment.unreadable().find(|name| name.starts_with(PREFIX)) {
        return Err(Error::new(Kind::Usage, format!("the variable {name} is not UTF-8")));
    }
    for name in environment.with_prefix(PREFIX).keys().map(|rest| format!("{PREFIX}{rest}")) {
        if !known.contains(name.as_str()) {
            let error = Error::new(Kind::Usage, format!("nothing knows the variable {name}"))
                .code("UNKNOWN_VARIABLE");
            let rests = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
            return Err(match nearest(&name[PREFIX.len()..], rests) {
                Some(near) => error.hint(format!("did you mean {PREFIX}{near}?")),
                None => error.hint("lakeforge help environment"),
            });
        }
    }
    Ok(())
}

/// Returns every command with its names, the whole first.
fn commands(command: &Command) -> Vec<(String, &Command)> {
    let mut all = vec![(String::new(), command)];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        all.extend(commands(below).into_iter().map(|(path, leaf)| {
            (format!("{} {path}", below.get_name()).trim_end().to_owned(), leaf)
        }));
    }
    all
}

/// Returns each long name of a flag of the command `path` with its variable.
///
/// A flag that means something of its own in one command has a variable of its own there: else a
/// branch's life would be a password's, and the project of one command the topology of another.
fn variables(path: &str, arg: &Arg) -> Vec<(String, String)> {
    if matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    ) {
        return Vec::new();
    }
    let first = path.split(' ').next().unwrap_or_default();
    let aliases = arg.get_all_aliases().unwrap_or_default();
    let variable = |flag: &str| {
        let own = match (first, flag) {
            (_, "data-dir") => "LOCAL_DIR",
            ("local", "port") => "LOCAL_PORT",
            ("gen" | "init" | "deploy" | "destroy", "project") => "GEN_PROJECT",
            ("creds", "ttl") => "CREDS_TTL",
            ("init", "app") => "INIT_APP",
            ("gc", "confirm") => "GC_CONFIRM",
            _ => &flag.to_uppercase().replace('-', "_"),
        };
        (flag.to_owned(), format!("{PREFIX}{own}"))
    };
    arg.get_long().into_iter().chain(aliases).map(variable).collect()
}

/// Returns whether the command reads the variable itself: the name of a branch may name its project,
/// and then the variable does not count.
fn is_by_hand(path: &str, arg: &Arg) -> bool {
    let first = path.split(' ').next().unwrap_or_default();
    ["branch", "creds", "gc"].contains(&first) && arg.get_long() == Some("project")
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Returns whether the flag agrees to something that is to be asked or typed.
fn agrees(arg: &Arg) -> bool {
    let flag = arg.get_long().unwrap_or_default();
    flag == "confirm" || is_switch(arg) && !HARMLESS.contains(&flag)
}

/// Reads the variable of a switch.
fn is_on(
    variable: &str,
    value: &str,
    agrees: bool,
    path: &str,
    known: &[(String, &Command)],
) -> Result<bool> {
    match value.to_lowercase().as_str() {
        "0" | "false" | "no" | "off" => return Ok(false),
        "1" | "true" | "yes" | "on" if !agrees => return Ok(true),
        _ => {}
    }
    if !agrees {
        let what = format!("{variable} is `{value}`, which is neither true nor false");
        return Err(Error::new(Kind::Usage, what).hint("write 1 or 0"));
    }
    let named: Vec<&str> = value.split(',').map(str::trim).collect();
    match named.iter().find(|name| !known.iter().any(|(known, _)| known == *name)) {
        None => Ok(named.contains(&path)),
        Some(other) => Err(Error::new(Kind::Usage, format!("{variable} names no command"))
            .why(format!("it is `{other}`; what it agrees to would hold for every command"))
            .hint(format!("{variable}='{path}' holds for that command alone"))),
    }
}

/// Returns whether `a` and `b` cannot be given together.
fn excludes(command: &Command, a: &Arg, b: &Arg) -> bool {
    let conflict = |a: &Arg, b: &Arg| {
        command.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id())
    };
    let share_a_choice = command.get_groups().any(|group| {
        let holds = |arg: &Arg| group.get_args().any(|id| id == arg.get_id());
        !group.clone().is_multiple() && holds(a) && holds(b)
    });
    conflict(a, b) || conflict(b, a) || share_a_choice
}

/// Returns the variables of all flags: each with the flag, the commands that have it, and whether it
/// agrees to something. A flag of every command is of none in particular.
fn of_flags(command: &Command) -> BTreeMap<String, (String, Vec<String>, bool)> {
    let mut all: BTreeMap<String, (String, Vec<String>, bool)> = BTreeMap::new();
    for (path, command) in commands(command) {
        for arg in command.get_arguments() {
            for (flag, variable) in variables(&path, arg) {
                let entry = all.entry(variable).or_insert((flag, Vec::new(), agrees(arg)));
                if !path.is_empty() {
                    entry.1.push(path.clone());
                }
            }
        }
    }
    all
}

/// Returns the text of `lakeforge help environment`.
pub(super) fn help(command: &Command) -> String {
    let mut text = HEAD.to_owned();
    for (variable, (flag, commands, agrees)) in of_flags(command) {
        let mark = if agrees { "*" } else { " " };
        let of = match commands.len() {
            0 => String::new(),
            1..=3 => format!(" of {}", commands.join(", ")),
            many => format!(" of {many} commands"),
        };
        text.push_str(&format!("{mark} {variable:<26} --{flag}{of}\n"));
    }
    text.push_str("\nVariables without a flag\n\n");
    for (variable, what) in OTHERS {
        text.push_str(&format!("  {variable:<26} {what}\n"));
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "\
Environment

A flag wins over its variable, the variable over lakeforge.yml and the bundle. An empty variable is
none. One that begins with LAKEFORGE_ and is not listed here is an error.

The variable of a switch is 1 or 0. One that is marked with * agrees to something; a switch among
them names the command that it is meant for, as in LAKEFORGE_YES='branch delete', and each is said
when it is used.

Variables of flags

";

const TAIL: &str = "
Variables of others that count where neither flag nor LAKEFORGE_… says anything

  DATABRICKS_…               workspace and login, as in the Databricks CLI and SDKs
  DATABRICKS_BUNDLE_ROOT     --root
  DATABRICKS_BUNDLE_TARGET   --target
  BUNDLE_VAR_<name>          value of a bundle variable
  PROJECT_NAME               --project of gen, where lakeforge.yml names no projects
  CUSTOM_BRANCHES            --branches of gen, where lakeforge.yml names no projects
  CI, GITHUB_ACTIONS         no questions and no live lines; secrets are masked
  NO_COLOR, TERM             no colour
";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_flag_of_every_command_has_a_variable_and_no_two_meanings_share_one() {
        let mut command = Cli::command();
        command.build();
        for (path, command) in commands(&command) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let is_help = ["help", "version"].contains(&arg.get_long().unwrap_or_default());
                assert_eq!(variables(&path, arg).is_empty(), is_help, "{path} {arg}");
            }
        }
        for (variable, (flag, ..)) in of_flags(&command) {
            let word = flag.to_uppercase().replace('-', "_");
            let last = word.split('_').next_back().unwrap_or_default();
            assert!(variable.ends_with(last), "{variable} of --{flag}");
        }
    }

    #[test]
    fn a_switch_that_is_not_known_to_be_harmless_agrees_to_something() {
        let mut command = Cli::command();
        command.build();
        let agreeing: BTreeSet<String> = of_flags(&command)
            .into_values()
            .filter(|(_, _, agrees)| *agrees)
            .map(|(flag, ..)| flag)
            .collect();
        for flag in ["yes", "confirm", "apply", "all", "as-deployed", "overwrite", "show"] {
            assert!(agreeing.contains(flag), "{flag}");
        }
    }
}
