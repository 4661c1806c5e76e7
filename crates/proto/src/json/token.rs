//! Cuts JSON into tokens.
//!
//! The text has passed the [`super::Scanner`]: so commas and colons are passed over like white space, and what is
//! left to look at is the bytes of strings.

use std::borrow::Cow;

use super::error::{Error, Problem, repeated};

/// A token and where it stands.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind<'a>,
    pub(super) place: usize,
    /// As it is written.
    pub(super) raw: &'a [u8],
}

#[derive(Debug, PartialEq)]
pub(super) enum TokenKind<'a> {
    ObjectOpen,
    ObjectClose,
    ArrayOpen,
    ArrayClose,
    Null,
    Bool(bool),
    /// Its text is the token's.
    Number,
    /// A value or a key.
    String(Cow<'a, str>),
}

/// A place in a text.
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        let between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':');
        self.at += rest.iter().take_while(|byte| between(byte)).count();
        self.text.get(self.at).copied()
    }

    /// The next token.
    ///
    /// # Errors
    /// A string that is none, or the end of the text.
    pub(super) fn next(&mut self) -> Result<Token<'a>, Error> {
        let first = self.peek().ok_or(Error::UnexpectedEnd)?;
        let place = self.at;
        let kind = match first {
            b'{' => TokenKind::ObjectOpen,
            b'}' => TokenKind::ObjectClose,
            b'[' => TokenKind::ArrayOpen,
            b']' => TokenKind::ArrayClose,
            b'"' => return self.string(place),
            b'n' => TokenKind::Null,
            b't' | b'f' => TokenKind::Bool(first == b't'),
            _ => TokenKind::Number,
        };
        let word = |byte: &u8| matches!(byte, b'-' | b'+' | b'.') || byte.is_ascii_alphanumeric();
        let rest = &self.text[place..];
        let length = rest.iter().take_while(|byte| word(byte)).count().max(1);
        self.at += length;
        Ok(Token { kind, place, raw: &rest[..length] })
    }

    /// Passes over one value.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        let mut open = 0_usize;
        loop {
            match self.next()?.kind {
                TokenKind::ObjectOpen | TokenKind::ArrayOpen => open += 1,
                TokenKind::ObjectClose | TokenKind::ArrayClose => open = open.saturating_sub(1),
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// What is wrong at `place`.
    pub(super) fn error(&self, place: usize, problem: Problem) -> Error {
        let before = &self.text[..place];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        // Bytes that are no UTF-8 count as one character each, as in Go.
        let characters =
            |chunk: std::str::Utf8Chunk<'_>| chunk.valid().chars().count() + chunk.invalid().len();
        let column = before[begin..].utf8_chunks().map(characters).sum::<usize>() + 1;
        Error::At { line, column, problem }
    }

    fn string(&mut self, place: usize) -> Result<Token<'a>, Error> {
        let mut at = place + 1;
        let mut whole = Cow::Borrowed("");
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let run = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let run = &rest[..run.ok_or(Error::UnexpectedEnd)?];
            let run = std::str::from_utf8(run).map_err(|_| self.error(place, Problem::Utf8))?;
            whole += run;
            at += run.len();
            if self.text[at] == b'"' {
                break;
            }
            let (character, length) = self.escape(place, at)?;
            whole.to_mut().push(character);
            at += length;
        }
        self.at = at + 1;
        Ok(Token { kind: TokenKind::String(whole), place, raw: &self.text[place..=at] })
    }

    /// The character of the escape at `at`, and how long it is written; the string begins at `place`.
    fn escape(&self, place: usize, at: usize) -> Result<(char, usize), Error> {
        let rest = &self.text[at..];
        let simple = match rest.get(1).ok_or(Error::UnexpectedEnd)? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code(place, rest),
            other => char::from(*other),
        };
        Ok((simple, 2))
    }

    fn code(&self, place: usize, rest: &[u8]) -> Result<(char, usize), Error> {
        let first = unit(rest).ok_or(Error::UnexpectedEnd)?;
        if let Some(character) = char::from_u32(first) {
            return Ok((character, 6));
        }
        let next = rest.get(6..12).ok_or(Error::EscapeCut)?;
        let pair = unit(next).filter(|_| next.starts_with(b"\\u")).and_then(|second| {
            let units = [first as u16, second as u16];
            char::decode_utf16(units).next().and_then(Result::ok)
        });
        match pair {
            Some(character) => Ok((character, 12)),
            None => Err(self.error(place, Problem::Escape(repeated(next)))),
        }
    }
}

