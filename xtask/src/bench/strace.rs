//! Reads what strace wrote of a server, and checks the order that durability rests on.
//!
//! ```text
//! read of a request ──> fdatasync of the log begins ──> it completes ──> write of the answer begins
//! ```
//! Requests and answers are told by their size and connection: in the load that is traced every
//! connection has one request under way, whose value is larger than whatever else a client sends, and
//! an answer is larger than what HTTP/2 sends for itself.

use std::collections::BTreeMap;

/// A request carries a value of 256 bytes.
const REQUEST_BYTES_MIN: i64 = 200;
/// An answer to a Put has 62 or more. What HTTP/2 sends for itself (settings, window updates, pings)
/// stays below, also when some go together: etcd writes two window updates and a ping, 47 bytes.
const ANSWER_BYTES_MIN: i64 = 56;
/// The log's files lie in a folder of this name, for both servers.
const LOG: &str = "/wal/";

/// One system call: its place in the trace when it began and when it ended.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    name: String,
    /// What strace tells of its first argument: a path or a connection.
    file: String,
    began: usize,
    ended: usize,
    result: i64,
}

/// The calls of a trace, in the order they ended.
#[derive(Debug, Default)]
pub(super) struct Trace {
    calls: Vec<Call>,
}

impl Trace {
    /// Takes strace's lines, each with its thread first. Lines that are no calls are passed over, and
    /// so are calls that did not end.
    pub(super) fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        let mut open: BTreeMap<&str, Call> = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if rest.starts_with("<... ") {
                let call = open.remove(thread);
                if let (Some(call), Some(result)) = (call, result(rest)) {
                    trace.calls.push(Call { ended: at, result, ..call });
                }
            } else if let Some(call) = begun(rest, at) {
                if rest.ends_with("<unfinished ...>") {
                    open.insert(thread, call);
                } else if let Some(result) = result(rest) {
                    trace.calls.push(Call { result, ..call });
                }
            }
        }
        trace
    }
}

/// The call that a line begins: its name, and in angle brackets the file of its first argument.
fn begun(line: &str, at: usize) -> Option<Call> {
    let (name, arguments) = line.split_once('(')?;
    // a connection is shown with an arrow, so the brackets end where the argument does
    let (_, file) = arguments.split_once('<')?;
    let end = file.find(">,").or_else(|| file.find(">)")).or_else(|| file.find("> <unf"))?;
    Some(Call {
        name: name.to_owned(),
        file: file[..end].to_owned(),
        began: at,
        ended: at,
        result: 0,
    })
}

fn result(line: &str) -> Option<i64> {
    let (_, result) = line.rsplit_once(") = ").or_else(|| line.rsplit_once(" = "))?;
    result.split_whitespace().next()?.parse().ok()
}

/// What a trace shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) answers: u64,
    /// Answers before which no fdatasync of the log began after the request was read and completed.
    pub(super) unsafe_answers: u64,
    pub(super) log_syncs: u64,
    pub(super) all_syncs: u64,
}

/// Checks each answer on the connections to an endpoint.
pub(super) fn judge(trace: &Trace, endpoint: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let local = format!("[{endpoint}->");
    let syncs: Vec<&Call> = trace.calls.iter().filter(|call| call.is_sync()).collect();
    let of_log: Vec<&&Call> = syncs.iter().filter(|call| call.file.contains(LOG)).collect();
    // when the request that waits on a connection had been read
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls: Vec<&Call> =
        trace.calls.iter().filter(|call| call.file.contains(&local)).collect();
    // a client may have the answer, and its next request be read, before the write of it ends
    calls.sort_by_key(|call| if call.is_write() { call.began } else { call.ended });
    for call in calls {
        if call.is_read() && call.result >= REQUEST_BYTES_MIN {
            waiting.insert(&call.file, call.ended);
        } else if call.is_write() && call.result >= ANSWER_BYTES_MIN {
            let Some(read) = waiting.remove(call.file.as_str()) else { continue };
            verdict.answers += 1;
            let safe = of_log.iter().any(|sync| sync.began > read && sync.ended < call.began);
            verdict.unsafe_answers += u64::from(!safe);
        }
    }
    let first_request = trace.calls.iter().find(|call| call.file.contains(&local));
    let since = first_request.map_or(0, |call| call.began);
    let after =
        |calls: &mut dyn Iterator<Item = usize>| calls.filter(|at| *at > since).count() as u64;
    verdict.log_syncs = after(&mut of_log.iter().map(|call| call.began));
    verdict.all_syncs = after(&mut syncs.iter().map(|call| call.began));
    verdict
}

