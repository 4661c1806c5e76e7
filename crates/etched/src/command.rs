//! What the command does with its arguments, up to the point where a server would start.
//!
//! The order is etcd's, because it decides which of several mistakes is reported: arguments, left
//! over words, version, environment or config file, log, checks.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

use tracing::dispatcher::{self, Dispatch};
use tracing::{error, info, warn};

use crate::environment::{self, Environment, EnvironmentError};
use crate::flags::{self, ArgumentError};
use crate::go_values::quote;
use crate::logging::{Format, Level, LogSubscriber, Options, Output};
use crate::settings::{Logging, Refused, Settings, logging};
use crate::values::Values;
use crate::{banner, config_file, help, start};

/// Runs the command of this process to its end.
pub fn main() -> ExitCode {
    let arguments: Result<Vec<String>, OsString> =
        std::env::args_os().map(OsString::into_string).collect();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(bad) => {
            return usage_error(&ArgumentError::Encoding(bad.to_string_lossy().into_owned()));
        }
    };
    match plan(&arguments, &environment::of_process()) {
        Plan::Print { out, err } => {
            print_err(&err);
            print_out(&out);
            ExitCode::SUCCESS
        }
        Plan::Usage(error) => usage_error(&error),
        Plan::Refuse(code) => ExitCode::from(code),
        Plan::Start { settings, log } => {
            if settings.logging.format.is_none() && std::io::stderr().is_terminal() {
                print_err(&banner::text(&settings));
            }
            dispatcher::set_global_default(log).expect("nothing else sets the subscriber");
            start::start(*settings)
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Print and end well.
    Print {
        /// To stdout.
        out: String,
        /// To stderr.
        err: String,
    },
    /// Say what is wrong with an argument and how the command is called; exit code 2.
    Usage(ArgumentError),
    /// End with this exit code; the reason stands in the log.
    Refuse(u8),
    /// Start a server.
    Start {
        /// With these settings.
        settings: Box<Settings>,
        /// Writing this log.
        log: Dispatch,
    },
}

/// Decides what is to be done; `arguments` start with the program's name.
pub fn plan(arguments: &[String], environment: &Environment) -> Plan {
    let given = arguments.get(1..).unwrap_or_default();
    let mut values = Values::default();
    let words = match flags::parse(given, &mut values) {
        Ok(words) => words,
        Err(ArgumentError::Help) => {
            return Plan::Print { out: help::flags(), err: help::USAGE.to_owned() };
        }
        Err(error) => return Plan::Usage(error),
    };
    let bootstrap = bootstrap_log();
    dispatcher::with_default(&bootstrap, || {
        if let Some(word) = words.first() {
            return refuse(arguments, left_over(word));
        }
        if values.bool("version") {
            return Plan::Print { out: help::version(), err: String::new() };
        }
        match gather(values, environment) {
            Ok(values) => plan_start(arguments, &values),
            Err(error @ Failure::Environment(EnvironmentError::Shadowed { .. })) => {
                let Failure::Environment(EnvironmentError::Shadowed { variable }) = &error else {
                    unreachable!("matched above");
                };
                error!(level = "fatal", "environment-variable" = variable, "{error}");
                Plan::Refuse(1)
            }
            Err(error) => refuse(arguments, error),
        }
    })
}

/// Why no server starts.
#[derive(Debug)]
enum Failure {
    LeftOver(String),
    Subcommand(String),
    Environment(EnvironmentError),
    ConfigFile(config_file::ConfigFileError),
    Settings(Refused),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOver(word) => write!(out, "{} is not a valid flag", quote(word)),
            Self::Subcommand(name) => {
                write!(out, "etcd's command {name} is not part of this version of etched yet")
            }
            Self::Environment(error) => error.fmt(out),
            Self::ConfigFile(error) => error.fmt(out),
            Self::Settings(error) => error.fmt(out),
        }
    }
}

fn left_over(word: &str) -> Failure {
    match word {
        "gateway" | "grpc-proxy" => Failure::Subcommand(word.to_owned()),
        _ => Failure::LeftOver(word.to_owned()),
    }
}

/// Adds the environment to what the arguments said, or takes the config file instead of both.
fn gather(mut values: Values, environment: &Environment) -> Result<Values, Failure> {
    let path = match values.text("config-file") {
        "" => environment::config_file(environment),
        path => Some(path),
    };
    if let Some(path) = path {
        let from_file = config_file::load(path).map_err(Failure::ConfigFile)?;
        info!(
            path,
            "loaded server configuration, other configuration command line flags and \
             environment variables will be ignored if provided"
        );
        return Ok(from_file);
    }
    environment::apply(environment, &mut values).map_err(Failure::Environment)?;
    Ok(values)
}

fn plan_start(arguments: &[String], values: &Values) -> Plan {
    let opened = logging(values).and_then(|logging| Ok((open_log(&logging)?, logging)));
    let (log, logging) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(arguments, Failure::Settings(error)),
    };
    dispatcher::with_default(&log.clone(), || match Settings::new(values, logging) {
        Ok(settings) => {
            warn_of_deprecated(values);
            info!(args = ?flags::without_secrets(arguments), "Running: ");
            if values.text("data-dir").is_empty() {
                let data_dir = settings.member.data_dir.display().to_string();
                warn!("data-dir" = data_dir, "'data-dir' was empty; using default");
            }
            Plan::Start { settings: Box::new(settings), log }
        }
        Err(error) => refuse(arguments, Failure::Settings(error)),
    })
}

fn warn_of_deprecated(values: &Values) {
    if values.is_set("max-snapshots") {
        warn!("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.");
    }
    if values.is_set("v2-deprecation") {
        warn!(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value \
             is enforced, ignoring user input."
        );
    }
}

/// Logs why no server starts, as etcd does.
fn refuse(arguments: &[String], failure: Failure) -> Plan {
    info!(args = ?flags::without_secrets(arguments), "Running: ");
    warn!(error = %failure, "failed to verify flags");
    match failure {
        Failure::Settings(Refused::AdvertiseClientMissing) => {
            warn!(error = %failure, "advertise client URLs are not set");
            Plan::Refuse(1)
        }
        // etcd panics.
        Failure::Settings(Refused::LogLevel(_)) => Plan::Refuse(2),
        _ => Plan::Refuse(1),
    }
}

/// The log for what happens before the log's own settings are known.
fn bootstrap_log() -> Dispatch {
    let options = Options {
        level: Level::Info,
        format: default_format(),
        outputs: vec![Output::Stderr],
        rotation: None,
    };
    Dispatch::new(LogSubscriber::open(&options).expect("stderr is always open"))
}

fn open_log(logging: &Logging) -> Result<Dispatch, Refused> {
    let options = Options {
        level: logging.level,
        format: logging.format.unwrap_or_else(default_format),
        outputs: logging.outputs.clone(),
        rotation: logging.rotation,
    };
    LogSubscriber::open(&options).map(Dispatch::new).map_err(Refused::LogOutput)
}

/// When nobody said: text for a person at a terminal, JSON for everything else.
fn default_format() -> Format {
    if std::io::stderr().is_terminal() { Format::Console } else { Format::Json }
}

fn usage_error(error: &ArgumentError) -> ExitCode {
    print_err(&format!("{error}\n{}", help::USAGE));
    ExitCode::from(2)
}

/// Prints to stderr; a closed one is no reason to fail.
fn print_err(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Prints to stdout; a reader that went away (`| head`) is no reason to fail.
fn print_out(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
