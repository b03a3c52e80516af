//! A list of the pull requests that are open, with a mark at its end that shows that it is whole.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};

/// What prints a list that says the state of each pull request, and so needs no such mark.
pub(super) const WITH_STATES: &str = "gh pr list --state all --limit 10000 --json number,state";
/// Word of the last line; how many numbers there are follows it.
const END: &str = "end";

/// Reads one number per line and, as the last line, `end COUNT` with how many there are.
///
/// The last line must be ended: cut anywhere, the list loses its end, or its numbers are not as
/// many as it says. Fails with `Usage`.
pub(super) fn parse(text: &str) -> Result<BTreeSet<u64>> {
    let text = text.trim_start_matches('\u{feff}');
    let whole = text.strip_suffix('\n').ok_or_else(no_end)?;
    let (numbers, end) = whole.rsplit_once('\n').unwrap_or(("", whole));
    let expected: usize = end
        .trim()
        .strip_prefix(END)
        .and_then(|count| count.strip_prefix(' ')?.parse().ok())
        .ok_or_else(no_end)?;
    let lines = numbers.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let numbers: Vec<u64> = lines.map(|(at, line)| number(at + 1, line)).collect::<Result<_>>()?;
    if numbers.len() == expected {
        return Ok(numbers.into_iter().collect());
    }
    Err(refuse(format!("it holds {} numbers, and ends with `{}`", numbers.len(), end.trim())))
}

fn number(line: usize, text: &str) -> Result<u64> {
    let text = text.trim();
    let wrong = || refuse(format!("line {line} is not a number: `{text}`"));
    text.strip_prefix('#').unwrap_or(text).parse().map_err(|_| wrong())
}

fn no_end() -> Error {
    refuse("its last line is not `end COUNT`, so that it could be cut".to_owned())
}

fn refuse(why: String) -> Error {
    Error::new(Kind::Usage, "the list of open pull requests is not whole")
        .code("OPEN_PRS_NOT_WHOLE")
        .why(why)
        .hint(format!("--prs with what `{WITH_STATES}` prints"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_its_end_is_read() {
        for text in ["7\n12\nend 2\n", "\u{feff}#7\r\n\r\n #12\r\nend 2\r\n", "12\n7\n end 2 \n"] {
            assert_eq!(parse(text).unwrap(), BTreeSet::from([7, 12]), "{text:?}");
        }
        assert_eq!(parse("7\n7\nend 2\n").unwrap(), BTreeSet::from([7]));
        assert_eq!(parse("end 0\n").unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_list_without_its_end_or_with_anything_else_is_refused() {
        for (text, part) in [
            ("", "end COUNT"),
            (" \r\n", "end COUNT"),
            ("7\n12\n", "end COUNT"),
            ("7\n12\nend 2", "end COUNT"),
            ("7\n12\nend\n", "end COUNT"),
            ("7\n12\nend2\n", "end COUNT"),
            ("7\n12\nend -2\n", "end COUNT"),
            ("7\n12\nend 2\n\n", "end COUNT"),
            ("7\n12\nend 2\n8\n", "end COUNT"),
            ("[7, 12]\n", "end COUNT"),
            ("[{\"number\":7}]", "end COUNT"),
            ("7\n12\nend 3\n", "it holds 2 numbers, and ends with `end 3`"),
            ("7\n12\nend 1\n", "it holds 2 numbers"),
            ("end 1\n", "it holds 0 numbers"),
            ("7\nHTTP 502 Bad Gateway\nend 1\n", "line 2 is not a number: `HTTP 502 Bad Gateway`"),
            ("7\nend 1\n8\nend 2\n", "line 2 is not a number: `end 1`"),
            ("7,12\nend 1\n", "line 1 is not a number"),
            ("-7\nend 1\n", "line 1 is not a number"),
            ("18446744073709551616\nend 1\n", "line 1 is not a number"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }
}
