//! `etchedutl`: what etcd's `etcdutl` does without a server, for etched's data directories.
//!
//! ```text
//! arguments ──> arguments ──> commands ──> status ──> output
//!                    │                ├──> restore
//!                    │                ├──> offline (hashkv, defrag)
//!                    │                ├──> migrate (its check)
//!                    │                └──> completion
//!                    └──> usage
//! ```
//! Commands, flags, texts and exit codes are etcdutl's (3.7.1), so that scripts work as they are. What is not there
//! yet is refused by its name.

mod arguments;
mod commands;
mod completion;
mod migrate;
mod offline;
mod output;
mod progress;
mod restore;
mod usage;

use std::process::ExitCode;

use arguments::ArgumentError;

/// Runs the command of this process to its end.
pub fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match commands::run(&words) {
        Ok(text) => {
            // Whoever reads no more needs no more.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments do not parse; etcdutl shows how it is called and repeats the error.
    #[error("Error: {error}\n{usage}\nError: {error}\n")]
    Arguments { error: ArgumentError, usage: String },
    /// There is no such command; `who` has none of that name.
    #[error(
        "Error: unknown command {name} for \"{who}\"\nRun '{who} --help' for usage.\nError: unknown command {name} for \"{who}\"\n"
    )]
    Command { name: String, who: String },
    /// etcdutl has the command, this version only a part of it.
    #[error(
        "Error: etchedutl: command {command} is not part of this version of etched yet; {command} {there} is\n"
    )]
    Later { command: &'static str, there: &'static str },
    /// Arguments that parse and make no sense.
    #[error("Error: {0}\n")]
    BadArguments(String),
    /// `--write-out` with a format that is none, or that the command does not have.
    #[error("Error: {0}\n")]
    Format(String),
    /// What was attempted failed.
    #[error("Error: {0}\n")]
    Failed(String),
}

impl Failure {
    /// etcdutl's exit code.
    fn code(&self) -> u8 {
        match self {
            Self::Arguments { .. } | Self::Command { .. } | Self::Failed(_) => 1,
            Self::Format(_) | Self::Later { .. } => 4,
            Self::BadArguments(_) => 128,
        }
    }
}
