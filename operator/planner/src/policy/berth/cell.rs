//! A node in small numbers, to be filled up quickly.

use crate::room::{Ask, Demand, Kind, Room};

/// GPUs of a node that are looked at.
const GPUS: usize = 16;
/// A whole GPU, in hundredths.
const WHOLE: u8 = 100;

/// What is free on a node.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    cpu: u64,
    memory: u64,
    /// Hundredths of each GPU, in no order.
    gpus: [u8; GPUS],
    count: u8,
    /// The sum of them.
    sum: u16,
    whole: u8,
}

/// What a demand takes on nodes of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    cpu: u64,
    memory: u64,
    gpus: Gpus,
}

#[derive(Clone, Copy, Debug)]
enum Gpus {
    None,
    /// Hundredths of one.
    Part(u8),
    Whole(u8),
}

impl Need {
    /// None where such nodes do not serve it.
    pub fn of(demand: &Demand, kind: &Kind) -> Option<Self> {
        if !kind.serves(demand) {
            return None;
        }
        let gpus = match demand.ask {
            Ask::Nothing => Gpus::None,
            Ask::Part(bytes) => {
                let part = u128::from(bytes.get()) * u128::from(WHOLE);
                let part = part.div_ceil(u128::from(kind.vram.get().max(1)));
                Gpus::Part(u8::try_from(part).map_or(WHOLE, |part| part.clamp(1, WHOLE)))
            }
            Ask::Whole { count, .. } => Gpus::Whole(u8::try_from(count).unwrap_or(u8::MAX)),
        };
        Some(Self { cpu: demand.cpu.get(), memory: demand.memory.get(), gpus })
    }
}

impl Cell {
    /// Of a room; GPUs beyond [`GPUS`] are not looked at.
    pub fn of(kind: &Kind, room: &Room) -> Self {
        let mut cell = Self {
            cpu: room.cpu.get(),
            memory: room.memory.get(),
            gpus: [0; GPUS],
            count: 0,
            sum: 0,
            whole: 0,
        };
        let vram = u128::from(kind.vram.get().max(1));
        let open = room.open.iter().map(|free| {
            let part = u128::from(free.get()) * u128::from(WHOLE) / vram;
            u8::try_from(part).map_or(WHOLE, |part| part.min(WHOLE))
        });
        let whole = usize::try_from(room.whole).unwrap_or(usize::MAX).min(GPUS);
        for free in std::iter::repeat_n(WHOLE, whole).chain(open).take(GPUS) {
            cell.gpus[usize::from(cell.count)] = free;
            cell.count += 1;
            cell.sum += u16::from(free);
            cell.whole += u8::from(free == WHOLE);
        }
        cell
    }

    /// Free hundredths in all.
    pub fn gpus(&self) -> u32 {
        u32::from(self.sum)
    }

    /// Free CPU, in thousandths.
    pub fn cpu(&self) -> u64 {
        self.cpu
    }

    /// Whether a need finds room.
    pub fn holds(&self, need: &Need) -> bool {
        self.cpu >= need.cpu
            && self.memory >= need.memory
            && match need.gpus {
                Gpus::None => true,
                Gpus::Part(part) => self.fullest(part).is_some(),
                Gpus::Whole(count) => self.whole >= count,
            }
    }

    /// Free hundredths that are of no use to a need, were it to come now.
    pub fn useless(&self, need: &Need) -> u32 {
        if !self.holds(need) {
            return self.gpus();
        }
        match need.gpus {
            Gpus::None => 0,
            Gpus::Part(part) => self.each().filter(|f| *f < part).map(u32::from).sum(),
            Gpus::Whole(_) => self.gpus() - u32::from(self.whole) * u32::from(WHOLE),
        }
    }

    /// Takes a need if it finds room; a part of the fullest GPU that holds it.
    pub fn take(&mut self, need: &Need) {
        if self.cpu < need.cpu || self.memory < need.memory {
            return;
        }
        match need.gpus {
            Gpus::None => {}
            Gpus::Part(part) => {
                let Some(at) = self.fullest(part) else { return };
                self.whole -= u8::from(self.gpus[at] == WHOLE);
                self.gpus[at] -= part;
                self.sum -= u16::from(part);
            }
            Gpus::Whole(count) => {
                if self.whole < count {
                    return;
                }
                let mut left = count;
                for free in &mut self.gpus[..usize::from(self.count)] {
                    if left > 0 && *free == WHOLE {
                        *free = 0;
                        left -= 1;
                    }
                }
                self.whole -= count;
                self.sum -= u16::from(count) * u16::from(WHOLE);
            }
        }
        self.cpu -= need.cpu;
        self.memory -= need.memory;
    }

    fn each(&self) -> impl Iterator<Item = u8> {
        self.gpus[..usize::from(self.count)].iter().copied()
    }

    /// The fullest GPU with so much free.
    fn fullest(&self, part: u8) -> Option<usize> {
        let fitting = self.each().enumerate().filter(|(_, free)| *free >= part);
        fitting.min_by_key(|(_, free)| *free).map(|(at, _)| at)
    }
}
