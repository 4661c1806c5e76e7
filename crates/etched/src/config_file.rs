//! Settings from a YAML or JSON file with etcd's keys.
//!
//! When there is a file, arguments and environment count for nothing. Durations are integers in
//! nanoseconds; lists of URLs are one text with commas; `log-outputs`, `cipher-suites` and lists of
//! names are lists. Keys that nobody knows are accepted, as in etcd, but named in the log.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use tracing::warn;

use crate::flags::{self, Flag, Kind};
use crate::go_values::{GoDuration, ValueError, io_reason};
use crate::values::{Source, Value, Values, parse_origins, parse_urls, set_of};
use crate::yaml::Node;

/// The config file keeps the server from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFileError {
    /// It cannot be read.
    Read {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is neither YAML nor JSON.
    Syntax {
        /// Its path.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A key holds the wrong kind of value.
    WrongKind {
        /// The key, with dots for nesting.
        key: String,
        /// What it takes.
        wanted: &'static str,
        /// What it holds.
        found: String,
    },
    /// `feature-gates` names what there is not.
    Gates(ValueError),
    /// `initial-cluster-state` is neither `new` nor `existing`.
    ClusterState(String),
    /// A key holds the right kind of value, but not a good one.
    InvalidValue {
        /// The key, with dots for nesting.
        key: String,
        /// What is wrong.
        reason: ValueError,
    },
}

impl fmt::Display for ConfigFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, reason } => write!(formatter, "open {path}: {reason}"),
            Self::Syntax { path, reason } => write!(formatter, "{path} is not YAML: {reason}"),
            Self::WrongKind { key, wanted, found } => {
                write!(formatter, "config file: {key} takes {wanted}, not {found}")
            }
            Self::InvalidValue { key, reason } => {
                write!(formatter, "unexpected error setting up {key}: {reason}")
            }
            Self::Gates(reason) => write!(formatter, "{reason}"),
            Self::ClusterState(word) => {
                write!(formatter, "unexpected clusterState {}", crate::go_values::quote(word))
            }
        }
    }
}

impl std::error::Error for ConfigFileError {}

/// The values in the file at `path`; what it does not name has its default.
///
/// # Errors
/// [`ConfigFileError`].
pub fn load(path: &str) -> Result<Values, ConfigFileError> {
    let bytes = fs::read(path)
        .map_err(|error| ConfigFileError::Read { path: path.into(), reason: io_reason(&error) })?;
    read(&String::from_utf8_lossy(&bytes)).map_err(|error| match error {
        ConfigFileError::Syntax { reason, .. } => {
            ConfigFileError::Syntax { path: path.into(), reason }
        }
        other => other,
    })
}

/// The values in the text of a config file.
///
/// # Errors
/// [`ConfigFileError`].
pub fn read(text: &str) -> Result<Values, ConfigFileError> {
    let syntax = |reason| ConfigFileError::Syntax { path: String::new(), reason };
    let root = Node::parse(text).map_err(syntax)?;
    let root = match root {
        Node::Null => Node::Map(Vec::new()),
        Node::Map(_) => root,
        other => return Err(syntax(format!("it holds {} instead of settings", other.kind()))),
    };
    let mut values = Values::default();
    let mut known = BTreeSet::new();
    for flag in flags::all() {
        let Some(key) = flag.yaml else { continue };
        known.extend(key.split('.').next());
        let Some(node) = find(&root, key)? else { continue };
        if let Some(value) = value_of(flag, key, node)? {
            values.put(flag, value, Source::File);
        }
    }
    warn_of_unknown_keys(&root, &known);
    Ok(values)
}

fn warn_of_unknown_keys(root: &Node, known: &BTreeSet<&str>) {
    let Node::Map(entries) = root else { return };
    let is_known = |name: &str| known.iter().any(|key| key.eq_ignore_ascii_case(name));
    let unknown: Vec<&str> =
        entries.iter().map(|(name, _)| name.as_str()).filter(|name| !is_known(name)).collect();
    if !unknown.is_empty() {
        warn!(keys = ?unknown, "the config file has keys that stand for no setting");
    }
}

