//! Generates the Rust types of `proto/` into `crates/proto/src/generated`.
//!
//! The result is committed: a build of the server then needs neither `protoc` nor a compiler in its
//! place, and a test regenerates it and compares.

use std::path::{Path, PathBuf};

/// Writes the generated sources next to the proto crate.
pub(crate) fn run() -> Result<(), String> {
    generate(&crate::root().join("crates/proto/src/generated"))
}

fn generate(out: &Path) -> Result<(), String> {
    let protos = crate::root().join("proto");
    let files = proto_files(&protos)?;
    let descriptors =
        protox::compile(&files, [&protos]).map_err(|error| format!("proto files: {error}"))?;
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(true)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds(descriptors)
        .map_err(|error| format!("code generation: {error}"))
}

fn proto_files(protos: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for package in read_dir(protos)? {
        files.extend(read_dir(&package)?);
    }
    files.sort();
    Ok(files)
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
}
