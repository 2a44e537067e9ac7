//! Room: what is free on a node, and what a pod takes of it, in the few figures that scores go by.
//!
//! Pure values. The index keeps nodes by them, policies compare them, and both the ledger and the
//! benchmarks fill them in.

use berth_units::{Bytes, MilliCpu};

/// What equal nodes have in common, whoever is on them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// The product of the GPUs; empty without GPUs.
    pub product: String,
    /// How many GPUs.
    pub gpus: u32,
    /// Usable bytes of each.
    pub vram: Bytes,
    /// CPU that pods may request in all.
    pub cpu: MilliCpu,
    /// Memory that pods may request in all.
    pub memory: Bytes,
}

/// What is free on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// GPUs that nobody holds any part of.
    pub whole: u32,
    /// What is free on each GPU that is held in part, in ascending order. None of them is empty.
    pub open: Vec<Bytes>,
    /// The sizes of the pods that hold GPUs there.
    pub sizes: Sizes,
}

/// What a pod asks of GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// None.
    #[default]
    Nothing,
    /// So many bytes of one, beside others.
    Part(Bytes),
    /// Whole ones.
    Whole {
        /// How many, at least one.
        count: u32,
        /// The usable bytes that each must have.
        vram: Bytes,
    },
}

/// What a pod asks of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// GPUs.
    pub ask: Ask,
    /// The products that will do, as nodes name them; any when empty.
    pub products: Vec<String>,
}

/// How large a request is, in GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Size {
    /// No GPU.
    Cpu,
    /// A part of one.
    Share,
    /// One.
    One,
    /// Two or three.
    Two,
    /// Four to seven.
    Four,
    /// Eight and more.
    Eight,
}

/// A set of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sizes(u8);

impl Size {
    /// All of them, the smallest first.
    pub const ALL: [Self; 6] =
        [Self::Cpu, Self::Share, Self::One, Self::Two, Self::Four, Self::Eight];

    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Share => "share",
            Self::One => "1",
            Self::Two => "2",
            Self::Four => "4",
            Self::Eight => "8",
        }
    }
}

impl Sizes {
    /// With that one; pods without a GPU do not count.
    #[must_use]
    pub fn with(self, size: Size) -> Self {
        if size == Size::Cpu { self } else { Self(self.0 | 1 << size as u8) }
    }

    /// Whether it is among them.
    pub fn has(self, size: Size) -> bool {
        self.0 & 1 << size as u8 != 0
    }

    /// How many there are.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Kind {
    /// Bytes of its GPUs in GPUs.
    pub fn in_gpus(&self, bytes: Bytes) -> f64 {
        if self.vram == Bytes::ZERO { 0.0 } else { bytes.get() as f64 / self.vram.get() as f64 }
    }

    /// All of it.
    pub fn empty(&self) -> Room {
        Room { cpu: self.cpu, memory: self.memory, whole: self.gpus, ..Room::default() }
    }

    /// Whether its GPUs will do for a demand, were they free.
    pub fn serves(&self, demand: &Demand) -> bool {
        let vram = match demand.ask {
            Ask::Nothing => return true,
            Ask::Part(bytes) | Ask::Whole { vram: bytes, .. } => bytes,
        };
        self.gpus >= demand.count()
            && self.vram >= vram
            && (demand.products.is_empty() || demand.products.contains(&self.product))
    }
}

impl Demand {
    /// Its size.
    pub fn size(&self) -> Size {
        match self.ask {
            Ask::Nothing => Size::Cpu,
            Ask::Part(_) => Size::Share,
            Ask::Whole { count: 0..=1, .. } => Size::One,
            Ask::Whole { count: 2..=3, .. } => Size::Two,
            Ask::Whole { count: 4..=7, .. } => Size::Four,
            Ask::Whole { .. } => Size::Eight,
        }
    }

    /// How many GPUs it touches.
    pub fn count(&self) -> u32 {
        match self.ask {
            Ask::Nothing => 0,
            Ask::Part(_) => 1,
            Ask::Whole { count, .. } => count,
        }
    }

    /// How many GPUs it takes on a node of that kind.
    pub fn gpus_on(&self, kind: &Kind) -> f64 {
        match self.ask {
            Ask::Nothing => 0.0,
            Ask::Part(bytes) => kind.in_gpus(bytes),
            Ask::Whole { count, .. } => f64::from(count),
        }
    }
}

impl Room {
    /// Free GPUs, parts included.
    pub fn gpus(&self, kind: &Kind) -> f64 {
        f64::from(self.whole) + self.open.iter().map(|free| kind.in_gpus(*free)).sum::<f64>()
    }

    /// Whether a demand finds room.
    pub fn fits(&self, kind: &Kind, demand: &Demand) -> bool {
        self.cpu >= demand.cpu
            && self.memory >= demand.memory
            && kind.serves(demand)
            && match demand.ask {
                Ask::Nothing => true,
                Ask::Part(bytes) => {
                    self.whole > 0 || self.open.last().is_some_and(|free| *free >= bytes)
                }
                Ask::Whole { count, .. } => self.whole >= count,
            }
    }

    /// What would be left: one room for each way to take the demand, for a part of a GPU one for
    /// each amount that is free on some GPU, the fullest first. None where it does not fit.
    pub fn afters(&self, kind: &Kind, demand: &Demand) -> Vec<Room> {
        if !self.fits(kind, demand) {
            return Vec::new();
        }
        let less = || Room {
            cpu: self.cpu - demand.cpu,
            memory: self.memory - demand.memory,
            sizes: self.sizes.with(demand.size()),
            ..self.clone()
        };
        let bytes = match demand.ask {
            Ask::Nothing => return vec![less()],
            Ask::Whole { count, .. } => return vec![Room { whole: self.whole - count, ..less() }],
            Ask::Part(bytes) => bytes,
        };
        let mut afters = Vec::new();
        for (at, &free) in self.open.iter().enumerate() {
            if free >= bytes && (at == 0 || self.open[at - 1] != free) {
                let mut room = less();
                room.open.remove(at);
                room.reopen(free - bytes);
                afters.push(room);
            }
        }
        if self.whole > 0 {
            let mut room = Room { whole: self.whole - 1, ..less() };
            room.reopen(kind.vram - bytes);
            afters.push(room);
        }
        afters
    }

    /// One more GPU is held in part, with so much left.
    fn reopen(&mut self, free: Bytes) {
        if free > Bytes::ZERO {
            let at = self.open.partition_point(|other| *other < free);
            self.open.insert(at, free);
        }
    }
}
