//! Digests of rows by which this process compares them. They are keyed with a random secret of the process: the
//! writers of the lake choose the bytes of rows, and could otherwise make two different rows with one digest. Never
//! persisted.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// The key of a process, drawn from the random keys that std gives its hash maps.
static EMPTY: LazyLock<SipHasher13> = LazyLock::new(|| {
    let random = RandomState::new();
    SipHasher13::new_with_keys(random.hash_one(0_u8), random.hash_one(1_u8))
});

/// A digest being computed.
#[derive(Debug)]
pub(super) struct Digest(SipHasher13);

impl Digest {
    pub(super) fn new() -> Digest {
        Digest(*EMPTY)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(super) fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

/// Returns the digest of bytes.
pub(super) fn digest(bytes: &[u8]) -> u128 {
    let mut digest = Digest::new();
    digest.update(bytes);
    digest.finish()
}
