//! Which tests there are, and whether those of a row show what it says.

use std::collections::HashMap;

use super::table::{Row, Table};
use crate::tidy::TextFile;

/// Tables whose names a test has to say. Commands are put together from words.
const NAMED: [&str; 5] = ["calls", "routes", "endpoints", "flags", "gates"];
/// What a case of etcd's own suite is called here, before its name.
const SUITE: &str = "common/";

/// Tests by their names, each with the text of its file.
pub(super) struct Tests<'a>(HashMap<String, Vec<&'a str>>);

impl<'a> Tests<'a> {
    pub(super) fn of(files: &'a [TextFile]) -> Self {
        let mut tests: HashMap<String, Vec<&str>> = HashMap::new();
        for file in files {
            for name in names(file) {
                tests.entry(name).or_default().push(&file.text);
            }
        }
        Self(tests)
    }

    /// What is wrong with a row.
    pub(super) fn judge(&self, table: &Table, row: &Row) -> Vec<String> {
        let missing = row.tests.iter().filter(|test| !self.0.contains_key(*test));
        let mut wrong: Vec<_> = missing.map(|test| format!("no test is called {test}")).collect();
        if !table.state(row).starts_with("yes") {
            return wrong;
        }
        if row.tests.is_empty() {
            wrong.push("says yes, but no test shows it".to_owned());
        } else if NAMED.contains(&table.name.as_str()) {
            let texts: Vec<_> =
                row.tests.iter().filter_map(|test| self.0.get(test)).flatten().collect();
            let unsaid = table.names(row).into_iter();
            // The tests of the gateway put its prefix before all their paths.
            let unsaid = unsaid.filter(|name| {
                let name = name.strip_prefix("/v3/").unwrap_or(name);
                !texts.iter().any(|text| says(text, name))
            });
            wrong.extend(unsaid.map(|name| format!("no test that is named says {name}")));
        }
        wrong
    }
}

/// The tests of a file.
fn names(file: &TextFile) -> Vec<String> {
    let lines = file.text.lines();
    if file.path.ends_with("_test.go") {
        lines
            .filter_map(|line| Some(line.strip_prefix("func Test")?.split_once('(')?.0))
            .map(|name| format!("Test{name}"))
            .collect()
    } else if file.path.ends_with(".py") {
        let name = |line: &str| {
            let line = line.strip_prefix("async ").unwrap_or(line);
            Some(format!("test_{}", line.strip_prefix("def test_")?.split_once('(')?.0))
        };
        lines.filter_map(name).collect()
    } else if file.path == "compat-tests/common/cases.txt" {
        let passed = lines.filter_map(|line| line.strip_prefix("pass "));
        let cases = passed.map(|case| case.split('/').next().unwrap_or_default());
        cases.map(|case| format!("{SUITE}{case}")).collect()
    } else if file.is_rust() {
        rust_names(&file.text)
    } else {
        Vec::new()
    }
}

fn rust_names(text: &str) -> Vec<String> {
    let (mut found, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            marked = true;
        } else if marked && !line.starts_with('#') {
            marked = false;
            let line = line.strip_prefix("async ").unwrap_or(line);
            let name = line.strip_prefix("fn ").and_then(|line| line.split_once('('));
            found.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    found
}

/// Whether `name` stands in the text and is not part of a longer one.
fn says(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        // Dashes stand before flags.
        !before.is_some_and(|c| part(c) && c != '-') && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    #[test]
    fn tests_are_found_in_every_language() {
        let rust = "#[test]\n#[should_panic]\nfn a_b() {}\nfn helper() {}\n#[tokio::test]\nasync fn c() {}\n";
        assert_eq!(names(&file("crates/a/src/lib.rs", rust)), ["a_b", "c"]);
        let go = "func TestA(t *testing.T) {\n\tfunc helper() {}\n";
        assert_eq!(names(&file("compat-tests/api/a_test.go", go)), ["TestA"]);
        let python = "def test_a(server):\nasync def test_b(server):\ndef helper():\n";
        assert_eq!(names(&file("compat-tests/python/test_a.py", python)), ["test_a", "test_b"]);
        let suite = "pass TestA/JWT\nskip TestB\n";
        assert_eq!(names(&file("compat-tests/common/cases.txt", suite)), ["common/TestA"]);
    }

    #[test]
    fn a_name_inside_of_a_longer_one_is_not_said() {
        assert!(says("\"--cors=a\"", "cors") && says("c.KV.Range(", "Range"));
        assert!(
            !says("RangeStream", "Range") && !says("--max-cors", "max") && !says("xcors", "cors")
        );
    }
}
