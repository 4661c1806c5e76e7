//! The command line of `cargo xtask bench`.

use std::path::PathBuf;

use super::scenarios::{GROUPS, Group, Scale, Scenario};
use crate::tools;

/// What the command line chooses.
pub(super) struct Options {
    pub(super) scale: Scale,
    pub(super) json: PathBuf,
    pub(super) svg: Option<PathBuf>,
    pub(super) markdown: Option<PathBuf>,
    /// A program that runs before each server's turn at a group.
    pub(super) before: Option<PathBuf>,
    /// Names of scenarios and groups; all when there is none.
    names: Vec<String>,
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let short = arguments.iter().any(|word| word == "--short");
        let mut options = Self {
            scale: if short { Scale::SHORT } else { Scale::FULL },
            json: tools::target().join("bench.json"),
            svg: None,
            markdown: None,
            before: None,
            names: Vec::new(),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a word after it"));
            let mut number = || {
                let number = value()?.parse::<u64>().ok().filter(|number| *number > 0);
                number.ok_or_else(|| format!("{word} wants a number above 0"))
            };
            match word.as_str() {
                "--short" => {}
                "--rounds" => options.scale.rounds = number()?,
                "--requests" => options.scale.requests = number()?,
                "--keys" => options.scale.keys = number()?,
                "--seconds" => options.scale.seconds = number()?,
                "--json" => options.json = value()?.into(),
                "--svg" => options.svg = Some(value()?.into()),
                "--markdown" => options.markdown = Some(value()?.into()),
                "--before" => options.before = Some(value()?.into()),
                "--strace" => options.names.push("durability".to_owned()),
                name if is_known(name) => options.names.push(name.to_owned()),
                _ => return Err(format!("{word:?} is no option, and no scenario of\n{}", list())),
            }
        }
        Ok(options)
    }

    /// The scenarios of a group that are to run in a round.
    pub(super) fn chosen(&self, group: &Group, round: u64) -> Vec<&'static Scenario> {
        let named = |name: &str| self.names.iter().any(|chosen| chosen == name);
        let all = self.names.is_empty() || named(group.name);
        let scenarios = group.scenarios.iter().filter(|scenario| all || named(scenario.name));
        scenarios.filter(|scenario| round < scenario.rounds).collect()
    }
}

fn is_known(name: &str) -> bool {
    GROUPS.iter().any(|group| {
        group.name == name || group.scenarios.iter().any(|scenario| scenario.name == name)
    })
}

/// All groups and their scenarios, with what they measure.
fn list() -> String {
    let mut lines = Vec::new();
    for group in &GROUPS {
        lines.push(group.name.to_owned());
        let scenarios = group.scenarios.iter();
        lines.extend(scenarios.map(|scenario| format!("  {:16} {}", scenario.name, scenario.what)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    fn chosen(line: &str, round: u64) -> Vec<&'static str> {
        let options = options(line).unwrap();
        let scenarios = GROUPS.iter().flat_map(|group| options.chosen(group, round));
        scenarios.map(|scenario| scenario.name).collect()
    }

    #[test]
    fn scenarios_and_numbers_are_chosen_by_name() {
        let scale = options("keys --keys 5 --rounds 4").unwrap().scale;
        assert_eq!((scale.rounds, scale.keys), (4, 5));
        assert_eq!(chosen("keys put-100 --keys 5", 0), ["put-100", "keys"]);
    }

    #[test]
    fn a_group_is_all_of_its_scenarios_and_no_name_is_everything() {
        assert_eq!(chosen("history", 0), ["resume", "compact", "defrag"]);
        let all: usize = GROUPS.iter().map(|group| group.scenarios.len()).sum();
        assert_eq!(chosen("", 0).len(), all);
    }

    #[test]
    fn what_takes_minutes_runs_in_the_first_round_only() {
        assert_eq!(chosen("churn", 0), ["churn"]);
        assert!(chosen("churn", 1).is_empty());
    }

    #[test]
    fn the_short_form_may_be_changed_by_words_before_it() {
        let scale = options("--keys 7 --short").unwrap().scale;
        assert_eq!((scale.keys, scale.rounds), (7, Scale::SHORT.rounds));
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        assert!(options("--kesy 5").err().unwrap().contains("put-100"));
        assert!(options("--keys none").is_err());
    }
}
