//! `CostProfile`: what the hardware costs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the GPU nodes of this cluster cost: hardware, energy, hosting. Nothing has a default
/// price: hardware without one is reported as unpriced.
///
/// Prices and rates are decimal strings. Where several profiles price one node, the first by name
/// counts.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "CostProfile",
    plural = "costprofiles",
    singular = "costprofile",
    category = "berth",
    status = "CostProfileStatus",
    derive = "PartialEq",
    doc = "What the GPU nodes of this cluster cost.",
    printcolumn(name = "Currency", type_ = "string", json_path = ".spec.currency"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.pricedNodes"),
    printcolumn(name = "Cost/h", type_ = "string", json_path = ".status.hourly"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CostProfileSpec {
    /// ISO 4217 code of every price here, such as `EUR`.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,

    /// What machines cost. Of the entries that select a node, the one with the most conditions
    /// counts; where two have as many, the node has no price until one of them says more.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub hardware: Vec<Hardware>,

    /// What power costs. Absent: energy is not counted, as where rent includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
}

/// What one kind of machine costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("has(self.owned) != has(self.rented)")
        .message("hardware takes exactly one of owned (a purchase) and rented (an hourly rate)"),
    validation = kube::core::Rule::new("has(self.products) && self.products.size() > 0 || has(self.nodeSelector) && self.nodeSelector.size() > 0")
        .message("hardware needs products or nodeSelector, to say which nodes it prices"),
)]
pub struct Hardware {
    /// Name of the entry.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,

    /// GPU products, as the node labels name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub products: Vec<String>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// A machine that was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Owned>,

    /// A machine that is rented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rented: Option<Rented>,

    /// Power of one GPU under load in watts (its TDP). Energy is estimated from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub gpu_power_watts: Option<i32>,

    /// Power of the machine besides its GPUs in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub host_power_watts: Option<i32>,

    /// Hosting of one machine per month: space, network, remote hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facility_per_month: Option<Decimal>,

    /// Staff for one machine per month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staff_per_month: Option<Decimal>,
}

/// A machine that was bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// Price of one machine with all its GPUs.
    pub price: Decimal,
    /// What it is worth at the end of its life. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual: Option<Decimal>,
    /// Life in months.
    #[schemars(range(min = 1, max = 600))]
    pub life_months: i32,
    /// Cost of capital per year as a fraction, such as `0.06`. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capital_rate: Option<Decimal>,
    /// Maintenance per year as a fraction of the price, such as `0.10`. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_rate: Option<Decimal>,
}

/// A machine that is rented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rented {
    /// Rent of one machine with all its GPUs per hour.
    pub per_hour: Decimal,
}

/// What power costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// Price of a kilowatt-hour.
    pub per_kilowatt_hour: Decimal,
    /// Power usage effectiveness: power of the whole site ÷ power of its machines, at least 1.
    /// Absent: 1, cooling is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pue: Option<Decimal>,
}

/// A decimal number that is not negative, such as `280000` or `0.12`, as a string: no binary
/// rounding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Decimal(pub String);

impl JsonSchema for Decimal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": 25,
            "pattern": r"^[0-9]{1,12}(\.[0-9]{1,12})?$",
        })
    }
}

/// What became of a profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostProfileStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether the prices are usable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// GPU nodes that this profile prices.
    #[serde(default)]
    pub priced_nodes: i32,
    /// What those nodes cost per hour, with the currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<String>,
}
