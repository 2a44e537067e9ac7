//! The status of CostProfiles: whether their prices can be used, and what they price.

use berth_crds::{CostProfile, cost_profile::CostProfileStatus};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::{
    client::WriteError,
    prices::PriceBook,
    reconcile::{
        Context,
        conditions::{self, Fact, conditions},
        reason::Reason,
    },
    world::readable,
};

/// Writes the status of every profile that it is no longer true of.
pub async fn tell(context: &Context) -> Result<(), WriteError> {
    let profiles = readable(&context.stores.cost_profiles);
    let book = PriceBook::new(profiles.iter().cloned());
    let bills = book.bills(&context.world.lock());
    for profile in &profiles {
        let name = profile.name_any();
        let Some((_, checked)) = book.profiles().find(|(known, _)| *known == name) else {
            continue;
        };
        let bill = bills.bills.get(&name);
        let nodes = bill.map_or(0, |bill| bill.nodes.len());
        let fact = match checked {
            Err(errors) => {
                let all: Vec<_> = errors.iter().map(|error| format!("spec.{error}")).collect();
                Fact::new(conditions::READY, false, Reason::InvalidPrices, all.join("; "))
            }
            Ok(_) if nodes == 0 => Fact::new(
                conditions::READY,
                true,
                Reason::NoNodes,
                "the prices can be used, but no GPU node is selected by them",
            ),
            Ok(_) => Fact::new(
                conditions::READY,
                true,
                Reason::Ready,
                format!("prices {nodes} GPU nodes"),
            ),
        };
        let before = profile.status.clone().unwrap_or_default();
        let generation = profile.metadata.generation;
        let status = CostProfileStatus {
            observed_generation: generation,
            conditions: conditions(vec![fact], &before.conditions, generation, Timestamp::now()),
            priced_nodes: i32::try_from(nodes).unwrap_or(i32::MAX),
            hourly: bill.map(|bill| format!("{:.2}", bill.total.total())),
        };
        if profile.status.as_ref() == Some(&status) {
            continue;
        }
        let api: Api<CostProfile> = Api::all(context.writer.client().clone());
        let object = json!({
            "apiVersion": CostProfile::api_version(&()),
            "kind": CostProfile::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        match context.writer.apply_status(&api, &name, &object).await {
            Ok(_) | Err(WriteError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
