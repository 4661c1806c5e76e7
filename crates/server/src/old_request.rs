//! Entries in the form of etcd's old API, which servers of 3.5 still propose for themselves.
//!
//! An entry is then an `etcdserverpb.Request`: id 1, method 2, path 3, value 4. There are two: the attributes of a
//! member, and the cluster's version. etcd 3.6 reads them as the requests of today that say the same; so do we.

use bytes::Bytes;
use etched_auth::Caller;
use etched_proto::membershippb;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::Deserialize;

use crate::request::{Decoded, OLD_REQUEST, Request, take_body};

const ID: u32 = 1;
const PATH: u32 = 3;
const VALUE: u32 = 4;

/// A member's attributes as JSON.
#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// An entry of this form; its request is unknown when it is one that no server of 3.5 proposes.
///
/// # Errors
/// The entry is no protobuf.
pub(crate) fn decode(mut data: Bytes) -> Result<Decoded, prost::DecodeError> {
    let (mut id, mut path, mut value) = (0, Bytes::new(), Bytes::new());
    while !data.is_empty() {
        match decode_key(&mut data)? {
            (ID, WireType::Varint) => id = decode_varint(&mut data)?,
            (PATH, WireType::LengthDelimited) => path = take_body(&mut data)?,
            (VALUE, WireType::LengthDelimited) => value = take_body(&mut data)?,
            (tag, wire) => skip_field(wire, tag, &mut data, DecodeContext::default())?,
        }
    }
    let request = request(&path, &value);
    let unknown = request.is_none().then_some(OLD_REQUEST);
    Ok(Decoded { id, caller: Caller::default(), request, unknown })
}

fn request(path: &[u8], value: &[u8]) -> Option<Request> {
    let (path, text) = (std::str::from_utf8(path).ok()?, std::str::from_utf8(value).ok()?);
    if path == "/0/version" {
        let ver = text.to_owned();
        return Some(Request::ClusterVersionSet(membershippb::ClusterVersionSetRequest { ver }));
    }
    let member = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
    let member_id = u64::from_str_radix(member, 16).ok()?;
    let Attributes { name, client_urls } = serde_json::from_str(text).ok()?;
    let client_urls = client_urls.unwrap_or_default();
    let attributes = membershippb::Attributes { name, client_urls };
    Some(Request::ClusterMemberAttrSet(membershippb::ClusterMemberAttrSetRequest {
        member_id,
        member_attributes: Some(attributes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Applier;

    fn decoded(path: &str, value: &str) -> Result<Decoded, String> {
        let mut bytes = vec![0x08, 0x85, 0x01, 0x12, 3];
        bytes.extend_from_slice(b"PUT");
        for (tag, text) in [(0x1a, path), (0x22, value)] {
            bytes.extend_from_slice(&[tag, text.len() as u8]);
            bytes.extend_from_slice(text.as_bytes());
        }
        // Fields that are always written there.
        bytes.extend_from_slice(&[0x28, 0, 0x32, 0, 0x38, 0, 0x48, 0]);
        let entry = etched_wal::Entry { data: bytes.into(), ..Default::default() };
        let found = Applier::with_decoded(&entry, Ok);
        Ok(found.map_err(|fatal| fatal.to_string())?.expect("it is not empty"))
    }

    #[test]
    fn attributes_and_version_are_read_as_the_requests_of_today() {
        let json = r#"{"name":"default","clientURLs":["http://a:1"]}"#;
        let found = decoded("/0/members/8e9e05c52164694d/attributes", json).expect("known");
        assert_eq!(found.id, 133);
        let Some(Request::ClusterMemberAttrSet(set)) = found.request else { panic!("attributes") };
        let attributes = set.member_attributes.expect("attributes");
        assert_eq!((set.member_id, &attributes.name[..]), (0x8e9e05c52164694d, "default"));
        assert_eq!(attributes.client_urls, ["http://a:1"]);
        let found = decoded("/0/version", "3.5.0").expect("known");
        let Some(Request::ClusterVersionSet(set)) = found.request else { panic!("version") };
        assert_eq!(set.ver, "3.5.0");
    }

    #[test]
    fn what_else_the_old_api_could_do_is_unknown() {
        for (path, value) in
            [("/1/key", "v"), ("/0/members/x/attributes", "{}"), ("/0/members/1/attributes", "[")]
        {
            let error = decoded(path, value).expect_err("unknown");
            assert!(error.contains("holds request 2,"), "{error}");
        }
    }
}
