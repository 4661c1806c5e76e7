//! As much of PEM and DER as it takes to find a key in its file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Tags of DER.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// The first block of a PEM file: its label and its bytes.
pub(super) fn pem(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    Some((label.to_owned(), STANDARD.decode(body).ok()?))
}

/// A value of some tag, and what follows it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (length, behind) = rest.split_at_checked(usize::from(first - 0x80))?;
            rest = behind;
            length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

/// The values in a sequence, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence<'a>(&'a [u8]);

impl<'a> Sequence<'a> {
    /// The sequence that `der` is.
    pub(super) fn of(der: &'a [u8]) -> Option<Self> {
        value(der).filter(|(tag, ..)| *tag == SEQUENCE).map(|(_, inside, _)| Self(inside))
    }

    /// The next value, if it has this tag.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, inside, rest) = value(self.0)?;
        if found != tag {
            return None;
        }
        self.0 = rest;
        Some(inside)
    }

    /// The next value, if it is a sequence.
    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.next(SEQUENCE).map(Self)
    }
}

/// The bytes of a bit string of whole bytes.
pub(super) fn bits(bits: &[u8]) -> Option<&[u8]> {
    bits.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_file_gives_its_first_block() {
        let file = b"words\n-----BEGIN SOME KEY-----\nZm9v\nYmFy\n-----END SOME KEY-----\nmore";
        assert_eq!(pem(file), Some(("SOME KEY".to_owned(), b"foobar".to_vec())));
        assert_eq!(pem(b"-----BEGIN A-----\nZm9v\n-----END B-----"), None);
        assert_eq!(pem(b"-----BEGIN A-----\n?\n-----END A-----"), None);
        assert_eq!(pem(b"\xff"), None);
    }

    #[test]
    fn lengths_are_short_or_long_and_never_beyond_the_end() {
        let long = [&[SEQUENCE, 0x81, 0x82, BIT_STRING, 0x7f][..], &[7; 127], &[INTEGER]].concat();
        let mut sequence = Sequence::of(&long).unwrap();
        assert_eq!(sequence.next(INTEGER), None);
        assert_eq!(sequence.next(BIT_STRING).map(<[u8]>::len), Some(127));
        for cut in [0, 1, 2, 3, 100] {
            assert!(Sequence::of(&long[..cut]).is_none(), "cut at {cut}");
        }
        assert!(Sequence::of(&[SEQUENCE, 0x80]).is_none());
        assert!(Sequence::of(&[SEQUENCE, 0x85, 0, 0, 0, 0, 1, 0]).is_none());
        assert_eq!(bits(&[0, 1, 2]), Some(&[1, 2][..]));
        assert_eq!(bits(&[1, 1]), None);
    }
}
