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
pub fn budget(owner: &Owner) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owner.metadata(owner.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
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
