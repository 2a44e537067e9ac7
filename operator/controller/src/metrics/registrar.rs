//! Registers metrics, and keeps what the reference says of each.

use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts, Registry, Result, core::Collector};

/// A metric as the reference lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: String,
    /// Its labels.
    pub labels: Vec<String>,
}

/// The registry, and all that is in it.
#[derive(Default)]
pub struct Registrar {
    /// What is scraped.
    pub registry: Registry,
    /// What the reference lists.
    pub described: Vec<Described>,
}

impl Registrar {
    /// Adds a metric.
    pub fn add<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        metric: C,
    ) -> Result<C> {
        self.described.extend(metric.desc().into_iter().map(|desc| Described {
            name: desc.fq_name.clone(),
            kind,
            help: desc.help.clone(),
            labels: desc.variable_labels.clone(),
        }));
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Adds counters of whole things.
    pub fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Adds counters of amounts, or of what others count.
    pub fn sums(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec> {
        self.add("counter", CounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Adds gauges.
    pub fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }
}
