//! Base64 as Go's standard decoder reads it, which is how a hashed password stands in an entry: with padding, line
//! ends anywhere, and without a look at the bits that the last letter has too many.

/// The bytes that `text` stands for; none when it is no base64.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let letters: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    if !letters.len().is_multiple_of(4) {
        return None;
    }
    let padding = letters.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(letters.len() / 4 * 3);
    for group in letters[..letters.len() - padding].chunks(4) {
        let mut bits = 0;
        for letter in group {
            bits = bits << 6 | value(*letter)?;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_decodes_is_decoded() {
        let decoded = |text| decode(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded(""), Some(String::new()));
        assert_eq!(decoded("Zg=="), Some("f".to_owned()));
        assert_eq!(decoded("Zm8="), Some("fo".to_owned()));
        assert_eq!(decoded("Zm9v"), Some("foo".to_owned()));
        assert_eq!(decoded("Zm\r\n9v\n"), Some("foo".to_owned()));
        assert_eq!(decoded("Zh=="), Some("f".to_owned()), "bits too many in the last letter");
        assert_eq!(decode("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zg==Zg==", "=", "====", "Z===", "Zm9v Zm9v", "Zm9-", "é==="]
        {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
