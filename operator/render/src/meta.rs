//! What the metadata of all objects has in common: owner, labels, selectors.

use std::collections::BTreeMap;

use berth_crds::{LLMDeployment, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

/// The `LLMDeployment` that everything here belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: the same name with another UID is another deployment.
    pub uid: String,
}

impl Owner {
    /// The reference by which an object is garbage-collected with its `LLMDeployment`.
    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: LLMDeployment::api_version(&()).into_owned(),
            kind: LLMDeployment::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// The labels of every object of this deployment.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            (names::LABEL_NAME, "llm"),
            (names::LABEL_INSTANCE, &self.name),
            (names::LABEL_MANAGED_BY, names::MANAGER),
            (names::LABEL_DEPLOYMENT, &self.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The metadata of an object of this deployment.
    pub(crate) fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.reference()]),
            ..ObjectMeta::default()
        }
    }
}

/// The labels that the pods which stand for replicas have: rank 0 leads and serves.
pub(crate) fn leaders(deployment: &str) -> BTreeMap<String, String> {
    [(names::LABEL_DEPLOYMENT, deployment), (names::LABEL_RANK, "0")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The label selector of a deployment's replicas, for `status.selector`: rank 0 only, so that
/// autoscalers count replicas and not pods.
pub fn selector(deployment: &str) -> String {
    leaders(deployment)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_scale_subresource_counts_leaders_only() {
        assert_eq!(super::selector("chat"), "berth.dev/deployment=chat,berth.dev/rank=0");
    }
}
