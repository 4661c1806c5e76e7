//! `etchedutl completion`: scripts that let a shell complete commands, flags and their values.
//!
//! ```text
//! commands ──> Place, one for each command ──> bash, zsh, fish, powershell
//! ```
//! They are made of the tables that the arguments are parsed by, and so always say what the tool takes. Each script is on
//! its own: none of them needs a library of completions.

mod bash;
mod fish;
mod powershell;
mod zsh;

use crate::Failure;
use crate::arguments::{ArgumentError, Flag, Given, Kind};
use crate::output::FORMATS;
use crate::usage::{Command, GLOBAL, HELP_FLAG, TOOL, WRITE_OUT};

/// Shells that there are scripts for.
pub(crate) const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// The script that the arguments ask for; `usage` is how the command is called.
///
/// # Errors
/// [`Failure::Arguments`].
pub(crate) fn run(given: &Given, usage: String, root: &Command) -> Result<String, Failure> {
    let [shell] = given.words.as_slice() else {
        let error = ArgumentError::Count { wanted: 1, given: given.words.len() };
        return Err(Failure::Arguments { error, usage });
    };
    let places = places(root);
    match shell.as_str() {
        "bash" => Ok(bash::script(&places)),
        "zsh" => Ok(zsh::script(&places)),
        "fish" => Ok(fish::script(&places)),
        "powershell" => Ok(powershell::script(&places)),
        _ => {
            let error =
                ArgumentError::Word { word: shell.clone(), who: format!("{TOOL} completion") };
            Err(Failure::Arguments { error, usage })
        }
    }
}

/// What can come at one place of a command line.
#[derive(Debug)]
struct Place {
    /// The commands before, separated by blanks; empty at the beginning.
    at: String,
    /// Commands or other words, with what they are for.
    words: Vec<(&'static str, &'static str)>,
    flags: Vec<Flag>,
    /// A file is wanted.
    file: bool,
}

/// What stands behind a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Nothing,
    Folder,
    /// One of the formats.
    Format,
    /// Nobody can tell.
    Free,
}

impl Value {
    fn of(flag: &Flag) -> Self {
        match flag {
            Flag { kind: Kind::Switch, .. } => Self::Nothing,
            flag if flag.name == WRITE_OUT.name => Self::Format,
            flag if flag.name.ends_with("-dir") => Self::Folder,
            _ => Self::Free,
        }
    }
}

fn places(root: &Command) -> Vec<Place> {
    let mut places = Vec::new();
    add(root, "", &mut places);
    let commands = places[0].words.clone();
    let help = places.iter_mut().find(|place| place.at == "help");
    help.expect("there is a command help").words = commands;
    places
}

fn add(command: &Command, at: &str, places: &mut Vec<Place>) {
    let below = command.below.iter().map(|below| (below.name(), below.about));
    let words = command.one_of.iter().map(|word| (*word, ""));
    places.push(Place {
        at: at.to_owned(),
        words: below.chain(words).collect(),
        flags: command.flags.iter().chain(&GLOBAL).chain([&HELP_FLAG]).copied().collect(),
        file: command.call.contains("<filename>"),
    });
    for below in command.below {
        let name = below.name();
        add(below, &if at.is_empty() { name.to_owned() } else { format!("{at} {name}") }, places);
    }
}

/// All flags of the tool with such a value, as they are written, without repetition.
fn flags_with(places: &[Place], wanted: impl Fn(Value) -> bool) -> Vec<String> {
    let flags = places.iter().flat_map(|place| &place.flags);
    let mut names: Vec<String> = flags
        .filter(|flag| wanted(Value::of(flag)))
        .flat_map(|flag| {
            let short = flag.short.map(|short| format!("-{short}"));
            [Some(format!("--{}", flag.name)), short].into_iter().flatten()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Of these only the long ones.
fn long(names: &[String]) -> Vec<&str> {
    names.iter().filter(|name| name.starts_with("--")).map(String::as_str).collect()
}

fn formats() -> String {
    FORMATS.join(" ")
}

/// A text between single quotes, for a shell that has `replacement` for one inside.
fn quoted(text: &str, replacement: &str) -> String {
    format!("'{}'", text.replace('\'', replacement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_text_ends_no_string() {
        assert_eq!(quoted("it's", "'\\''"), "'it'\\''s'");
        assert_eq!(quoted("it's", "''"), "'it''s'");
    }
}
