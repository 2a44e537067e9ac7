//! The `PodDisruptionBudget` of a deployment whose replicas are single pods. They share one;
//! budgets never overlap, because the eviction API refuses a pod that two of them cover.

use std::collections::BTreeMap;

use berth_crds::names;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::Owner;

/// One replica at a time may be evicted. A pod that is not ready may always go: an engine that
/// never starts must not block the drain of its node.
///
/// Stated as the number that must stay, not as the number that may go: for the latter Kubernetes
/// asks the owner's scale subresource, and it does not find the kind of an owner whose definition
/// was installed a moment ago.
pub fn budget(owner: &Owner, replicas: u32) -> PodDisruptionBudget {
    let stay = i32::try_from(replicas.saturating_sub(1)).unwrap_or(i32::MAX);
    PodDisruptionBudget {
        metadata: owner.metadata(owner.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(stay)),
            selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([(
                    names::LABEL_DEPLOYMENT.to_owned(),
                    owner.name.clone(),
                )])),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
