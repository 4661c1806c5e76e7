//! The project's own commands.
//!
//! `cargo codegen` writes `crates/proto/src/generated` from `proto/`; `cargo xtask tidy` looks at the
//! rules that no compiler holds.

#[cfg(feature = "codegen")]
mod codegen;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let outcome = match command.as_str() {
        #[cfg(feature = "codegen")]
        "codegen" => codegen::run(),
        "tidy" => tidy::run(),
        _ => Err(format!("unknown command {command:?}; known: tidy, codegen (by `cargo codegen`)")),
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
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
