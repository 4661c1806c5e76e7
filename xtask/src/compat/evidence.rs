//! Which tests there are, and whether those of a row show what it says.

use std::collections::HashMap;

use super::table::{Row, Table};
use crate::tidy::TextFile;

/// Tables whose names a test has to say. Commands are put together from words.
const NAMED: [&str; 5] = ["calls", "routes", "endpoints", "flags", "gates"];
/// What a case of etcd's own suite is called here, before its name.
const SUITE: &str = "common/";

/// Tests by their names, each with the text that it is: its own, and that of what it names in its file.
pub(super) struct Tests(HashMap<String, Vec<String>>);

impl Tests {
    pub(super) fn of(files: &[TextFile]) -> Self {
        let mut tests: HashMap<String, Vec<String>> = HashMap::new();
        for file in files {
            let items = items(file);
            for (name, text) in tests_of(file, &items) {
                tests.entry(name).or_default().push(text);
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

/// The tests of a file, with all that belongs to them. What they name in other files does not: it serves many.
fn tests_of(file: &TextFile, items: &[Item<'_>]) -> Vec<(String, String)> {
    if file.path == "compat-tests/common/cases.txt" {
        let passed = file.text.lines().filter_map(|line| line.strip_prefix("pass "));
        let cases = passed.map(|case| case.split('/').next().unwrap_or_default());
        return cases.map(|case| (format!("{SUITE}{case}"), String::new())).collect();
    }
    let whole = |test: &Item<'_>| {
        let named =
            |item: &&Item<'_>| !item.is_test && item.names.iter().any(|name| says(test.text, name));
        let parts = items.iter().filter(named).map(|item| item.text);
        let text: Vec<_> = std::iter::once(test.text).chain(parts).collect();
        (test.names[0].to_owned(), text.concat())
    };
    items.iter().filter(|item| item.is_test).map(whole).collect()
}

/// A function, a constant or the like.
#[derive(Debug, PartialEq)]
struct Item<'a> {
    names: Vec<&'a str>,
    is_test: bool,
    text: &'a str,
}

/// Cut where a line begins another one, no deeper than this one: good enough for what formatters leave.
fn items(file: &TextFile) -> Vec<Item<'_>> {
    let language = match file.path.rsplit('.').next() {
        Some("go") if file.path.ends_with("_test.go") => Language::Go,
        Some("py") => Language::Python,
        _ if file.is_rust() => Language::Rust,
        _ => return Vec::new(),
    };
    let mut found: Vec<Item<'_>> = Vec::new();
    let (mut open, mut marked): (Option<(usize, usize)>, bool) = (None, false);
    let mut at = 0;
    for line in file.text.split_inclusive('\n') {
        let depth = line.len() - line.trim_start().len();
        let head = line.trim();
        if open.is_none_or(|(_, deep)| depth <= deep) && language.begins(head) {
            if let Some((from, _)) = open.take() {
                found.last_mut().expect("one is open").text = &file.text[from..at];
            }
            let names = language.names(head);
            if !names.is_empty() {
                let is_test = language.is_test(names[0], marked);
                found.push(Item { names, is_test, text: "" });
                open = Some((at, depth));
            }
            marked = head == "#[test]"
                || head.starts_with("#[tokio::test")
                || (marked && head.starts_with("#["));
        }
        at += line.len();
    }
    if let (Some((from, _)), Some(last)) = (open, found.last_mut()) {
        last.text = &file.text[from..];
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Language {
    Rust,
    Go,
    Python,
}

impl Language {
    /// Whether the line ends what stands before it.
    fn begins(self, head: &str) -> bool {
        let words: &[&str] = match self {
            Self::Rust => &[
                "fn ",
                "pub ",
                "pub(",
                "async fn ",
                "const ",
                "static ",
                "struct ",
                "enum ",
                "impl",
                "mod ",
                "#[",
                "macro_rules!",
                "use ",
                "type ",
                "trait ",
                "///",
            ],
            Self::Go => &["func ", "var ", "const ", "type ", "// "],
            Self::Python => return !head.is_empty() && !head.starts_with([')', ']', '}', '#']),
        };
        words.iter().any(|word| head.starts_with(word))
    }

    /// What the line begins is called; a list of variables of Go by none of its names, which stand below.
    fn names(self, head: &str) -> Vec<&str> {
        let words: &[&str] = match self {
            Self::Rust => &["fn ", "const ", "static ", "macro_rules! "],
            Self::Go => &["func ", "var ", "const "],
            Self::Python => &["def "],
        };
        let head = ["pub ", "pub(crate) ", "pub(super) ", "async "]
            .iter()
            .fold(head, |head, word| head.strip_prefix(word).unwrap_or(head));
        let Some(rest) = words.iter().find_map(|word| head.strip_prefix(word)) else {
            // A table of python's.
            let name = head.split_once(" = ").map(|(name, _)| name);
            return name.filter(|_| self == Self::Python).into_iter().collect();
        };
        // A method of Go's is called by its name behind the receiver's.
        let rest = rest
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(") "))
            .map_or(rest, |(_, rest)| rest);
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 { Vec::new() } else { vec![&rest[..end]] }
    }

    fn is_test(self, name: &str, marked: bool) -> bool {
        match self {
            Self::Rust => marked,
            Self::Go => name.starts_with("Test"),
            Self::Python => name.starts_with("test_"),
        }
    }
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

    fn names(path: &str, text: &str) -> Vec<String> {
        let file = file(path, text);
        tests_of(&file, &items(&file)).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn tests_are_found_in_every_language() {
        let rust = "#[test]\n#[should_panic]\nfn a_b() {}\nfn helper() {}\n#[tokio::test]\nasync fn c() {}\n";
        assert_eq!(names("crates/a/src/lib.rs", rust), ["a_b", "c"]);
        let go = "func TestA(t *testing.T) {\n\tfunc helper() {}\n";
        assert_eq!(names("compat-tests/api/a_test.go", go), ["TestA"]);
        let python = "def test_a(server):\nasync def test_b(server):\ndef helper():\n";
        assert_eq!(names("compat-tests/python/test_a.py", python), ["test_a", "test_b"]);
        let suite = "pass TestA/JWT\nskip TestB\n";
        assert_eq!(names("compat-tests/common/cases.txt", suite), ["common/TestA"]);
    }

    #[test]
    fn a_test_says_what_stands_in_it_and_in_what_it_names_but_not_what_its_neighbours_say() {
        for (path, text) in [
            (
                "crates/a/src/lib.rs",
                "mod tests {\n    const TABLE: &str = \"in_table\";\n\n    /// Doc.\n    fn help() {\n        in_help();\n    \
                 }\n\n    #[test]\n    fn one() {\n        in_one(TABLE);\n        help();\n    }\n\n    #[test]\n    \
                 fn two() {\n        in_two();\n    }\n}\n",
            ),
            (
                "compat-tests/api/a_test.go",
                "var TABLE = `\nin_table\n`\n\nfunc (c *Case) help() {\n\tin_help()\n}\n\nfunc Testone(t *T) {\n\t\
                 in_one(TABLE)\n\tc.help()\n}\n\nfunc Testtwo(t *T) {\n\tin_two()\n}\n",
            ),
            (
                "compat-tests/python/test_a.py",
                "TABLE = [\n    in_table,\n]\n\ndef help():\n    in_help()\n\n\ndef test_one(\n    server,\n):\n    \
                 in_one(TABLE)\n    help()\n\n\ndef test_two():\n    in_two()\n",
            ),
        ] {
            let file = file(path, text);
            let tests = tests_of(&file, &items(&file));
            let [(_, one), (_, two)] = &tests[..] else { panic!("{tests:?}") };
            let said = |text: &str| {
                ["in_one", "in_table", "in_help", "in_two"].map(|word| says(text, word))
            };
            assert_eq!(said(one), [true, true, true, false], "{path}: {one}");
            assert_eq!(said(two), [false, false, false, true], "{path}: {two}");
        }
    }

    #[test]
    fn a_name_inside_of_a_longer_one_is_not_said() {
        assert!(says("\"--cors=a\"", "cors") && says("c.KV.Range(", "Range"));
        assert!(
            !says("RangeStream", "Range") && !says("--max-cors", "max") && !says("xcors", "cors")
        );
    }
}
