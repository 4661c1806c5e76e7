//! Changes of an input that decoders are known to stumble over.

use crate::rng::Rng;

/// Changes of one input at most.
const CHANGES_MAX: usize = 6;
/// Longest piece that is inserted, removed or copied at once, mostly.
const PIECE_MAX: usize = 64;

/// Numbers at the edges of what lengths and counts are held in.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    7,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Changes `input` in a few places; it stays below `bytes_max`.
pub(crate) fn mutate(
    input: &mut Vec<u8>,
    pool: &[Vec<u8>],
    words: &[Vec<u8>],
    bytes_max: usize,
    rng: &mut Rng,
) {
    for _ in 0..=rng.below(CHANGES_MAX) {
        match rng.below(12) {
            0 | 1 => flip(input, rng),
            2 => overwrite(input, &[rng.next() as u8], rng),
            3 => {
                let bytes: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next() as u8).collect();
                insert(input, &bytes, rng);
            }
            4 => remove(input, rng),
            5 => copy_within(input, rng),
            6 => splice(input, rng.below(pool.len()), pool, rng),
            7 | 8 if !words.is_empty() => {
                let word = rng.one_of(words);
                if rng.below(2) == 0 {
                    insert(input, word, rng)
                } else {
                    overwrite(input, word, rng)
                }
            }
            9 => {
                let number = number(input.len(), rng);
                if rng.below(3) == 0 {
                    insert(input, &number, rng);
                } else {
                    overwrite(input, &number, rng);
                }
            }
            10 => repeat(input, rng),
            _ if rng.below(8) == 0 => input.truncate(place(input, rng)),
            _ => digit(input, rng),
        }
        input.truncate(bytes_max);
    }
}

/// A place in `input` or at its end.
fn place(input: &[u8], rng: &mut Rng) -> usize {
    rng.below(input.len() + 1)
}

/// A piece of `input`, now and then a long one.
fn piece(input: &[u8], rng: &mut Rng) -> std::ops::Range<usize> {
    let from = place(input, rng);
    let left = input.len() - from;
    let most = if rng.below(8) == 0 { left } else { left.min(PIECE_MAX) };
    from..from + rng.below(most + 1)
}

fn flip(input: &mut [u8], rng: &mut Rng) {
    if !input.is_empty() {
        let at = rng.below(input.len());
        input[at] ^= 1 << rng.below(8);
    }
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], rng: &mut Rng) {
    let at = place(input, rng);
    input.splice(at..at, bytes.iter().copied());
}

fn overwrite(input: &mut Vec<u8>, bytes: &[u8], rng: &mut Rng) {
    let at = place(input, rng);
    let end = input.len().min(at + bytes.len());
    input.splice(at..end, bytes.iter().copied());
}

fn remove(input: &mut Vec<u8>, rng: &mut Rng) {
    let piece = piece(input, rng);
    input.drain(piece);
}

fn copy_within(input: &mut Vec<u8>, rng: &mut Rng) {
    let copied = input[piece(input, rng)].to_vec();
    insert(input, &copied, rng);
}

/// One piece many times over: nesting and long lists come of it.
fn repeat(input: &mut Vec<u8>, rng: &mut Rng) {
    let piece = piece(input, rng);
    let at = piece.end;
    let most = if rng.below(16) == 0 { 512 } else { 8 };
    let times = 1 + rng.below(most);
    let copies = input[piece].repeat(times);
    input.splice(at..at, copies);
}

/// The beginning of one input and the end of another.
fn splice(input: &mut Vec<u8>, other: usize, pool: &[Vec<u8>], rng: &mut Rng) {
    let other = &pool[other];
    input.truncate(place(input, rng));
    input.extend_from_slice(&other[place(other, rng)..]);
}

/// Another digit for one that is there.
fn digit(input: &mut [u8], rng: &mut Rng) {
    let digits: Vec<usize> = (0..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
    if digits.is_empty() {
        flip(input, rng);
    } else {
        input[*rng.one_of(&digits)] = b'0' + rng.below(10) as u8;
    }
}

/// A number that is nearly right as a length, in one of the forms that numbers have.
fn number(length: usize, rng: &mut Rng) -> Vec<u8> {
    let value = match rng.below(4) {
        0 => (length as u64).wrapping_add(rng.below(5) as u64).wrapping_sub(2),
        1 => rng.next() >> rng.below(64),
        _ => *rng.one_of(&EDGES),
    };
    match rng.below(7) {
        0 => vec![value as u8],
        1 => (value as u32).to_le_bytes().to_vec(),
        2 => (value as u32).to_be_bytes().to_vec(),
        3 => value.to_le_bytes().to_vec(),
        4 => value.to_be_bytes().to_vec(),
        5 => value.to_string().into_bytes(),
        _ => varint(value),
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_none_is_too_long() {
        let pool = vec![b"one".to_vec(), b"another 12".to_vec(), Vec::new()];
        let words = vec![b"word".to_vec()];
        let run = |seed| {
            let mut rng = Rng::new(seed);
            let mut input = Vec::new();
            let inputs = (0..2000).map(|_| {
                mutate(&mut input, &pool, &words, 500, &mut rng);
                input.clone()
            });
            inputs.collect::<Vec<_>>()
        };
        let inputs = run(7);
        assert!(inputs.iter().all(|input| input.len() <= 500));
        assert!(inputs.iter().any(|input| input.windows(4).any(|part| part == b"word")));
        assert_eq!(inputs, run(7));
        assert_ne!(inputs, run(8));
    }
}
