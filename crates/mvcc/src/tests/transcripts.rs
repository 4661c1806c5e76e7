//! What a real etcd 3.7.1 answered to random histories: the same bytes here.
//!
//! A line of a transcript is: method, request, `ok` and the response or `error` and the text; messages in
//! hexadecimal. Cluster id, member id and term of the headers were set to 0. Compactions were physical; the
//! chunks of a stream were joined.

use bytes::Bytes;
use etched_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, LeaseGrantRequest, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use etched_proto::raw::Wire;
use prost::Message;

use super::fake::Rig;
use super::replay::decoded;
use crate::{Answer, Error, check};

const MAX_OPS: usize = 128;

struct Player {
    rig: Rig,
}

fn request<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("a recorded request")
}

fn with_header<M: Message + Default>(
    reply: &impl Wire,
    revision: i64,
    set: impl FnOnce(&mut M, Option<ResponseHeader>),
) -> Vec<u8> {
    let mut message = decoded::<M>(reply);
    set(&mut message, Some(ResponseHeader { revision, ..ResponseHeader::default() }));
    message.encode_to_vec()
}

impl Player {
    fn answer(&mut self, method: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        match method {
            "put" => self.put(&request(bytes)),
            "delete" => self.delete(&request(bytes)),
            "txn" => self.txn(&request(bytes)),
            "range" => self.range(&request(bytes)),
            "stream" => self.stream(&request(bytes)),
            "compact" => self.compact(request(bytes)),
            "hash" => self.hash(request(bytes)),
            "grant" => {
                self.rig.leases.granted.insert(request::<LeaseGrantRequest>(bytes).id);
                Ok(Vec::new())
            }
            "revoke" => Ok(self.revoke(request(bytes))),
            other => panic!("unknown method {other}"),
        }
    }

    fn put(&mut self, put: &PutRequest) -> Result<Vec<u8>, Error> {
        check::put(put)?;
        let reply = self.rig.store.put(put, &mut self.rig.leases, Answer::Wanted)?;
        let revision = self.rig.store.current_revision();
        Ok(with_header(&reply, revision, |reply: &mut PutResponse, header| reply.header = header))
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> Result<Vec<u8>, Error> {
        check::delete_range(delete)?;
        let reply = self.rig.store.delete_range(delete, &mut self.rig.leases, Answer::Wanted)?;
        let revision = self.rig.store.current_revision();
        let set = |reply: &mut DeleteRangeResponse, header| reply.header = header;
        Ok(with_header(&reply, revision, set))
    }

    fn txn(&mut self, txn: &TxnRequest) -> Result<Vec<u8>, Error> {
        check::txn(txn, MAX_OPS)?;
        let set = |reply: &mut TxnResponse, header| reply.header = header;
        if check::is_read_only(txn) {
            let (reply, revision) = self.rig.store.reader().txn_read_only(txn)?;
            return Ok(with_header(&reply, revision, set));
        }
        let reply = self.rig.store.txn(txn, &mut self.rig.leases, Answer::Wanted)?;
        Ok(with_header(&reply, self.rig.store.current_revision(), set))
    }

    fn range(&self, range: &RangeRequest) -> Result<Vec<u8>, Error> {
        check::range(range)?;
        let (reply, revision) = self.rig.store.reader().range(range)?;
        Ok(with_header(&reply, revision, |reply: &mut RangeResponse, header| reply.header = header))
    }

    fn stream(&self, range: &RangeRequest) -> Result<Vec<u8>, Error> {
        check::range_stream(range)?;
        let mut stream = self.rig.store.reader().range_stream(range, 3 << 19)?;
        let mut joined = RangeResponse::default();
        while let Some(chunk) = stream.next_chunk()? {
            let reply: RangeResponse = decoded(&chunk.reply);
            joined.kvs.extend(reply.kvs);
            (joined.more, joined.count) = (reply.more, reply.count);
            let header = |revision| ResponseHeader { revision, ..ResponseHeader::default() };
            joined.header = chunk.last.map(header);
        }
        Ok(joined.encode_to_vec())
    }

    fn compact(&mut self, compact: CompactionRequest) -> Result<Vec<u8>, Error> {
        let job = self.rig.store.compact(compact.revision)?;
        job.run(&|| true).unwrap();
        while self.rig.sweep(3).is_some() {}
        self.rig.remove(usize::MAX);
        let revision = self.rig.store.current_revision();
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        Ok(CompactionResponse { header }.encode_to_vec())
    }

    fn hash(&self, hash: HashKvRequest) -> Result<Vec<u8>, Error> {
        let (hash, revision) = self.rig.store.reader().hash_kv(hash.revision)?;
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let reply = HashKvResponse {
            header,
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        };
        Ok(reply.encode_to_vec())
    }

    fn revoke(&mut self, revoke: LeaseRevokeRequest) -> Vec<u8> {
        let rig = &mut self.rig;
        let keys = rig.leases.attached.iter().filter(|(_, lease)| **lease == revoke.id);
        let keys: Vec<Bytes> = keys.map(|(key, _)| key.clone().into()).collect();
        rig.store.delete_keys(&keys, &mut rig.leases);
        rig.leases.granted.remove(&revoke.id);
        let revision = rig.store.current_revision();
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        LeaseRevokeResponse { header }.encode_to_vec()
    }
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal");
    (0..hexadecimal.len()).step_by(2).map(digits).collect()
}

fn check_transcript(transcript: &str) {
    let mut player = Player { rig: Rig::new() };
    for (number, line) in transcript.lines().enumerate() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().expect("four words");
        let (method, asked, outcome, expected) = (word(), bytes(word()), word(), word());
        let answer = player.answer(method, &asked).map_err(|error| error.to_string());
        let expected = match outcome {
            "ok" => Ok(bytes(expected)),
            _ => Err(expected.to_owned()),
        };
        assert_eq!(answer, expected, "line {}: {method}", number + 1);
        if number % 7 == 0 {
            player.rig.flush(number % 9);
        }
    }
}

#[test]
fn answers_and_hashes_are_those_of_etcd_in_a_first_history() {
    check_transcript(include_str!("transcripts/first.txt"));
}

#[test]
fn answers_and_hashes_are_those_of_etcd_in_a_second_history() {
    check_transcript(include_str!("transcripts/second.txt"));
}
