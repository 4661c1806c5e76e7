//! One decoder under test: its inputs, its limits, and the run.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::heap;
use crate::mutate::mutate;
use crate::rng::Rng;

/// How long a target runs unless `ETCHED_FUZZ_SECONDS` says otherwise.
const TIME: Duration = Duration::from_secs(1);
/// One input must be through in this time. No input takes a hundredth of it; machines that do other things too do.
const INPUT_TIME_MAX: Duration = Duration::from_secs(30);
/// Inputs that are kept for mutation, beside seeds and corpus. With more, one is replaced.
const POOL_MAX: usize = 512;
/// Letters of a text that [`outcome`] looks at: the rest often repeats the input.
const OUTCOME_LETTERS: usize = 48;

/// A decoder and what it is fed with.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    corpus: PathBuf,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    bytes_max: usize,
    memory: (u64, u64),
}

impl Target {
    /// The target `name` of the crate in `folder` (`env!("CARGO_MANIFEST_DIR")`), whose corpus lies in
    /// `corpus/<name>` there.
    pub fn new(folder: &str, name: &'static str) -> Self {
        Self {
            name,
            corpus: PathBuf::from(folder).join("corpus").join(name),
            seeds: Vec::new(),
            words: Vec::new(),
            bytes_max: 4096,
            memory: (64 << 10, 64),
        }
    }

    /// Good inputs, to begin with.
    #[must_use]
    pub fn seeds<B: Into<Vec<u8>>>(mut self, seeds: impl IntoIterator<Item = B>) -> Self {
        self.seeds.extend(seeds.into_iter().map(Into::into));
        self
    }

    /// Pieces that mean something to the decoder.
    #[must_use]
    pub fn words<B: AsRef<[u8]>>(mut self, words: &[B]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Longest input; 4096 unless said.
    #[must_use]
    pub fn bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// What the check may hold at once beside what it held before: `base` bytes, and `factor` for each byte of
    /// the input; 64 KiB and 64 unless said.
    #[must_use]
    pub fn memory(mut self, base: u64, factor: u64) -> Self {
        self.memory = (base, factor);
        self
    }

    /// Runs `check` with seeds, corpus and what is made of them, until the time is over. `check` answers with what
    /// became of the input, see [`outcome`] and [`shape`].
    ///
    /// # Panics
    /// When the check does, or holds too much memory; the input is kept. The process ends when an input takes too
    /// long.
    pub fn run(self, mut check: impl FnMut(&[u8]) -> u64) {
        let mut rng = Rng::new(seed(self.name));
        let mut pool = self.seeds.clone();
        pool.extend(self.corpus());
        pool.push(Vec::new());
        let watch = Watch::new(self.name);
        let guard = watch.start();
        // What is made once, when it is asked for first, is no input's fault.
        check(&pool[0]);
        for input in &pool {
            self.one(input, &mut check, &watch);
        }
        let kept = pool.len();
        let (mut known, mut inputs) = (HashSet::new(), pool.len());
        let (began, time) = (Instant::now(), time());
        while began.elapsed() < time {
            let mut input = rng.one_of(&pool).clone();
            mutate(&mut input, &pool, &self.words, self.bytes_max, &mut rng);
            inputs += 1;
            if known.insert(self.one(&input, &mut check, &watch)) {
                if pool.len() < kept + POOL_MAX {
                    pool.push(input);
                } else {
                    pool[kept + rng.below(POOL_MAX)] = input;
                }
            }
        }
        drop(guard);
        println!("{}: {inputs} inputs, {} outcomes", self.name, known.len());
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let Ok(files) = std::fs::read_dir(&self.corpus) else { return Vec::new() };
        let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
    }

    fn one(&self, input: &[u8], check: &mut impl FnMut(&[u8]) -> u64, watch: &Watch) -> u64 {
        watch.begin(input);
        let (result, peak) = heap::peak_of(|| catch_unwind(AssertUnwindSafe(|| check(input))));
        watch.end();
        let outcome = result.unwrap_or_else(|panic| {
            println!("{}: failed, see {}", self.name, keep(self.name, input));
            resume_unwind(panic)
        });
        let (base, factor) = self.memory;
        let most = base + factor * input.len() as u64;
        assert!(
            peak <= most,
            "{}: {} bytes made it hold {peak}, more than {most}, see {}",
            self.name,
            input.len(),
            keep(self.name, input)
        );
        outcome
    }
}

/// What became of an input, by a text about it: letters count, numbers and what the text quotes do not.
pub fn outcome(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let plain = text.chars().take_while(|letter| !matches!(letter, '"' | '\'' | '`'));
    for letter in plain.filter(|letter| letter.is_alphabetic()).take(OUTCOME_LETTERS) {
        letter.hash(&mut hasher);
    }
    hasher.finish()
}

/// What became of an input, by numbers that tell it from others: only their sizes count.
pub fn shape(numbers: &[usize]) -> u64 {
    let mut hasher = DefaultHasher::new();
    numbers.iter().for_each(|number| number.checked_ilog2().hash(&mut hasher));
    hasher.finish()
}

/// Of `ETCHED_SEED`, or a new one. Written past the test's own output, which is lost when a process dies.
fn seed(name: &str) -> u64 {
    let given = std::env::var("ETCHED_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        now.as_nanos() as u64
    });
    let _ = writeln!(std::io::stderr(), "fuzzed {name}: ETCHED_SEED={seed}");
    seed
}

