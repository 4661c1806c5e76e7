//! From JSON to the wire's form.

use std::borrow::Cow;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::error::{Error, Problem, repeated};
use super::token::{Cursor, Token, TokenKind, integer};
use super::{NESTING_MAX, base64};
use crate::schema::{Field, Kind, Message, MessageId, Schema};

/// The message `id` that `text` stands for, encoded. The text is one value that a [`super::Scanner`] has found.
///
/// # Errors
/// Why Go's protojson would refuse it.
pub fn decode(id: MessageId, text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut decoder = Decoder {
        schema: Schema::get(),
        cursor: Cursor::new(text),
        wire: Wire::default(),
        nesting: 0,
    };
    decoder.message(id)?;
    Ok(decoder.wire.finish())
}

struct Decoder<'a> {
    schema: &'static Schema,
    cursor: Cursor<'a>,
    wire: Wire,
    nesting: usize,
}

/// How a value stands in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By itself: behind its key, and left out when it is zero unless the field [`Field::has_presence`].
    Single,
    /// In a list, behind its key.
    Element,
    /// In a list of numbers, which has one key.
    Packed,
}

/// What of a message has come already.
#[derive(Default)]
struct Seen {
    fields: u64,
    oneofs: u64,
}

/// Marks `index`; false when it was marked.
fn mark(seen: &mut u64, index: usize) -> bool {
    let bit = 1_u64 << index;
    let fresh = *seen & bit == 0;
    *seen |= bit;
    fresh
}

impl<'a> Decoder<'a> {
    fn message(&mut self, id: MessageId) -> Result<(), Error> {
        if self.nesting == NESTING_MAX {
            return Err(Error::TooNested);
        }
        self.nesting += 1;
        let open = self.cursor.next()?;
        if open.kind != TokenKind::ObjectOpen {
            return Err(self.unexpected(&open));
        }
        let message = self.schema.message(id);
        let mut seen = Seen::default();
        loop {
            let token = self.cursor.next()?;
            match &token.kind {
                TokenKind::ObjectClose => break,
                TokenKind::String(name) => match find(message, name) {
                    Some(index) => self.member(message, index, &token, &mut seen)?,
                    None => self.cursor.skip()?,
                },
                _ => return Err(self.unexpected(&token)),
            }
        }
        self.nesting -= 1;
        Ok(())
    }

    /// The value of field `index` that is called `name` in the text.
    fn member(
        &mut self,
        message: &'static Message,
        index: usize,
        name: &Token<'a>,
        seen: &mut Seen,
    ) -> Result<(), Error> {
        let field = &message.fields[index];
        if !mark(&mut seen.fields, index) {
            let problem = Problem::Duplicate(repeated(name.raw));
            return Err(self.cursor.error(name.place, problem));
        }
        if self.cursor.peek() == Some(b'n') {
            return self.cursor.skip();
        }
        if field.repeated {
            return self.list(field);
        }
        if let Some(oneof) = field.oneof
            && !mark(&mut seen.oneofs, oneof)
        {
            let oneof = format!("{}.{}", message.name, message.oneofs[oneof]);
            let problem = Problem::Oneof { name: repeated(name.raw), oneof };
            return Err(self.cursor.error(name.place, problem));
        }
        self.value(field, Place::Single)
    }

    fn list(&mut self, field: &Field) -> Result<(), Error> {
        let open = self.cursor.next()?;
        if open.kind != TokenKind::ArrayOpen {
            return Err(self.unexpected(&open));
        }
        let long = matches!(field.kind, Kind::String | Kind::Bytes | Kind::Message(_));
        let place = if long { Place::Element } else { Place::Packed };
        let packed = (!long && self.cursor.peek() != Some(b']')).then(|| {
            encode_key(field.number, WireType::LengthDelimited, &mut self.wire.bytes);
            self.wire.open()
        });
        while self.cursor.peek().ok_or(Error::UnexpectedEnd)? != b']' {
            self.value(field, place)?;
        }
        self.cursor.next()?;
        if let Some(packed) = packed {
            self.wire.close(packed);
        }
        Ok(())
    }

    fn value(&mut self, field: &Field, place: Place) -> Result<(), Error> {
        if let Kind::Message(id) = field.kind {
            encode_key(field.number, WireType::LengthDelimited, &mut self.wire.bytes);
            let body = self.wire.open();
            self.message(id)?;
            self.wire.close(body);
            return Ok(());
        }
        let token = self.cursor.next()?;
        match self.scalar(field, place, &token) {
            Some(()) => Ok(()),
            None => Err(self.cursor.error(
                token.place,
                Problem::Value {
                    kind: field.kind.name(),
                    field: field.json_name.clone(),
                    text: repeated(token.raw),
                },
            )),
        }
    }

