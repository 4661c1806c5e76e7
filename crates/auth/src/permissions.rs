//! What one user may read and write: the ranges of all its roles, merged.
//!
//! Ranges that overlap or touch are one, so a request that lies inside the union of several is allowed, and a
//! look-up is one binary search however many roles there are.

use bytes::Bytes;
use etched_proto::authpb;
use etched_proto::authpb::permission::Type;

/// What a request wants to do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// The merged permissions of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    read: Ranges,
    write: Ranges,
}

impl Permissions {
    /// Those of all `granted` permissions. One of an unknown type allows nothing.
    pub(crate) fn merge<'a>(granted: impl Iterator<Item = &'a authpb::Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in granted {
            let span = Span::of(permission);
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => read.push(span),
                Ok(Type::Write) => write.push(span),
                Ok(Type::Readwrite) => {
                    read.push(span.clone());
                    write.push(span);
                }
                Err(_) => {}
            }
        }
        Self { read: Ranges::new(read), write: Ranges::new(write) }
    }

    /// Whether all keys from `key` to `range_end`, in the sense of a request, may be accessed.
    pub(crate) fn allow(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let ranges = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        ranges.cover(key, range_end)
    }
}

/// Keys from `start` on, before `end`; none is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    fn of(permission: &authpb::Permission) -> Self {
        let start = permission.key.clone();
        let end = match &permission.range_end[..] {
            b"" => Some([&start[..], b"\0"].concat().into()),
            b"\0" => None,
            _ => Some(permission.range_end.clone()),
        };
        Self { start, end }
    }

    /// Whether keys before `end` may belong to this span: it begins no later.
    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// Spans in order, with a gap between each two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<Span>);

impl Ranges {
    fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| span.start <= end) => {
                    let longer = match (&last.end, &span.end) {
                        (Some(last), Some(end)) => end > last,
                        (last, None) => last.is_some(),
                        (None, _) => false,
                    };
                    if longer {
                        last.end = span.end;
                    }
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        // An empty key is none; the API refuses it before, and a watch makes it the first key.
        if key.is_empty() {
            return false;
        }
        let after = self.0.partition_point(|span| span.start <= key);
        let Some(span) = after.checked_sub(1).map(|place| &self.0[place]) else { return false };
        match range_end {
            b"\0" => span.end.is_none(),
            // A range that ends before it begins has no keys; its first one has to be allowed all the same.
            end if end <= key => span.reaches(key),
            end => span.reaches(key) && span.end.as_ref().is_none_or(|last| end <= &last[..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(granted: &[(Type, &'static str, &'static str)]) -> Permissions {
        let granted: Vec<_> = granted
            .iter()
            .map(|(kind, key, end)| authpb::Permission {
                perm_type: *kind as i32,
                key: (*key).into(),
                range_end: (*end).into(),
            })
            .collect();
        Permissions::merge(granted.iter())
    }

    fn readable(granted: &[(Type, &'static str, &'static str)], key: &str, end: &str) -> bool {
        permissions(granted).allow(Access::Read, key.as_bytes(), end.as_bytes())
    }

    const AC: (Type, &str, &str) = (Type::Read, "a", "c");
    const CE: (Type, &str, &str) = (Type::Readwrite, "c", "e");
    const DF: (Type, &str, &str) = (Type::Read, "d", "f");

    #[test]
    fn a_range_may_lie_in_the_union_of_several_permissions() {
        assert!(readable(&[DF, CE, AC], "a", "f"));
        assert!(readable(&[CE, AC], "a", "e"));
        assert!(!readable(&[AC, DF], "a", "e"), "c is missing");
        assert!(!readable(&[AC], "a", "d"));
        assert!(!readable(&[AC], "A", "b"));
        assert!(readable(&[AC], "a", "c"));
        assert!(!readable(&[AC], "c", ""));
        assert!(readable(&[AC], "bzzz", ""));
    }

    #[test]
    fn a_single_key_is_a_range_up_to_its_successor() {
        let key = (Type::Read, "a", "");
        assert!(readable(&[key], "a", ""));
        assert!(readable(&[key], "a", "a\0"));
        assert!(!readable(&[key], "a", "b"));
        assert!(!readable(&[key], "a\0", ""));
        assert!(readable(&[key, (Type::Read, "a\0", "b")], "a", "b"));
    }

    #[test]
    fn an_open_range_needs_an_open_permission() {
        let open = (Type::Read, "b", "\0");
        assert!(readable(&[open], "b", "\0"));
        assert!(readable(&[open], "zzz", "\0"));
        assert!(readable(&[open], "c", "d"));
        assert!(!readable(&[open], "a", "\0"));
        assert!(readable(&[open, AC], "a", "\0"));
        assert!(!readable(&[AC, CE], "a", "\0"));
        assert!(!readable(&[(Type::Read, "a", "\u{10ffff}")], "a", "\0"));
        assert!(readable(&[(Type::Read, "\0", "\0")], "\0", "\0"), "everything");
    }

    #[test]
    fn a_range_without_keys_asks_for_its_first_one() {
        assert!(readable(&[AC], "b", "a"));
        assert!(readable(&[AC], "b", "b"));
        assert!(!readable(&[AC], "x", "b"));
    }

    #[test]
    fn reading_and_writing_are_separate_and_an_unknown_type_is_neither() {
        let both = permissions(&[(Type::Write, "a", ""), (Type::Read, "b", ""), CE]);
        let allowed = |key: &str| {
            let key = key.as_bytes();
            (both.allow(Access::Read, key, b""), both.allow(Access::Write, key, b""))
        };
        assert_eq!(allowed("a"), (false, true));
        assert_eq!(allowed("b"), (true, false));
        assert_eq!(allowed("c"), (true, true));
        let unknown = authpb::Permission { perm_type: 7, key: "k".into(), range_end: "".into() };
        assert_eq!(Permissions::merge([unknown].iter()), Permissions::default());
    }
}
