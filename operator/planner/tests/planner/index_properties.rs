//! The index against full scans, for every policy.

use std::collections::BTreeMap;

use berth_planner::{
    index::{Index, KindId},
    policy::{Cost, Named},
    room::{Ask, Demand, Kind, Room},
};
use berth_units::{Bytes, MilliCpu};
use proptest::{prelude::*, sample::Index as Pick};

const GPU: u64 = 1000;

fn kinds() -> Vec<Kind> {
    let kind = |product: &str, gpus: u32, cpu: u64, memory: u64| Kind {
        product: product.to_owned(),
        gpus,
        vram: if gpus > 0 { Bytes(GPU) } else { Bytes::ZERO },
        cpu: MilliCpu(cpu),
        memory: Bytes(memory),
    };
    vec![
        kind("a", 8, 9600, 5000),
        kind("b", 2, 10_400, 3000),
        kind("b", 1, 301, 97),
        kind("", 0, 4000, 999),
    ]
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let ask = prop_oneof![
        Just(Ask::Nothing),
        (1..GPU).prop_map(|bytes| Ask::Part(Bytes(bytes))),
        prop_oneof![Just(110_u64), Just(470), Just(810)].prop_map(|b| Ask::Part(Bytes(b))),
        (1..9_u32).prop_map(|count| Ask::Whole { count, vram: Bytes(GPU) }),
    ];
    let products = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(vec!["a".to_owned()]),
        1 => Just(vec!["b".to_owned(), "c".to_owned()]),
    ];
    (0..3000_u64, 0..900_u64, ask, products).prop_map(|(cpu, memory, ask, products)| Demand {
        cpu: MilliCpu(cpu),
        memory: Bytes(memory),
        ask,
        products,
    })
}

#[derive(Clone, Debug)]
enum Event {
    Arrives(Pick),
    Leaves(Pick),
    Breaks(Pick),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<Pick>().prop_map(Event::Arrives),
        2 => any::<Pick>().prop_map(Event::Leaves),
        1 => any::<Pick>().prop_map(Event::Breaks),
    ]
}

/// Room for a demand: every condition spelled out.
fn fits(kind: &Kind, room: &Room, demand: &Demand) -> bool {
    let product = demand.products.is_empty() || demand.products.contains(&kind.product);
    let gpus = match demand.ask {
        Ask::Nothing => true,
        Ask::Part(bytes) => {
            product && (room.whole > 0 || room.open.iter().any(|free| *free >= bytes))
        }
        Ask::Whole { count, .. } => product && room.whole >= count,
    };
    gpus && room.cpu >= demand.cpu && room.memory >= demand.memory
}

/// Bytes of GPUs that are free.
fn free(room: &Room) -> u64 {
    u64::from(room.whole) * GPU + room.open.iter().map(|free| free.get()).sum::<u64>()
}

fn asked(demand: &Demand) -> u64 {
    match demand.ask {
        Ask::Nothing => 0,
        Ask::Part(bytes) => bytes.get(),
        Ask::Whole { count, .. } => u64::from(count) * GPU,
    }
}

fn play(policy: Named, nodes: &[Pick], demands: &[Demand], events: &[Event]) {
    let kinds = kinds();
    let mut index: Index<usize> = Index::new(policy.policy(7));
    let mut rooms: BTreeMap<usize, (KindId, usize, Room)> = BTreeMap::new();
    let mut held: Vec<(usize, Room)> = Vec::new();
    for (name, pick) in nodes.iter().enumerate() {
        let which = pick.index(kinds.len());
        let id = index.kind(&kinds[which], 0);
        index.put(&name, id, &kinds[which].empty());
        rooms.insert(name, (id, which, kinds[which].empty()));
    }
    for event in events {
        match event {
            Event::Arrives(pick) => {
                let demand = pick.get(demands);
                index.arrives(demand);
                let found = index.best_of_all(demand, |name| {
                    let (_, which, room) = &rooms[name];
                    room.fits(&kinds[*which], demand)
                });
                let mut scanned: Option<(Cost, (MilliCpu, Bytes), usize)> = None;
                for (name, (id, which, room)) in &rooms {
                    if fits(&kinds[*which], room, demand) {
                        let cost = index.cost(*id, room, demand).unwrap_or(Cost(i64::MAX));
                        let fullest = policy == Named::Berth;
                        let tie =
                            if fullest { (room.cpu, room.memory) } else { Default::default() };
                        let other = (cost, tie, *name);
                        scanned = Some(scanned.map_or(other, |best| best.min(other)));
                    }
                }
                let names = (found.as_ref().map(|f| f.node), scanned.map(|best| best.2));
                if policy == Named::Random {
                    assert_eq!(names.0.is_some(), names.1.is_some(), "{demand:?}");
                } else {
                    assert_eq!(names.0, names.1, "{demand:?} {rooms:#?}");
                }
                let Some(found) = found else { continue };
                let (id, which, room) = rooms[&found.node].clone();
                assert!(fits(&kinds[which], &room, demand));
                let after = index.take(id, &room, demand).unwrap();
                assert_eq!(free(&after) + asked(demand), free(&room));
                assert_eq!(after.cpu + demand.cpu, room.cpu);
                assert_eq!(after.memory + demand.memory, room.memory);
                index.put(&found.node, id, &after);
                rooms.insert(found.node, (id, which, after));
                held.push((found.node, room));
            }
            // Back to what the node was at some time, as if pods had gone.
            Event::Leaves(pick) if !held.is_empty() => {
                let (name, before) = held.swap_remove(pick.index(held.len()));
                if let Some((id, _, room)) = rooms.get_mut(&name) {
                    index.put(&name, *id, &before);
                    *room = before;
                }
            }
            Event::Breaks(pick) if !rooms.is_empty() => {
                let names: Vec<usize> = rooms.keys().copied().collect();
                let name = *pick.get(&names);
                index.remove(&name);
                rooms.remove(&name);
            }
            _ => {}
        }
        assert_eq!(index.len(), rooms.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_index_answers_as_a_full_scan_does(
        policy in prop::sample::select(Named::ALL.to_vec()),
        nodes in prop::collection::vec(any::<Pick>(), 1..12),
        demands in prop::collection::vec(any_demand(), 1..6),
        events in prop::collection::vec(event(), 0..160),
    ) {
        play(policy, &nodes, &demands, &events);
    }
}
