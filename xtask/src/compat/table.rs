//! The data file: tables, rows, cells.
//!
//! ```text
//! [calls] service | call | state | shown by      a table with its columns; the last column names tests
//! KV <tab> Range, Put <tab> yes <tab> TestA TestB  a row; names of one cell stand behind commas
//! # ...                                           a remark
//! ```

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    columns: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One row.
#[derive(Debug)]
pub(super) struct Row {
    /// All columns but the last, as they stand in the document.
    pub(super) cells: Vec<String>,
    /// Names of tests.
    pub(super) tests: Vec<String>,
}

impl Table {
    /// Which cell of a row holds names, by the table's columns: the one before the state, or before the default.
    pub(super) fn names<'a>(&self, row: &'a Row) -> Vec<&'a str> {
        let state = self.columns.iter().position(|column| column == "state").unwrap_or(1);
        let place = self.columns.iter().position(|column| column == "name").unwrap_or(state - 1);
        let names = row.cells[place].split(", ");
        names.map(|name| name.trim().trim_matches('`')).collect()
    }

    /// The state of a row.
    pub(super) fn state<'a>(&self, row: &'a Row) -> &'a str {
        let state = self.columns.iter().position(|column| column == "state");
        state.map_or("", |place| row.cells[place].as_str())
    }

    /// As it stands in the document.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.columns);
        text.push_str(&line(&vec!["---".to_owned(); self.columns.len()]));
        for row in &self.rows {
            let tests: Vec<_> = row.tests.iter().map(|test| format!("`{test}`")).collect();
            let mut cells = row.cells.clone();
            cells.push(tests.join(", "));
            text.push_str(&line(&cells));
        }
        text
    }
}

/// The tables of the data file.
///
/// # Errors
/// The line that is none.
pub(super) fn parse(text: &str) -> Result<Vec<Table>, String> {
    let mut tables: Vec<Table> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        if let Some(head) = line.strip_prefix('[') {
            let (name, columns) = head.split_once("] ").ok_or_else(|| wrong("no table"))?;
            let columns: Vec<_> = columns.split(" | ").map(str::to_owned).collect();
            tables.push(Table { name: name.to_owned(), columns, rows: Vec::new() });
            continue;
        }
        let table = tables.last_mut().ok_or_else(|| wrong("a row before the first table"))?;
        let mut cells: Vec<_> = line.split('\t').map(str::to_owned).collect();
        if cells.len() != table.columns.len() {
            return Err(wrong(&format!(
                "{} cells for {} columns",
                cells.len(),
                table.columns.len()
            )));
        }
        let tests = cells.pop().unwrap_or_default();
        let tests = tests.split_whitespace().map(str::to_owned).collect();
        table.rows.push(Row { cells, tests });
    }
    Ok(tables)
}
