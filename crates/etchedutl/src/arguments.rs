//! Flags and words as etcdutl's library takes them: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, in any
//! place; `--` ends the flags.

use std::collections::BTreeMap;

use etched::go_values::{GoDuration, parse_bool, parse_signed, parse_unsigned};

/// What can be said about a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

/// What stands behind a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// A whole number, not negative.
    Number,
    /// A whole number.
    Signed,
    Duration,
    /// On without a value.
    Switch,
}

/// What is wrong with an argument, in the words of etcdutl's library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("unknown flag: --{0}")]
    Unknown(String),
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShort(char, String),
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    #[error("invalid argument {value:?} for {flag:?} flag: {reason}")]
    Value { value: String, flag: String, reason: String },
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("accepts {wanted} arg(s), received {given}")]
    Count { wanted: usize, given: usize },
    #[error("invalid argument {word:?} for {who:?}")]
    Word { word: String, who: String },
    #[error("required flag(s) {0:?} not set")]
    Required(&'static str),
}

/// Flags that were given, and the words between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, String>,
    pub(crate) words: Vec<String>,
}

impl Given {
    /// Parses `arguments` with these flags.
    ///
    /// # Errors
    /// The first that does not parse.
    pub(crate) fn parse(arguments: &[String], flags: &[Flag]) -> Result<Self, ArgumentError> {
        let mut given = Self::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                given.words.extend(rest.by_ref().cloned());
            } else if let Some(flag) = word.strip_prefix("--") {
                given.long(flag, &mut rest, flags)?;
            } else if word.len() > 1 && word.starts_with('-') {
                given.short(&word[1..], &mut rest, flags)?;
            } else {
                given.words.push(word.clone());
            }
        }
        Ok(given)
    }

    /// The value of a flag, or its default; flags that the command does not have are empty.
    pub(crate) fn text(&self, flag: &Flag) -> &str {
        self.values.get(flag.name).map_or(flag.default, String::as_str)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value == "true")
    }

    fn long<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
        flags: &[Flag],
    ) -> Result<(), ArgumentError> {
        let (name, value) =
            word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.starts_with('-') {
            return Err(ArgumentError::Syntax(format!("--{word}")));
        }
        let flag = flags.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| ArgumentError::Unknown(name.to_owned()))?;
        let value = match (value, flag.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Switch) => "true".to_owned(),
            (None, _) => {
                rest.next().ok_or_else(|| ArgumentError::NoValue(format!("--{name}")))?.clone()
            }
        };
        self.set(flag, value)
    }

    fn short<'a>(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'a String>,
        flags: &[Flag],
    ) -> Result<(), ArgumentError> {
        let mut left = letters.chars();
        while let Some(letter) = left.next() {
            let flag = flags.iter().find(|flag| flag.short == Some(letter));
            let flag =
                flag.ok_or_else(|| ArgumentError::UnknownShort(letter, letters.to_owned()))?;
            if flag.kind == Kind::Switch {
                self.set(flag, "true".to_owned())?;
                continue;
            }
            let value = left.as_str().strip_prefix('=').unwrap_or(left.as_str());
            let value = match value {
                "" => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| ArgumentError::NoValue(format!("'{letter}' in -{letters}")))?,
                value => value.to_owned(),
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn set(&mut self, flag: &Flag, value: String) -> Result<(), ArgumentError> {
        let checked = match flag.kind {
            Kind::Text => Ok(value.clone()),
            Kind::Number => number(&value).map(|number| number.to_string()),
            Kind::Signed => parse_signed(&value)
                .map(|number| number.to_string())
                .map_err(|error| error.in_strconv("ParseInt", &value).to_string()),
            Kind::Switch => switch(&value).map(|on| on.to_string()),
            Kind::Duration => {
                GoDuration::parse(&value).map(|_| value.clone()).map_err(|error| error.to_string())
            }
        };
        let reason = match checked {
            Ok(checked) => {
                self.values.insert(flag.name, checked);
                return Ok(());
            }
            Err(reason) => reason,
        };
        let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        Err(ArgumentError::Value { value, flag: format!("{short}--{}", flag.name), reason })
    }
}

fn number(text: &str) -> Result<u64, String> {
    parse_unsigned(text, 64).map_err(|error| error.in_strconv("ParseUint", text).to_string())
}

fn switch(text: &str) -> Result<bool, String> {
    parse_bool(text).map_err(|error| error.in_strconv("ParseBool", text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Flag =
        Flag { name: "name", short: Some('n'), kind: Kind::Text, default: "x", help: "" };
    const COUNT: Flag =
        Flag { name: "count", short: None, kind: Kind::Number, default: "0", help: "" };
    const ON: Flag = Flag { name: "on", short: None, kind: Kind::Switch, default: "", help: "" };

    fn parse(line: &str) -> Result<Given, ArgumentError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Given::parse(&words, &[NAME, COUNT, ON])
    }

    #[test]
    fn flags_stand_anywhere_and_in_every_form() {
        for line in ["a --name b", "--name=b a", "-n b a", "-nb a", "a -n=b"] {
            let given = parse(line).unwrap();
            assert_eq!((given.text(&NAME), given.words.as_slice()), ("b", &["a".to_owned()][..]));
        }
        let given = parse("--on -- --name").unwrap();
        assert!(given.is_on("on") && given.text(&NAME) == "x");
        assert_eq!(given.words, ["--name"]);
        assert!(!parse("--on=false").unwrap().is_on("on"));
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_etcdutl() {
        for (line, words) in [
            ("--nope", "unknown flag: --nope"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            ("--name", "flag needs an argument: --name"),
            ("-n", "flag needs an argument: 'n' in -n"),
            (
                "--count -1",
                "invalid argument \"-1\" for \"--count\" flag: strconv.ParseUint: parsing \"-1\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), words, "{line}");
        }
    }
}
