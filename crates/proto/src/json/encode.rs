//! From the wire's form to JSON.
//!
//! Messages are written field by field as they come, which is the order of the `.proto` file too (a test in
//! [`crate::schema`] holds this). So a message that is too large to be held can be pushed in pieces: of it only
//! the one field that is not there as a whole yet is kept.

use bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{NESTING_MAX, base64};
use crate::schema::{Field, Kind, MessageId, Schema};

/// Which characters of strings are escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// What JSON asks for.
    Plain,
    /// Also what has a meaning in HTML and JavaScript; Go's encoding/json does this.
    Html,
}

/// The bytes are no message of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Writes one message.
pub struct Encoder {
    object: Object,
    /// A field that has not come as a whole yet.
    rest: Vec<u8>,
}

impl Encoder {
    /// For one message of the type `id`.
    pub fn new(id: MessageId, escape: Escape) -> Self {
        Self { object: Object::new(id, escape, 0), rest: Vec::new() }
    }

    /// Takes the next bytes of the message; what can be said of them is appended to `out`.
    ///
    /// # Errors
    /// The bytes are no message of this type.
    pub fn push(&mut self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            let left = self.object.fields(wire, out)?;
            self.rest.extend_from_slice(left);
            return Ok(());
        }
        self.rest.extend_from_slice(wire);
        let rest = std::mem::take(&mut self.rest);
        let left = self.object.fields(&rest, out)?.len();
        self.rest = rest;
        self.rest.drain(..self.rest.len() - left);
        Ok(())
    }

    /// The message is complete.
    ///
    /// # Errors
    /// It is not: it ends inside of a field.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !self.rest.is_empty() {
            return Err(Malformed);
        }
        self.object.end(out);
        Ok(())
    }
}

/// A message that is being written.
struct Object {
    schema: &'static Schema,
    id: MessageId,
    escape: Escape,
    nesting: usize,
    begun: bool,
    /// The number of the list that is open.
    list: Option<u32>,
}

/// The value of a field as it is on the wire.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Object {
    fn new(id: MessageId, escape: Escape, nesting: usize) -> Self {
        Self { schema: Schema::get(), id, escape, nesting, begun: false, list: None }
    }

    /// Writes all fields that are there as a whole; what is left is part of one.
    fn fields<'a>(&mut self, mut wire: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Malformed> {
        while let Some((number, value, rest)) = next_field(wire)? {
            let fields = &self.schema.message(self.id).fields;
            if let Some(field) = fields.iter().find(|field| field.number == number)
                && let Some(value) = value
            {
                self.field(field, value, out)?;
            }
            wire = rest;
        }
        Ok(wire)
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.close_list(out);
        if !self.begun {
            out.push(b'{');
        }
        out.push(b'}');
    }

    fn field(
        &mut self,
        field: &'static Field,
        value: Value<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match (field.kind, value) {
            (Kind::String | Kind::Bytes | Kind::Message(_), Value::Bytes(bytes)) => {
                if !bytes.is_empty() || field.repeated || field.has_presence() {
                    self.key(field, out);
                    self.bytes(field.kind, bytes, out)?;
                }
            }
            (Kind::String | Kind::Bytes | Kind::Message(_), Value::Number(_)) => {
                return Err(Malformed);
            }
            (_, Value::Bytes(mut packed)) if field.repeated => {
                while packed.has_remaining() {
                    let number = decode_varint(&mut packed).map_err(|_| Malformed)?;
                    self.key(field, out);
                    self.number(field.kind, number, out);
                }
            }
            (_, Value::Bytes(_)) => return Err(Malformed),
            (_, Value::Number(number)) => {
                if number != 0 || field.repeated || field.has_presence() {
                    self.key(field, out);
                    self.number(field.kind, number, out);
                }
            }
        }
        Ok(())
    }

    /// What stands before a value.
    fn key(&mut self, field: &Field, out: &mut Vec<u8>) {
        if self.list == Some(field.number) {
            out.push(b',');
            return;
        }
        self.close_list(out);
        out.push(if self.begun { b',' } else { b'{' });
        self.begun = true;
        out.push(b'"');
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b"\":");
        if field.repeated {
            out.push(b'[');
            self.list = Some(field.number);
        }
    }

    fn close_list(&mut self, out: &mut Vec<u8>) {
        if self.list.take().is_some() {
            out.push(b']');
        }
    }

    fn bytes(&self, kind: Kind, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match kind {
            Kind::Message(_) if self.nesting == NESTING_MAX => return Err(Malformed),
            Kind::Message(id) => {
                let mut inner = Self::new(id, self.escape, self.nesting + 1);
                if !inner.fields(bytes, out)?.is_empty() {
                    return Err(Malformed);
                }
                inner.end(out);
            }
            Kind::String => push_string(&String::from_utf8_lossy(bytes), self.escape, out),
            _ => {
                out.push(b'"');
                base64::encode(bytes, out);
                out.push(b'"');
            }
        }
        Ok(())
    }

    fn number(&self, kind: Kind, number: u64, out: &mut Vec<u8>) {
        let text = match kind {
            Kind::Bool => (number != 0).to_string(),
            Kind::Int64 => format!("\"{}\"", number as i64),
            Kind::Uint64 => format!("\"{number}\""),
            Kind::Uint32 => (number as u32).to_string(),
            Kind::Enum(id) => match self.schema.enum_name(id, number as i32) {
                Some(name) => format!("\"{name}\""),
                None => (number as i32).to_string(),
            },
            _ => (number as i32).to_string(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// A field: its number, its value if it is of a known form, and what follows.
type NextField<'a> = (u32, Option<Value<'a>>, &'a [u8]);

/// The first field of `wire`; None when it is not there as a whole.
fn next_field(wire: &[u8]) -> Result<Option<NextField<'_>>, Malformed> {
    /// Longest key and length.
    const HEAD_MAX: usize = 20;
    let cut = |rest: &[u8]| if rest.len() < HEAD_MAX { Ok(None) } else { Err(Malformed) };
    let mut rest = wire;
    let Ok((number, kind)) = decode_key(&mut rest) else { return cut(wire) };
    let fixed = match kind {
        WireType::Varint => {
            let Ok(value) = decode_varint(&mut rest) else { return cut(wire) };
            return Ok(Some((number, Some(Value::Number(value)), rest)));
        }
        WireType::LengthDelimited => {
            let Ok(length) = decode_varint(&mut rest) else { return cut(wire) };
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            let Some((value, rest)) = rest.split_at_checked(length) else { return Ok(None) };
            return Ok(Some((number, Some(Value::Bytes(value)), rest)));
        }
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed),
    };
    Ok(rest.get(fixed..).map(|rest| (number, None, rest)))
}

/// Appends a JSON string.
pub fn push_string(text: &str, escape: Escape, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '\u{8}' => b'b',
            '\u{c}' => b'f',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            _ => {
                let html = matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
                if character < ' ' || (html && escape == Escape::Html) {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                } else {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.push(b'"');
}
