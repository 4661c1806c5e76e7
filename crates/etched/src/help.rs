//! What `--help` and `--version` print.

use std::fmt::Write;

use crate::feature_gates::GATES;
use crate::flags::{Flag, GROUPS, Group, Kind, Scope};

/// How the command is called; goes to stderr, also after an argument that cannot be read.
pub const USAGE: &str = "\
Usage:

  etched [flags]
    Run a server. Without flags it serves clients on http://localhost:2379
    and keeps its data in default.etcd in this folder.

  etched --config-file <file>
    Run a server with the settings in a YAML or JSON file.

  etched --version
    Print the version.

  etched -h | --help
    Print this help.

Every flag can also be set by an environment variable: --data-dir by ETCD_DATA_DIR.
";

/// The version of etcd whose place this server takes.
pub const ETCD_VERSION: &str = "3.7.1";

/// This server's own version.
pub const ETCHED_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, when the build said so in `ETCHED_GIT_SHA`.
pub const GIT_SHA: &str = match option_env!("ETCHED_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// The list of flags in groups; goes to stdout.
pub fn flags() -> String {
    let mut text = String::new();
    for (group, flags) in GROUPS {
        let Some(title) = title(group) else { continue };
        let _ = write!(text, "\n{title}:\n");
        for flag in flags {
            text.push_str(&describe(flag));
        }
    }
    text.push_str("\nSettings marked (later) have no effect in this version and are refused.\n");
    text
}

/// The lines that scripts read versions from; etcd's own four come first.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let os = std::env::consts::OS;
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: {GIT_SHA}\n\
         Go Version: none (etched is written in Rust)\n\
         Go OS/Arch: {os}/{arch}\n\
         etched Version: {ETCHED_VERSION}\n"
    )
}

fn title(group: Group) -> Option<&'static str> {
    Some(match group {
        Group::General => "General",
        Group::Member => "Member",
        Group::Clustering => "Clustering",
        Group::Security => "Security",
        Group::Auth => "Auth",
        Group::Monitoring => "Profiling and Monitoring",
        Group::Logging => "Logging",
        Group::Tracing => "Distributed tracing",
        Group::Features => "Features",
        Group::Unsafe => "Unsafe feature",
        Group::Ignored => return None,
    })
}

fn describe(flag: &Flag) -> String {
    let default = match (flag.name, flag.default) {
        ("data-dir", _) => " '${name}.etcd'".to_owned(),
        ("version" | "config-file", _) => String::new(),
        (_, default) => format!(" '{default}'"),
    };
    let note = match flag.scope {
        Scope::Effective => String::new(),
        Scope::Later(_) => " (later)".to_owned(),
        Scope::NoEffect(reason) => format!(" No effect here: {reason}."),
    };
    let mut text = format!("  --{}{default}\n    {}{note}\n", flag.name, flag.help);
    if flag.kind == Kind::Gates {
        for gate in GATES {
            let note = if matches!(gate.scope, Scope::Later(_)) { " (later)" } else { "" };
            let _ = writeln!(text, "      {}={}: {}{note}", gate.name, gate.beta, gate.help);
        }
    }
    text
}
