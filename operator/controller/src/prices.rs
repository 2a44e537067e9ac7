//! From CostProfiles to what nodes and deployments cost per hour. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_cost::{
    Asset, AssetUse, Basis, Bill, Currency, Decimal, Deployment, EnergyPrice, HardwarePrice,
    HardwareSelector, Holder, Owned, Per, PriceError, PriceList, Prices, Rented, Share, State,
    bill, parse_decimal,
};
use berth_crds::{CostProfile, cost_profile as api};
use berth_planner::{DeploymentId, Node, NodeName, Occupant, Owner};
use kube::ResourceExt;

use crate::world::{pod::Progress, state::State as World};

/// The prices of one profile, or what is wrong with them.
pub type Checked = Result<PriceList, Vec<PriceError>>;

/// All profiles, in the order of their names.
#[derive(Default)]
pub struct PriceBook {
    profiles: Vec<(String, Checked)>,
}

/// What everything costs per hour now, a bill for each profile that prices a node.
#[derive(Default)]
pub struct Bills {
    /// By profile.
    pub bills: BTreeMap<String, Bill>,
    /// GPU nodes that no profile prices.
    pub unpriced_nodes: Vec<String>,
}

impl PriceBook {
    /// Reads profiles.
    pub fn new(profiles: impl IntoIterator<Item = Arc<CostProfile>>) -> Self {
        let mut profiles: Vec<_> =
            profiles.into_iter().map(|profile| (profile.name_any(), prices(&profile))).collect();
        profiles.sort_by(|a, b| a.0.cmp(&b.0));
        Self { profiles }
    }

    /// Each profile and whether its prices can be used.
    pub fn profiles(&self) -> impl Iterator<Item = (&str, &Checked)> {
        self.profiles.iter().map(|(name, checked)| (name.as_str(), checked))
    }

    /// What everything costs now. Where several profiles price a node, the first by name counts.
    pub fn bills(&self, world: &World) -> Bills {
        self.bills_of(world, world.fleet.nodes())
    }

    /// What a deployment costs per hour, for people, and whether every GPU of it has a price.
    /// `None` where nothing of it has one. Only the nodes that its pods are on are added up.
    pub fn hourly(&self, world: &World, id: &DeploymentId) -> Option<(String, bool)> {
        let pods = world.replicas_of(&id.uid);
        let gpus = pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.claim.gpus).sum();
        let nodes: BTreeSet<&NodeName> = pods.iter().map(|pod| &pod.node).collect();
        let nodes = nodes.into_iter().filter_map(|name| world.fleet.node(name));
        self.bills_of(world, nodes).hourly(&id.namespace, &id.name, gpus)
    }

    /// What these nodes cost, each of them given once.
    fn bills_of<'a>(&self, world: &World, nodes: impl Iterator<Item = &'a Node>) -> Bills {
        let mut uses: BTreeMap<&str, Vec<AssetUse>> = BTreeMap::new();
        let mut unpriced_nodes = Vec::new();
        for node in nodes {
            let Some(asset) = asset(node) else { continue };
            let by = self.profiles.iter().find(|(_, checked)| {
                checked.as_ref().is_ok_and(|list| list.price_for(&asset).is_ok())
            });
            match by {
                Some((name, _)) => uses
                    .entry(name)
                    .or_default()
                    .push(AssetUse { shares: shares(world, node), asset }),
                None => unpriced_nodes.push(asset.node),
            }
        }
        let bills = self
            .profiles
            .iter()
            .filter_map(|(name, checked)| {
                let list = checked.as_ref().ok()?;
                let uses = uses.get(name.as_str())?;
                match bill(list, uses) {
                    Ok(bill) => Some((name.clone(), bill)),
                    Err(error) => {
                        tracing::error!(profile = name, %error, "cannot add up the bill");
                        None
                    }
                }
            })
            .collect();
        Bills { bills, unpriced_nodes }
    }
}

impl Bills {
    /// What a deployment costs per hour, for people, and whether every GPU of it has a price.
    /// `None` where nothing of it has one.
    pub fn hourly(&self, namespace: &str, name: &str, gpus: u32) -> Option<(String, bool)> {
        let key = Deployment::new(namespace, name);
        let mut amounts = Vec::new();
        let mut priced = 0;
        for bill in self.bills.values() {
            if let Some(cost) = bill.deployments.get(&key) {
                priced += cost.priced_gpus;
                amounts.push(format!("{:.2}", cost.cost.total()));
            }
        }
        (!amounts.is_empty()).then(|| (amounts.join(" + "), priced >= u64::from(gpus)))
    }
}

