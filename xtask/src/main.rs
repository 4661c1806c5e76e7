//! The project's own commands.
//!
//! `cargo codegen` writes `crates/proto/src/generated` from `proto/`.

#[cfg(feature = "codegen")]
mod codegen;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let outcome = match command.as_str() {
        #[cfg(feature = "codegen")]
        "codegen" => codegen::run(),
        _ => Err(format!("unknown command {command:?}; known: codegen (by `cargo codegen`)")),
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
#[cfg_attr(not(feature = "codegen"), allow(dead_code, reason = "used by codegen only so far"))]
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
