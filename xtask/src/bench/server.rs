//! One run of a server under measurement: started on loopback with fsync on, watched from outside
//! (`/proc`), and ended by its process id.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a starting server is asked.
const READY_POLL: Duration = Duration::from_millis(1);
/// The unit of the times in `/proc/<pid>/stat`; Linux fixes it at a hundredth of a second for users.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server that serves, with the time its start took.
pub(super) struct Server {
    child: Child,
    /// `host:port` for clients.
    pub(super) endpoint: String,
    /// From the start of the process to the first answered linearizable read.
    pub(super) ready_after: Duration,
}

impl Server {
    /// Starts a binary with etcd's flags and its own defaults, and waits until it serves. If there is
    /// a wrapper, a program with its arguments, it must put the server in its own place: the process
    /// that is started here is the one that is measured and ended.
    pub(super) fn start_under(
        wrapper: &[String],
        binary: &Path,
        data_dir: &Path,
    ) -> Result<Self, String> {
        let (client, peer) = (free_port()?, free_port()?);
        let urls = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let log = data_dir.with_extension("log");
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(wrapper.first().map_or(binary.as_os_str(), OsStr::new));
        if let Some((_, arguments)) = wrapper.split_first() {
            command.args(arguments).arg(binary);
        }
        command
            .arg("--name=bench")
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client-urls={}", urls[0]))
            .arg(format!("--advertise-client-urls={}", urls[0]))
            .arg(format!("--listen-peer-urls={}", urls[1]))
            .arg(format!("--initial-advertise-peer-urls={}", urls[1]))
            .arg(format!("--initial-cluster=bench={}", urls[1]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let began = Instant::now();
        let child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let endpoint = format!("127.0.0.1:{client}");
        let mut server = Self { child, endpoint, ready_after: Duration::ZERO };
        while !is_healthy(&server.endpoint) {
            let ended = server.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || began.elapsed() > START_LIMIT {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().next_back().unwrap_or_default();
                return Err(format!("{} does not become ready: {last}", binary.display()));
            }
            std::thread::sleep(READY_POLL);
        }
        server.ready_after = began.elapsed();
        Ok(server)
    }

    /// The process, for those who look at it from outside.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User and system time used so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64, String> {
        cpu_seconds(&format!("/proc/{}/stat", self.child.id()), 13)
    }

    /// Resident memory now, or its peak, in bytes.
    pub(super) fn memory(&self, which: Memory) -> Result<f64, String> {
        let status = read(&format!("/proc/{}/status", self.child.id()))?;
        let field = match which {
            Memory::Now => "VmRSS:",
            Memory::Peak => "VmHWM:",
        };
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(field));
        let number = kibibytes.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        number.map(|number| number * 1024.0).ok_or_else(|| format!("no {field} in the status"))
    }

    /// Asks the server to end, and waits for it; gives how long that took.
    pub(super) fn stop(self) -> Result<Duration, String> {
        self.signal("TERM")
    }

    /// Ends the server at once.
    pub(super) fn kill(self) -> Result<Duration, String> {
        self.signal("KILL")
    }

    fn signal(mut self, name: &str) -> Result<Duration, String> {
        let began = Instant::now();
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status();
        if !sent.is_ok_and(|status| status.success()) {
            return Err(format!("cannot send {name} to the server"));
        }
        self.child.wait().map_err(|error| error.to_string())?;
        Ok(began.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which figure of resident memory.
#[derive(Clone, Copy)]
pub(super) enum Memory {
    Now,
    Peak,
}

/// Whether a server answers `/health` with 200, which it does after a linearizable read.
fn is_healthy(endpoint: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(endpoint)?;
        connection.set_read_timeout(Some(START_LIMIT))?;
        let request =
            format!("GET /health HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// Processor time of children of this process that have ended, in seconds: the load generators'.
pub(super) fn ended_children_cpu_seconds() -> Result<f64, String> {
    cpu_seconds("/proc/self/stat", 15)
}

/// Two neighbouring fields of a `stat` file, counted from 0, as seconds.
fn cpu_seconds(path: &str, field: usize) -> Result<f64, String> {
    let stat = read(path)?;
    // the second field is the program's name in parentheses and may hold spaces
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
    let ticks = fields.and_then(|fields| {
        let at = |index: usize| fields.get(index - 2)?.parse::<f64>().ok();
        Some(at(field)? + at(field + 1)?)
    });
    ticks.map(|ticks| ticks / TICKS_PER_SECOND).ok_or_else(|| format!("{path} is not as expected"))
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// A port that nobody listens on. Between this and the server's own bind another process could take
/// it; the start then fails and says so.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Bytes that a folder's files occupy on the disk: blocks, so that a sparse or preallocated file
/// counts as what it takes. A file that goes meanwhile counts for nothing.
pub(super) fn bytes_on_disk(folder: &Path) -> Result<f64, String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = files(folder)?.into_iter().filter_map(|file| file.metadata().ok());
    Ok(metadata.map(|metadata| metadata.blocks()).sum::<u64>() as f64 * 512.0)
}

/// All files in a folder and in those below it.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut open, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| error.to_string())?;
        for entry in entries.map_while(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Lets go of what the system holds of a folder's files in memory, written back first. `dd` asks for
/// it file by file; all of the machine's cache would be others' too.
pub(super) fn drop_page_cache(folder: &Path) -> Result<(), String> {
    for file in files(folder)? {
        let mut drop = Command::new("dd");
        drop.arg(format!("of={}", file.display()));
        drop.args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
        let status = drop.stdin(Stdio::null()).status().map_err(|error| format!("dd: {error}"))?;
        if !status.success() {
            return Err(format!("dd {}: {status}", file.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_processor_time_or_none_but_never_less() {
        let stat = "/proc/self/stat";
        let before = cpu_seconds(stat, 13).unwrap();
        assert!(cpu_seconds(stat, 13).unwrap() >= before);
    }

    #[test]
    fn only_an_answer_of_200_is_healthy() {
        for (status, healthy) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = listener.local_addr().unwrap().to_string();
            let answering = std::thread::spawn(move || {
                let mut connection = listener.accept().unwrap().0;
                let mut request = [0; 512];
                assert!(connection.read(&mut request).unwrap() > 0);
                write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            });
            assert_eq!(is_healthy(&endpoint), healthy, "{status}");
            answering.join().unwrap();
        }
    }

    #[test]
    fn a_preallocated_file_counts_as_what_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("full"), vec![1; 100_000]).unwrap();
        File::create(inner.join("sparse")).unwrap().set_len(10_000_000).unwrap();
        let bytes = bytes_on_disk(folder.path()).unwrap();
        assert!((100_000.0..200_000.0).contains(&bytes), "{bytes}");
    }
}
