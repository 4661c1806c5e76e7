//! Base64 as Go's protojson reads and writes it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

static STANDARD_PADDED: GeneralPurpose = engine(&STANDARD, true);
static STANDARD_BARE: GeneralPurpose = engine(&STANDARD, false);
static URL_PADDED: GeneralPurpose = engine(&URL_SAFE, true);
static URL_BARE: GeneralPurpose = engine(&URL_SAFE, false);

/// Appends the standard form of `bytes`, with padding.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD_PADDED.encode_slice(bytes, &mut out[start..]).expect("four letters for three bytes");
}

/// Appends what `text` stands for; None when it is no base64.
///
/// A `-` or `_` anywhere means the URL alphabet, a length that is no multiple of four means that there is no
/// padding. Line ends are passed over, and bits that are left over may be anything.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let url = text.contains(['-', '_']);
    let letters = match text.contains(['\r', '\n']) {
        true => Cow::Owned(text.replace(['\r', '\n'], "")),
        false => Cow::Borrowed(text),
    };
    let engine = match (url, text.len().is_multiple_of(4)) {
        (false, true) => &STANDARD_PADDED,
        (false, false) => &STANDARD_BARE,
        (true, true) => &URL_PADDED,
        (true, false) => &URL_BARE,
    };
    engine.decode_vec(letters.as_ref(), out).ok()
}

const fn engine(alphabet: &Alphabet, padded: bool) -> GeneralPurpose {
    let padding =
        if padded { DecodePaddingMode::RequireCanonical } else { DecodePaddingMode::RequireNone };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    GeneralPurpose::new(alphabet, config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn bytes_of_every_length_come_back() {
        for length in 0..50_u8 {
            let bytes: Vec<u8> =
                (0..length).map(|byte| byte.wrapping_mul(37).wrapping_add(length)).collect();
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            let text = String::from_utf8(text).expect("ASCII");
            assert_eq!(decoded(&text).as_ref(), Some(&bytes), "{text}");
            assert_eq!(decoded(text.trim_end_matches('=')), Some(bytes), "{text} without padding");
        }
    }

    #[test]
    fn both_alphabets_are_read_but_not_mixed() {
        assert_eq!(decoded("-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(decoded("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(decoded("+_+/"), None);
    }

    #[test]
    fn line_ends_are_passed_over_and_left_over_bits_ignored() {
        assert_eq!(decoded("YQ\r\n"), None, "four bytes of text: padding is due");
        assert_eq!(decoded("YWJj\n"), Some(b"abc".to_vec()));
        assert_eq!(decoded("YR=="), Some(b"a".to_vec()));
    }

    #[test]
    fn padding_stands_at_the_end_only_and_as_much_as_needed() {
        for bad in ["=", "Y", "YQ=", "Y===", "====", "YQ=A", "YQ==YQ==", "Y Q=", "YWJj=", "\u{e9}a"]
        {
            assert_eq!(decoded(bad), None, "{bad}");
        }
        assert_eq!(decoded(""), Some(Vec::new()));
    }
}
