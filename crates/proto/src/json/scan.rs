//! Finds JSON values in a stream of bytes, in the words of Go's decoder where there is none.
//!
//! ```text
//! bytes as they come ──> Scanner: one state, a stack of open containers ──> where the value ends
//! ```
//! It holds a byte for each open container and nothing else, so whoever reads from a connection can stop at a
//! limit of their own. What it lets pass is JSON but for the bytes of strings, which the decoder looks at.

use super::Error;

/// Containers inside each other.
const DEPTH_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A value is due.
    Value,
    /// A value, or the end of an empty array.
    FirstElement,
    /// A key, or the end of an empty object.
    FirstKey,
    Key,
    /// A value or a key has ended.
    After,
    InString,
    Escape,
    /// So many hexadecimal digits are due.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// Inside of a literal, behind so many bytes of it.
    Literal(&'static str, usize),
}

/// What is open around a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    ObjectKey,
    ObjectValue,
    Array,
}

/// Where a value ends in a stream of bytes.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    open: Vec<Open>,
    begun: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Value, open: Vec::new(), begun: false }
    }
}

impl Scanner {
    /// Whether more than white space has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Looks at the next bytes; the place in them where the value ends, if it does.
    ///
    /// # Errors
    /// [`Error::Character`] for the first byte that is no JSON.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let mut place = 0;
        while let Some(&byte) = bytes.get(place) {
            if self.state == State::InString {
                place += plain(&bytes[place..]);
                let Some(&byte) = bytes.get(place) else { break };
                self.step(byte)?;
                place += 1;
            } else {
                self.begun |= !is_space(byte);
                place += usize::from(self.step(byte)?);
            }
            if self.state == State::After && self.open.is_empty() {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The bytes are at their end: whether they held a value, or nothing at all.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`] inside of a value.
    pub fn finish(&self) -> Result<bool, Error> {
        use State as S;
        let complete =
            matches!(self.state, S::After | S::Zero | S::Digits | S::Fraction | S::ExponentDigits);
        match (self.begun, complete && self.open.is_empty()) {
            (false, _) => Ok(false),
            (true, true) => Ok(true),
            (true, false) => Err(Error::UnexpectedEnd),
        }
    }

    /// Takes one byte; false when it stands behind a number that is all there is, and is not part of it.
    fn step(&mut self, byte: u8) -> Result<bool, Error> {
        use State as S;
        self.state = match (self.state, byte) {
            (S::Value | S::FirstElement | S::FirstKey | S::Key | S::After, byte)
                if is_space(byte) =>
            {
                return Ok(true);
            }
            (S::FirstElement, b']') | (S::FirstKey, b'}') => self.close(),
            (S::Value | S::FirstElement, _) => self.value(byte)?,
            (S::FirstKey | S::Key, b'"') => S::InString,
            (S::FirstKey | S::Key, _) => {
                return refuse(byte, "looking for beginning of object key string");
            }
            (S::InString, b'"') => S::After,
            (S::InString, b'\\') => S::Escape,
            (S::InString, _) => return refuse(byte, "in string literal"),
            (S::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => S::InString,
            (S::Escape, b'u') => S::Hex(4),
            (S::Escape, _) => return refuse(byte, "in string escape code"),
            (S::Hex(left), byte) if byte.is_ascii_hexdigit() => {
                if left == 1 {
                    S::InString
                } else {
                    S::Hex(left - 1)
                }
            }
            (S::Hex(_), _) => return refuse(byte, "in \\u hexadecimal character escape"),
            (S::Literal(word, at), _) => literal(word, at, byte)?,
            (S::After, _) => self.after(byte)?,
            _ => return self.number(byte),
        };
        Ok(true)
    }

    fn value(&mut self, byte: u8) -> Result<State, Error> {
        Ok(match byte {
            b'{' => self.descend(byte, Open::ObjectKey, State::FirstKey)?,
            b'[' => self.descend(byte, Open::Array, State::FirstElement)?,
            b'"' => State::InString,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Literal("true", 1),
            b'f' => State::Literal("false", 1),
            b'n' => State::Literal("null", 1),
            _ => return refuse(byte, "looking for beginning of value"),
        })
    }

    fn descend(&mut self, byte: u8, open: Open, state: State) -> Result<State, Error> {
        self.open.push(open);
        if self.open.len() > DEPTH_MAX { refuse(byte, "exceeded max depth") } else { Ok(state) }
    }

    fn close(&mut self) -> State {
        self.open.pop();
        State::After
    }

    fn after(&mut self, byte: u8) -> Result<State, Error> {
        let Some(open) = self.open.last_mut() else { return Ok(State::After) };
        Ok(match (*open, byte) {
            (Open::ObjectKey, b':') => {
                *open = Open::ObjectValue;
                State::Value
            }
            (Open::ObjectKey, _) => return refuse(byte, "after object key"),
            (Open::ObjectValue, b',') => {
                *open = Open::ObjectKey;
                State::Key
            }
            (Open::Array, b',') => State::Value,
            (Open::ObjectValue, b'}') | (Open::Array, b']') => self.close(),
            (Open::ObjectValue, _) => return refuse(byte, "after object key:value pair"),
            (Open::Array, _) => return refuse(byte, "after array element"),
        })
    }

    fn number(&mut self, byte: u8) -> Result<bool, Error> {
        use State as S;
        self.state = match (self.state, byte) {
            (S::Minus, b'0') => S::Zero,
            (S::Minus, b'1'..=b'9') | (S::Digits, b'0'..=b'9') => S::Digits,
            (S::Minus, _) => return refuse(byte, "in numeric literal"),
            (S::Zero | S::Digits, b'.') => S::Point,
            (S::Point | S::Fraction, b'0'..=b'9') => S::Fraction,
            (S::Point, _) => return refuse(byte, "after decimal point in numeric literal"),
            (S::Zero | S::Digits | S::Fraction, b'e' | b'E') => S::Exponent,
            (S::Exponent, b'+' | b'-') => S::ExponentSign,
            (S::Exponent | S::ExponentSign | S::ExponentDigits, b'0'..=b'9') => S::ExponentDigits,
            (S::Exponent | S::ExponentSign, _) => {
                return refuse(byte, "in exponent of numeric literal");
            }
            // The number has ended before this byte.
            _ => {
                self.state = S::After;
                return if self.open.is_empty() { Ok(false) } else { self.step(byte) };
            }
        };
        Ok(true)
    }
}

fn literal(word: &'static str, at: usize, byte: u8) -> Result<State, Error> {
    let due = word.as_bytes()[at];
    if byte != due {
        return Err(Error::Character {
            byte,
            place: format!("in literal {word} (expecting '{}')", char::from(due)),
        });
    }
    Ok(if at + 1 == word.len() { State::After } else { State::Literal(word, at + 1) })
}

fn refuse<T>(byte: u8, place: &str) -> Result<T, Error> {
    Err(Error::Character { byte, place: place.to_owned() })
}

/// How many bytes of a string can be passed over at once.
fn plain(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the first value ends, however the text is cut into pieces.
    fn end(text: &str) -> Result<Option<usize>, String> {
        let whole = Scanner::default().push(text.as_bytes());
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut scanner = Scanner::default();
            let in_parts = match scanner.push(first) {
                Ok(None) => scanner.push(second).map(|end| end.map(|end| end + cut)),
                early => early,
            };
            assert_eq!(in_parts, whole, "{text} cut at {cut}");
        }
        whole.map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_ends_with_its_last_byte_whatever_follows() {
        for (text, length) in [
            ("{}", 2),
            (" {\"a\":[1,-2.5e+3,true]} x", 23),
            ("[]]", 2),
            ("{}{}", 2),
            ("\"a\\\"b\\u00e9\"1", 12),
            ("null,", 4),
            ("12 ", 2),
            ("0x", 1),
            ("1.5e3}", 5),
        ] {
            assert_eq!(end(text), Ok(Some(length)), "{text}");
        }
    }

    #[test]
    fn the_end_of_the_bytes_ends_a_number_and_nothing_else() {
        let finish = |text: &str| {
            let mut scanner = Scanner::default();
            assert_eq!(scanner.push(text.as_bytes()), Ok(None), "{text}");
            scanner.finish()
        };
        assert_eq!(finish("5"), Ok(true));
        assert_eq!(finish("-0.5E1"), Ok(true));
        assert_eq!(finish(" \n"), Ok(false));
        for open in ["{", "{\"a\"", "[1", "\"a", "-", "1.", "1e", "tru", "{\"a\":1"] {
            assert_eq!(finish(open), Err(Error::UnexpectedEnd), "{open}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_in_go_s_words() {
        for (text, place) in [
            ("x", "'x' looking for beginning of value"),
            ("{x", "'x' looking for beginning of object key string"),
            ("{\"a\":1,}", "'}' looking for beginning of object key string"),
            ("{\"a\"x", "'x' after object key"),
            ("{\"a\":1x", "'x' after object key:value pair"),
            ("[1 2", "'2' after array element"),
            ("[1,]", "']' looking for beginning of value"),
            ("\"\n", "'\\n' in string literal"),
            ("\"\\x", "'x' in string escape code"),
            ("\"\\u00g", "'g' in \\u hexadecimal character escape"),
            ("-x", "'x' in numeric literal"),
            ("1.x", "'x' after decimal point in numeric literal"),
            ("1ex", "'x' in exponent of numeric literal"),
            ("[01", "'1' after array element"),
            ("trux", "'x' in literal true (expecting 'e')"),
            ("'", "'\\'' looking for beginning of value"),
            ("[\u{e9}", "'\u{c3}' looking for beginning of value"),
        ] {
            assert_eq!(end(text), Err(format!("invalid character {place}")), "{text}");
        }
    }

    #[test]
    fn containers_open_without_recursion_and_to_a_limit() {
        let deep = "[".repeat(DEPTH_MAX);
        assert_eq!(Scanner::default().push(deep.as_bytes()), Ok(None));
        let deeper = "[".repeat(DEPTH_MAX + 1);
        let refused = Scanner::default().push(deeper.as_bytes()).expect_err("too deep");
        assert_eq!(refused.to_string(), "invalid character '[' exceeded max depth");
    }
}
