//! Numbers, booleans and durations as Go's `flag` and `strconv` read and print them.

use std::fmt;
use std::time::Duration;

/// Why a value was not taken, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(pub(crate) String);

impl fmt::Display for ValueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// Why a number is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// It is not written like one.
    Syntax,
    /// It is too large.
    Range,
}

impl NumberError {
    /// What Go's `flag` package says.
    pub(crate) fn in_flag(self) -> ValueError {
        ValueError(match self {
            Self::Syntax => "parse error".into(),
            Self::Range => "value out of range".into(),
        })
    }

    /// What Go's `strconv` package says.
    pub fn in_strconv(self, function: &str, text: &str) -> ValueError {
        let reason = match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        };
        ValueError(format!("strconv.{function}: parsing {}: {reason}", quote(text)))
    }
}

/// `text` in double quotes, as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\x{:02x}", control as u32))
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// What went wrong with a file, in the words of Go: `no such file or directory`.
pub fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

/// A boolean: `1 t T true TRUE True` and their opposites, nothing else.
///
/// # Errors
/// [`NumberError::Syntax`].
pub fn parse_bool(text: &str) -> Result<bool, NumberError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(NumberError::Syntax),
    }
}

/// An unsigned number of at most `bits` bits; `0x`, `0o`, `0b`, a leading 0 and `_` are understood.
///
/// # Errors
/// [`NumberError`].
pub fn parse_unsigned(text: &str, bits: u32) -> Result<u64, NumberError> {
    let (radix, digits, prefixed) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..], true),
        [b'0', b'o' | b'O', ..] => (8, &text[2..], true),
        [b'0', b'b' | b'B', ..] => (2, &text[2..], true),
        [b'0', _, ..] => (8, &text[1..], true),
        _ => (10, text, false),
    };
    // Underscores stand between digits, or between a prefix and a digit.
    let misplaced = digits.ends_with('_') || digits.contains("__");
    let misplaced = misplaced || (digits.starts_with('_') && !prefixed);
    let digits: String = digits.chars().filter(|character| *character != '_').collect();
    if misplaced || digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    let number = u64::from_str_radix(&digits, radix).map_err(|_| NumberError::Range)?;
    if bits < 64 && number >> bits != 0 { Err(NumberError::Range) } else { Ok(number) }
}

/// A signed number of 64 bits, written as [`parse_unsigned`] reads it, with an optional sign.
///
/// # Errors
/// [`NumberError`].
pub fn parse_signed(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let size = i128::from(parse_unsigned(digits, 64)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| NumberError::Range)
}

/// A span of time as Go counts it: nanoseconds, also negative ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

/// Nanoseconds in each unit; both ways to write the micro sign.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// Reads `300ms`, `-1.5h`, `2h45m` or `0`.
    ///
    /// # Errors
    /// [`ValueError`] in the words of Go's `time` package.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let invalid = || ValueError(format!("time: invalid duration {}", quote(text)));
        let (negative, mut rest) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (nanos, after) = parse_unit(rest, text)?;
            total += nanos;
            rest = after;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).map(Self).map_err(|_| invalid())
    }

    /// The span; zero for a negative one.
    pub fn saturating(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// Reads one number with its unit from the start of `rest`, which is part of `text`.
fn parse_unit<'a>(rest: &'a str, text: &str) -> Result<(i128, &'a str), ValueError> {
    let invalid = || ValueError(format!("time: invalid duration {}", quote(text)));
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    let number_end = rest.find(|character| !is_number(character)).unwrap_or(rest.len());
    let (number, after) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(invalid());
    }
    let unit_end = after.find(is_number).unwrap_or(after.len());
    let (unit, after) = after.split_at(unit_end);
    if unit.is_empty() {
        let words = format!("time: missing unit in duration {}", quote(text));
        return Err(ValueError(words));
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let (unit, text) = (quote(unit), quote(text));
        return Err(ValueError(format!("time: unknown unit {unit} in duration {text}")));
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    // Beyond 18 digits nothing is left of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10i128.pow(u32::try_from(fraction.len()).expect("at most 18"));
    let part: i128 =
        if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
    Ok((i128::from(whole) * nanos + part * nanos / scale, after))
}

impl fmt::Display for GoDuration {
    /// Go's shortest form: `1h0m0s`, `1.5s`, `100ms`, `0s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            formatter.write_str("-")?;
        }
        match nanos {
            0 => formatter.write_str("0s"),
            1..1_000 => write!(formatter, "{nanos}ns"),
            1_000..1_000_000 => write!(formatter, "{}\u{b5}s", decimal(nanos, 3)),
            1_000_000..1_000_000_000 => write!(formatter, "{}ms", decimal(nanos, 6)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(formatter, "{minutes}m")?,
                    (hours, minutes) => write!(formatter, "{hours}h{minutes}m")?,
                }
                write!(formatter, "{}s", decimal(nanos % 60_000_000_000, 9))
            }
        }
    }
}

/// `number / 10^places`, without zeros at the end.
fn decimal(number: u64, places: u32) -> String {
    let unit = 10u64.pow(places);
    let text = format!("{}.{:0width$}", number / unit, number % unit, width = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (100_000_000, "100ms"),
            (1_000_000_001, "1.000000001s"),
            (90_000_000_000, "1m30s"),
            (7_200_000_000_000, "2h0m0s"),
            (-10_000_000_000, "-10s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("+5s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3\u{b5}s", 3_000),
            ("1.000000001s", 1_000_000_001),
        ] {
            assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_in_the_words_of_go() {
        for (text, words) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            (".s", "time: invalid duration \".s\""),
            ("99999999999h", "time: invalid duration \"99999999999h\""),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn numbers_may_be_written_in_every_base() {
        for (text, number) in
            [("10", 10), ("0x1F", 31), ("0o17", 15), ("017", 15), ("0b11", 3), ("1_000", 1000)]
        {
            assert_eq!(parse_unsigned(text, 64), Ok(number), "{text}");
        }
        for text in ["", "-1", "+1", "1_", "_1", "08", "0x", "1.5", " 1", "1__0"] {
            assert_eq!(parse_unsigned(text, 64), Err(NumberError::Syntax), "{text:?}");
        }
        assert_eq!(parse_unsigned("4294967296", 32), Err(NumberError::Range));
        assert_eq!(parse_unsigned("99999999999999999999", 64), Err(NumberError::Range));
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err(NumberError::Range));
    }
}
