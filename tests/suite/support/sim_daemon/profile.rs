//! What a seed decides for a whole simulation: the settings of the daemon, the limits of the kernel, and how fast things
//! are.

use std::time::Duration;

use distilld::config::{Settings, Watch};
use fastrand::Rng;

use crate::support::bench::ROOT;

use super::events::Limits;

#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Whether day-files only grow, so that everything equals the batch in the end.
    pub only_grows: bool,
    /// Number of actions of the others.
    pub actions: usize,
    /// Maximum time until an event is delivered, milliseconds.
    pub latency_ms: u64,
    /// Time that one call of the daemon takes, of four, milliseconds.
    pub call_ms: u64,
    /// One call of this number is preceded by an action of the others.
    pub interleaving: u32,
    /// Whether calls of the disk are interrupted and shortened by signals.
    pub is_interrupted: bool,
    pub limits: Limits,
    /// The polling interval, if it is not chosen with the other settings.
    pub poll: Option<Duration>,
}

impl Profile {
    pub fn new(rng: &mut Rng) -> Self {
        let (lost_of, is_known_to_lose) = match rng.u8(..8) {
            0 => (1, true),
            1 => (1, false),
            2 => (4, false),
            _ => (0, false),
        };
        Self {
            only_grows: rng.u8(..3) > 0,
            poll: None,
            actions: rng.usize(10..60),
            latency_ms: *pick(rng, &[0, 5, 500, 3_000]),
            call_ms: *pick(rng, &[0, 0, 1, 20]),
            interleaving: *pick(rng, &[10, 40, 1_000]),
            is_interrupted: rng.u8(..16) == 0,
            limits: Limits {
                lost_of,
                is_known_to_lose,
                queue_max: *pick(rng, &[3, 16_384, 16_384]),
                watches_max: *pick(rng, &[4, 9, 8_192, 8_192, 8_192, 8_192]),
                opening_fails: rng.u8(..24) == 0,
                twice: rng.u8(..8) == 0,
            },
        }
    }
}

/// Returns settings, those that a reload changes at random.
pub fn settings(rng: &mut Rng, profile: &Profile) -> Settings {
    let recent_scan = Duration::from_secs(*pick(rng, &[1, 10, 60]));
    let poll = Duration::from_millis(*pick(rng, &[200, 1_000, 5_000]));
    let watch = match rng.u8(..8) {
        0 => Watch::Poll,
        1 => Watch::Events,
        _ => Watch::Auto,
    };
    Settings {
        recent_scan,
        full_scan: recent_scan * *pick(rng, &[5, 20]),
        poll: profile.poll.unwrap_or(poll),
        settle: Duration::from_millis(*pick(rng, &[100, 1_000, 5_000])),
        fresh_objective: Duration::from_secs(*pick(rng, &[1, 10])),
        checkpoint_bytes: *pick(rng, &[4 << 10, 64 << 20]),
        watch,
        ..Settings::with_defaults(ROOT)
    }
}

/// Returns the longest time until a scan finds what no event reports, milliseconds.
pub fn blind_ms(settings: &Settings) -> u64 {
    let full_scan = settings.full_scan.max(settings.poll * 30);
    (full_scan + settings.recent_scan.max(settings.poll)).as_millis() as u64
}

pub fn pick<'v, T>(rng: &mut Rng, values: &'v [T]) -> &'v T {
    &values[rng.usize(..values.len())]
}
