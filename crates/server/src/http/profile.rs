//! `/debug/pprof/`, with `--enable-pprof`: what a program without Go's runtime can say about itself.
//!
//! Everything comes from `/proc`: CPU time by thread, the threads, the memory. Where in the code the time goes is for
//! `perf` to say; what only Go's runtime has is refused with a sentence.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;
use http::{Response, StatusCode};
use prost::Message;

use super::{set_type, text, values};
use crate::grpc::{Body, gzip};

/// What all paths begin with.
pub(super) const PREFIX: &str = "/debug/pprof/";
/// Length of a profile when the request names none, in seconds; Go's.
const SECONDS: u64 = 30;
/// Longest profile.
const SECONDS_MAX: u64 = 600;
/// What `/proc` counts CPU time in; fixed by the kernel's interface.
const TICK: Duration = Duration::from_millis(10);

/// What there is, and what it holds.
const PROFILES: [(&str, &str); 5] = [
    ("cmdline", "the command line"),
    ("goroutine", "the threads: there are no goroutines"),
    ("heap", "the memory of the process"),
    ("profile", "CPU time by thread over ?seconds=30, for `go tool pprof`"),
    ("threadcreate", "the same as goroutine"),
];

/// Answers a path below [`PREFIX`].
pub(super) async fn serve(name: &str, query: Option<&str>) -> Response<Body> {
    match name {
        "" => index(),
        "cmdline" => plain(std::env::args().collect::<Vec<_>>().join("\0")),
        "goroutine" | "threadcreate" => plain(threads_as_text(&threads())),
        "heap" => plain(memory()),
        "profile" => profile(query).await,
        "allocs" | "block" | "mutex" | "symbol" | "trace" => text(
            StatusCode::NOT_IMPLEMENTED,
            format!(
                "etched: {name} is a profile of Go's runtime, which is not here; try heap, profile, or `perf record -g \
                 -p {}`\n",
                std::process::id()
            ),
        ),
        _ => text(StatusCode::NOT_FOUND, "Unknown profile\n"),
    }
}

fn plain(body: String) -> Response<Body> {
    text(StatusCode::OK, body)
}

fn index() -> Response<Body> {
    let rows = PROFILES.map(|(name, what)| {
        format!("<tr><td><a href=\"{name}\">{name}</a></td><td>{what}</td></tr>\n")
    });
    let page = format!(
        "<html><head><title>{PREFIX}</title></head><body>\n<p>{PREFIX}</p>\n<table>\n{}</table>\n</body></html>\n",
        rows.concat()
    );
    let mut response = text(StatusCode::OK, page);
    set_type(&mut response, "text/html; charset=utf-8");
    response
}

/// CPU time of one thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Thread {
    name: String,
    state: String,
    user: Duration,
    system: Duration,
}

/// By the thread's id; what cannot be read is left out.
fn threads() -> BTreeMap<u64, Thread> {
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u64| {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
        Some((id, thread(&stat)?))
    })
    .collect()
}

/// A line of `stat`. The name may hold anything, brackets too.
fn thread(stat: &str) -> Option<Thread> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<_> = rest.split(' ').collect();
    let time = |at: usize| fields.get(at)?.parse().ok().map(|ticks: u32| TICK * ticks);
    Some(Thread {
        name: name.to_owned(),
        state: (*fields.first()?).to_owned(),
        user: time(11)?,
        system: time(12)?,
    })
}

fn threads_as_text(threads: &BTreeMap<u64, Thread>) -> String {
    let row = |(id, thread): (&u64, &Thread)| {
        let Thread { name, state, user, system } = thread;
        format!(
            "{id}\t{name}\t{state}\tuser {:.2} s\tsystem {:.2} s\n",
            user.as_secs_f64(),
            system.as_secs_f64()
        )
    };
    let rows: Vec<_> = threads.iter().map(row).collect();
    format!("threads: total {}\n{}", threads.len(), rows.concat())
}

fn memory() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let sizes = status.lines().filter(|line| line.starts_with("Vm") || line.starts_with("Rss"));
    let sizes: Vec<_> = sizes.map(|line| format!("{line}\n")).collect();
    format!("{}\n{}", sizes.concat(), read("/proc/self/smaps_rollup"))
}

