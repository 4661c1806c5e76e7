//! The commands, and which one the arguments ask for.

use std::fs::File;

use etched::go_values::io_reason;
use etched_bolt::{Database, snapshot};

use crate::Failure;
use crate::arguments::{Flag, Given};
use crate::completion::SHELLS;
use crate::output::Format;
use crate::usage::{Command, GLOBAL, HELP_FLAG, TOOL, WRITE_OUT};
use crate::{completion, migrate, offline, restore};

const STATUS: Command = Command {
    call: "status <filename>",
    about: "Gets backend snapshot status of a given file",
    flags: &[],
    below: &[],
    one_of: &[],
};
const RESTORE: Command = Command {
    call: "restore <filename> --data-dir {output dir} [options]",
    about: "Restores an etcd member snapshot to an etched directory",
    flags: &restore::FLAGS,
    below: &[],
    one_of: &[],
};
const SNAPSHOT: Command = Command {
    call: "snapshot <subcommand>",
    about: "Manages etcd node snapshots",
    flags: &[],
    below: &[RESTORE, STATUS],
    one_of: &[],
};
const HASH_KV: Command = Command {
    call: "hashkv <filename>",
    about: "Prints the KV history hash of a given file",
    flags: &offline::HASH_KV_FLAGS,
    below: &[],
    one_of: &[],
};
const DEFRAG: Command = Command {
    call: "defrag",
    about: "Defragments the storage of the etched",
    flags: &offline::DEFRAG_FLAGS,
    below: &[],
    one_of: &[],
};
const VERSION: Command = Command {
    call: "version",
    about: "Prints the version of etchedutl",
    flags: &[],
    below: &[],
    one_of: &[],
};
const HELP: Command =
    Command { call: "help", about: "Help about any command", flags: &[], below: &[], one_of: &[] };
const COMPLETION: Command = Command {
    call: "completion [bash|zsh|fish|powershell]",
    about: "Generate completion script",
    flags: &[],
    below: &[],
    one_of: &SHELLS,
};
const MIGRATE: Command = Command {
    call: "migrate",
    about: "Says whether etched can take over an etcd data dir",
    flags: &migrate::FLAGS,
    below: &[],
    one_of: &[],
};
const ROOT: Command = Command {
    call: TOOL,
    about: "",
    flags: &[],
    below: &[COMPLETION, DEFRAG, HASH_KV, HELP, MIGRATE, SNAPSHOT, VERSION],
    one_of: &[],
};

/// Runs the command of these arguments; what it prints.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(arguments: &[String]) -> Result<String, Failure> {
    let (command, path, rest) = find(arguments)?;
    if command.name() == MIGRATE.name() && !migrate::is_there(&rest) {
        return Err(migrate::refusal());
    }
    let usage = command.usage(&path);
    let mut flags: Vec<Flag> = command.flags.iter().chain(&GLOBAL).copied().collect();
    flags.push(HELP_FLAG);
    let given = match Given::parse(&rest, &flags) {
        Ok(given) => given,
        Err(error) => return Err(Failure::Arguments { error, usage }),
    };
    if given.is_on("help") {
        return Ok(usage);
    }
    match command.name() {
        "status" => status(&given),
        "restore" => restore::run(&given),
        "hashkv" => offline::hash_kv(&given, usage),
        "defrag" => offline::defragment(&given, usage),
        "completion" => completion::run(&given, usage, &ROOT),
        "migrate" => migrate::run(&given, usage),
        "version" => Ok(version()),
        "help" => help(&given.words),
        _ => Ok(usage),
    }
}

/// The command that the first words name, what it is a command of, and the other arguments.
fn find(arguments: &[String]) -> Result<(&'static Command, String, Vec<String>), Failure> {
    let (mut command, mut path, mut rest): (&Command, _, _) =
        (&ROOT, String::new(), arguments.to_vec());
    while !command.below.is_empty() {
        let Some(place) = first_word(&rest) else { break };
        let Some(next) = named(command, &rest[place]) else {
            // Like etcdutl, only the tool itself minds a word that is no command.
            if !path.is_empty() {
                break;
            }
            let name = format!("{:?}", rest[place]);
            return Err(Failure::Command { name, who: TOOL.to_owned() });
        };
        rest.remove(place);
        path = if path.is_empty() {
            command.name().to_owned()
        } else {
            format!("{path} {}", command.name())
        };
        command = next;
    }
    Ok((command, path, rest))
}

