//! The project's own commands.
//!
//! ```text
//! cargo xtask test     every test, or the stages named
//! cargo xtask bench    etched beside etcd
//! cargo xtask fuzz     decoders with damaged input, for longer than the tests do
//! cargo xtask sim      clusters under faults, for longer than the tests do
//! cargo xtask compat   the tables of docs/COMPAT.md from docs/compat.tsv
//! cargo xtask tidy     the rules that no compiler holds
//! cargo codegen        crates/proto/src/generated from proto/
//! ```

mod bench;
#[cfg(feature = "codegen")]
mod codegen;
mod compat;
mod fuzz;
mod sim;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (command, arguments) =
        words.split_first().map_or(("", &[][..]), |(command, rest)| (command.as_str(), rest));
    let outcome = match command {
        #[cfg(feature = "codegen")]
        "codegen" => codegen::run(),
        "bench" => bench::run(arguments),
        "compat" => compat::run(),
        "fuzz" => fuzz::run(arguments),
        "sim" => sim::run(arguments),
        "test" => test::run(arguments),
        "tidy" => tidy::run(),
        _ => Err(format!(
            "unknown command {command:?}; known: test, fuzz, sim, bench, compat, tidy, codegen (by `cargo codegen`)"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds the workspace.
fn root() -> std::path::PathBuf {
    let xtask = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