    /// None when the token is no value of the field.
    fn scalar(&mut self, field: &Field, place: Place, token: &Token<'a>) -> Option<()> {
        let number = match (field.kind, &token.kind) {
            (Kind::String, TokenKind::String(text)) => {
                self.bytes(field, place, text.as_bytes());
                return Some(());
            }
            (Kind::Bytes, TokenKind::String(text)) => {
                let mut bytes = Vec::new();
                base64::decode(text, &mut bytes)?;
                self.bytes(field, place, &bytes);
                return Some(());
            }
            (Kind::Bool, TokenKind::Bool(value)) => u64::from(*value),
            // A name that is not known is passed over.
            (Kind::Enum(id), TokenKind::String(name)) => match self.schema.enum_number(id, name) {
                Some(number) => i64::from(number) as u64,
                None => return Some(()),
            },
            (Kind::Enum(_), TokenKind::Number) => {
                i64::from(integer(token.raw)?.parse::<i32>().ok()?) as u64
            }
            (Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64, _) => {
                number(field.kind, token)?
            }
            _ => return None,
        };
        self.number(field, place, number);
        Some(())
    }

    fn bytes(&mut self, field: &Field, place: Place, bytes: &[u8]) {
        if place == Place::Single && bytes.is_empty() && !field.has_presence() {
            return;
        }
        encode_key(field.number, WireType::LengthDelimited, &mut self.wire.bytes);
        encode_varint(bytes.len() as u64, &mut self.wire.bytes);
        self.wire.bytes.extend_from_slice(bytes);
    }

    fn number(&mut self, field: &Field, place: Place, number: u64) {
        if place == Place::Single && number == 0 && !field.has_presence() {
            return;
        }
        if place != Place::Packed {
            encode_key(field.number, WireType::Varint, &mut self.wire.bytes);
        }
        encode_varint(number, &mut self.wire.bytes);
    }

    fn unexpected(&self, token: &Token<'_>) -> Error {
        self.cursor.error(token.place, Problem::Token(repeated(token.raw)))
    }
}

/// A field by either of its names.
fn find(message: &Message, name: &str) -> Option<usize> {
    message.fields.iter().position(|field| field.json_name == name || field.name == name)
}

/// A whole number in the range of its type, as it is on the wire.
fn number(kind: Kind, token: &Token<'_>) -> Option<u64> {
    let text: Cow<'_, [u8]> = match &token.kind {
        TokenKind::Number => token.raw.into(),
        TokenKind::String(text) if text.trim().len() == text.len() => text.as_bytes().into(),
        _ => return None,
    };
    let digits = integer(&text)?;
    match kind {
        Kind::Int32 => digits.parse::<i32>().ok().map(|value| i64::from(value) as u64),
        Kind::Int64 => digits.parse::<i64>().ok().map(|value| value as u64),
        Kind::Uint32 => digits.parse::<u32>().ok().map(u64::from),
        _ => digits.parse::<u64>().ok(),
    }
}

/// An encoded message in the making: lengths are filled in at the end, so that nothing is moved twice however
/// deep messages lie.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// In the order of their places.
    lengths: Vec<Length>,
    /// Bytes that the lengths closed so far will take.
    taken: usize,
}

/// A length that belongs before `bytes[at]`.
struct Length {
    at: usize,
    /// [`Wire::taken`] when it was opened.
    taken_before: usize,
    value: usize,
}

impl Wire {
    fn open(&mut self) -> usize {
        self.lengths.push(Length { at: self.bytes.len(), taken_before: self.taken, value: 0 });
        self.lengths.len() - 1
    }

    fn close(&mut self, index: usize) {
        let length = &mut self.lengths[index];
        length.value = self.bytes.len() - length.at + self.taken - length.taken_before;
        self.taken += encoded_len_varint(length.value as u64);
    }

    fn finish(self) -> Vec<u8> {
        if self.lengths.is_empty() {
            return self.bytes;
        }
        let mut out = Vec::with_capacity(self.bytes.len() + self.taken);
        let mut done = 0;
        for length in &self.lengths {
            out.extend_from_slice(&self.bytes[done..length.at]);
            encode_varint(length.value as u64, &mut out);
            done = length.at;
        }
        out.extend_from_slice(&self.bytes[done..]);
        out
    }
}
