//! How each command is called, as text, laid out as etcdutl's library lays it out.

use crate::arguments::{Flag, Kind};

/// A command of the tool.
#[derive(Debug)]
pub(crate) struct Command {
    /// With what comes behind it: `status <filename>`.
    pub(crate) call: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) below: &'static [Self],
    /// Words of which it takes one.
    pub(crate) one_of: &'static [&'static str],
}

/// Name of the tool, where etcdutl says its own.
pub(crate) const TOOL: &str = "etchedutl";

/// Format of what is printed; every command takes it.
pub(crate) const WRITE_OUT: Flag = Flag {
    name: "write-out",
    short: Some('w'),
    kind: Kind::Text,
    default: "simple",
    help: "set the output format (fields, json, protobuf, simple, table)",
};
/// Taken by every command; no command here waits for a lock.
pub(crate) const TIMEOUT: Flag = Flag {
    name: "timeout",
    short: None,
    kind: Kind::Duration,
    default: "10s",
    help: "time to wait to obtain a file lock on db file, 0 to block indefinitely",
};
/// Shows how a command is called.
pub(crate) const HELP_FLAG: Flag = Flag {
    name: "help",
    short: Some('h'),
    kind: Kind::Switch,
    default: "",
    help: "show how it is called",
};
/// Flags of every command.
pub(crate) const GLOBAL: [Flag; 2] = [TIMEOUT, WRITE_OUT];

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        self.call.split(' ').next().unwrap_or_default()
    }

    /// How it is called; `path` names what it is a command of, and is empty for the tool itself.
    pub(crate) fn usage(&self, path: &str) -> String {
        let is_tool = path.is_empty();
        let below = if is_tool { String::new() } else { format!("{path} ") };
        let name = self.name();
        let mut text = String::from("Usage:\n");
        if self.below.is_empty() {
            let flags = if self.one_of.is_empty() { " [flags]" } else { "" };
            text += &format!("  {below}{}{flags}\n", self.call);
        } else {
            text += &format!("  {below}{name} [command]\n\nAvailable Commands:\n");
            for command in self.below {
                text += &format!("  {:11} {}\n", command.name(), command.about);
            }
        }
        let mut lines: Vec<Line> = self.flags.iter().map(Line::of).collect();
        lines.push(Line {
            name: "help",
            start: "  -h, --help".to_owned(),
            about: format!("help for {name}"),
        });
        if is_tool {
            lines.extend(GLOBAL.iter().map(Line::of));
        }
        text += &format!("\nFlags:\n{}", list(lines));
        if !is_tool {
            text += &format!("\nGlobal Flags:\n{}", list(GLOBAL.iter().map(Line::of).collect()));
        }
        if !self.below.is_empty() {
            text += &format!(
                "\nUse \"{below}{name} [command] --help\" for more information about a command.\n"
            );
        }
        text
    }
}

/// A flag in the list.
struct Line {
    name: &'static str,
    start: String,
    about: String,
}

impl Line {
    fn of(flag: &Flag) -> Self {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let (kind, quoted) = match flag.kind {
            Kind::Text => (" string", true),
            Kind::Number => (" uint", false),
            Kind::Signed => (" int", false),
            Kind::Duration => (" duration", false),
            Kind::Switch => ("", false),
        };
        let mut about = flag.help.to_owned();
        if !matches!(flag.default, "" | "0") {
            let default =
                if quoted { format!("{:?}", flag.default) } else { flag.default.to_owned() };
            about += &format!(" (default {default})");
        }
        Self { name: flag.name, start: format!("  {short}--{}{kind}", flag.name), about }
    }
}

/// The flags in the order of their names, what they are for in one column.
fn list(mut lines: Vec<Line>) -> String {
    lines.sort_by_key(|line| line.name);
    let width = lines.iter().map(|line| line.start.len()).max().unwrap_or_default();
    let lines = lines.iter().map(|line| format!("{:width$}   {}\n", line.start, line.about));
    lines.collect()
}
