//! One run of a server under measurement: started on loopback with fsync on, watched from outside
//! (`/proc`), and ended by its process id.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What both servers log once they serve clients.
const READY_LINE: &str = "ready to serve client requests";
const START_LIMIT: Duration = Duration::from_secs(120);
/// The unit of the times in `/proc/<pid>/stat`; Linux fixes it at a hundredth of a second for users.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server that serves, with the time its start took.
pub(super) struct Server {
    child: Child,
    /// `host:port` for clients.
    pub(super) endpoint: String,
    /// From the start of the process to the line that says it serves.
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
        let began = Instant::now();
        let mut command = Command::new(wrapper.first().map_or(binary.as_os_str(), OsStr::new));
        if let Some((_, arguments)) = wrapper.split_first() {
            command.args(arguments).arg(binary);
        }
        let mut child = command
            .arg("--name=bench")
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client-urls={}", urls[0]))
            .arg(format!("--advertise-client-urls={}", urls[0]))
            .arg(format!("--listen-peer-urls={}", urls[1]))
            .arg(format!("--initial-advertise-peer-urls={}", urls[1]))
            .arg(format!("--initial-cluster=bench={}", urls[1]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let ready = follow(&mut child);
        let mut server =
            Self { child, endpoint: format!("127.0.0.1:{client}"), ready_after: began.elapsed() };
        match ready.recv_timeout(START_LIMIT) {
            Ok(at) => server.ready_after = at - began,
            Err(_) => return Err(format!("{} does not become ready", binary.display())),
        }
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

/// Reads the server's log to its end, so that it never blocks, and tells when it serves.
fn follow(child: &mut Child) -> mpsc::Receiver<Instant> {
    let log = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
    let (tell, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.split(b'\n').map_while(Result::ok) {
            if String::from_utf8_lossy(&line).contains(READY_LINE) {
                let now = Instant::now();
                // Nobody listens any more once the start was given up.
                let _ = tell.send(now);
            }
        }
    });
    ready
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
    fn a_preallocated_file_counts_as_what_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("full"), vec![1; 100_000]).unwrap();
        std::fs::File::create(inner.join("sparse")).unwrap().set_len(10_000_000).unwrap();
        let bytes = bytes_on_disk(folder.path()).unwrap();
        assert!((100_000.0..200_000.0).contains(&bytes), "{bytes}");
    }
}