impl Call {
    fn is_sync(&self) -> bool {
        ["fdatasync", "fsync"].contains(&self.name.as_str()) && self.result == 0
    }

    fn is_read(&self) -> bool {
        ["read", "readv", "recvfrom", "recvmsg"].contains(&self.name.as_str())
    }

    fn is_write(&self) -> bool {
        ["write", "writev", "sendto", "sendmsg"].contains(&self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "127.0.0.1:2379";
    const READ: &str = "7 read(11<TCP:[127.0.0.1:2379->127.0.0.1:5000]>, \"\"..., 8192) = 340\n";
    const SYNC: &str = "8 fdatasync(5</data/member/wal/0.wal>) = 0\n";
    const ANSWER: &str = "7 writev(11<TCP:[127.0.0.1:2379->127.0.0.1:5000]>, [{iov_base=\"\"..., iov_len=90}], 1) = 90\n";

    fn judged(lines: &[&str]) -> (u64, u64, u64) {
        let verdict = judge(&Trace::parse(&lines.concat()), ENDPOINT);
        (verdict.answers, verdict.unsafe_answers, verdict.log_syncs)
    }

    #[test]
    fn an_answer_after_a_completed_fdatasync_is_safe() {
        assert_eq!(judged(&[READ, SYNC, ANSWER]), (1, 0, 1));
    }

    #[test]
    fn an_answer_without_one_is_not() {
        assert_eq!(judged(&[READ, ANSWER, SYNC]), (1, 1, 1));
        assert_eq!(judged(&[SYNC, READ, ANSWER]), (1, 1, 0));
    }

    #[test]
    fn an_fdatasync_that_began_before_the_request_or_has_not_completed_does_not_count() {
        let begins = "8 fdatasync(5</data/member/wal/0.wal> <unfinished ...>\n";
        let completes = "8 <... fdatasync resumed>) = 0\n";
        assert_eq!(judged(&[begins, READ, completes, ANSWER]).1, 1);
        assert_eq!(judged(&[READ, begins, ANSWER, completes]).1, 1);
        assert_eq!(judged(&[READ, begins, completes, ANSWER]).1, 0);
    }

    #[test]
    fn one_of_another_file_does_not_count() {
        let other = "8 fdatasync(6</data/member/snap/db>) = 0\n";
        assert_eq!(judged(&[READ, other, ANSWER]), (1, 1, 0));
    }

    #[test]
    fn a_failed_one_does_not_count() {
        let failed = "8 fdatasync(5</data/member/wal/0.wal>) = -1 EIO (Input/output error)\n";
        assert_eq!(judged(&[READ, failed, ANSWER]).1, 1);
    }

    #[test]
    fn a_write_that_begins_too_early_is_seen_though_it_ends_late() {
        let begins =
            "7 write(11<TCP:[127.0.0.1:2379->127.0.0.1:5000]>, \"\"..., 90 <unfinished ...>\n";
        let ends = "7 <... write resumed>) = 90\n";
        assert_eq!(judged(&[READ, begins, SYNC, ends]), (1, 1, 1));
    }

    #[test]
    fn small_frames_and_other_connections_are_no_answers() {
        let small = ANSWER.replace("= 90", "= 47");
        let peer = ANSWER.replace("2379->", "9999->");
        assert_eq!(judged(&[READ, &small, &peer, SYNC, ANSWER]), (1, 0, 1));
    }
}
