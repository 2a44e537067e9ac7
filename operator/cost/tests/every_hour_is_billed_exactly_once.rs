//! For any prices, fleet and claims: what deployments, foreign pods and idle GPUs cost is the bill
//! of all priced nodes, exactly, and the meter agrees.
//!
//! The oracle recomputes the bill from the nodes alone, by the formula, without any division of
//! it; claims never enter it.

use std::{collections::BTreeMap, time::Duration};

use berth_cost::{
    Asset, AssetUse, Basis, Bill, Component, Deployment, EnergyPrice, FleetMeter, HardwarePrice,
    HardwareSelector, Holder, HourlyCost, Meter, Money, Owned, Per, PriceList, Prices, Rented,
    Share, State, allocate, bill, hourly,
};
use proptest::prelude::*;
use rust_decimal::Decimal;

const PRODUCTS: [&str; 3] = ["Product-A", "Product-B", "Product-C"];

/// An amount below `max`, with up to 12 decimals.
fn amount(max: u64) -> impl Strategy<Value = Decimal> {
    (1..max, 0_i64..1_000_000_000_000, 0_u32..=12).prop_map(|(whole, fraction, scale)| {
        let fraction = Decimal::new(fraction % 10_i64.pow(scale), scale);
        Decimal::from(whole - 1) + fraction
    })
}

fn above_zero(max: u64) -> impl Strategy<Value = Decimal> {
    amount(max).prop_map(|amount| amount + Decimal::new(1, 2))
}

fn fraction() -> impl Strategy<Value = Decimal> {
    (0_i64..=10_000).prop_map(|parts| Decimal::new(parts, 4))
}

fn per() -> impl Strategy<Value = Per> {
    prop_oneof![Just(Per::Node), Just(Per::Gpu)]
}

fn basis() -> impl Strategy<Value = Basis> {
    let owned = (
        above_zero(100_000_000_000),
        per(),
        fraction(),
        1_u32..=600,
        proptest::option::of(fraction()),
        proptest::option::of(fraction()),
    )
        .prop_map(|(purchase_price, per, residual, life_months, capital, maintenance)| {
            Basis::Owned(Owned {
                purchase_price,
                per,
                residual_value: (purchase_price * residual).trunc_with_scale(2),
                life_months,
                cost_of_capital_per_year: capital,
                maintenance_per_year: maintenance,
            })
        });
    let rented = (above_zero(1_000_000), per())
        .prop_map(|(per_hour, per)| Basis::Rented(Rented { per_hour, per }));
    prop_oneof![3 => owned, 1 => rented]
}

fn hardware(product: &'static str) -> impl Strategy<Value = HardwarePrice> {
    (
        basis(),
        proptest::option::of(1_u32..2_000),
        proptest::option::of(0_u32..20_000),
        proptest::option::of(amount(1_000_000)),
        proptest::option::of(amount(1_000_000)),
        proptest::option::of(amount(1_000_000)),
    )
        .prop_map(move |(basis, gpu, host, facility, staff, licences)| HardwarePrice {
            name: product.to_lowercase(),
            selector: HardwareSelector {
                products: vec![product.to_owned()],
                node_labels: BTreeMap::new(),
            },
            basis,
            gpu_power_watts: gpu,
            host_power_watts: host,
            facility_per_month: facility,
            staff_per_month: staff,
            licences_per_year: licences,
        })
}

/// Prices for the first two products; the third has none.
fn prices() -> impl Strategy<Value = PriceList> {
    let energy = (amount(100), 1_000_i64..=10_000)
        .prop_map(|(per_kwh, pue)| EnergyPrice { per_kwh, pue: Decimal::new(pue, 3) });
    (hardware(PRODUCTS[0]), hardware(PRODUCTS[1]), proptest::option::of(energy)).prop_map(
        |(first, second, energy)| {
            Prices { currency: "EUR".parse().unwrap(), hardware: vec![first, second], energy }
                .validated()
                .unwrap()
        },
    )
}

fn holder() -> impl Strategy<Value = Holder> {
    let state = prop_oneof![Just(State::Loading), Just(State::Serving), Just(State::Idle)];
    prop_oneof![
        4 => (0..5, state).prop_map(|(number, state)| {
            Holder::replica(Deployment::new("team", format!("model-{number}")), state)
        }),
        1 => Just(Holder::Foreign),
    ]
}

