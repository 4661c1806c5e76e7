//! Words that must not be committed, and links and paths in documents that lead nowhere.

use super::TextFile;

/// Parts of one machine: they mean nothing, or too much, on another. Split so that this file passes.
const PLACES: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/or", "acle"),
    concat!("/tmp/ta", "rget"),
    concat!("static.cra", "tes.io"),
    concat!("index.cra", "tes.io"),
    concat!("proxy.gol", "ang.org"),
    concat!("pypi.", "org/simple"),
    concat!("files.pyth", "onhosted.org"),
];

/// Work that was put off: it belongs to the issue tracker, not to the code.
const PUT_OFF: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Rust that pretends, that was left from a search, or that hides a failing test.
const MACROS: [&str; 4] = [
    concat!("todo", "!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
];

/// Sentences about texts that must not be so.
pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let mut failures: Vec<String> = files.iter().flat_map(banned_words).collect();
    failures.extend(files.iter().flat_map(|file| dead_links(file, files)));
    failures.extend(files.iter().flat_map(|file| dead_paths(file, files)));
    failures.extend(crates_missing_in_code_map(files));
    failures
}

fn banned_words(file: &TextFile) -> Vec<String> {
    if file.path.ends_with(".lock") || file.path.ends_with("go.sum") {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate();
    lines
        .filter_map(|(at, line)| {
            let word = banned_word(line, file.is_rust())?;
            Some(format!("{}:{}: {word}", file.path, at + 1))
        })
        .collect()
}

fn banned_word(line: &str, is_rust: bool) -> Option<&'static str> {
    let place = PLACES.iter().find(|place| starts_a_word(line, place));
    let put_off = PUT_OFF.iter().find(|word| is_a_word(line, word));
    let pretends = MACROS.iter().find(|name| is_rust && starts_a_word(line, name));
    place.or(put_off).or(pretends).copied()
}

/// Whether `part` stands in the line and does not continue a longer word or path.
fn starts_a_word(line: &str, part: &str) -> bool {
    line.match_indices(part).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "_-.}".contains(before))
    })
}

/// Whether `word` stands alone in the line; after a dot it is a name (Go has a context of that name).
fn is_a_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(|c| part(c) || c == '.') && !after.is_some_and(part)
    })
}

/// Relative links of a document whose target git does not know.
fn dead_links(file: &TextFile, files: &[TextFile]) -> Vec<String> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let links = file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let relative = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
    relative
        .map(|link| join(folder, link.split('#').next().unwrap_or_default()))
        .filter(|target| !exists(target, files))
        .map(|target| format!("{}: links to {target}, which is not there", file.path))
        .collect()
}

/// Paths between backticks, from the root of the workspace, that git does not know.
fn dead_paths(file: &TextFile, files: &[TextFile]) -> Vec<String> {
    let roots = ["crates/", "proto/", "xtask/", "compat-tests/", "docs/"];
    let quoted = file.text.split('`').skip(1).step_by(2);
    quoted
        .filter(|path| {
            file.path.ends_with(".md") && roots.iter().any(|root| path.starts_with(root))
        })
        .filter(|path| !path.contains(['*', ' ', '<', '\n']) && !exists(path, files))
        .map(|path| format!("{}: names {path}, which is not there", file.path))
        .collect()
}

/// Whether git knows a file, or anything in a folder, of that path.
fn exists(path: &str, files: &[TextFile]) -> bool {
    let inside = format!("{}/", path.trim_end_matches('/'));
    files.iter().any(|file| file.path == path || file.path.starts_with(&inside))
}

fn join(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/').filter(|part| !part.is_empty()) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The code map names every crate, so a newcomer finds each.
fn crates_missing_in_code_map(files: &[TextFile]) -> Vec<String> {
    let map = files.iter().find(|file| file.path == "docs/ARCHITECTURE.md");
    let Some(map) = map else { return vec!["docs/ARCHITECTURE.md is missing".to_owned()] };
    let manifests = files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    manifests
        .filter(|folder| !map.text.contains(&format!("`{folder}`")))
        .map(|folder| format!("docs/ARCHITECTURE.md does not name `{folder}`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{file, nothing_in, tracked_files};
    use super::*;

    #[test]
    fn committed_texts_hold_no_banned_word_and_no_dead_link() {
        nothing_in(&check(&tracked_files().unwrap()));
    }

    #[test]
    fn a_path_of_one_machine_is_found_and_a_longer_path_is_not() {
        let place = PLACES[0];
        assert!(banned_word(&format!("cd {place}main"), false).is_some());
        assert!(banned_word(&format!("cd $HOME{place}main"), false).is_none());
    }

    #[test]
    fn put_off_work_is_found_as_a_word_only() {
        let word = PUT_OFF[0];
        assert!(banned_word(&format!("// {word}: later"), false).is_some());
        assert!(banned_word(&format!("context.{word}()"), false).is_none());
        assert!(banned_word(&format!("{word}S"), false).is_none());
    }

    #[test]
    fn a_macro_that_pretends_is_found_in_rust_only() {
        let line = format!("    {}\"later\")", MACROS[0]);
        assert!(banned_word(&line, true).is_some());
        assert!(banned_word(&line, false).is_none());
    }

    #[test]
    fn a_link_is_resolved_from_its_document() {
        let files = [
            file("docs/A.md", "[b](../B.md#part) [c](decisions/C.md) [d](https://d)"),
            file("B.md", ""),
        ];
        assert_eq!(dead_links(&files[0], &files).len(), 1);
    }

    #[test]
    fn a_path_that_a_document_names_is_there() {
        let files = [
            file("docs/A.md", "`crates/b/src/lib.rs` `crates/b` `crates/c` `crates/*` `put`"),
            file("crates/b/src/lib.rs", ""),
        ];
        assert_eq!(dead_paths(&files[0], &files).len(), 1);
    }

    #[test]
    fn a_crate_that_the_code_map_does_not_name_is_found() {
        let map = file("docs/ARCHITECTURE.md", "| `crates/known` |");
        let files = [map, file("crates/known/Cargo.toml", ""), file("crates/new/Cargo.toml", "")];
        assert_eq!(crates_missing_in_code_map(&files).len(), 1);
    }
}