/// The four hexadecimal digits behind `\u`.
fn unit(escape: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(escape.get(2..6)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// A whole number as protojson reads it: also with a fraction or an exponent, if the value is whole. The text of a
/// string may go on behind the number.
pub(super) fn integer(text: &[u8]) -> Option<String> {
    let (negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, rest) = match rest.strip_prefix(b"0") {
        Some(rest) => (&b""[..], rest),
        None => split_digits(rest),
    };
    if whole.is_empty() && rest.len() == text.len() - usize::from(negative) {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix(b".").map(split_digits) {
        Some((fraction, rest)) if !fraction.is_empty() => (fraction, rest),
        _ => (&b""[..], rest),
    };
    let (exponent, rest) = exponent(rest)?;
    let goes_on =
        |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'_') || byte.is_ascii_alphanumeric();
    if rest.first().is_some_and(goes_on) {
        return None;
    }
    let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
    let digits = shifted(whole, &fraction[..fraction.len() - zeros], exponent)?;
    Some(if negative && digits != "0" { format!("-{digits}") } else { digits })
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// The text of an exponent, and what follows it.
fn exponent(text: &[u8]) -> Option<(&str, &[u8])> {
    let [b'e' | b'E', behind @ ..] = text else { return Some(("", text)) };
    if behind.is_empty() {
        return Some(("", text));
    }
    let sign = usize::from(matches!(behind[0], b'+' | b'-'));
    if behind.len() == sign {
        return None;
    }
    let (digits, rest) = split_digits(&behind[sign..]);
    let length = sign + digits.len();
    Some((std::str::from_utf8(&behind[..length]).ok()?, rest))
}

/// The digits of a number with its point moved; None when it is not whole, or has more digits than any integer.
fn shifted(whole: &[u8], fraction: &[u8], exponent: &str) -> Option<String> {
    const DIGITS_MAX: usize = 20;
    if whole.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent: i32 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
    let text = |digits: &[u8]| std::str::from_utf8(digits).map(str::to_owned).ok();
    let size = exponent.unsigned_abs() as usize;
    if exponent < 0 {
        let kept = whole.len().checked_sub(size).filter(|_| fraction.is_empty())?;
        return whole[kept..].iter().all(|digit| *digit == b'0').then(|| text(&whole[..kept]))?;
    }
    if fraction.len() > size || whole.len().saturating_add(size) > DIGITS_MAX {
        return None;
    }
    let padding = "0".repeat(size - fraction.len());
    Some(text(whole)? + &text(fraction)? + &padding)
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn whole_numbers_may_be_written_in_any_way() {
        for (text, value) in [
            ("0", "0"),
            ("-0", "0"),
            ("12", "12"),
            ("-7", "-7"),
            ("1.50e1", "15"),
            ("1e3", "1000"),
            ("100e-2", "1"),
            ("5.000", "5"),
            ("0.5e1", "5"),
            ("0e99999999999", "0"),
            ("5e-0", "5"),
            ("5e+2", "500"),
        ] {
            assert_eq!(integer(text.as_bytes()).as_deref(), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "1.5",
            "15e-1",
            "1e21",
            "1e99999999999",
            "+1",
            "01",
            "0x1",
            "1.",
            ".5",
            "a",
            "1e+",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn behind_the_number_of_a_string_may_stand_what_cannot_go_on_with_it() {
        assert_eq!(integer(b"5 apples").as_deref(), Some("5"));
        assert_eq!(integer(b"5,6").as_deref(), Some("5"));
        assert_eq!(integer(b"5_6"), None);
    }
}