/// Nodes of up to 16 GPUs, some with more GPUs held than there are.
fn fleet() -> impl Strategy<Value = Vec<AssetUse>> {
    let share = (holder(), 0_u32..=5).prop_map(|(holder, gpus)| Share { holder, gpus });
    let node = (0_usize..3, 0_u32..=16, proptest::collection::vec(share, 0..7));
    proptest::collection::vec(node, 0..12).prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(number, (product, gpus, shares))| AssetUse {
                asset: Asset {
                    node: format!("node-{number}"),
                    product: PRODUCTS[product].to_owned(),
                    labels: BTreeMap::new(),
                    gpus,
                },
                shares,
            })
            .collect()
    })
}

/// One term of the bill of one node, from the formula in its single-fraction form.
fn oracle(prices: &PriceList, asset: &Asset, component: Component) -> Option<Decimal> {
    let prices = prices.prices();
    let price = prices.hardware.iter().find(|p| p.selector.products[0] == asset.product)?;
    let hours = |amount: Decimal, hours: u32| (amount / Decimal::from(hours)).round_dp(12);
    let times = |per| if per == Per::Gpu { asset.gpus.into() } else { Decimal::ONE };
    let owned = match &price.basis {
        Basis::Owned(owned) => Some((owned, times(owned.per))),
        Basis::Rented(_) => None,
    };
    match component {
        Component::Amortisation => owned
            .map(|(o, n)| hours(o.purchase_price * n - o.residual_value * n, 730 * o.life_months)),
        Component::Capital => owned.and_then(|(o, n)| {
            let value = o.purchase_price * n + o.residual_value * n;
            Some(hours(value * o.cost_of_capital_per_year?, 2 * 8760))
        }),
        Component::Maintenance => {
            let repair =
                owned.and_then(|(o, n)| Some(o.purchase_price * n * o.maintenance_per_year?));
            match (repair, price.licences_per_year) {
                (None, None) => None,
                (repair, licences) => {
                    Some(hours(repair.unwrap_or_default() + licences.unwrap_or_default(), 8760))
                }
            }
        }
        Component::Rent => match &price.basis {
            Basis::Rented(rented) => Some(rented.per_hour * times(rented.per)),
            Basis::Owned(_) => None,
        },
        Component::Energy => {
            let energy = prices.energy.as_ref()?;
            let watts = price.gpu_power_watts? * asset.gpus + price.host_power_watts.unwrap_or(0);
            Some((Decimal::new(watts.into(), 3) * energy.pue * energy.per_kwh).round_dp(12))
        }
        Component::Facility => price.facility_per_month.map(|amount| hours(amount, 730)),
        Component::Staff => price.staff_per_month.map(|amount| hours(amount, 730)),
    }
}

fn amount_of(cost: &HourlyCost, component: Component) -> Decimal {
    cost.component(component).map(Money::amount).unwrap_or_default()
}

fn metered<K: Ord + Clone>(meter: &Meter<K>, component: Component) -> Decimal {
    meter.totals().filter(|total| total.1 == component).map(|total| total.2.amount()).sum()
}

/// Σ over deployments + foreign + idle.
fn sum_of_payers(bill: &Bill, component: Component) -> Decimal {
    let deployments: Decimal =
        bill.deployments.values().map(|paid| amount_of(&paid.cost, component)).sum();
    deployments + amount_of(&bill.foreign, component) + amount_of(&bill.idle, component)
}

