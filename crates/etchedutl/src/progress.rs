//! A bar for long work: on standard error, and only when that is a terminal.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use etched_server::HowFar;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 30;

/// Does `work`, and shows meanwhile how far it says it is.
pub(crate) fn shown<T>(work: impl FnOnce(&Arc<HowFar>) -> T) -> T {
    let how_far = Arc::new(HowFar::default());
    if !stderr().is_terminal() {
        return work(&how_far);
    }
    let (end, ended) = channel::<()>();
    std::thread::scope(|scope| {
        let (began, seen) = (Instant::now(), &how_far);
        scope.spawn(move || {
            loop {
                draw(&bar(seen.now(), began.elapsed()));
                if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            draw(&bar(seen.now(), began.elapsed()));
            draw("\n");
        });
        let done = work(&how_far);
        drop(end);
        done
    })
}

/// A terminal that is gone is nothing to stop for.
fn draw(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

fn bar((done, total): (u64, u64), elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if total == 0 {
        return format!("\r{seconds} s");
    }
    let part =
        |of: u64| (u128::from(done.min(total)) * u128::from(of) / u128::from(total)) as usize;
    let (full, percent) = ("#".repeat(part(WIDTH)), part(100));
    format!("\r[{full:-<width$}] {percent:3} %, {seconds} s", width = WIDTH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        let second = Duration::from_secs(1);
        assert_eq!(bar((0, 0), second), "\r1 s");
        assert_eq!(bar((0, 7), second), format!("\r[{}]   0 %, 1 s", "-".repeat(30)));
        let half = format!("\r[{}{}]  50 %, 1 s", "#".repeat(15), "-".repeat(15));
        assert_eq!(bar((u64::MAX / 2 + 1, u64::MAX), second), half);
        assert_eq!(bar((9, 7), second), format!("\r[{}] 100 %, 1 s", "#".repeat(30)));
    }
}
