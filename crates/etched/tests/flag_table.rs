//! The table of flags against the facts about etcd 3.7.1's flags.
//!
//! `flag_facts.tsv` has one line a flag: kind of line, name, type, default, variable, key in a config
//! file. It was written down from the real binary and is not made from the table.

use std::collections::BTreeSet;

use etched::flags::{self, Flag, Group, Kind};

struct Fact {
    ignored: bool,
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    variable: &'static str,
    key: &'static str,
}

fn facts() -> Vec<Fact> {
    let lines = include_str!("flag_facts.tsv").lines();
    lines
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let [kind, name, takes, default, variable, key] = columns[..] else {
                panic!("not six columns: {line}");
            };
            Fact { ignored: kind == "flag-ignored", name, takes, default, variable, key }
        })
        .collect()
}

fn kind_of(flag: &Flag) -> String {
    match flag.kind {
        Kind::Text => "string".into(),
        Kind::Bool => "bool".into(),
        Kind::Unsigned if flag.name == "snapshot-count" => "uint64".into(),
        Kind::Unsigned if flag.name == "snapshot-catchup-entries" => "uint64".into(),
        Kind::Unsigned => "uint".into(),
        Kind::Unsigned32 => "uint32".into(),
        Kind::Signed if flag.name == "quota-backend-bytes" => "int64".into(),
        Kind::Signed => "int".into(),
        Kind::Duration => "duration".into(),
        Kind::Urls | Kind::Origins => "url-list".into(),
        Kind::TextSet => "string-set".into(),
        Kind::TextList => "string-list".into(),
        Kind::Choice(words) => format!("enum({})", words.join(",")),
        Kind::V2Deprecation => {
            "enum(write-only,write-only-skip-check,write-only-drop-data,gone)".into()
        }
        Kind::Gates => "gate-list".into(),
        Kind::Ignored => "bool-like".into(),
    }
}

#[test]
fn the_table_has_exactly_the_flags_of_etcd() {
    let ours: BTreeSet<_> = flags::all().map(|flag| flag.name).collect();
    let theirs: BTreeSet<_> = facts().iter().map(|fact| fact.name).collect();
    assert_eq!(ours, theirs);
    assert_eq!(flags::all().count(), ours.len(), "each once");
}

#[test]
fn every_flag_has_the_type_the_default_and_the_key_of_etcd() {
    for fact in facts() {
        let flag = flags::find(fact.name).unwrap();
        assert_eq!(kind_of(flag), fact.takes, "{}", fact.name);
        assert_eq!(flag.default, fact.default, "{}", fact.name);
        assert_eq!(flag.yaml.unwrap_or("(none)"), fact.key, "{}", fact.name);
        assert_eq!(flag.group == Group::Ignored, fact.ignored, "{}", fact.name);
    }
}

#[test]
fn every_flag_has_the_variable_of_etcd() {
    // --version has one by the rule, but it is taken out of the environment; dots stay as they are.
    for fact in facts().iter().filter(|fact| fact.variable.starts_with("ETCD_")) {
        assert_eq!(flags::find(fact.name).unwrap().variable(), fact.variable);
    }
}

#[test]
fn every_flag_in_help_says_what_it_is_for() {
    let help = etched::help::flags();
    for flag in flags::all().filter(|flag| flag.group != Group::Ignored) {
        assert!(help.contains(&format!("  --{}", flag.name)), "{}", flag.name);
        assert!(flag.help.ends_with(['.', ':']), "{}", flag.name);
    }
}
