//! The fleet in figures, for metrics and for people.

use berth_units::Bytes;

use super::Fleet;
use crate::{Free, Node, NodeName, Vendor, occupant::Taken, usable};

/// A node with GPUs, in figures.
///
/// `vram_total` = reserved + claimed + foreign + free + unusable, unless more is held than there is.
/// An exclusive claim is the whole usable GPU, so bytes follow from GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTotals {
    /// The node.
    pub node: NodeName,
    /// Who makes its GPUs.
    pub vendor: Vendor,
    /// Their product.
    pub product: String,
    /// Whether new replicas may go there at all: ready and not cordoned.
    pub schedulable: bool,
    /// GPUs there.
    pub gpus: u32,
    /// GPUs claimed by replicas of ours, seen or assumed.
    pub gpus_claimed: u32,
    /// GPUs held by pods of others.
    pub gpus_foreign: u32,
    /// GPUs that nobody holds and that can be claimed.
    pub gpus_free: u32,
    /// GPUs that nobody holds and that cannot be claimed: of unknown VRAM, or of no use to us.
    pub gpus_unusable: u32,
    /// All memory of the GPUs there; zero where it is unknown.
    pub vram_total: Bytes,
    /// Of that, what no claim may use.
    pub vram_reserved: Bytes,
    /// Of that, claimed.
    pub vram_claimed: Bytes,
    /// Of that, held by pods of others.
    pub vram_foreign: Bytes,
    /// Of that, free to be claimed.
    pub vram_free: Bytes,
    /// Of that, on GPUs that cannot be claimed.
    pub vram_unusable: Bytes,
}

impl Fleet {
    /// Every node with GPUs, in figures, in natural order of the names.
    pub fn totals(&self) -> impl Iterator<Item = NodeTotals> {
        self.states().filter_map(|state| totals(state.node, &state.taken))
    }
}

fn totals(node: &Node, taken: &Taken) -> Option<NodeTotals> {
    let gpus = node.gpus.as_ref()?;
    let Free { gpus: unheld, .. } = taken.free(node);
    let placeable = gpus.unusable.is_none() && gpus.vram.is_some();
    let (gpus_free, gpus_unusable) = if placeable { (unheld, 0) } else { (0, unheld) };
    let vram = gpus.vram.unwrap_or_default();
    let each = usable(vram);
    let of = |gpus: u32| each * u64::from(gpus);
    Some(NodeTotals {
        node: node.name.clone(),
        vendor: gpus.vendor,
        product: gpus.product.clone(),
        schedulable: node.ready && !node.cordoned,
        gpus: gpus.count,
        gpus_claimed: taken.gpus_ours(),
        gpus_foreign: taken.gpus_foreign(),
        gpus_free,
        gpus_unusable,
        vram_total: vram * u64::from(gpus.count),
        vram_reserved: (vram - each) * u64::from(gpus.count),
        vram_claimed: of(taken.gpus_ours()),
        vram_foreign: of(taken.gpus_foreign()),
        vram_free: of(gpus_free),
        vram_unusable: of(gpus_unusable),
    })
}