/// The first argument that is neither a flag nor a flag's value; only flags of every command stand before one.
fn first_word(arguments: &[String]) -> Option<usize> {
    let mut place = 0;
    while let Some(argument) = arguments.get(place) {
        if !argument.starts_with('-') {
            return Some(place);
        }
        let takes_next = matches!(argument.as_str(), "-w" | "--write-out" | "--timeout");
        place += if takes_next { 2 } else { 1 };
    }
    None
}

/// A command by its name or an unambiguous beginning of it.
fn named(command: &'static Command, word: &str) -> Option<&'static Command> {
    let exact = command.below.iter().find(|below| below.name() == word);
    let mut begun = command.below.iter().filter(|below| below.name().starts_with(word));
    exact.or_else(|| begun.next().filter(|_| begun.next().is_none()))
}

fn help(words: &[String]) -> Result<String, Failure> {
    let (command, path, _) = find(words)?;
    Ok(command.usage(&path))
}

fn version() -> String {
    format!("{TOOL} version: {}\nAPI version: 3.7\n", etched_server::ETCD_VERSION)
}

fn status(given: &Given) -> Result<String, Failure> {
    let [path] = given.words.as_slice() else {
        let text = "snapshot status requires exactly one argument";
        return Err(Failure::BadArguments(text.to_owned()));
    };
    let said = |action: &str, error: &std::io::Error| {
        Failure::Failed(format!("{action} {path}: {}", io_reason(error)))
    };
    std::fs::metadata(path).map_err(|error| said("stat", &error))?;
    let format = Format::of(given.text(&WRITE_OUT))?;
    let file = File::open(path).map_err(|error| said("open", &error))?;
    let failed = |error: etched_bolt::Error| Failure::Failed(error.to_string());
    let status = snapshot::status(&Database::open(file).map_err(failed)?).map_err(failed)?;
    Ok(format.status(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_line(line: &str) -> Result<String, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        run(&words)
    }

    #[test]
    fn a_command_is_found_by_the_beginning_of_its_name() {
        assert_eq!(run_line("vers").unwrap(), "etchedutl version: 3.7.1\nAPI version: 3.7\n");
        assert_eq!(run_line("snap stat --help").unwrap(), STATUS.usage("etchedutl snapshot"));
        assert_eq!(run_line("-w json snapshot").unwrap(), SNAPSHOT.usage("etchedutl"));
        assert!(STATUS.usage("etchedutl snapshot").starts_with(
            "Usage:\n  etchedutl snapshot status <filename> [flags]\n\nFlags:\n  -h, --help   help"
        ));
    }

    #[test]
    fn what_is_not_there_is_said_with_etcdutls_exit_code() {
        for (line, code, text) in [
            ("nope", 1, "Error: unknown command \"nope\" for \"etchedutl\"\n"),
            ("migrate", 4, "Error: etchedutl: command migrate is not part of this version"),
            ("migrate --data-dir x --target-version 3.6", 4, "Error: etchedutl: command migrate"),
            ("migrate --check", 1, "Error: required flag(s) \"data-dir\" not set\n"),
            ("migrate --check --data-dir /nope", 1, "Error: stat /nope/member/snap/db: no such"),
            (
                "completion",
                1,
                "Error: accepts 1 arg(s), received 0\nUsage:\n  etchedutl completion [bash",
            ),
            (
                "completion nope",
                1,
                "Error: invalid argument \"nope\" for \"etchedutl completion\"\n",
            ),
            ("snapshot status", 128, "Error: snapshot status requires exactly one argument\n"),
            ("snapshot status /nope/x", 1, "Error: stat /nope/x: no such file or directory\n"),
            ("snapshot status . -w nope", 4, "Error: unsupported output format\n"),
            ("snapshot status --nope", 1, "Error: unknown flag: --nope\nUsage:\n"),
            (
                "snapshot restore x --bump-revision 5",
                128,
                "Error: --mark-compacted required if --revision-bump > 0\n",
            ),
        ] {
            let failure = run_line(line).unwrap_err();
            assert!(failure.to_string().starts_with(text), "{line}: {failure}");
            assert_eq!(failure.code(), code, "{line}");
        }
    }
}