fn asset(node: &Node) -> Option<Asset> {
    let gpus = node.gpus.as_ref()?;
    Some(Asset {
        node: node.name.to_string(),
        product: gpus.product.clone(),
        labels: node.labels.clone(),
        gpus: gpus.count,
    })
}

fn shares(world: &World, node: &Node) -> Vec<Share> {
    let holders = world.fleet.occupants_of(&node.name).filter(|occupant| occupant.gpus > 0);
    let share = |occupant: &Occupant| {
        let holder = match &occupant.owner {
            Owner::Foreign => Holder::Foreign,
            Owner::Ours(claim) => {
                let of = &claim.deployment;
                let deployment = Deployment::new(of.namespace.clone(), of.name.clone());
                Holder::replica(deployment, state(world, occupant)?)
            }
        };
        Some(Share { gpus: occupant.gpus, holder })
    };
    holders.filter_map(share).collect()
}

/// What a replica is charged for: `None` until its pod is bound.
fn state(world: &World, occupant: &Occupant) -> Option<State> {
    let replica = world.replica(&occupant.pod)?;
    if replica.uid != occupant.id.as_str() {
        return None;
    }
    match replica.progress {
        Progress::Unbound { .. } => None,
        Progress::Ready { .. } => Some(State::Serving),
        _ => Some(State::Loading),
    }
}

/// Reads the prices of a profile; all that is wrong with them at once.
fn prices(profile: &CostProfile) -> Checked {
    let mut problems = Vec::new();
    let mut decimal = |path: String, value: Option<&api::Decimal>| {
        let value = value?;
        match parse_decimal(&value.0) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.push(PriceError { path, problem: error.into() });
                None
            }
        }
    };
    let spec = &profile.spec;
    let mut hardware = Vec::new();
    for (index, entry) in spec.hardware.iter().enumerate() {
        let at = |field: &str| format!("hardware[{index}].{field}");
        let basis = match (&entry.owned, &entry.rented) {
            (Some(owned), _) => Basis::Owned(Owned {
                purchase_price: decimal(at("owned.price"), Some(&owned.price)).unwrap_or_default(),
                per: Per::Node,
                residual_value: decimal(at("owned.residual"), owned.residual.as_ref())
                    .unwrap_or_default(),
                life_months: u32::try_from(owned.life_months).unwrap_or(0),
                cost_of_capital_per_year: decimal(
                    at("owned.capitalRate"),
                    owned.capital_rate.as_ref(),
                )
                .or(Some(Decimal::ZERO)),
                maintenance_per_year: decimal(
                    at("owned.maintenanceRate"),
                    owned.maintenance_rate.as_ref(),
                )
                .or(Some(Decimal::ZERO)),
            }),
            (None, rented) => Basis::Rented(Rented {
                per_hour: rented
                    .as_ref()
                    .and_then(|rented| decimal(at("rented.perHour"), Some(&rented.per_hour)))
                    .unwrap_or_default(),
                per: Per::Node,
            }),
        };
        let watts = |watts: Option<i32>| watts.and_then(|watts| u32::try_from(watts).ok());
        hardware.push(HardwarePrice {
            name: entry.name.clone(),
            selector: HardwareSelector {
                products: entry.products.clone(),
                node_labels: entry.node_selector.clone(),
            },
            basis,
            gpu_power_watts: watts(entry.gpu_power_watts),
            host_power_watts: watts(entry.host_power_watts),
            facility_per_month: decimal(at("facilityPerMonth"), entry.facility_per_month.as_ref()),
            staff_per_month: decimal(at("staffPerMonth"), entry.staff_per_month.as_ref()),
            licences_per_year: None,
        });
    }
    let energy = spec.energy.as_ref().map(|energy| EnergyPrice {
        per_kwh: decimal("energy.perKilowattHour".into(), Some(&energy.per_kilowatt_hour))
            .unwrap_or_default(),
        pue: decimal("energy.pue".into(), energy.pue.as_ref()).unwrap_or_else(|| 1.into()),
    });
    let currency = spec.currency.parse::<Currency>();
    let currency = match (currency, problems.is_empty()) {
        (Ok(currency), true) => currency,
        (Ok(_), false) => return Err(problems),
        (Err(error), _) => {
            problems.push(PriceError { path: "currency".into(), problem: error.into() });
            return Err(problems);
        }
    };
    Prices { currency, hardware, energy }.validated().map_err(|invalid| invalid.errors().to_vec())
}
