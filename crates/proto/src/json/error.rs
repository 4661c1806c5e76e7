//! Why a text was refused, in the words of Go's JSON packages, as etcd's clients see them.

use std::fmt;

/// Most bytes of the client's own text that an error repeats; Go repeats all of it.
const REPEATED_MAX: usize = 1024;

/// A text that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It ends inside of a value.
    UnexpectedEnd,
    /// It is no JSON.
    Character {
        /// The first byte that cannot stand where it stands.
        byte: u8,
        /// Where that is.
        place: String,
    },
    /// Half of a surrogate pair so near to the end that the other half has no room.
    EscapeCut,
    /// Messages inside each other, more than are decoded.
    TooNested,
    /// It is JSON, but not of this message.
    At {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        problem: Problem,
    },
}

/// What is wrong at one place of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A value of another form than is due: its text.
    Token(String),
    /// Bytes of a string that are no UTF-8.
    Utf8,
    /// Half of a surrogate pair: what stands where the other half should.
    Escape(String),
    /// A value that the field cannot have.
    Value {
        /// Type of the field.
        kind: &'static str,
        /// Its name in JSON.
        field: String,
        /// The value's text.
        text: String,
    },
    /// A field that was there already: its name as written.
    Duplicate(String),
    /// A second field of a group of which one may be set.
    Oneof {
        /// The field's name as written.
        name: String,
        /// The group with its package and message.
        oneof: String,
    },
}

impl Problem {
    /// Go calls some of them errors of syntax.
    fn is_syntax(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Utf8 | Self::Escape(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEnd => f.write_str("unexpected EOF"),
            Self::Character { byte, place } => {
                write!(f, "invalid character {} {place}", quoted(*byte))
            }
            Self::EscapeCut => f.write_str("proto: unexpected EOF"),
            Self::TooNested => f.write_str("proto: exceeded max recursion depth"),
            Self::At { line, column, problem } => {
                let syntax = if problem.is_syntax() { "syntax error " } else { "" };
                write!(f, "proto: {syntax}(line {line}:{column}): {problem}")
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(text) => write!(f, "unexpected token {text}"),
            Self::Utf8 => f.write_str("invalid UTF-8 in string"),
            Self::Escape(text) => write!(f, "invalid escape code {text:?} in string"),
            Self::Value { kind, field, text } => {
                write!(f, "invalid value for {kind} field {field}: {text}")
            }
            Self::Duplicate(name) => write!(f, "duplicate field {name}"),
            Self::Oneof { name, oneof } => {
                write!(f, "error parsing {name}, oneof {oneof} is already set")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The beginning of what a client wrote.
pub(super) fn repeated(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(REPEATED_MAX)]).into_owned()
}

/// A byte as Go writes a character.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        7 => r"'\a'".to_owned(),
        8 => r"'\b'".to_owned(),
        11 => r"'\v'".to_owned(),
        12 => r"'\f'".to_owned(),
        b'\t' | b'\n' | b'\r' | b'\\' => format!("'{}'", byte.escape_ascii()),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{:04x}'", byte),
        _ => format!("'{}'", char::from(byte)),
    }
}
