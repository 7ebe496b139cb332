//! The corpora of `fuzz/` under the checks of the fuzz targets, and simple random inputs.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::support::fuzz_checks::{TARGETS, history};
use crate::support::tools::number_from;

/// Random inputs per target.
const CASES: u64 = 400;
/// Random histories; the variables select the number and the seed of the first one.
const HISTORIES: u64 = 400;
const HISTORIES_VARIABLE: &str = "DISTILLD_HISTORIES";
const SEED_VARIABLE: &str = "DISTILLD_HISTORIES_SEED";
/// Maximum length of a random history.
const HISTORY_BYTES_MAX: usize = 160;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    inputs.sort_unstable();
    inputs
}

#[test]
fn the_fuzz_corpora_satisfy_their_checks() {
    for (name, check) in TARGETS {
        let inputs = corpus(name);
        assert!(
            inputs.len() > 5,
            "{name} has a corpus of {} inputs",
            inputs.len()
        );
        for (path, input) in inputs {
            // The test runner prints this only if the check fails.
            println!("{path}");
            check(&input);
        }
    }
}

#[test]
fn mutated_corpora_satisfy_their_checks() {
    for (name, check) in TARGETS {
        let inputs = corpus(name);
        for seed in 0..CASES {
            let mut rng = Rng::with_seed(seed);
            let mut input = rng.choice(&inputs).unwrap().1.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..=input.len());
                match rng.u8(..4) {
                    0 => input.insert(at, rng.u8(..)),
                    1 => input.truncate(at),
                    2 if at < input.len() => drop(input.remove(at)),
                    _ if at < input.len() => input[at] = rng.u8(..),
                    _ => {}
                }
            }
            println!("{name}, seed {seed}");
            check(&input);
        }
    }
}

#[test]
fn random_histories_satisfy_their_check() {
    let first = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    for n in 0..number_from(HISTORIES_VARIABLE).unwrap_or(HISTORIES) {
        let seed = first.wrapping_add(n);
        let mut rng = Rng::with_seed(seed);
        let len = rng.usize(..HISTORY_BYTES_MAX);
        let input: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        // The test runner prints this only if the check fails.
        println!("{SEED_VARIABLE}={seed}");
        history(&input);
    }
}
