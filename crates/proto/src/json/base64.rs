//! Base64 as Go's protojson reads and writes it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the standard form of `bytes`, with padding.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |shift: u32| ALPHABET[(bits >> shift & 63) as usize];
        let tail = match group.len() {
            1 => [digit(18), digit(12), b'=', b'='],
            2 => [digit(18), digit(12), digit(6), b'='],
            _ => [digit(18), digit(12), digit(6), digit(0)],
        };
        out.extend_from_slice(&tail);
    }
}

/// Appends what `text` stands for; None when it is no base64.
///
/// A `-` or `_` anywhere means the URL alphabet, a length that is no multiple of four means that there is no
/// padding. Line ends are passed over, and bits that are left over may be anything.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let url = text.contains(['-', '_']);
    let padded = text.len().is_multiple_of(4);
    let digits = || text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    let length = digits().count();
    let padding =
        if padded { digits().rev().take(2).take_while(|byte| *byte == b'=').count() } else { 0 };
    let tail = (length - padding) % 4;
    if tail == 1 || (padded && !length.is_multiple_of(4)) {
        return None;
    }
    out.reserve(length / 4 * 3 + 3);
    let mut bits = 0;
    for (place, byte) in digits().take(length - padding).enumerate() {
        bits = bits << 6 | value(byte, url)?;
        if place % 4 == 3 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            bits = 0;
        }
    }
    match tail {
        2 => out.push((bits >> 4) as u8),
        3 => out.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
        _ => {}
    }
    Some(())
}

fn value(byte: u8, url: bool) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' if !url => 62,
        b'/' if !url => 63,
        b'-' if url => 62,
        b'_' if url => 63,
        _ => return None,
    };
    Some(u32::from(value))
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
