//! Generates the Rust types of `proto/` into `crates/proto/src/generated`.
//!
//! ```text
//! proto/*/*.proto ──protox──> descriptors ──prost──> <package>.rs
//!                                  └── without comments ──> descriptors.binpb
//! ```
//! The result is committed: a build of the server then needs neither `protoc` nor a compiler in its
//! place. The tests here regenerate it and compare; `compat-tests/descriptors` compares
//! `descriptors.binpb` with the descriptors that etcd's own modules carry.

use std::path::{Path, PathBuf};

use prost::Message;

/// The compiled descriptors, among the generated sources.
const DESCRIPTORS: &str = "descriptors.binpb";

/// Writes the generated sources next to the proto crate.
pub(crate) fn run() -> Result<(), String> {
    generate(&generated())
}

fn generated() -> PathBuf {
    crate::root().join("crates/proto/src/generated")
}

fn generate(out: &Path) -> Result<(), String> {
    let protos = crate::root().join("proto");
    let files = proto_files(&protos)?;
    let mut descriptors =
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
        .compile_fds(descriptors.clone())
        .map_err(|error| format!("code generation: {error}"))?;
    // A comment is no part of the interface: a change of one must not change this file.
    descriptors.file.iter_mut().for_each(|file| file.source_code_info = None);
    let path = out.join(DESCRIPTORS);
    std::fs::write(&path, descriptors.encode_to_vec())
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn proto_files(protos: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for package in read_dir(protos)?.into_iter().filter(|path| path.is_dir()) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let files = read_dir(folder).expect("the folder can be listed").into_iter();
        files
            .map(|path| {
                let name = path.file_name().expect("an entry has a name").to_string_lossy();
                (name.into_owned(), std::fs::read(&path).expect("a generated file can be read"))
            })
            .collect()
    }

    #[test]
    fn committed_sources_are_what_the_proto_files_give() {
        let fresh = tempfile::tempdir().expect("a temporary folder");
        generate(fresh.path()).expect("the proto files compile");
        let (fresh, committed) = (contents(fresh.path()), contents(&generated()));
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&fresh), names(&committed), "run `cargo codegen`");
        for (name, bytes) in fresh {
            assert!(committed[&name] == bytes, "{name} is stale: run `cargo codegen`");
        }
    }

    #[test]
    fn every_package_has_its_own_folder() {
        for path in proto_files(&crate::root().join("proto")).expect("proto/ can be listed") {
            let text = std::fs::read_to_string(&path).expect("a proto file is text");
            let folder = path.parent().and_then(Path::file_name).expect("a file in a folder");
            let package = format!("\npackage {};\n", folder.to_string_lossy());
            assert!(text.contains(&package), "{} is in the wrong folder", path.display());
        }
    }
}