proptest! {
    #[test]
    fn those_who_pay_pay_the_bill_of_all_priced_nodes(prices in prices(), fleet in fleet()) {
        let bill = bill(&prices, &fleet).unwrap();
        for component in Component::ALL {
            let expected: Decimal =
                fleet.iter().filter_map(|node| oracle(&prices, &node.asset, component)).sum();
            prop_assert_eq!(sum_of_payers(&bill, component), expected, "{}", component);
            prop_assert_eq!(amount_of(&bill.total, component), expected, "{}", component);
        }
        let unpriced = fleet.iter().filter(|node| node.asset.product == PRODUCTS[2]).count();
        prop_assert_eq!(bill.unpriced.len(), unpriced);
        prop_assert_eq!(bill.nodes.len() + unpriced, fleet.len());
    }

    #[test]
    fn the_order_of_shares_makes_no_difference(prices in prices(), fleet in fleet()) {
        for node in &fleet {
            let Ok(cost) = hourly(&prices, &node.asset) else { continue };
            let allocation = allocate(&cost, &node.shares, node.asset.gpus);
            let reversed: Vec<Share> = node.shares.iter().rev().cloned().collect();
            prop_assert_eq!(&allocation, &allocate(&cost, &reversed, node.asset.gpus));
            prop_assert_eq!(&allocation.total().unwrap(), &cost);
        }
    }

    /// Each part is what its GPUs are worth, to within one unit of the last decimal.
    #[test]
    fn each_pays_for_the_gpus_it_holds(prices in prices(), fleet in fleet()) {
        let unit = Decimal::new(1, 12);
        for node in &fleet {
            let Ok(cost) = hourly(&prices, &node.asset) else { continue };
            let allocation = allocate(&cost, &node.shares, node.asset.gpus);
            let held: u64 = allocation.charges.iter().map(|charge| charge.gpus).sum();
            let gpus = Decimal::from(held.max(node.asset.gpus.into()));
            for charge in &allocation.charges {
                for (component, money) in charge.cost.components() {
                    let fair = amount_of(&cost, component) * Decimal::from(charge.gpus) / gpus;
                    prop_assert!((money.amount() - fair).abs() < unit);
                }
            }
        }
    }

    /// Metering node by node, holder by holder, in uneven steps loses less than the last decimal
    /// of each total, and totals only grow.
    #[test]
    fn the_meter_adds_up_to_the_bill(
        prices in prices(),
        fleet in fleet(),
        steps in proptest::collection::vec(0_u64..10_000_000_000_000, 1..20),
    ) {
        let bill = bill(&prices, &fleet).unwrap();
        let (mut meter, mut whole) = (FleetMeter::default(), Meter::new());
        let mut before = Decimal::ZERO;
        for &nanos in &steps {
            meter.charge(&bill, Duration::from_nanos(nanos)).unwrap();
            let now = Component::ALL.map(|component| metered(&meter.deployments, component));
            let now = now.into_iter().sum();
            prop_assert!(now >= before);
            before = now;
        }
        whole.charge(&(), &bill.total, Duration::from_nanos(steps.iter().sum())).unwrap();
        for component in Component::ALL {
            let parts = metered(&meter.deployments, component)
                + metered(&meter.foreign, component)
                + metered(&meter.idle, component);
            let difference = metered(&whole, component) - parts;
            let totals = meter.deployments.totals().count()
                + meter.foreign.totals().count()
                + meter.idle.totals().count();
            prop_assert!(difference >= Decimal::ZERO, "{} {}", component, difference);
            prop_assert!(difference <= Decimal::new(1, 12) * Decimal::from(totals as u64));
        }
    }

    /// Any text is read or refused, never a panic; what is read is what was written.
    #[test]
    fn reading_a_decimal_never_panics(text in "-?[0-9.eE+_ ]{0,40}|\\PC{0,20}") {
        if let Ok(value) = berth_cost::parse_decimal(&text) {
            prop_assert_eq!(text.parse::<Decimal>().unwrap(), value);
        }
    }
}

#[test]
fn a_deployment_with_gpus_on_an_unpriced_node_has_no_known_cost() {
    let price = HardwarePrice {
        name: "rented".to_owned(),
        selector: HardwareSelector {
            products: vec![PRODUCTS[0].to_owned()],
            node_labels: BTreeMap::new(),
        },
        basis: Basis::Rented(Rented { per_hour: Decimal::from(16), per: Per::Node }),
        gpu_power_watts: None,
        host_power_watts: None,
        facility_per_month: None,
        staff_per_month: None,
        licences_per_year: None,
    };
    let prices = Prices { currency: "EUR".parse().unwrap(), hardware: vec![price], energy: None };
    let node = |name: &str, product: &str, held: &[(&str, u32)]| AssetUse {
        asset: Asset {
            node: name.to_owned(),
            product: product.to_owned(),
            labels: BTreeMap::new(),
            gpus: 8,
        },
        shares: held
            .iter()
            .map(|&(name, gpus)| Share {
                holder: Holder::replica(Deployment::new("team", name), State::Serving),
                gpus,
            })
            .collect(),
    };
    let fleet = [
        node("priced", PRODUCTS[0], &[("here", 2), ("both", 4)]),
        node("unpriced", PRODUCTS[2], &[("both", 4), ("there", 1)]),
    ];
    let bill = bill(&prices.validated().unwrap(), &fleet).unwrap();
    let known = |name: &str| {
        let paid = &bill.deployments[&Deployment::new("team", name)];
        paid.known().map(|cost| cost.total().to_string())
    };
    assert_eq!(known("here").as_deref(), Some("4.00 EUR"));
    assert_eq!(known("both"), None);
    assert_eq!(known("there"), None);
    assert_eq!(bill.idle.total().to_string(), "4.00 EUR");
    assert_eq!(bill.unpriced[0].node(), "unpriced");

    let json = serde_json::to_value(&bill).unwrap();
    assert_eq!(json["deployments"]["team/here"]["cost"]["perHour"]["rent"], "4");
    assert_eq!(
        json["nodes"][0]["allocation"]["charges"][0]["holder"]["replica"]["state"],
        "serving"
    );
    assert_eq!(json["unpriced"][0]["reason"], "NoPrice");
}
