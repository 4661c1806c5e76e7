//! Settings from `ETCD_` variables, for flags that no argument set.
//!
//! A variable that an argument shadows is fatal, as in etcd: one of the two is a mistake. Variables
//! that no flag answers to are warned about, by name only, since a value may be a secret.

use std::collections::BTreeMap;
use std::fmt;

use tracing::{info, warn};

use crate::flags::{self, Flag};
use crate::go_values::{ValueError, quote};
use crate::values::{Source, Values};

/// The environment, sorted by name.
pub type Environment = BTreeMap<String, String>;

/// The environment keeps the server from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentError {
    /// An argument sets the same flag.
    Shadowed {
        /// The variable.
        variable: String,
    },
    /// A value is of the wrong kind.
    InvalidValue {
        /// The variable.
        variable: String,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: ValueError,
    },
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadowed { .. } => formatter.write_str(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag))",
            ),
            Self::InvalidValue { variable, value, reason } => {
                write!(formatter, "invalid value {} for {variable}: {reason}", quote(value))
            }
        }
    }
}

impl std::error::Error for EnvironmentError {}

/// The process's environment; a variable that is not UTF-8 is read as far as it is.
pub fn of_process() -> Environment {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// The config file that the environment names.
pub fn config_file(environment: &Environment) -> Option<&str> {
    environment.get("ETCD_CONFIG_FILE").map(String::as_str).filter(|path| !path.is_empty())
}

/// Sets the flags that are still at their default from `environment`.
///
/// An empty variable counts as not there.
///
/// # Errors
/// [`EnvironmentError`]: the first shadowed variable, else the last invalid value.
pub fn apply(environment: &Environment, values: &mut Values) -> Result<(), EnvironmentError> {
    let mut environment = environment.clone();
    if let Some(value) = environment.remove("ETCD_VERSION").filter(|value| !value.is_empty()) {
        warn!(key = "ETCD_VERSION", value, "cannot set special environment variable");
    }
    let mut flags: Vec<&Flag> = flags::all().collect();
    flags.sort_by_key(|flag| flag.name);
    let mut failure = None;
    for flag in flags {
        let variable = flag.variable();
        match environment.get(&variable) {
            Some(_) if values.is_set(flag.name) => {
                return Err(EnvironmentError::Shadowed { variable });
            }
            Some(value) if !value.is_empty() => {
                let value = value.clone();
                environment.remove(&variable);
                if let Err(error) = use_variable(flag, variable, value, values) {
                    failure = Some(error);
                }
            }
            _ => {}
        }
    }
    for name in environment.keys().filter(|name| name.starts_with("ETCD_")) {
        warn!("environment-variable" = name, "unrecognized environment variable");
    }
    failure.map_or(Ok(()), Err)
}

fn use_variable(
    flag: &Flag,
    variable: String,
    value: String,
    values: &mut Values,
) -> Result<(), EnvironmentError> {
    if let Err(reason) = values.set(flag, &value, Source::Given) {
        return Err(EnvironmentError::InvalidValue { variable, value, reason });
    }
    let shown = if flag.is_secret() { "***" } else { &value };
    info!(
        "variable-name" = variable,
        "variable-value" = shown,
        "recognized and used environment variable"
    );
    Ok(())
}
