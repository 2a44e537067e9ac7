//! VRAM, GPUs and caches by node.

use berth_units::Bytes;
use prometheus::GaugeVec;

use super::registrar::Registrar;

/// The fleet in figures.
pub struct Fleet {
    vram: GaugeVec,
    gpus: GaugeVec,
    schedulable: GaugeVec,
    cache: GaugeVec,
    cache_size: GaugeVec,
}

impl Fleet {
    /// Registers them.
    pub fn new(registrar: &mut Registrar) -> prometheus::Result<Self> {
        Ok(Self {
            vram: registrar.gauges(
                "berth_fleet_vram_bytes",
                "VRAM of a node by state: claimed by replicas, held by foreign pods, free to be \
                 claimed, reserved (never claimed), unusable. The states add up to the total.",
                &["node", "product", "state"],
            )?,
            gpus: registrar.gauges(
                "berth_fleet_gpus",
                "GPUs of a node by state: claimed, foreign, free, unusable.",
                &["node", "product", "state"],
            )?,
            schedulable: registrar.gauges(
                "berth_fleet_node_schedulable",
                "1 where new replicas may go: the node is ready and not cordoned.",
                &["node", "product"],
            )?,
            cache: registrar.gauges(
                "berth_node_cache_bytes",
                "Models in a node's cache by state: needed by replicas or for a rollback, \
                 evictable, leaving (being removed). Sizes as planned, downloads under way \
                 included.",
                &["node", "state"],
            )?,
            cache_size: registrar.gauges(
                "berth_node_cache_size_bytes",
                "What a node's cache may hold.",
                &["node"],
            )?,
        })
    }

    /// Reads them from the ledger.
    pub fn refresh(&self, fleet: &berth_planner::Fleet) {
        self.vram.reset();
        self.gpus.reset();
        self.schedulable.reset();
        self.cache.reset();
        self.cache_size.reset();
        for node in fleet.nodes().filter(|node| node.cache > Bytes::ZERO) {
            let name = node.name.as_str();
            let held = fleet.cache_use(&node.name);
            for (state, bytes) in [
                ("needed", held.protected),
                ("evictable", held.evictable),
                ("leaving", held.leaving),
            ] {
                self.cache.with_label_values(&[name, state]).set(bytes.get() as f64);
            }
            self.cache_size.with_label_values(&[name]).set(held.size.get() as f64);
        }
        for node in fleet.totals() {
            let (name, product) = (node.node.as_str(), node.product.as_str());
            for (state, bytes) in [
                ("claimed", node.vram_claimed),
                ("foreign", node.vram_foreign),
                ("free", node.vram_free),
                ("reserved", node.vram_reserved),
                ("unusable", node.vram_unusable),
            ] {
                self.vram.with_label_values(&[name, product, state]).set(bytes.get() as f64);
            }
            for (state, gpus) in [
                ("claimed", node.gpus_claimed),
                ("foreign", node.gpus_foreign),
                ("free", node.gpus_free),
                ("unusable", node.gpus_unusable),
            ] {
                self.gpus.with_label_values(&[name, product, state]).set(gpus.into());
            }
            let schedulable = if node.schedulable { 1.0 } else { 0.0 };
            self.schedulable.with_label_values(&[name, product]).set(schedulable);
        }
    }
}
