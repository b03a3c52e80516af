//! Text of others made fit to be shown: it cannot steer a terminal or a CI system.

use std::borrow::Cow;
use std::fmt::Write;

/// Commands of GitHub Actions and Azure Pipelines that count anywhere in a line: `##[group]`, `##vso[…]`.
const ANYWHERE: [&str; 2] = ["##[", "##vso["];
/// Command of GitHub Actions at the beginning of a line: `::stop-commands::`.
const AT_BEGINNING: &str = "::";

/// Returns `text` with what steers a terminal or a CI system written out: control characters but
/// for line ends and tabs, marks that turn the direction of writing, and workflow commands.
///
/// Source of the commands: actions/runner `ActionCommand.cs`, read 2026-08.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) && !has_command(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if steers(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
    }
    if !has_command(&shown) {
        return Cow::Owned(shown);
    }
    for command in ANYWHERE {
        shown = shown.replace(command, &format!("#\\{}", &command[1..]));
    }
    let line = |line: &str| match line.trim_start().strip_prefix(AT_BEGINNING) {
        Some(rest) => {
            let blank = &line[..line.len() - line.trim_start().len()];
            format!("{blank}\\{AT_BEGINNING}{rest}")
        }
        None => line.to_owned(),
    };
    Cow::Owned(shown.split_inclusive('\n').map(line).collect())
}

/// Returns the JSON document `json` with what [`plain`] writes out as escapes, which read back as
/// they were.
pub(super) fn plain_json(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) && !ANYWHERE.iter().any(|command| json.contains(command)) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if steers(c) {
            write!(shown, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
        } else {
            shown.push(c);
        }
    }
    for command in ANYWHERE {
        shown = shown.replace(command, &format!("\\u0023{}", &command[1..]));
    }
    Cow::Owned(shown)
}

/// Returns whether `c` does something to a terminal beside being shown.
fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn has_command(text: &str) -> bool {
    ANYWHERE.iter().any(|command| text.contains(command))
        || text.lines().any(|line| line.trim_start().starts_with(AT_BEGINNING))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_is_written_out() {
        for (text, expected) in [
            ("plain → ünï\n\tcode", "plain → ünï\n\tcode"),
            ("\u{1b}[2J\u{7}gone", "\\u{1b}[2J\\u{7}gone"),
            ("one\rtwo\u{7f}\u{9b}31m", "one\\u{d}two\\u{7f}\\u{9b}31m"),
            ("invoice\u{202e}fdp.exe", "invoice\\u{202e}fdp.exe"),
            ("::error::no", "\\::error::no"),
            ("a\n \u{a0}::stop-commands::x\nb::c", "a\n \u{a0}\\::stop-commands::x\nb::c"),
            ("see ##[group]x", "see #\\#[group]x"),
            ("##vso[task.setvariable]x", "#\\#vso[task.setvariable]x"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nothing_that_steers_is_left(text in "[\\PC\u{0}-\u{9f}\u{2028}\u{202e}\u{2066}:#\\[\n ]{0,60}") {
            let shown = plain(&text);
            prop_assert!(!shown.contains(steers), "{:?}", shown);
            prop_assert!(!has_command(&shown), "{:?}", shown);
            prop_assert_eq!(plain(&shown), shown.clone());
        }

        #[test]
        fn json_reads_back_as_it_was(text in "[\\PC\u{0}-\u{9f}\u{202e}:#\\[\n ]{0,60}") {
            for json in [serde_json::json!({ "x": text }).to_string(), serde_json::to_string_pretty(&[&text]).unwrap()] {
                let shown = plain_json(&json);
                prop_assert!(!shown.contains(steers), "{:?}", shown);
                prop_assert!(!has_command(&shown), "{:?}", shown);
                let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
                prop_assert_eq!(read, serde_json::from_str::<serde_json::Value>(&json).unwrap());
            }
        }
    }
}
