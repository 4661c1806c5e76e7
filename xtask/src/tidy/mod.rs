//! House rules that no compiler holds; `cargo xtask tidy` prints them, a test of each fails on them.
//!
//! ```text
//! cargo metadata, cargo tree ──> crates    which crate may know which
//! Cargo.lock, deny.toml      ──> supply    where packages come from, under which licence
//! git ls-files               ──> sources   length, module doc, dead files
//!                            ├─> corpora   inputs of fuzz targets that there are
//!                            ├─> texts     banned words, dead links
//!                            └─> compat    rows of docs/compat.tsv, and the document made of them
//! ```
//! A rule is a function from what it looks at to a list of sentences; an empty list is a pass. It reads
//! the working tree only, and changes nothing.

mod corpora;
mod crates;
mod sources;
mod supply;
mod texts;

use std::process::Command;

/// Prints what a reviewer should look at and fails on what must not be.
pub(crate) fn run() -> Result<(), String> {
    let files = tracked_files()?;
    for warning in sources::long_files(&files, sources::LINES_WARN) {
        println!("warning: {warning}");
    }
    let failures = failures(&files)?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn failures(files: &[TextFile]) -> Result<Vec<String>, String> {
    let mut all = crates::check()?;
    all.extend(supply::check()?);
    all.extend(sources::check(files));
    all.extend(texts::check(files));
    all.extend(corpora::check(files, &tracked_paths()?));
    all.extend(crate::compat::check(files));
    Ok(all)
}

/// A file under version control that is UTF-8.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// From the root of the workspace, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs") && !self.path.contains("/generated/")
    }

    fn is_test(&self) -> bool {
        let parts = ["/tests/", "/tests.rs", "/benches/"];
        parts.iter().any(|part| self.path.contains(part)) || self.path.ends_with("_tests.rs")
    }
}

/// Files that git knows, as they are in the working tree; one that was just removed is left out.
pub(crate) fn tracked_files() -> Result<Vec<TextFile>, String> {
    let read = |path: String| {
        let text = std::fs::read(crate::root().join(&path)).ok()?;
        Some(TextFile { path, text: String::from_utf8(text).ok()? })
    };
    Ok(tracked_paths()?.into_iter().filter_map(read).collect())
}

/// All files that git knows.
fn tracked_paths() -> Result<Vec<String>, String> {
    let listing = output("git", &["ls-files", "-z"])?;
    Ok(listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// Standard output of a command run at the root of the workspace.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(crate::root())
        .output()
        .map_err(|error| format!("{}: {error}", shown()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", shown(), String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{}: {error}", shown()))
}

/// What `cargo metadata` says.
fn metadata(arguments: &[&str]) -> Result<serde_json::Value, String> {
    let text = output("cargo", &[&["metadata", "--format-version", "1"], arguments].concat())?;
    serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))
}

/// The text of a field, or nothing.
fn text_of<'a>(value: &'a serde_json::Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The elements of a field that is a list.
fn list_of<'a>(value: &'a serde_json::Value, field: &str) -> &'a [serde_json::Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A file as a test makes it up.
#[cfg(test)]
pub(crate) fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}

/// Passes when a rule has nothing to say.
#[cfg(test)]
pub(crate) fn nothing_in(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