/// The node under a key with dots; none when it is not there or null.
fn find<'a>(root: &'a Node, key: &str) -> Result<Option<&'a Node>, ConfigFileError> {
    let mut node = root;
    let mut path = String::new();
    for part in key.split('.') {
        if !path.is_empty() {
            path.push('.');
        }
        match node {
            Node::Map(_) => {}
            Node::Null => return Ok(None),
            other => {
                let key = path.trim_end_matches('.').to_owned();
                return Err(wrong_kind(&key, "a map", other));
            }
        }
        path.push_str(part);
        match node.get(part) {
            Some(inner) => node = inner,
            None => return Ok(None),
        }
    }
    Ok(if *node == Node::Null { None } else { Some(node) })
}

/// The value that a node means for a flag; none when it leaves the default.
fn value_of(flag: &Flag, key: &str, node: &Node) -> Result<Option<Value>, ConfigFileError> {
    let invalid = |reason| ConfigFileError::InvalidValue { key: key.into(), reason };
    Ok(Some(match flag.kind {
        Kind::Text | Kind::V2Deprecation => Value::Text(text(key, node)?.to_owned()),
        Kind::Choice(words) => match text(key, node)? {
            "" => return Ok(None),
            word if words.contains(&word) => Value::Text(word.to_owned()),
            // The only choice that a file can make.
            word => return Err(ConfigFileError::ClusterState(word.to_owned())),
        },
        Kind::Bool => match node {
            Node::Bool(value) => Value::Bool(*value),
            other => return Err(wrong_kind(key, "true or false", other)),
        },
        Kind::Unsigned => Value::Unsigned(integer(key, node, "a number from 0 on")?),
        Kind::Unsigned32 => {
            let wanted = "a number from 0 to 4294967295";
            Value::Unsigned(integer::<u32>(key, node, wanted)?.into())
        }
        Kind::Signed => Value::Signed(integer(key, node, "a whole number")?),
        Kind::Duration => {
            let wanted = "a whole number of nanoseconds (600000000000 for ten minutes)";
            Value::Duration(GoDuration(integer(key, node, wanted)?))
        }
        Kind::Urls | Kind::Origins | Kind::Gates if text(key, node)?.is_empty() => {
            return Ok(None);
        }
        Kind::Urls => Value::Urls(parse_urls(text(key, node)?).map_err(invalid)?),
        Kind::Origins => Value::Origins(parse_origins(text(key, node)?).map_err(invalid)?),
        Kind::Gates => {
            let gates = crate::feature_gates::FeatureGates::default();
            Value::Gates(gates.with(text(key, node)?).map_err(ConfigFileError::Gates)?)
        }
        Kind::TextSet if flag.name == "host-whitelist" => match text(key, node)? {
            "" => return Ok(None),
            names => Value::Texts(set_of(names)),
        },
        Kind::TextSet | Kind::TextList => Value::Texts(list(key, node)?),
        Kind::Ignored => return Ok(None),
    }))
}

fn text<'a>(key: &str, node: &'a Node) -> Result<&'a str, ConfigFileError> {
    match node {
        Node::Text(text) => Ok(text),
        other => Err(wrong_kind(key, "text (in quotes when it looks like something else)", other)),
    }
}

fn integer<T: TryFrom<i128>>(
    key: &str,
    node: &Node,
    wanted: &'static str,
) -> Result<T, ConfigFileError> {
    let number = match node {
        Node::Int(number) => T::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| wrong_kind(key, wanted, node))
}

fn list(key: &str, node: &Node) -> Result<Vec<String>, ConfigFileError> {
    match node {
        Node::List(items) => items.iter().map(|item| text(key, item).map(str::to_owned)).collect(),
        other => Err(wrong_kind(key, "a list of texts", other)),
    }
}

fn wrong_kind(key: &str, wanted: &'static str, node: &Node) -> ConfigFileError {
    let found = match node {
        Node::Int(number) => number.to_string(),
        Node::Float(number) => number.to_string(),
        Node::Text(text) if text.len() <= 40 => {
            format!("the text {}", crate::go_values::quote(text))
        }
        other => other.kind().to_owned(),
    };
    ConfigFileError::WrongKind { key: key.into(), wanted, found }
}
