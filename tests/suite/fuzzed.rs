//! The corpora of `fuzz/` under the checks of the fuzz targets, and simple random inputs.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::support::fuzz_checks::TARGETS;

/// Random inputs per target.
const CASES: u64 = 400;

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
