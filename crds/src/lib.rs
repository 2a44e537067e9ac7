//! The API of Berth: the custom resources `LLMDeployment` and `CostProfile`, group `berth.dev`.
//!
//! Plain types. What a field means and in which unit stands in its doc comment, which is also what
//! `kubectl explain` prints. `crds/yaml/` holds the CustomResourceDefinitions made from here
//! (`make crds`).
//!
//! Rules for a change: add only; absent means "Berth decides"; a static default once shipped never
//! changes; amounts of money and rates are decimal strings; lists are maps with keys where they
//! can be.

mod amount;
pub mod cost_profile;
pub mod llm_deployment;
pub mod names;

pub use amount::{Amount, Period};
pub use cost_profile::{CostProfile, CostProfileSpec};
pub use llm_deployment::{LLMDeployment, LLMDeploymentSpec, LLMDeploymentStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every CustomResourceDefinition of Berth, in a fixed order.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![LLMDeployment::crd(), CostProfile::crd()]
}
