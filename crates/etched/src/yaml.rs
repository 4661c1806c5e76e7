//! YAML as etcd's config file uses it: one document, with the plain words of YAML 1.1.
//!
//! The parser gives events; what a plain word means is decided here, because etcd's library still
//! takes `yes` and `on` for true, which YAML 1.2 does not.

use std::collections::HashMap;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    /// In the order of the file; of equal keys the last counts.
    Map(Vec<(String, Self)>),
}

/// Deeper or larger documents are refused: aliases can make a short file a large document.
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 10_000;

impl Node {
    /// The first document in `text`; an empty one is null.
    ///
    /// # Errors
    /// A sentence with the place of what is no YAML.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader =
            Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
        loop {
            match reader.next()? {
                Event::StreamEnd => return Ok(Self::Null),
                Event::StreamStart | Event::DocumentStart | Event::Nothing => {}
                event => return reader.node(event, 0),
            }
        }
    }

    /// The node under a key, compared exactly first and then without regard to case.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let exact = entries.iter().rev().find(|(name, _)| name == key);
        let similar = || entries.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key));
        exact.or_else(similar).map(|(_, node)| node)
    }

    /// What it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

struct Reader<'a> {
    parser: Parser<std::str::Chars<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Event, String> {
        self.parser.next_token().map(|(event, _)| event).map_err(|error| error.to_string())
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, String> {
        self.count(1)?;
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == TScalarStyle::Plain && tag.is_none();
                (anchor, if plain { resolve(text) } else { Node::Text(text) })
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("unknown alias")?;
                self.count(size(&node))?;
                return Ok(node);
            }
            other => return Err(format!("unexpected {other:?}")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(items)),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        let mut entries = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Node::Map(entries)),
                Event::Scalar(text, ..) => text,
                _ => return Err("a key that is no plain text".into()),
            };
            let event = self.next()?;
            entries.push((key, self.node(event, depth + 1)?));
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX { Err(format!("more than {NODES_MAX} values")) } else { Ok(()) }
    }
}

fn size(node: &Node) -> usize {
    match node {
        Node::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Node::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
        _ => 1,
    }
}

/// What a word without quotes means.
fn resolve(text: String) -> Node {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Node::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Node::Bool(false);
        }
        _ => {}
    }
    let digits = text.replace('_', "");
    let number_like =
        digits.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    if !number_like {
        return Node::Text(text);
    }
    if let Some(number) = integer(&digits) {
        return Node::Int(number);
    }
    // Rust reads more words as numbers than YAML does ("-inf").
    let float_like = digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match digits.parse() {
        Ok(number) if float_like => Node::Float(number),
        _ => Node::Text(text),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let plain = digits.starts_with(|first: char| first.is_ascii_hexdigit());
    plain.then(|| i128::from_str_radix(digits, radix).ok()).flatten().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_mean_what_they_mean_to_etcd() {
        for (text, node) in [
            ("yes", Node::Bool(true)),
            ("off", Node::Bool(false)),
            ("\"yes\"", Node::Text("yes".into())),
            ("5", Node::Int(5)),
            ("'5'", Node::Text("5".into())),
            ("0x10", Node::Int(16)),
            ("-1", Node::Int(-1)),
            ("1_000", Node::Int(1000)),
            ("1.5", Node::Float(1.5)),
            ("10m", Node::Text("10m".into())),
            ("127.0.0.1", Node::Text("127.0.0.1".into())),
            ("http://localhost:2379", Node::Text("http://localhost:2379".into())),
            ("~", Node::Null),
            ("", Node::Null),
        ] {
            assert_eq!(Node::parse(text), Ok(node), "{text}");
        }
    }

    #[test]
    fn keys_are_found_whatever_their_case_and_the_last_one_counts() {
        let node = Node::parse("Name: a\nname: b\nname: c\nDATA-DIR: d\n").unwrap();
        assert_eq!(node.get("name"), Some(&Node::Text("c".into())));
        assert_eq!(node.get("data-dir"), Some(&Node::Text("d".into())));
        assert_eq!(node.get("wal-dir"), None);
    }

    #[test]
    fn json_is_yaml() {
        let node =
            Node::parse(r#"{"name": "a", "max-wals": 3, "log-outputs": ["x", "y"]}"#).unwrap();
        let list = Node::List(vec![Node::Text("x".into()), Node::Text("y".into())]);
        assert_eq!(node.get("log-outputs"), Some(&list));
    }

    #[test]
    fn aliases_stand_for_what_they_name_but_not_without_end() {
        let node = Node::parse("a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(node.get("c"), node.get("a"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..8 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", "));
        }
        assert!(Node::parse(&bomb).unwrap_err().contains("more than"));
        assert!(Node::parse(&"[".repeat(100)).is_err());
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        assert!(Node::parse("a: [\n").unwrap_err().contains("line"));
    }
}
