//! Corpora of fuzz targets: each folder belongs to a target, which else would never look into it.

use std::collections::BTreeSet;

use super::TextFile;

/// Sentences about folders that no target reads.
pub(super) fn check(files: &[TextFile], paths: &[String]) -> Vec<String> {
    let folder = |path: &String| {
        let (owner, rest) = path.split_once("/corpus/")?;
        Some((owner.to_owned(), rest.split('/').next()?.to_owned()))
    };
    let folders: BTreeSet<_> = paths.iter().filter_map(folder).collect();
    let unread = folders.into_iter().filter(|(owner, name)| !is_target(files, owner, name));
    unread
        .map(|(owner, name)| {
            format!("{owner}/corpus/{name}: there is no fuzz target of that name in {owner}")
        })
        .collect()
}

/// A target's name stands in quotes in the file that makes it, if not always where it does.
fn is_target(files: &[TextFile], owner: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    let mut own = files.iter().filter(|file| {
        file.is_rust() && file.path.strip_prefix(owner).is_some_and(|rest| rest.starts_with('/'))
    });
    own.any(|file| file.text.contains("Target::new(") && file.text.contains(&quoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn every_corpus_is_some_targets() {
        let (files, paths) = (crate::tidy::tracked_files(), crate::tidy::tracked_paths());
        crate::tidy::nothing_in(&check(&files.unwrap(), &paths.unwrap()));
    }

    #[test]
    fn a_folder_that_no_target_of_its_crate_reads_is_found() {
        let test = "Target::new(FOLDER, \"rows\").run(|input| 1);\n";
        let files = [
            file("crates/a/tests/fuzz.rs", test),
            file("crates/a/src/lib.rs", "const NAME: &str = \"states\";\n"),
        ];
        let paths =
            ["crates/a/corpus/rows/1", "crates/a/corpus/states/1", "crates/b/corpus/rows/1"];
        let said = check(&files, &paths.map(str::to_owned));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("crates/a/corpus/states:"), "{said:?}");
    }
}