/// CPU time by thread between now and `?seconds` later.
async fn profile(query: Option<&str>) -> Response<Body> {
    let asked = values(query, "seconds").next().and_then(|seconds| seconds.parse().ok());
    let length = Duration::from_secs(asked.filter(|s| *s > 0).unwrap_or(SECONDS).min(SECONDS_MAX));
    let (begun, before) = (SystemTime::now(), threads());
    tokio::time::sleep(length).await;
    let profile = Profile::between(&before, &threads(), begun, length);
    match gzip(&profile.encode_to_vec()) {
        Ok(packed) => {
            let mut response = text(StatusCode::OK, packed);
            set_type(&mut response, "application/octet-stream");
            let name = HeaderValue::from_static("attachment; filename=\"profile\"");
            response.headers_mut().insert("content-disposition", name);
            response
        }
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", status.message())),
    }
}

/// The parts of pprof's format that are needed here.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    /// What all names are indexes into; the first is empty.
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

impl Profile {
    fn between(
        before: &BTreeMap<u64, Thread>,
        after: &BTreeMap<u64, Thread>,
        begun: SystemTime,
        length: Duration,
    ) -> Self {
        let mut profile = Self { strings: vec![String::new()], ..Self::default() };
        let cpu = ValueType { kind: profile.string("cpu"), unit: profile.string("nanoseconds") };
        profile.sample_type = vec![cpu.clone()];
        profile.period_type = Some(cpu);
        profile.period = nanos(TICK);
        profile.time_nanos = begun.duration_since(UNIX_EPOCH).map_or(0, nanos);
        profile.duration_nanos = nanos(length);
        let (user, system) = (profile.frame("user"), profile.frame("system"));
        for (id, thread) in after {
            let earlier = before.get(id).cloned().unwrap_or_default();
            let parts = [
                (user, thread.user.saturating_sub(earlier.user)),
                (system, thread.system.saturating_sub(earlier.system)),
            ];
            for (inner, time) in parts.into_iter().filter(|(_, time)| !time.is_zero()) {
                let outer = profile.frame(&thread.name);
                profile
                    .sample
                    .push(Sample { location: vec![inner, outer], value: vec![nanos(time)] });
            }
        }
        profile
    }

    fn string(&mut self, text: &str) -> i64 {
        let known = self.strings.iter().position(|known| known == text);
        let index = known.unwrap_or_else(|| {
            self.strings.push(text.to_owned());
            self.strings.len() - 1
        });
        index as i64
    }

    /// The place that is called `name`.
    fn frame(&mut self, name: &str) -> u64 {
        let name = self.string(name);
        if let Some(known) = self.function.iter().find(|function| function.name == name) {
            return known.id;
        }
        let id = self.function.len() as u64 + 1;
        self.function.push(Function { id, name });
        self.location.push(Location { id, line: vec![Line { function: id }] });
        id
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_whatever_its_name_is() {
        let stat = "12 (a) b) (c) S 1 1 1 0 -1 4194368 10 0 0 0 250 7 0 0 20 0 5 0 100 1 1";
        let expected = Thread {
            name: "a) b) (c".to_owned(),
            state: "S".to_owned(),
            user: TICK * 250,
            system: TICK * 7,
        };
        assert_eq!(thread(stat), Some(expected));
        assert_eq!(thread("12 (a"), None);
        assert!(threads().values().any(|thread| !thread.name.is_empty()), "of this process");
    }

    #[test]
    fn a_profile_holds_what_each_thread_took_meanwhile() {
        let thread = |name: &str, user, system| Thread {
            name: name.to_owned(),
            state: "R".to_owned(),
            user: TICK * user,
            system: TICK * system,
        };
        let before = BTreeMap::from([(1, thread("raft", 5, 5)), (2, thread("idle", 9, 9))]);
        let after = BTreeMap::from([
            (1, thread("raft", 8, 5)),
            (2, thread("idle", 9, 9)),
            (3, thread("raft", 0, 1)),
        ]);
        let profile = Profile::between(&before, &after, UNIX_EPOCH, Duration::from_secs(1));
        let stack = |sample: &Sample| {
            let name = |id: &u64| {
                profile.strings[profile.function[*id as usize - 1].name as usize].as_str()
            };
            (sample.location.iter().map(name).collect::<Vec<_>>(), sample.value[0])
        };
        let found: Vec<_> = profile.sample.iter().map(stack).collect();
        assert_eq!(
            found,
            [(vec!["user", "raft"], 30_000_000), (vec!["system", "raft"], 10_000_000)]
        );
        assert_eq!((profile.function.len(), profile.location.len()), (3, 3), "each name once");
    }
}