fn time() -> Duration {
    let given = std::env::var("ETCHED_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    given.map_or(TIME, Duration::from_secs)
}

/// Writes an input that failed where it is found again; says where.
fn keep(name: &str, input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    // Crates lie two folders below the workspace; tests run in their crate's folder.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("../../target".into(), PathBuf::from);
    let folder = target.join("fuzz").join(name);
    let path = folder.join(format!("{:016x}", hasher.finish()));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    match written {
        Ok(()) => path.display().to_string().replace("../../", ""),
        Err(error) => format!("{} (not written: {error})", input.escape_ascii()),
    }
}

/// Ends the process when one input takes too long: a loop without end would hold up everything for nothing.
#[derive(Debug, Clone)]
struct Watch {
    name: &'static str,
    shared: Arc<(Mutex<Running>, Condvar)>,
}

#[derive(Debug, Default)]
struct Running {
    input: Vec<u8>,
    began: Option<Instant>,
    is_over: bool,
}

impl Watch {
    fn new(name: &'static str) -> Self {
        Self { name, shared: Arc::default() }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, input: &[u8]) {
        let mut running = self.running();
        running.input.clear();
        running.input.extend_from_slice(input);
        running.began = Some(Instant::now());
    }

    fn end(&self) {
        self.running().began = None;
    }

    fn start(&self) -> WatchEnd {
        let watch = self.clone();
        WatchEnd(self.clone(), Some(std::thread::spawn(move || watch.look())))
    }

    fn look(&self) {
        let mut running = self.running();
        while !running.is_over {
            let waited = self.shared.1.wait_timeout(running, Duration::from_secs(1));
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
            if running.began.is_some_and(|began| began.elapsed() > INPUT_TIME_MAX) {
                let place = keep(self.name, &running.input);
                let _ = writeln!(std::io::stderr(), "{}: does not end, see {place}", self.name);
                std::process::abort();
            }
        }
    }
}

/// Ends the watching.
struct WatchEnd(Watch, Option<std::thread::JoinHandle<()>>);

impl Drop for WatchEnd {
    fn drop(&mut self) {
        self.0.running().is_over = true;
        self.0.shared.1.notify_all();
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &'static str) -> Target {
        Target::new(env!("CARGO_MANIFEST_DIR"), name).seeds(["seed"]).words(&["needle"])
    }

    fn failure(run: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("a failure");
        let owned = panic.downcast_ref::<String>().cloned();
        owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
    }

    #[test]
    fn a_panic_behind_a_word_is_found_and_its_input_kept() {
        let found = failure(|| {
            target("self-panic").run(|input| {
                assert!(!input.windows(6).any(|part| part == b"needle"), "found it");
                shape(&[input.len()])
            });
        });
        assert_eq!(found, "found it");
        let folder =
            std::env::var_os("CARGO_TARGET_DIR").map_or("../../target".into(), PathBuf::from);
        let folder = folder.join("fuzz/self-panic");
        assert!(std::fs::read_dir(&folder).unwrap().count() > 0);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn memory_out_of_proportion_is_found() {
        let found = failure(|| {
            target("self-memory").memory(1000, 10).run(|input| {
                drop(vec![0_u8; input.len() * input.len()]);
                0
            });
        });
        assert!(found.contains("bytes made it hold"), "{found}");
        let folder =
            std::env::var_os("CARGO_TARGET_DIR").map_or("../../target".into(), PathBuf::from);
        std::fs::remove_dir_all(folder.join("fuzz/self-memory")).unwrap();
    }

    #[test]
    fn what_an_error_quotes_and_counts_does_not_make_it_another() {
        assert_eq!(outcome("line 7: no \"abc\" here"), outcome("line 12: no \"x\""));
        assert_ne!(outcome("no key"), outcome("no value"));
        assert_eq!(shape(&[5, 0]), shape(&[7, 0]));
        assert_ne!(shape(&[5, 0]), shape(&[5, 1]));
    }
}
