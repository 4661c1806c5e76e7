//! The status of a snapshot, and a hash, in each of etcdutl's formats.

use etched_bolt::snapshot::Status;
use etched_server::KvHash;

use crate::Failure;

/// Names of the formats that print something.
pub(crate) const FORMATS: [&str; 4] = ["simple", "json", "fields", "table"];

/// The formats of `--write-out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Table,
}

impl Format {
    /// The format of that name.
    ///
    /// # Errors
    /// In the words of etcdutl.
    pub(crate) fn of(name: &str) -> Result<Self, Failure> {
        match name {
            "simple" => Ok(Self::Simple),
            "json" => Ok(Self::Json),
            "fields" => Ok(Self::Fields),
            "table" => Ok(Self::Table),
            // etcdutl has it for nothing that it prints, and says so only then.
            "protobuf" => {
                Err(Failure::Format("protobuf not supported as output format".to_owned()))
            }
            _ => Err(Failure::Format("unsupported output format".to_owned())),
        }
    }

    pub(crate) fn status(self, status: &Status) -> String {
        let Status { hash, revision, total_key, total_size, version } = status;
        match self {
            Self::Json => {
                let version = serde_json::Value::from(version.as_str());
                format!(
                    "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_key},\
                     \"totalSize\":{total_size},\"version\":{version}}}\n"
                )
            }
            Self::Fields => format!(
                "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\
                 \"Size\" : {total_size}\n\"Version\" : {version}\n"
            ),
            Self::Simple => cells(status).join(", ") + "\n",
            Self::Table => {
                table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &cells(status))
            }
        }
    }
}

impl Format {
    pub(crate) fn hash(self, hash: &KvHash) -> String {
        let KvHash { hash, compact_revision, revision } = *hash;
        let cells = [hash.to_string(), revision.to_string(), compact_revision.to_string()];
        match self {
            Self::Json => format!(
                "{{\"hash\":{hash},\"hashRevision\":{revision},\
                 \"compactRevision\":{compact_revision}}}\n"
            ),
            Self::Fields => format!(
                "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\
                 \"Compact revision\" : {compact_revision}\n"
            ),
            Self::Simple => cells.join(", ") + "\n",
            Self::Table => table(&["HASH", "HASH REVISION", "COMPACT REVISION"], &cells),
        }
    }
}

fn cells(status: &Status) -> [String; 5] {
    let Status { hash, revision, total_key, total_size, version } = status;
    [
        format!("{hash:x}"),
        revision.to_string(),
        total_key.to_string(),
        human(*total_size),
        version.clone(),
    ]
}

/// A size in steps of 1000, with one digit behind the point below 10.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut step = 1_u64;
    while bytes / step >= 1000 {
        (unit, step) = (unit + 1, step * 1000);
    }
    let value = (bytes as f64 / step as f64 * 10.0 + 0.5).floor() / 10.0;
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// One row in a frame: heads in the middle, values to the right.
fn table(heads: &[&str], cells: &[String]) -> String {
    let widths: Vec<usize> =
        heads.iter().zip(cells).map(|(head, cell)| head.len().max(cell.len())).collect();
    let edge = |left: &str, between: &str, right: &str| {
        let lines: Vec<String> = widths.iter().map(|width| "\u{2500}".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(between))
    };
    let row = |cells: Vec<String>| format!("\u{2502} {} \u{2502}\n", cells.join(" \u{2502} "));
    let heads = heads.iter().zip(&widths).map(|(head, width)| format!("{head:^width$}"));
    let values = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
    [
        edge("\u{250c}", "\u{252c}", "\u{2510}"),
        row(heads.collect()),
        edge("\u{251c}", "\u{253c}", "\u{2524}"),
        row(values.collect()),
        edge("\u{2514}", "\u{2534}", "\u{2518}"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (36_864, "37 kB"),
            (7_544_832, "7.5 MB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn every_format_is_that_of_etcdutl() {
        let status = Status {
            hash: 0xce1d_9327,
            revision: 20013,
            total_key: 5069,
            total_size: 7_544_832,
            version: String::new(),
        };
        let of = |name| Format::of(name).unwrap().status(&status);
        assert_eq!(of("simple"), "ce1d9327, 20013, 5069, 7.5 MB, \n");
        assert_eq!(
            of("json"),
            "{\"hash\":3458044711,\"revision\":20013,\"totalKey\":5069,\"totalSize\":7544832,\
             \"version\":\"\"}\n"
        );
        assert_eq!(
            of("table"),
            "┌──────────┬──────────┬────────────┬────────────┬─────────┐\n\
             │   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │\n\
             ├──────────┼──────────┼────────────┼────────────┼─────────┤\n\
             │ ce1d9327 │    20013 │       5069 │     7.5 MB │         │\n\
             └──────────┴──────────┴────────────┴────────────┴─────────┘\n"
        );
        assert!(of("fields").ends_with("\"Size\" : 7544832\n\"Version\" : \n"));
    }
}
