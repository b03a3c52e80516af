//! Moments and durations: as people type them, as the wire writes them, as answers show them.

use std::time::Duration;

use jiff::{SignedDuration, Span, Timestamp, civil, fmt::strtime, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of whole and fractional seconds, on the wire `"3600s"` or `"3.5s"` (protobuf JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ttl(pub(crate) Duration);

impl Ttl {
    /// Creates a span of `seconds`.
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Ttl(Duration::from_secs(seconds))
    }

    /// Reads `90s`, `15m`, `24h`, `7d`, `2w`, or several of them (`1h30m`).
    ///
    /// Fails with a sentence when the text is none of these, is zero or is negative.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a duration; write `90s`, `15m`, `24h` or `7d`");
        let span: Span = text.trim().parse().map_err(|_| refuse())?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(format!("`{text}` has no fixed length; write it in days, such as `30d`"));
        }
        let exact =
            span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refuse())?;
        match Duration::try_from(exact) {
            Ok(length) if !length.is_zero() => Ok(Ttl(length)),
            _ => Err(format!("`{text}` must be longer than nothing")),
        }
    }

    /// Returns the moment this long after `start`, or the last one there is.
    pub(crate) fn after(self, start: Timestamp) -> Timestamp {
        let exact = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        start.saturating_add(exact).unwrap_or(Timestamp::MAX)
    }
}

impl std::fmt::Display for Ttl {
    /// Writes the largest units that fit, such as `1d 2h`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&human(self.0))
    }
}

impl std::str::FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ttl::parse(text)
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return serializer.collect_str(&format_args!("{seconds}s"));
        }
        let fraction = format!("{nanos:09}");
        serializer.collect_str(&format_args!("{seconds}.{}s", fraction.trim_end_matches('0')))
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_suffix('s')
            .and_then(|number| number.parse::<f64>().ok())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Ttl)
            .ok_or_else(|| {
                de::Error::custom(format!("`{text}` is not a duration such as \"3600s\""))
            })
    }
}

/// Reads a moment as people type it: RFC 3339 with a zone, `10 minutes ago`, `-2h`, `in 7 days`,
/// `2026-11-20 14:00 Europe/Berlin`, `yesterday 14:00 Europe/Berlin`.
///
/// A moment without a zone is refused unless it is relative to `now`. Fails with a sentence.
pub(crate) fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Ok(exact);
    }
    if text == "now" {
        return Ok(now);
    }
    if let Some(relative) = parse_relative(text) {
        return now.checked_add(relative).map_err(|_| format!("`{text}` is too far away"));
    }
    let (body, zone) = split_zone(text);
    let civil = parse_civil(body, &now.to_zoned(zone.clone().unwrap_or(TimeZone::UTC)));
    let civil = civil.ok_or_else(|| {
        format!("`{text}` is not a time; write `2026-01-02T03:04:05Z` or `10 minutes ago`")
    })?;
    let Some(zone) = zone else {
        return Err(format!(
            "`{text}` has no time zone; write `2026-01-02T03:04:05Z`, `10 minutes ago`, or add a zone such as `Europe/Berlin`"
        ));
    };
    let zoned = civil.to_zoned(zone).map_err(|error| format!("`{text}`: {error}"))?;
    Ok(zoned.timestamp())
}

/// Returns `moment` without what is finer than a millisecond.
pub(crate) fn to_milliseconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}

/// Reads `-2h`, `10 minutes ago`, `+2h` and `in 10 minutes` as what to add to now.
fn parse_relative(text: &str) -> Option<SignedDuration> {
    let back = text.strip_prefix('-').or_else(|| text.strip_suffix("ago"));
    let length = back.or_else(|| text.strip_prefix('+')).or_else(|| text.strip_prefix("in "))?;
    let span: Span = length.trim().parse().ok()?;
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    let length = (!length.is_negative()).then_some(length)?;
    Some(if back.is_some() { -length } else { length })
}

/// Splits a trailing zone name (`Europe/Berlin`, `UTC`) from `text`.
fn split_zone(text: &str) -> (&str, Option<TimeZone>) {
    let Some((body, name)) = text.rsplit_once(' ') else { return (text, None) };
    let zone = match name {
        "UTC" | "Z" => Some(TimeZone::UTC),
        name if name.contains('/') => TimeZone::get(name).ok(),
        _ => None,
    };
    match zone {
        Some(zone) => (body.trim(), Some(zone)),
        None => (text, None),
    }
}

