//! Who pays for a node: its cost divided among those who hold its GPUs, exactly.

use std::{collections::BTreeMap, fmt};

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::{
    component::{Component, HourlyCost},
    money::{MoneyError, from_units, to_units},
};

/// A deployment by namespace and name. Displays and serialises as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deployment {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Deployment {
    /// The deployment of this name in this namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for Deployment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a replica does while it is charged, which is from the moment its pod is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Pulling images and weights, starting: it does not answer yet.
    Loading,
    /// It answers.
    Serving,
    /// It could answer, and nobody asks.
    Idle,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Loading, Self::Serving, Self::Idle];

    /// The value of the metric label `state`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Serving => "serving",
            Self::Idle => "idle",
        }
    }
}

/// Who holds GPUs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    /// A replica of a deployment of Berth.
    Replica {
        /// The deployment that pays.
        deployment: Deployment,
        /// What the replica does.
        state: State,
    },
    /// Pods that are not Berth's.
    Foreign,
}

impl Holder {
    /// A replica of this deployment.
    pub const fn replica(deployment: Deployment, state: State) -> Self {
        Self::Replica { deployment, state }
    }
}

/// Whole GPUs of one node in one hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who holds them.
    pub holder: Holder,
    /// How many.
    pub gpus: u32,
}

/// A node's cost divided: the charges and the idle part sum to it exactly, component by component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allocation {
    /// What each holder is charged, one entry for each, in order.
    pub charges: Vec<Charge>,
    /// What is left.
    pub idle: Idle,
}

/// What one holder is charged on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Charge {
    /// Who pays.
    pub holder: Holder,
    /// For how many GPUs.
    pub gpus: u64,
    /// How much.
    pub cost: HourlyCost,
}

/// GPUs of one node that nobody holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Idle {
    /// How many.
    pub gpus: u64,
    /// What they cost.
    pub cost: HourlyCost,
}

/// Divides a node's cost by whole GPUs; what nobody holds is idle cost.
///
/// Exact: each component is cut into parts of 10⁻¹² that sum to it. What a division leaves over
/// goes, one unit each, to the largest remainders; among equals in the order of the holders, idle
/// last. So the order of `shares` makes no difference, and several shares of a holder are one.
///
/// Where more GPUs are held than there are (one broke, two pods overlap while one replaces the
/// other), the cost is divided among the holders in proportion: the bill stays the node's.
pub fn allocate(hourly: &HourlyCost, shares: &[Share], total_gpus: u32) -> Allocation {
    let mut held: BTreeMap<&Holder, u64> = BTreeMap::new();
    for share in shares.iter().filter(|share| share.gpus > 0) {
        *held.entry(&share.holder).or_default() += u64::from(share.gpus);
    }
    let idle_gpus = u64::from(total_gpus).saturating_sub(held.values().sum());
    // The last weight is the idle part; a node without any GPU is all idle.
    let mut weights: Vec<u64> = held.values().copied().collect();
    weights.push(if held.is_empty() { idle_gpus.max(1) } else { idle_gpus });

    let mut parts = vec![BTreeMap::new(); weights.len()];
    for (&component, &amount) in hourly.per_hour() {
        for (part, amount) in parts.iter_mut().zip(divide(amount, &weights)) {
            part.insert(component, amount);
        }
    }
    let mut costs = parts.into_iter().map(|part: BTreeMap<Component, Decimal>| hourly.part(part));
    let charges = held
        .into_iter()
        .zip(costs.by_ref())
        .map(|((holder, gpus), cost)| Charge { holder: holder.clone(), gpus, cost })
        .collect();
    let idle_cost = costs.next().unwrap_or_else(|| HourlyCost::zero(hourly.currency()));
    Allocation { charges, idle: Idle { gpus: idle_gpus, cost: idle_cost } }
}

impl Allocation {
    /// The charges and the idle part together: the node's cost.
    pub fn total(&self) -> Result<HourlyCost, MoneyError> {
        self.charges
            .iter()
            .try_fold(self.idle.cost.clone(), |sum, charge| sum.checked_add(&charge.cost))
    }
}

