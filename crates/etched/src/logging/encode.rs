//! One event as one line, in zap's JSON or console form.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::{Format, Level};

/// Message and level of an event: what has to be known before it is worth encoding.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) message: String,
    pub(super) level: Option<Level>,
}

impl Visit for Summary {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "level" => self.level = Level::parse(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// The line of an event, with its end.
pub(super) fn line(
    format: Format,
    time: Timestamp,
    summary: &Summary,
    event: &Event<'_>,
) -> String {
    let mut line = String::with_capacity(256);
    let metadata = event.metadata();
    let level = summary.level.unwrap_or_else(|| Level::of(metadata)).name();
    let caller = caller(metadata);
    let written = match (format, logger(metadata)) {
        (Format::Json, logger) => {
            let mut head = format!("{{\"level\":\"{level}\",\"ts\":\"{time}\"");
            for (name, text) in [("logger", logger.unwrap_or_default()), ("caller", &caller)] {
                if !text.is_empty() {
                    let _ = write!(head, ",\"{name}\":{}", json(text));
                }
            }
            write!(line, "{head},\"msg\":{}", json(&summary.message))
        }
        (Format::Console, logger) => {
            let logger = logger.map(|name| format!("{name}\t")).unwrap_or_default();
            let caller = if caller.is_empty() { caller } else { format!("{caller}\t") };
            write!(line, "{time}\t{level}\t{logger}{caller}{}", summary.message)
        }
    };
    written.expect("a string takes every line");
    let mut fields = Fields { format, text: String::new() };
    event.record(&mut fields);
    match format {
        Format::Json => line.extend([fields.text.as_str(), "}\n"]),
        Format::Console if fields.text.is_empty() => line.push('\n'),
        Format::Console => line.extend(["\t{", &fields.text, "}\n"]),
    }
    line
}

impl Level {
    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
        match *metadata.level() {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// The name of a part with its own logger: the target, when somebody wrote one out.
fn logger<'a>(metadata: &Metadata<'a>) -> Option<&'a str> {
    (metadata.module_path() != Some(metadata.target())).then(|| metadata.target())
}

/// `server/run.rs:12` for line 12 of `crates/server/src/run.rs`; folder and file as zap has them.
fn caller(metadata: &Metadata<'_>) -> String {
    let (Some(file), Some(line)) = (metadata.file(), metadata.line()) else {
        return String::new();
    };
    let mut parts = file.rsplit(['/', '\\']).filter(|part| *part != "src");
    let name = parts.next().unwrap_or_default();
    match parts.next() {
        Some(folder) => format!("{folder}/{name}:{line}"),
        None => format!("{name}:{line}"),
    }
}

/// Collects the fields of an event behind the message.
struct Fields {
    format: Format,
    text: String,
}

impl Fields {
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if matches!(field.name(), "message" | "level") {
            return;
        }
        let name = json(field.name());
        let written = match self.format {
            Format::Json => write!(self.text, ",{name}:{value}"),
            Format::Console if self.text.is_empty() => write!(self.text, "{name}: {value}"),
            Format::Console => write!(self.text, ", {name}: {value}"),
        };
        written.expect("a string takes every field");
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push(field, format_args!("{value}"));
        } else {
            self.push(field, format_args!("\"{value}\""));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, format_args!("{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push(field, format_args!("{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, format_args!("{}", json(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match string_list(&text) {
            Some(list) if self.format == Format::Json => {
                self.push(field, format_args!("{}", json(&list)));
            }
            Some(list) => {
                let list: Vec<_> = list.iter().map(json).collect();
                self.push(field, format_args!("[{}]", list.join(", ")));
            }
            None => self.push(field, format_args!("{}", json(&text))),
        }
    }
}

/// The strings in the debug form of a list of strings.
fn string_list(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and lists of strings have a JSON form")
}

/// A time in UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamp {
    date: (i64, u32, u32),
    second_of_day: u64,
    micros: u32,
}

impl Timestamp {
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let days = i64::try_from(since.as_secs() / 86_400).unwrap_or_default();
        Self {
            date: date_of(days),
            second_of_day: since.as_secs() % 86_400,
            micros: since.subsec_micros(),
        }
    }

    /// The form in the name of a log file that was set aside: `2026-11-23T04-38-24.748`.
    pub(super) fn in_file_name(self) -> String {
        let (year, month, day) = self.date;
        let (hour, minute, second) = self.clock();
        let millis = self.micros / 1000;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{millis:03}")
    }

    pub(super) fn is_in_file_name(text: &str) -> bool {
        let shape = "0000-00-00T00-00-00.000";
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                sign => byte == sign,
            })
    }

    fn clock(self) -> (u64, u64, u64) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }
}

impl fmt::Display for Timestamp {
    /// `2026-11-23T04:38:24.748818Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date;
        let (hour, minute, second) = self.clock();
        let micros = self.micros;
        write!(formatter, "{year:04}-{month:02}-{day:02}T")?;
        write!(formatter, "{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years (146,097 days) from 1 March of year 0, so that the leap day is the
/// last of a year and months have a fixed pattern of 153 days in five.
fn date_of(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |number| u32::try_from(number).expect("a month or a day");
    (year, small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_etcd_writes_them() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
            (1_795_408_704, "2026-11-23T04:38:24.000007Z"),
        ] {
            let time = UNIX_EPOCH + Duration::new(secs, 7_999);
            assert_eq!(Timestamp::of(time).to_string(), text);
        }
    }

    #[test]
    fn only_a_time_is_taken_for_the_time_in_a_file_name() {
        assert!(Timestamp::is_in_file_name(&Timestamp::of(UNIX_EPOCH).in_file_name()));
        assert!(!Timestamp::is_in_file_name("notes"));
        assert!(!Timestamp::is_in_file_name("1970-01-01T00:00:00.000"));
    }
}
