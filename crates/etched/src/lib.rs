//! The etched server's command line: flags, environment, config file, logs.
//!
//! ```text
//! arguments --> flags ------+
//! ETCD_* ----> environment -+--> Values --> Settings --> logging, banner --> start
//! file ------> config_file -+
//! ```
//!
//! Names, defaults, syntax, texts and exit codes are etcd's (its server 3.7.1), so that scripts and
//! unit files work as they are. Exit codes: 0 for help and version, 2 for an argument that does not
//! parse, 1 for everything else that keeps the server from starting.
//!
//! It serves nothing itself: [`Settings`] is what the server part is started with.

pub mod banner;
pub mod bootstrap;
pub mod command;
pub mod config_file;
pub mod environment;
pub mod feature_gates;
pub mod flags;
pub mod go_values;
pub mod help;
pub mod logging;
pub mod settings;
pub mod start;
pub mod urls;
pub mod values;
mod yaml;

pub use settings::Settings;