/// Cuts an amount in proportion to the weights, by largest remainder. Their sum is above zero.
fn divide(amount: Decimal, weights: &[u64]) -> Vec<Decimal> {
    let units = to_units(amount);
    let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
    let (quotient, rest) = (units / total, units % total);
    // units·weight/total without the large product: `rest` and `weight` are both at most `total`.
    let mut parts: Vec<i128> = Vec::with_capacity(weights.len());
    let mut remainders: Vec<(i128, usize)> = Vec::with_capacity(weights.len());
    for (index, &weight) in weights.iter().enumerate() {
        let weight = i128::from(weight);
        parts.push(quotient * weight + rest * weight / total);
        remainders.push((rest * weight % total, index));
    }
    let left_over = units - parts.iter().sum::<i128>();
    remainders.sort_by_key(|&(remainder, index)| (-remainder, index));
    let left_over = usize::try_from(left_over).unwrap_or_default();
    for &(_, index) in remainders.iter().take(left_over) {
        parts[index] += 1;
    }
    // Each part is at most the whole, which was in bounds.
    parts.into_iter().map(|part| from_units(part).unwrap_or(amount)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::parse_decimal;

    fn cost(amount: &str) -> HourlyCost {
        let amount = parse_decimal(amount).unwrap();
        let zero = HourlyCost::zero("EUR".parse().unwrap());
        zero.part(BTreeMap::from([(Component::Rent, amount)]))
    }

    fn replica(name: &str) -> Holder {
        Holder::replica(Deployment::new("team", name), State::Serving)
    }

    fn share(holder: Holder, gpus: u32) -> Share {
        Share { holder, gpus }
    }

    fn parts(allocation: &Allocation) -> (Vec<String>, String) {
        let part = |cost: &HourlyCost| cost.total().amount().to_string();
        (allocation.charges.iter().map(|c| part(&c.cost)).collect(), part(&allocation.idle.cost))
    }

    #[test]
    fn gpus_divide_the_cost_and_the_rest_is_idle() {
        let shares = [share(Holder::Foreign, 1), share(replica("b"), 4), share(replica("a"), 2)];
        let allocation = allocate(&cost("16"), &shares, 8);
        let holders: Vec<_> = allocation.charges.iter().map(|c| c.holder.clone()).collect();
        assert_eq!(holders, [replica("a"), replica("b"), Holder::Foreign]);
        assert_eq!(parts(&allocation), (vec!["4".into(), "8".into(), "2".into()], "2".into()));
        assert_eq!(allocation.idle.gpus, 1);
    }

    #[test]
    fn what_a_division_leaves_goes_to_the_first_and_the_sum_is_exact() {
        let shares = [share(replica("b"), 1), share(replica("a"), 1)];
        let allocation = allocate(&cost("1"), &shares, 3);
        let (third, more) = ("0.333333333333".to_owned(), "0.333333333334".to_owned());
        assert_eq!(parts(&allocation), (vec![more, third.clone()], third));
        assert_eq!(allocation.total().unwrap(), cost("1"));
    }

    #[test]
    fn replicas_of_one_deployment_in_one_state_are_one_charge() {
        let loading = Holder::replica(Deployment::new("team", "a"), State::Loading);
        let shares = [
            share(replica("a"), 2),
            share(loading.clone(), 1),
            share(replica("a"), 1),
            share(replica("z"), 0),
        ];
        let charges = allocate(&cost("8"), &shares, 8).charges;
        let seen: Vec<_> = charges.iter().map(|c| (c.holder.clone(), c.gpus)).collect();
        assert_eq!(seen, [(loading, 1), (replica("a"), 3)]);
    }

    #[test]
    fn more_held_than_there_is_divides_the_same_bill() {
        let shares = [share(replica("a"), 6), share(replica("b"), 4)];
        let allocation = allocate(&cost("16"), &shares, 8);
        assert_eq!(parts(&allocation), (vec!["9.6".into(), "6.4".into()], "0".into()));
    }

    #[test]
    fn a_node_without_gpus_is_idle() {
        let allocation = allocate(&cost("16"), &[], 0);
        assert_eq!(parts(&allocation), (vec![], "16".into()));
        assert_eq!(allocation.idle.gpus, 0);
    }

    #[test]
    fn labels_are_the_serialised_names() {
        for state in State::ALL {
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{}\"", state.as_str()));
        }
    }
}
