//! The table of flags, and the reading of arguments by the rules of Go's `flag` package.
//!
//! The table is the one place that says what a flag is called, what it takes, what its default is,
//! under which key a config file has it and whether it has an effect yet. Help, environment, config
//! file and the scope check all go by it.

mod clustering;
mod member;
mod operation;
mod security;

use std::fmt;

use crate::go_values::{ValueError, quote};
use crate::values::{Source, Values};

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// Where help shows it.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as it would be written.
    pub default: &'static str,
    /// What it is for, in one sentence.
    pub help: &'static str,
    /// Its key in a config file, dots for nesting; none when a file cannot set it.
    pub yaml: Option<&'static str>,
    /// Whether it does something.
    pub scope: Scope,
}

/// A group of flags in help; etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Not about the server.
    General,
    /// This member.
    Member,
    /// Its cluster.
    Clustering,
    /// Certificates and who may connect.
    Security,
    /// Users.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// The log.
    Logging,
    /// Spans.
    Tracing,
    /// Periods, limits and warnings.
    Features,
    /// What gives up guarantees.
    Unsafe,
    /// Taken and thrown away; not in help.
    Ignored,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A boolean; needs no value on the command line.
    Bool,
    /// A number of 64 bits from 0 on.
    Unsigned,
    /// A number of 32 bits from 0 on.
    Unsigned32,
    /// A number of 64 bits with a sign.
    Signed,
    /// A span of time.
    Duration,
    /// A comma-separated list of URLs.
    Urls,
    /// The same for browsers' origins, or `*`.
    Origins,
    /// A comma-separated set of texts.
    TextSet,
    /// A comma-separated list of texts.
    TextList,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A list out of the stages of etcd's old store.
    V2Deprecation,
    /// A list of switches.
    Gates,
    /// Anything; thrown away.
    Ignored,
}

/// What a flag does in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What it says.
    Effective,
    /// Nothing, for this reason; a value other than the default is warned about.
    NoEffect(&'static str),
    /// Nothing yet, because this is to come; a value other than the default is refused.
    Later(&'static str),
}

/// Groups with their flags, in the order of help.
pub const GROUPS: [(Group, &[Flag]); 11] = [
    (Group::General, member::GENERAL),
    (Group::Member, member::MEMBER),
    (Group::Clustering, clustering::CLUSTERING),
    (Group::Security, security::SECURITY),
    (Group::Auth, operation::AUTH),
    (Group::Monitoring, operation::MONITORING),
    (Group::Logging, operation::LOGGING),
    (Group::Tracing, operation::TRACING),
    (Group::Features, operation::FEATURES),
    (Group::Unsafe, operation::UNSAFE),
    (Group::Ignored, IGNORED),
];

/// Flags that etcd takes and throws away; values need the `=` form.
const IGNORED: &[Flag] = &[
    Flag::ignored("cluster-active-size"),
    Flag::ignored("cluster-remove-delay"),
    Flag::ignored("cluster-sync-interval"),
    Flag::ignored("config"),
    Flag::ignored("force"),
    Flag::ignored("max-result-buffer"),
    Flag::ignored("max-retry-attempts"),
    Flag::ignored("peer-heartbeat-interval"),
    Flag::ignored("peer-election-timeout"),
    Flag::ignored("retry-interval"),
    Flag::ignored("snapshot"),
    Flag::ignored("v"),
    Flag::ignored("vv"),
    Flag::ignored("test.coverprofile"),
    Flag::ignored("test.outputdir"),
];

impl Flag {
    const fn new(
        group: Group,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, group, kind, default, help, yaml: None, scope: Scope::Effective }
    }

    const fn ignored(name: &'static str) -> Self {
        Self::new(Group::Ignored, name, Kind::Ignored, "", "")
    }

    const fn yaml(mut self, key: &'static str) -> Self {
        self.yaml = Some(key);
        self
    }

    const fn later(mut self, what: &'static str) -> Self {
        self.scope = Scope::Later(what);
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.scope = Scope::NoEffect(why);
        self
    }

    /// The environment variable that sets it: `ETCD_` and the name in capitals, `-` as `_`.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Whether it stands for true when no value follows.
    fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Ignored)
    }

    /// Whether its value must not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.name, "discovery-password" | "discovery-user")
    }
}

/// All flags, group by group.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.into_iter().flat_map(|(_, flags)| flags)
}

/// The flag of that name.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// An argument cannot be read; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentError {
    /// Three dashes, or a dash without a name.
    Syntax(String),
    /// There is no such flag.
    NotDefined(String),
    /// It stands last and needs a value.
    NeedsArgument(&'static str),
    /// Its value is of the wrong kind.
    InvalidValue {
        /// The flag.
        flag: &'static Flag,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: ValueError,
    },
    /// It is not UTF-8.
    Encoding(String),
    /// Not an error: somebody asks for help.
    Help,
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(argument) => write!(formatter, "bad flag syntax: {argument}"),
            Self::NotDefined(name) => write!(formatter, "flag provided but not defined: -{name}"),
            Self::NeedsArgument(name) => write!(formatter, "flag needs an argument: -{name}"),
            Self::InvalidValue { flag, value, reason } => {
                let (value, name) = (quote(value), flag.name);
                match flag.kind {
                    Kind::Bool => {
                        write!(formatter, "invalid boolean value {value} for -{name}: {reason}")
                    }
                    _ => write!(formatter, "invalid value {value} for flag -{name}: {reason}"),
                }
            }
            Self::Encoding(argument) => write!(formatter, "argument is not UTF-8: {argument}"),
            Self::Help => formatter.write_str("flag: help requested"),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// Sets `values` from the arguments behind the program's name and returns the words left over.
///
/// Reading stops at the first word that is no flag, at `-` and behind `--`.
///
/// # Errors
/// [`ArgumentError`] of the first argument that cannot be read; [`ArgumentError::Help`] for `-h`
/// and `-help`.
pub fn parse(arguments: &[String], values: &mut Values) -> Result<Vec<String>, ArgumentError> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.as_slice().first() {
        let Some(text) = argument.strip_prefix('-').filter(|text| !text.is_empty()) else {
            break;
        };
        rest.next();
        let text = text.strip_prefix('-').unwrap_or(text);
        if text.is_empty() {
            break;
        }
        if text.starts_with(['-', '=']) {
            return Err(ArgumentError::Syntax(argument.clone()));
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let flag = find(name).ok_or_else(|| match name {
            "help" | "h" => ArgumentError::Help,
            _ => ArgumentError::NotDefined(name.to_owned()),
        })?;
        let value = match value {
            Some(value) => value,
            None if flag.is_switch() => "true".to_owned(),
            None => rest.next().cloned().ok_or(ArgumentError::NeedsArgument(flag.name))?,
        };
        values.set(flag, &value, Source::Given).map_err(|reason| ArgumentError::InvalidValue {
            flag,
            value,
            reason,
        })?;
    }
    Ok(rest.cloned().collect())
}

/// The arguments with secrets made unreadable, for the log.
pub fn without_secrets(arguments: &[String]) -> Vec<String> {
    let secret = |text: &str| {
        let name = text.trim_start_matches('-');
        text.starts_with('-') && find(name).is_some_and(Flag::is_secret)
    };
    let mut hide_next = false;
    let hidden = arguments.iter().map(|argument| {
        let hide = std::mem::replace(&mut hide_next, secret(argument));
        match argument.split_once('=') {
            _ if hide => "***".to_owned(),
            Some((name, _)) if secret(name) => format!("{name}=***"),
            _ => argument.clone(),
        }
    });
    hidden.collect()
}
