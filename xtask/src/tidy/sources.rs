//! Shape of the Rust sources: length, module doc, files that no module names.

use super::TextFile;

/// Above this a file is worth a look.
pub(super) const LINES_WARN: usize = 500;
/// Above this there is a second noun in the file: find it and move it out.
const LINES_MAX: usize = 800;

/// Sentences about files that must not be so.
pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let mut failures = long_files(files, LINES_MAX);
    failures.extend(without_doc(files));
    failures.extend(dead_files(files));
    failures
}

/// Files with more lines than `max`, tests and generated ones left out.
pub(super) fn long_files(files: &[TextFile], max: usize) -> Vec<String> {
    let own = files.iter().filter(|file| file.is_rust() && !file.is_test());
    own.map(|file| (file, lines_before_tests(&file.text)))
        .filter(|(_, lines)| *lines > max)
        .map(|(file, lines)| format!("{}: {lines} lines without tests, over {max}", file.path))
        .collect()
}

/// An inline `mod tests` at the end does not count.
fn lines_before_tests(text: &str) -> usize {
    let before = text.split("\n#[cfg(test)]\nmod tests {").next();
    before.unwrap_or_default().lines().count()
}

/// A newcomer opens a file and reads first what it is for.
fn without_doc(files: &[TextFile]) -> Vec<String> {
    let own = files.iter().filter(|file| file.is_rust() && !file.is_test());
    own.filter(|file| !file.text.starts_with("//! "))
        .map(|file| format!("{}: does not begin with a module doc", file.path))
        .collect()
}

/// Files under a `src` folder that no parent declares: they are not even compiled.
fn dead_files(files: &[TextFile]) -> Vec<String> {
    let dead = files.iter().filter(|file| {
        file.is_rust()
            && parents(&file.path).is_some_and(|(module, parents)| {
                !files
                    .iter()
                    .any(|other| parents.contains(&other.path) && declares(&other.text, &module))
            })
    });
    dead.map(|file| format!("{}: no module declares it", file.path)).collect()
}

/// Name of the module in a file, and the files that may declare it; nothing for the root of a crate.
fn parents(path: &str) -> Option<(String, Vec<String>)> {
    let inside = path.split_once("/src/")?.1;
    if ["lib.rs", "main.rs", "build.rs"].contains(&inside) || inside.starts_with("bin/") {
        return None;
    }
    let stem = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs"))?;
    let (folder, module) = stem.rsplit_once('/')?;
    let names = ["lib.rs", "main.rs", "mod.rs"].map(|name| format!("{folder}/{name}"));
    Some((module.to_owned(), [names.to_vec(), vec![format!("{folder}.rs")]].concat()))
}

fn declares(text: &str, module: &str) -> bool {
    let wanted = format!("mod {module};");
    text.lines().any(|line| {
        line.trim().strip_suffix(&wanted).is_some_and(|before| {
            before.is_empty() || before.ends_with("pub ") || before.ends_with(") ")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{file, nothing_in, tracked_files};
    use super::*;

    #[test]
    fn sources_are_short_documented_and_alive() {
        nothing_in(&check(&tracked_files().unwrap()));
    }

    #[test]
    fn only_lines_outside_tests_count() {
        let code = "//! Doc.\n".repeat(LINES_MAX);
        let tests = format!("{code}\n#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(long_files(&[file("a/src/lib.rs", &tests)], LINES_MAX).is_empty());
        assert!(long_files(&[file("a/src/tests.rs", &code.repeat(2))], LINES_MAX).is_empty());
        assert_eq!(long_files(&[file("a/src/lib.rs", &code.repeat(2))], LINES_MAX).len(), 1);
    }

    #[test]
    fn a_file_that_begins_with_code_is_named() {
        assert_eq!(without_doc(&[file("a/src/lib.rs", "use std::fmt;\n")]).len(), 1);
    }

    #[test]
    fn a_file_that_no_module_declares_is_named() {
        let root = file("a/src/lib.rs", "mod used;\npub(crate) mod folder;\n");
        let used = file("a/src/used.rs", "mod inner;\n");
        let inner = file("a/src/used/inner.rs", "");
        let folder = file("a/src/folder/mod.rs", "");
        let dead = file("a/src/unused.rs", "");
        assert_eq!(dead_files(&[root, used, inner, folder, dead]).len(), 1);
    }
}