/// Reads a date and time, or `today`, `yesterday` and `14:00`, as of the local time `now`.
fn parse_civil(text: &str, now: &jiff::Zoned) -> Option<civil::DateTime> {
    if let Ok(exact) = text.parse::<civil::DateTime>() {
        return Some(exact);
    }
    if let Ok(exact) = strtime::parse("%Y-%m-%d %H:%M", text).and_then(|parts| parts.to_datetime())
    {
        return Some(exact);
    }
    let parsed = parse_datetime::parse_datetime_at_date(now.clone(), text).ok()?;
    parsed.into_zoned().map(|zoned| zoned.datetime())
}

/// Writes a length as people say it: `850ms`, `12s`, `3m 5s`, `2h 10m`, `6d 4h`.
pub(crate) fn human(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit} {small}{small_unit}")
        }
    };
    match seconds {
        0 => format!("{}ms", length.as_millis()),
        1..=9 => format!("{:.1}s", length.as_secs_f64()),
        10..=59 => format!("{seconds}s"),
        60..=3599 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..=86_399 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// Writes how far `then` is from `now`: `5m ago`, `in 23h 59m`.
pub(crate) fn distance(then: Timestamp, now: Timestamp) -> String {
    let apart = now.duration_since(then);
    let length = human(apart.unsigned_abs());
    if apart.is_negative() { format!("in {length}") } else { format!("{length} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a fixed moment")
    }

    #[test]
    fn durations_are_read_as_people_type_them() {
        for (text, seconds) in
            [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("1h30m", 5400)]
        {
            assert_eq!(Ttl::parse(text), Ok(Ttl::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "-1h", "0s", "1 month", "soon"] {
            assert!(Ttl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_wire_writes_seconds() {
        assert_eq!(serde_json::to_string(&Ttl::from_secs(3600)).unwrap(), "\"3600s\"");
        assert_eq!(serde_json::to_string(&Ttl(Duration::from_millis(3500))).unwrap(), "\"3.5s\"");
        assert_eq!(
            serde_json::from_str::<Ttl>("\"3.5s\"").unwrap(),
            Ttl(Duration::from_millis(3500))
        );
        assert!(serde_json::from_str::<Ttl>("\"1h\"").is_err());
    }

    #[test]
    fn moments_are_read_with_a_zone_or_relative_to_now() {
        for (text, expected) in [
            ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"),
            ("2026-11-20T10:00:00+02:00", "2026-11-20T08:00:00Z"),
            ("10 minutes ago", "2026-11-20T11:50:00Z"),
            ("-2h", "2026-11-20T10:00:00Z"),
            ("7d ago", "2026-11-13T12:00:00Z"),
            ("in 2 hours", "2026-11-20T14:00:00Z"),
            ("+7d", "2026-11-27T12:00:00Z"),
            ("2026-11-20 14:00 UTC", "2026-11-20T14:00:00Z"),
            ("2026-11-20 14:00 Europe/Berlin", "2026-11-20T13:00:00Z"),
            ("yesterday 14:00 Europe/Berlin", "2026-11-19T13:00:00Z"),
            ("now", "2026-11-20T12:00:00Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse_moment(text, now()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_moment_without_a_zone_is_refused() {
        for text in ["2026-11-20 14:00", "2026-11-20T14:00:00", "yesterday 14:00", "14:00"] {
            let why = parse_moment(text, now()).unwrap_err();
            assert!(why.contains("has no time zone"), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_as_such() {
        for text in ["soonish", "Nowhere/City", "in a while", "- ago"] {
            let why = parse_moment(text, now()).unwrap_err();
            assert!(why.contains("is not a time"), "{text}: {why}");
        }
        for text in ["", "7d"] {
            assert!(parse_moment(text, now()).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_read_well() {
        assert_eq!(human(Duration::from_millis(850)), "850ms");
        assert_eq!(human(Duration::from_secs(3600)), "1h");
        assert_eq!(distance(now(), Ttl::from_secs(185).after(now())), "3m 5s ago");
    }
}
