//! What was said for every flag: typed, with defaults, before anything is checked together.

use std::collections::BTreeSet;

use crate::feature_gates::FeatureGates;
use crate::flags::{self, Flag, Kind};
use crate::go_values::{GoDuration, ValueError, parse_bool, parse_signed, parse_unsigned};
use crate::settings::Allowed;
use crate::urls::Url;

/// The value of a flag.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a text or a choice.
    Text(String),
    /// Of a boolean.
    Bool(bool),
    /// Of a number from 0 on.
    Unsigned(u64),
    /// Of a number with a sign.
    Signed(i64),
    /// Of a span of time.
    Duration(GoDuration),
    /// Of a list of URLs.
    Urls(Vec<Url>),
    /// Of origins.
    Origins(Allowed),
    /// Of a list or a set of texts.
    Texts(Vec<String>),
    /// Of switches.
    Gates(FeatureGates),
    /// Of a flag that is ignored.
    Nothing,
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody: the default.
    Default,
    /// An argument or an environment variable.
    Given,
    /// The config file.
    File,
}

/// A value for every flag.
#[derive(Debug, Clone)]
pub struct Values {
    entries: Vec<(&'static Flag, Value, Source)>,
}

impl Default for Values {
    fn default() -> Self {
        let entry = |flag: &'static Flag| (flag, default_of(flag), Source::Default);
        Self { entries: flags::all().map(entry).collect() }
    }
}

impl Values {
    /// Sets a flag from text as it stands on the command line.
    ///
    /// # Errors
    /// [`ValueError`] when the text is of the wrong kind.
    pub fn set(&mut self, flag: &Flag, text: &str, source: Source) -> Result<(), ValueError> {
        let (_, current, _) = &self.entries[position(flag.name)];
        let value = flag.kind.parse(text, current)?;
        self.put(flag, value, source);
        Ok(())
    }

    /// Sets a flag to a value, which is of the flag's kind.
    pub fn put(&mut self, flag: &Flag, value: Value, source: Source) {
        let entry = &mut self.entries[position(flag.name)];
        (entry.1, entry.2) = (value, source);
    }

    /// Who set the flag.
    pub fn source(&self, name: &str) -> Source {
        self.entries[position(name)].2
    }

    /// Whether somebody set the flag, be it to its default.
    pub fn is_set(&self, name: &str) -> bool {
        self.source(name) != Source::Default
    }

    /// Flags whose value is not their default.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Flag, &Value)> {
        let changed = self.entries.iter().filter(|(flag, value, _)| *value != default_of(flag));
        changed.map(|(flag, value, _)| (*flag, value))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => *value,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => *number,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Signed(number) => *number,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn duration(&self, name: &str) -> GoDuration {
        match self.value(name) {
            Value::Duration(duration) => *duration,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn urls(&self, name: &str) -> &[Url] {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn origins(&self, name: &str) -> &Allowed {
        match self.value(name) {
            Value::Origins(origins) => origins,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn texts(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::Texts(texts) => texts,
            other => wrong_kind(name, other),
        }
    }

    pub(crate) fn gates(&self) -> FeatureGates {
        match self.value("feature-gates") {
            Value::Gates(gates) => *gates,
            other => wrong_kind("feature-gates", other),
        }
    }

    fn value(&self, name: &str) -> &Value {
        &self.entries[position(name)].1
    }
}

impl Kind {
    /// The value that `text` means; `current` is what the flag holds so far.
    fn parse(self, text: &str, current: &Value) -> Result<Value, ValueError> {
        Ok(match self {
            Self::Text => Value::Text(text.to_owned()),
            Self::Bool => Value::Bool(parse_bool(text).map_err(|error| error.in_flag())?),
            Self::Unsigned => {
                Value::Unsigned(parse_unsigned(text, 64).map_err(|error| error.in_flag())?)
            }
            Self::Unsigned32 => {
                let number = parse_unsigned(text, 32);
                Value::Unsigned(number.map_err(|error| error.in_strconv("ParseUint", text))?)
            }
            Self::Signed => Value::Signed(parse_signed(text).map_err(|error| error.in_flag())?),
            Self::Duration => {
                let parsed = GoDuration::parse(text);
                Value::Duration(parsed.map_err(|_| ValueError("parse error".into()))?)
            }
            // An empty list leaves what is there: etcd's unit files have `--x=${X}`.
            Self::Urls if text.is_empty() => current.clone(),
            Self::Urls => Value::Urls(parse_urls(text)?),
            Self::Origins => Value::Origins(parse_origins(text)?),
            Self::TextSet => Value::Texts(set_of(text)),
            Self::TextList => Value::Texts(text.split(',').map(str::to_owned).collect()),
            Self::Choice(words) if words.contains(&text) => Value::Text(text.to_owned()),
            Self::Choice(_) => return Err(ValueError("invalid value".into())),
            Self::V2Deprecation => Value::Text(parse_stages(text)?),
            Self::Gates => match current {
                Value::Gates(gates) => Value::Gates(gates.with(text)?),
                _ => Value::Gates(FeatureGates::default().with(text)?),
            },
            Self::Ignored => Value::Nothing,
        })
    }
}

/// The value of a flag that nobody set.
pub(crate) fn default_of(flag: &Flag) -> Value {
    match flag.kind {
        Kind::Urls if flag.default.is_empty() => Value::Urls(Vec::new()),
        Kind::TextSet | Kind::TextList if flag.default.is_empty() => Value::Texts(Vec::new()),
        kind => kind.parse(flag.default, &Value::Nothing).expect("the defaults of the table parse"),
    }
}

pub(crate) fn parse_urls(text: &str) -> Result<Vec<Url>, ValueError> {
    Url::parse_list(text).map_err(|error| ValueError(error.to_string()))
}

pub(crate) fn parse_origins(text: &str) -> Result<Allowed, ValueError> {
    if text == "*" {
        return Ok(Allowed::Any);
    }
    let urls = parse_urls(text)?;
    Ok(Allowed::Only(urls.iter().map(Url::to_string).collect()))
}

/// The different items of a comma-separated list, sorted.
pub(crate) fn set_of(text: &str) -> Vec<String> {
    let items: BTreeSet<&str> = text.split(',').collect();
    items.into_iter().map(str::to_owned).collect()
}

const STAGES: [&str; 4] = ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];

fn parse_stages(text: &str) -> Result<String, ValueError> {
    match text.split(',').find(|word| !STAGES.contains(word)) {
        Some(word) => Err(ValueError(format!("invalid value {}", crate::go_values::quote(word)))),
        None => Ok(text.to_owned()),
    }
}

fn position(name: &str) -> usize {
    flags::all().position(|flag| flag.name == name).expect("a flag of the table")
}

fn wrong_kind(name: &str, value: &Value) -> ! {
    unreachable!("the table and its reader disagree about {name}: {value:?}")
}
