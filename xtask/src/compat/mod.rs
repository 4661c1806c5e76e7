//! `cargo xtask compat`: the tables of `docs/COMPAT.md`, written from `docs/compat.tsv`.
//!
//! ```text
//! docs/compat.tsv ──> tables ──write──> docs/COMPAT.md, between the marks of each table
//!                       │
//!                       └──check (tidy)──> tests that are named are there, and say the name of what they show
//!                                          calls, routes, flags, gates and metrics of the sources all have a row
//!                                          the document is up to date
//! ```
//! A row says for something of etcd in which state it is and which tests show it; one that says `yes` names a test.
//! To change a row, change `docs/compat.tsv` and run the command. The differences are written by hand.

mod evidence;
mod known;
mod table;

use crate::tidy::{TextFile, tracked_files};
use evidence::Tests;
use table::Table;

const DATA: &str = "docs/compat.tsv";
const DOCUMENT: &str = "docs/COMPAT.md";

/// Writes the tables into the document.
pub(crate) fn run() -> Result<(), String> {
    let files = tracked_files()?;
    let tables = tables(&files)?;
    let document = text_of(&files, DOCUMENT)?;
    let path = crate::root().join(DOCUMENT);
    std::fs::write(&path, render(document, &tables)?)
        .map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let failures = failures(&files, &tables);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Sentences about rows that do not hold, for tidy.
pub(crate) fn check(files: &[TextFile]) -> Vec<String> {
    let tables = match tables(files) {
        Ok(tables) => tables,
        Err(error) => return vec![error],
    };
    let mut all = failures(files, &tables);
    match text_of(files, DOCUMENT).and_then(|document| Ok((document, render(document, &tables)?))) {
        Ok((document, rendered)) if document == rendered => {}
        Ok(_) => all.push(format!("{DOCUMENT} is not what {DATA} says: cargo xtask compat")),
        Err(error) => all.push(error),
    }
    all
}

fn failures(files: &[TextFile], tables: &[Table]) -> Vec<String> {
    let tests = Tests::of(files);
    let mut all = Vec::new();
    for table in tables {
        for row in &table.rows {
            let place = format!("{DATA}: {}: {}", table.name, row.cells[0]);
            all.extend(tests.judge(table, row).into_iter().map(|what| format!("{place}: {what}")));
        }
    }
    all.extend(known::without_row(files, tables));
    all
}

fn tables(files: &[TextFile]) -> Result<Vec<Table>, String> {
    table::parse(text_of(files, DATA)?).map_err(|error| format!("{DATA}: {error}"))
}

fn text_of<'a>(files: &'a [TextFile], path: &str) -> Result<&'a str, String> {
    let file = files.iter().find(|file| file.path == path);
    file.map(|file| file.text.as_str()).ok_or_else(|| format!("{path} is not there"))
}

/// The document with each table in its place.
fn render(document: &str, tables: &[Table]) -> Result<String, String> {
    let mut text = document.to_owned();
    for table in tables {
        let (begin, end) = (format!("<!-- table {} -->\n", table.name), "<!-- end of table -->");
        let from = text.find(&begin).ok_or_else(|| format!("{DOCUMENT} has no mark {begin:?}"))?;
        let from = from + begin.len();
        let to =
            text[from..].find(end).ok_or_else(|| format!("{DOCUMENT}: a table does not end"))?;
        text.replace_range(from..from + to, &table.markdown());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::file;

    const DATA_TEXT: &str = "[calls] service | call | state | shown by\nKV\tRange, Put\tyes\tTestKv\nKV\tTxn\tpart 5\t\n";

    fn document(tables: &str) -> String {
        format!("before\n<!-- table calls -->\n{tables}<!-- end of table -->\nafter\n")
    }

    #[test]
    fn the_document_is_what_the_rows_say() {
        crate::tidy::nothing_in(&check(&tracked_files().unwrap()));
    }

    #[test]
    fn a_table_is_written_between_its_marks_and_only_there() {
        let tables = table::parse(DATA_TEXT).unwrap();
        let written = render(&document("old\n"), &tables).unwrap();
        let table = "| service | call | state | shown by |\n| --- | --- | --- | --- |\n\
                     | KV | Range, Put | yes | `TestKv` |\n| KV | Txn | part 5 |  |\n";
        assert_eq!(written, document(table));
        assert_eq!(render(&written, &tables), Ok(written));
        assert!(render("no marks", &tables).is_err());
    }

    #[test]
    fn a_yes_needs_a_test_that_is_there_and_says_the_name() {
        let go = |body: &str| {
            file(
                "compat-tests/api/kv_test.go",
                &format!("func TestKv(t *testing.T) {{\n{body}\n}}\n"),
            )
        };
        let tables = table::parse(DATA_TEXT).unwrap();
        let said = |files: &[TextFile]| {
            let tests = Tests::of(files);
            tests.judge(&tables[0], &tables[0].rows[0])
        };
        assert_eq!(said(&[go("c.KV.Range; c.KV.Put")]), Vec::<String>::new());
        assert_eq!(said(&[go("c.KV.Range")]), ["no test that is named says Put"]);
        assert_eq!(said(&[]).len(), 3, "no such test, and nobody says either name");
        let without = table::parse(&DATA_TEXT.replace("TestKv", "")).unwrap();
        let judged = Tests::of(&[]).judge(&without[0], &without[0].rows[0]);
        assert_eq!(judged, ["says yes, but no test shows it"]);
    }
}
