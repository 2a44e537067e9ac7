//! Single replicas: how far their downloads are, and whether they run on their GPUs. By number, which the next pod of a replica has too,
//! never by pod.

use prometheus::GaugeVec;

use super::registrar::Registrar;
use crate::{
    accelerator,
    world::{pod::Progress, state::State},
};

/// Replicas in figures.
pub struct Replicas {
    bytes: GaugeVec,
    expected: GaugeVec,
    per_second: GaugeVec,
    on_accelerator: GaugeVec,
}

impl Replicas {
    /// Registers them.
    pub fn new(registrar: &mut Registrar) -> prometheus::Result<Self> {
        let labels = ["namespace", "deployment", "replica"];
        Ok(Self {
            bytes: registrar.gauges(
                "berth_replica_download_bytes",
                "What of the model is on the node, while it is downloaded.",
                &labels,
            )?,
            expected: registrar.gauges(
                "berth_replica_download_expected_bytes",
                "The model's size, while it is downloaded; 0 until it is known.",
                &labels,
            )?,
            per_second: registrar.gauges(
                "berth_replica_download_bytes_per_second",
                "What comes in a second, while the model is downloaded.",
                &labels,
            )?,
            on_accelerator: registrar.gauges(
                "berth_replica_on_accelerator",
                "1 where all of the model is on the GPUs that the replica was given, 0 where any of \
                 it is not; absent where the engine's log does not tell.",
                &labels,
            )?,
        })
    }

    /// Reads them from the world.
    pub fn refresh(&self, state: &State) {
        for gauge in [&self.bytes, &self.expected, &self.per_second, &self.on_accelerator] {
            gauge.reset();
        }
        for replica in state.replicas() {
            let number = replica.replica.to_string();
            let of = &replica.deployment;
            let labels = [of.namespace.as_str(), of.name.as_str(), number.as_str()];
            if let Some(accelerator) =
                replica.learnt.accelerator.as_ref().filter(|_| replica.is_live())
            {
                let on = if accelerator::is_on(accelerator) { 1.0 } else { 0.0 };
                self.on_accelerator.with_label_values(&labels).set(on);
            }
            if !matches!(replica.progress, Progress::Fetching { .. }) {
                continue;
            }
            let Some(download) = state.learning().download(&replica.uid) else { continue };
            for (gauge, bytes) in [
                (&self.bytes, download.bytes),
                (&self.expected, download.expected),
                (&self.per_second, download.per_second),
            ] {
                gauge.with_label_values(&labels).set(bytes.get() as f64);
            }
        }
    }
}
