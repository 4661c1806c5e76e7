//! Programs that the project's commands call, and where they and their output lie.
//!
//! ```text
//! target/release/etched      the server, by cargo
//! target/compat/etcd/        etcd, etcdctl, etcdutl, benchmark, by the Go module in compat-tests
//! ```
//! Nothing is installed here: what is missing is named, with the package that brings it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

/// The server under test: `ETCHED_BIN`, or what the release build makes.
pub(crate) fn etched() -> PathBuf {
    std::env::var_os("ETCHED_BIN")
        .map_or_else(|| target().join("release").join("etched"), PathBuf::from)
}

/// Where the Go programs are built.
pub(crate) fn etcd_folder() -> PathBuf {
    target().join("compat").join("etcd")
}

/// A program this project needs beside cargo: how to see that it works, and where it comes from.
pub(crate) struct Tool {
    probe: &'static [&'static str],
    advice: &'static str,
}

/// The Go toolchain, for etcd and its clients.
pub(crate) const GO: Tool = Tool {
    probe: &["go", "version"],
    advice: "Go 1.26 or newer builds etcd and the clients that the tests use",
};
/// Python, for its own clients and the suite's runner.
pub(crate) const PYTHON: Tool = Tool {
    probe: &["python3", "-c", "import venv, ensurepip"],
    advice: "Python 3.10 or newer with venv runs the tests (Debian: python3-venv)",
};
/// Namespaces, in which the tests have ports and mounts of their own.
pub(crate) const UNSHARE: Tool = Tool {
    probe: &["unshare", "--map-root-user", "--net", "--pid", "--mount", "--fork", "true"],
    advice: "tests run in namespaces of their own (Debian: util-linux); \
             as an ordinary user the kernel must allow user namespaces",
};

/// Fails with one line for every tool that does not answer.
pub(crate) fn require(tools: &[&Tool]) -> Result<(), String> {
    let missing: Vec<String> = tools.iter().filter_map(|tool| tool.complaint()).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

impl Tool {
    fn complaint(&self) -> Option<String> {
        let (program, arguments) = self.probe.split_first().expect("a probe names its program");
        let output = Command::new(program).args(arguments).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!(
                "`{}` failed ({}): {}",
                self.probe.join(" "),
                String::from_utf8_lossy(&output.stderr).trim(),
                self.advice
            )),
            Err(error) => Some(format!("`{program}` cannot be run ({error}): {}", self.advice)),
        }
    }
}

/// A command in a folder of the workspace.
pub(crate) fn command(folder: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(crate::root().join(folder));
    command
}

/// `cargo`, the one that runs this.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(".", &cargo, arguments)
}

/// `go build` of a package that the module in compat-tests requires.
pub(crate) fn go_build(package: &str, to: &Path) -> Command {
    let mut build = command("compat-tests", "go", &["build", "-o"]);
    build.arg(to).arg(package);
    build
}

/// Runs a command to its end; its failure is the error.
pub(crate) fn run(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
