//! How far a download is: what the init step says of itself, and how that is told to people. Pure.
//!
//! The names of its metrics stand in `operator/fetch/src/progress.rs`.

use std::fmt::Write;

use berth_units::Bytes;

use super::{
    page::{count, greatest},
    sample::Missing,
};

/// Where its metrics are.
pub const PATH: &str = "/metrics";

/// How far a download is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Download {
    /// What of the model is on the volume.
    pub bytes: Bytes,
    /// The whole model; zero until that is known.
    pub expected: Bytes,
    /// What comes in a second.
    pub per_second: Bytes,
    /// Whether another replica downloads the same, and this one waits for it.
    pub waiting: bool,
    /// Whether nothing came since the look before.
    pub stalled: bool,
}

/// Reads it from the text of a metrics page.
pub fn read(text: &str) -> Result<Download, Missing> {
    let amount = |name: &'static str| {
        greatest(text, name).map(|value| Bytes(count(value))).ok_or(Missing(name))
    };
    Ok(Download {
        bytes: amount("berth_fetch_bytes")?,
        expected: amount("berth_fetch_bytes_expected")?,
        per_second: amount("berth_fetch_bytes_per_second")?,
        waiting: amount("berth_fetch_waiting")? > Bytes::ZERO,
        stalled: false,
    })
}

impl Download {
    /// Whether it has found what it is to bring: no token, name or certificate is wrong.
    pub fn has_begun(&self) -> bool {
        self.waiting || self.expected > Bytes::ZERO
    }

    /// The same, knowing the look before.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let known = self.expected == before.expected;
        let nothing = known && self.per_second == Bytes::ZERO && self.bytes == before.bytes;
        Self { stalled: nothing && !self.waiting && self.bytes < self.expected, ..self }
    }

    /// Whether a person would care about the difference to what they were told: a twentieth of the
    /// model, or that it waits, goes on, or stands still.
    pub fn differs(&self, told: &Self) -> bool {
        self.waiting != told.waiting
            || self.expected != told.expected
            || self.stalled != told.stalled
            || self.bytes.get().abs_diff(told.bytes.get()) * 20 >= self.expected.get()
    }

    /// For people.
    pub fn message(&self) -> String {
        if self.waiting {
            return "waiting for another replica's download".to_owned();
        }
        let mut text = format!("downloading: {} of {}", self.bytes, self.expected);
        let left = self.expected.saturating_sub(self.bytes);
        if self.stalled {
            text.push_str(", nothing comes at the moment");
        } else if left > Bytes::ZERO && self.per_second > Bytes::ZERO {
            let seconds = left.get().div_ceil(self.per_second.get());
            // Writing to a String never fails.
            let _ = write!(text, ", {}/s, {} left", self.per_second, span(seconds));
        }
        text
    }
}

/// A span of time for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(bytes: Bytes, per_second: Bytes) -> Download {
        Download { bytes, expected: Bytes::gib(15), per_second, ..Download::default() }
    }

    #[test]
    fn the_step_says_how_far_it_is() {
        let text = "# TYPE berth_fetch_bytes gauge\nberth_fetch_bytes 1024\n\
            berth_fetch_bytes_expected 4096\nberth_fetch_bytes_per_second 512.5\n\
            berth_fetch_received_bytes_total 1000\nberth_fetch_waiting 0\n";
        let expected = Download {
            bytes: Bytes(1024),
            expected: Bytes(4096),
            per_second: Bytes(512),
            ..Download::default()
        };
        assert_eq!(read(text), Ok(expected));
        assert!(read(&text.replace("waiting 0", "waiting 1")).unwrap().waiting);
        assert_eq!(read(""), Err(Missing("berth_fetch_bytes")));
    }

    #[test]
    fn it_is_told_to_people() {
        let at = |bytes, per_second| download(bytes, per_second).message();
        assert_eq!(
            at(Bytes::mib(3277), Bytes::mib(210)),
            "downloading: 3.2 GiB of 15.0 GiB, 210 MiB/s, 58 s left"
        );
        assert_eq!(
            at(Bytes::gib(1), Bytes::mib(10)),
            "downloading: 1.0 GiB of 15.0 GiB, 10 MiB/s, 24 min left"
        );
        assert_eq!(at(Bytes::gib(1), Bytes::ZERO), "downloading: 1.0 GiB of 15.0 GiB");
        assert_eq!(at(Bytes::gib(15), Bytes::ZERO), "downloading: 15.0 GiB of 15.0 GiB");
        let waiting = Download { waiting: true, ..Download::default() };
        assert_eq!(waiting.message(), "waiting for another replica's download");
        assert_eq!([99, 130, 7200].map(span), ["99 s", "3 min", "2 h"]);
    }

    #[test]
    fn a_person_cares_about_a_twentieth_and_about_standing_still() {
        let told = download(Bytes::gib(6), Bytes::mib(100));
        for (now, cares) in [
            (download(Bytes::mib(6 * 1024 + 700), Bytes::mib(50)), false),
            (download(Bytes::mib(6 * 1024 + 800), Bytes::mib(100)), true),
            (download(Bytes::gib(6), Bytes::ZERO), false),
            (Download { stalled: true, ..told }, true),
            (Download { waiting: true, ..told }, true),
            (Download { expected: Bytes::gib(16), ..told }, true),
        ] {
            assert_eq!(now.differs(&told), cares, "{now:?}");
        }
    }

    #[test]
    fn it_stands_still_when_nothing_came_between_two_looks() {
        let before = download(Bytes::gib(1), Bytes::ZERO);
        let still = before.after(&before);
        let text = "downloading: 1.0 GiB of 15.0 GiB, nothing comes at the moment";
        assert_eq!((still.stalled, still.message().as_str()), (true, text));
        for moves in [
            download(Bytes::gib(1), Bytes::mib(1)),
            download(Bytes::gib(2), Bytes::ZERO),
            Download { waiting: true, ..before },
        ] {
            assert!(!moves.after(&before).stalled, "{moves:?}");
        }
        let whole = download(Bytes::gib(15), Bytes::ZERO);
        assert!(!whole.after(&whole).stalled, "all is there");
    }
}
