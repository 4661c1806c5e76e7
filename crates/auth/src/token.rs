//! Simple tokens: letters drawn at random, and the index of the entry that made the token known.
//!
//! They are known to this member only while it runs, and end when they were not used for a while, when their user's
//! password changes or the user is deleted, and all together when authentication is switched off.

use std::collections::HashMap;
use std::time::Duration;

/// How long a token lives after its last use, unless the configuration says otherwise.
pub const SIMPLE_TOKEN_TTL: Duration = Duration::from_secs(300);

/// Letters of a token, before the dot and the index.
pub const TOKEN_LETTERS: usize = 16;

/// Tokens that are known at once, some 200 bytes each. With more, the one that would have ended first is forgotten:
/// its user has to log in again.
pub const TOKENS_MAX: usize = 1 << 20;

/// Time between two looks for tokens that have ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The letters of a token from random bytes; none when too few of them can be used, so that each letter is equally
/// likely.
pub fn letters(random: &[u8]) -> Option<String> {
    let whole = 256 / ALPHABET.len() * ALPHABET.len();
    let fair = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < whole);
    let text: String =
        fair.map(|byte| char::from(ALPHABET[byte % ALPHABET.len()])).take(TOKEN_LETTERS).collect();
    (text.len() == TOKEN_LETTERS).then_some(text)
}

/// The index in a token: the member knows the token only when it has applied so far. None when it is no token.
pub fn token_index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    if digits { index.parse().ok() } else { None }
}

/// The tokens that this member knows. Time is that since some fixed start.
#[derive(Default)]
pub struct SimpleTokens {
    ttl: Duration,
    known: HashMap<String, Token>,
    next_sweep: Duration,
}

struct Token {
    username: String,
    ends: Duration,
}

impl SimpleTokens {
    /// No tokens; each will live for `ttl` after its last use.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, ..Self::default() }
    }

    /// Makes a token known.
    pub fn assign(&mut self, token: String, username: &str, now: Duration) {
        if now >= self.next_sweep {
            self.known.retain(|_, token| token.ends > now);
            self.next_sweep = now + SWEEP_INTERVAL;
        }
        if self.known.len() >= TOKENS_MAX {
            self.forget_oldest();
        }
        let ends = now.saturating_add(self.ttl);
        self.known.insert(token, Token { username: username.to_owned(), ends });
    }

    /// The user of a token, which this use keeps alive.
    pub fn user_of(&mut self, token: &str, now: Duration) -> Option<String> {
        let token = self.known.get_mut(token).filter(|token| token.ends > now)?;
        token.ends = now.saturating_add(self.ttl);
        Some(token.username.clone())
    }

    /// Ends all tokens of a user.
    pub fn forget_user(&mut self, username: &str) {
        self.known.retain(|_, token| token.username != username);
    }

    /// Ends all tokens.
    pub fn forget_all(&mut self) {
        self.known = HashMap::new();
    }

    fn forget_oldest(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, token)| token.ends);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.known.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_lives_on_while_it_is_used() {
        let mut tokens = SimpleTokens::new(seconds(10));
        tokens.assign("t.1".to_owned(), "alice", seconds(0));
        assert_eq!(tokens.user_of("t.1", seconds(9)).as_deref(), Some("alice"));
        assert_eq!(tokens.user_of("t.1", seconds(18)).as_deref(), Some("alice"));
        assert_eq!(tokens.user_of("t.1", seconds(28)), None);
        assert_eq!(tokens.user_of("t.2", seconds(1)), None);
    }

    #[test]
    fn tokens_that_have_ended_take_no_memory_for_long() {
        let mut tokens = SimpleTokens::new(seconds(10));
        tokens.assign("old.1".to_owned(), "alice", seconds(0));
        tokens.assign("new.2".to_owned(), "alice", seconds(11));
        assert_eq!(tokens.known.len(), 1);
    }

    #[test]
    fn tokens_end_with_their_user_or_all_at_once() {
        let mut tokens = SimpleTokens::new(seconds(10));
        for (token, user) in [("a.1", "alice"), ("a.2", "alice"), ("b.3", "bob")] {
            tokens.assign(token.to_owned(), user, seconds(0));
        }
        tokens.forget_user("alice");
        assert_eq!(tokens.user_of("a.1", seconds(1)), None);
        assert_eq!(tokens.user_of("a.2", seconds(1)), None);
        assert_eq!(tokens.user_of("b.3", seconds(1)).as_deref(), Some("bob"));
        tokens.forget_all();
        assert_eq!(tokens.user_of("b.3", seconds(1)), None);
    }

    #[test]
    fn the_index_of_a_token_is_decimal_behind_one_dot() {
        assert_eq!(token_index("abc.17"), Some(17));
        assert_eq!(token_index(".0"), Some(0));
        assert_eq!(token_index("abc.18446744073709551615"), Some(u64::MAX));
        for token in ["abc", "", ".", "abc.", "a.b.1", "a.1.", "abc.+1", "abc.-1", "abc.1 "] {
            assert_eq!(token_index(token), None, "{token:?}");
        }
        assert_eq!(token_index("abc.18446744073709551616"), None);
    }

    #[test]
    fn letters_are_drawn_without_favour() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(letters(&all).unwrap(), "abcdefghijklmnop");
        assert_eq!(letters(&[208; 64]), None, "a byte that would favour the first letters");
        assert_eq!(letters(&[51; 16]).unwrap(), "Z".repeat(16));
        assert_eq!(letters(&[51; 15]), None);
    }
}
