//! How far it is: metrics for the operator, lines for people.

use std::{collections::VecDeque, fmt::Write, time::Duration};

use berth_units::Bytes;
use prometheus::{Encoder, Gauge, IntCounter, IntGauge, Registry, TextEncoder};
use tokio::time::Instant;

/// Between two looks at the speed.
const LOOK: Duration = Duration::from_secs(1);

/// Looks between two lines.
const LINE: u32 = 5;

/// Looks that a speed is the average of.
const WINDOW: usize = 10;

/// How far it is.
pub struct Progress {
    registry: Registry,
    bytes: IntGauge,
    bytes_expected: IntGauge,
    received: IntCounter,
    speed: Gauge,
    files: IntGauge,
    files_expected: IntGauge,
    retries: IntCounter,
    waiting: IntGauge,
}

impl Progress {
    /// Nothing yet.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let speed = Gauge::new(
            "berth_fetch_bytes_per_second",
            "Bytes received in a second, on average over the last ten.",
        )?;
        registry.register(Box::new(speed.clone()))?;
        Ok(Self {
            bytes: gauge("berth_fetch_bytes", "Bytes of the model that are on the volume.")?,
            bytes_expected: gauge(
                "berth_fetch_bytes_expected",
                "Bytes of the model; 0 until they are known.",
            )?,
            received: counter(
                "berth_fetch_received_bytes_total",
                "Bytes of files received over the network by this process.",
            )?,
            files: gauge("berth_fetch_files", "Files of the model that are whole and checked.")?,
            files_expected: gauge(
                "berth_fetch_files_expected",
                "Files of the model; 0 until they are known.",
            )?,
            retries: counter(
                "berth_fetch_retries_total",
                "Attempts that failed and were repeated.",
            )?,
            waiting: gauge(
                "berth_fetch_waiting",
                "1 while another pod downloads into the same directory.",
            )?,
            speed,
            registry,
        })
    }

    /// In Prometheus' format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory never fails.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// What there is to bring.
    pub fn expect(&self, bytes: u64, files: usize) {
        self.bytes_expected.set(signed(bytes));
        self.files_expected.set(signed(files as u64));
    }

    /// A file that was there before.
    pub fn found(&self, bytes: u64) {
        self.bytes.add(signed(bytes));
        self.files.inc();
    }

    /// Counts one file.
    pub fn file(&self) -> FileProgress<'_> {
        FileProgress { progress: self, bytes: 0 }
    }

    /// Whether it waits for another pod.
    pub fn waits(&self, waits: bool) {
        self.waiting.set(waits.into());
    }

    /// An attempt failed and is repeated.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Bytes that are still to come.
    pub fn missing(&self) -> u64 {
        u64::try_from(self.bytes_expected.get() - self.bytes.get()).unwrap_or(0)
    }

    /// Keeps the speed up to date and writes a line every few seconds if there is something new.
    /// Never ends.
    pub async fn report(&self) {
        let mut speed = Speed::default();
        let mut written = String::new();
        for look in 1_u32.. {
            tokio::time::sleep(LOOK).await;
            let per_second = speed.look(Instant::now(), self.received.get());
            self.speed.set(per_second);
            if !look.is_multiple_of(LINE) || self.bytes_expected.get() == 0 {
                continue;
            }
            let line = self.line(per_second);
            if line != written {
                tracing::info!("{line}");
                written = line;
            }
        }
    }

    fn line(&self, per_second: f64) -> String {
        let unsigned = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        let (bytes, expected) = (unsigned(&self.bytes), unsigned(&self.bytes_expected));
        let percent = u128::from(bytes) * 100 / u128::from(expected.max(1));
        let mut line = format!(
            "{} of {} ({percent} %), {} of {} files",
            Bytes(bytes),
            Bytes(expected),
            self.files.get(),
            self.files_expected.get(),
        );
        if per_second >= 1.0 {
            let left = self.missing() as f64 / per_second;
            let speed = Bytes::from_gib_f64(per_second / berth_units::GIB as f64);
            // Writing to a String never fails.
            let _ = write!(line, ", {speed} a second, {} left", span(left));
        }
        line
    }
}

/// Counts one file.
pub struct FileProgress<'a> {
    progress: &'a Progress,
    bytes: u64,
}

impl FileProgress<'_> {
    /// So many bytes of it are there.
    pub fn set(&mut self, bytes: u64) {
        self.progress.bytes.add(signed(bytes) - signed(self.bytes));
        self.bytes = bytes;
    }

    /// So many more came.
    pub fn received(&mut self, bytes: u64) {
        self.progress.received.inc_by(bytes);
        self.set(self.bytes + bytes);
    }

    /// It is whole and checked.
    pub fn whole(&mut self, size: u64) {
        self.set(size);
        self.progress.files.inc();
    }
}

/// The average over the last few looks.
#[derive(Default)]
struct Speed {
    looks: VecDeque<(Instant, u64)>,
}

impl Speed {
    fn look(&mut self, now: Instant, received: u64) -> f64 {
        self.looks.push_back((now, received));
        if self.looks.len() > WINDOW {
            self.looks.pop_front();
        }
        let Some(&(then, before)) = self.looks.front().filter(|(then, _)| *then < now) else {
            return 0.0;
        };
        received.saturating_sub(before) as f64 / now.duration_since(then).as_secs_f64()
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A span of time for people.
fn span(seconds: f64) -> String {
    // Saturates.
    let minutes = (seconds / 60.0).ceil();
    if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else if minutes < 100.0 {
        format!("{minutes:.0} min")
    } else {
        format!("{:.0} h", (minutes / 60.0).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people() {
        let progress = Progress::new().unwrap();
        progress.expect(4 << 30, 3);
        progress.found(1 << 30);
        let mut file = progress.file();
        file.set(1 << 20);
        file.received(1 << 20);
        assert_eq!(progress.line(0.0), "1.0 GiB of 4.0 GiB (25 %), 1 of 3 files");
        file.set(0);
        let line = progress.line(100.0 * 1024.0 * 1024.0);
        assert_eq!(line, "1.0 GiB of 4.0 GiB (25 %), 1 of 3 files, 100 MiB a second, 31 s left");
        assert_eq!(progress.missing(), 3 << 30);
        file.whole(3 << 30);
        let text = progress.text();
        for line in [
            "berth_fetch_bytes 4294967296",
            "berth_fetch_bytes_expected 4294967296",
            "berth_fetch_received_bytes_total 1048576",
            "berth_fetch_files 2",
            "berth_fetch_files_expected 3",
            "berth_fetch_bytes_per_second 0",
            "berth_fetch_retries_total 0",
            "berth_fetch_waiting 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn spans() {
        let spans = [3.2, 99.0, 130.0, 7200.0, f64::INFINITY].map(span);
        assert_eq!(spans, ["3 s", "99 s", "3 min", "2 h", "inf h"]);
    }

    #[test]
    fn speed_is_an_average() {
        let start = Instant::now();
        let mut speed = Speed::default();
        let at = |second: u64| start + Duration::from_secs(second);
        assert!(speed.look(at(0), 5) < 0.1);
        let all: Vec<_> = (1..=20).map(|second| speed.look(at(second), 5 + second * 100)).collect();
        assert!(all.iter().all(|speed| (speed - 100.0).abs() < 0.1), "{all:?}");
        let stopped: Vec<_> = (21..=30).map(|second| speed.look(at(second), 2005)).collect();
        assert!(stopped.last().unwrap() < &0.1, "{stopped:?}");
    }
}
