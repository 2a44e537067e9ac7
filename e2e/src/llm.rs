//! `LLMDeployments` in tests: a small model whose facts are in the manifest, so that no test leans
//! on the catalogue, with whatever the test is about merged in.

use anyhow::{Context as _, Result};
use berth_crds::{
    LLMDeployment,
    names::{ANNOTATION_CLAIM, LABEL_DEPLOYMENT},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Cluster, NAMESPACE, apply,
    explain::explain,
    snapshot::is_ready,
    wait::{Look, patience, until},
};

/// The facts of a model with 8 billion parameters in 16 bits (15 GiB) and, at its full context of
/// 131,072 tokens, 16 GiB of KV cache.
pub fn facts_8b() -> Value {
    json!({
        "layers": 32,
        "hiddenSize": 4096,
        "intermediateSize": 14336,
        "attentionHeads": 32,
        "kvHeads": 8,
        "headDim": 128,
        "vocabSize": 128_256,
        "maxContext": 131_072,
    })
}

/// A manifest: the model of [`facts_8b`], loaded at once, with `spec` merged in.
pub fn llm(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": "hf://berth-e2e/plain-8b", "facts": facts_8b()},
            "podTemplate": {"annotations": {"simulate.berth-e2e.dev/load-seconds": "0s"}},
        },
    });
    merge(&mut object["spec"], spec);
    object
}

/// Merges as a JSON merge patch does.
pub fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().map(|object| object.remove(&key));
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

/// What a pod takes, as its annotation says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Whole GPUs.
    pub gpus: i64,
    /// Bytes on each.
    pub bytes_per_gpu: i64,
    /// Product of the GPUs.
    pub product: String,
}

/// The claim on a pod, if there is one.
pub fn claim(pod: &Pod) -> Result<Option<Claim>> {
    let Some(text) = pod.annotations().get(ANNOTATION_CLAIM) else { return Ok(None) };
    let claim = serde_json::from_str(text);
    claim.map(Some).with_context(|| format!("the claim of pod {}: {text}", pod.name_any()))
}

/// Every message that says what is wrong: of conditions that are not as they should be.
pub fn complaints(llm: &LLMDeployment) -> String {
    let conditions = llm.status.iter().flat_map(|status| &status.conditions);
    let wrong = |c: &&Condition| match c.type_.as_str() {
        "Ready" | "Placed" => c.status != "True",
        "Degraded" | "Stalled" => c.status == "True",
        _ => false,
    };
    let texts = conditions.filter(wrong).map(|c| format!("{}: {}", c.reason, c.message));
    texts.collect::<Vec<_>>().join("\n")
}

/// The status of a condition: `True`, `False`, `Unknown`, or `absent`.
pub fn status_of<'a>(llm: &'a LLMDeployment, condition: &str) -> &'a str {
    llm.condition(condition).map_or("absent", |c| c.status.as_str())
}

/// A condition's reason.
pub fn reason_of<'a>(llm: &'a LLMDeployment, condition: &str) -> &'a str {
    llm.condition(condition).map_or("absent", |c| c.reason.as_str())
}

/// Whether status is about the spec as it is.
pub fn is_current(llm: &LLMDeployment) -> bool {
    llm.status.as_ref().and_then(|status| status.observed_generation) == llm.metadata.generation
}

impl Cluster {
    /// Applies an `LLMDeployment`: [`llm`].
    pub async fn apply_llm(&self, name: &str, spec: Value) -> Result<LLMDeployment> {
        let object = apply::apply(&self.client, &llm(name, spec), NAMESPACE).await?;
        Ok(object.try_parse()?)
    }

    /// Merges something into the spec of an `LLMDeployment`.
    pub async fn patch_llm(&self, name: &str, spec: Value) -> Result<LLMDeployment> {
        let patch = Patch::Merge(json!({"spec": spec}));
        Ok(self.api::<LLMDeployment>().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// Scales it, as `kubectl scale` does.
    pub async fn scale(&self, name: &str, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api::<LLMDeployment>().patch_scale(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes it, as `kubectl delete` does.
    pub async fn delete_llm(&self, name: &str) -> Result<()> {
        self.api::<LLMDeployment>().delete(name, &DeleteParams::background()).await?;
        Ok(())
    }

    /// An `LLMDeployment` as it is now.
    pub async fn llm(&self, name: &str) -> Result<LLMDeployment> {
        Ok(self.api::<LLMDeployment>().get(name).await?)
    }

    /// The pods of an `LLMDeployment`, by its controller reference, in the order of their names.
    pub async fn pods(&self, name: &str) -> Result<Vec<Pod>> {
        let labelled = ListParams::default().labels(&format!("{LABEL_DEPLOYMENT}={name}"));
        let mut pods = self.api::<Pod>().list(&labelled).await?.items;
        pods.sort_by_key(Pod::name_any);
        Ok(pods)
    }

    /// The only pod of an `LLMDeployment`.
    pub async fn pod(&self, name: &str) -> Result<Pod> {
        let mut pods = self.pods(name).await?;
        let count = pods.len();
        pods.pop().filter(|_| count == 1).with_context(|| format!("{name} has {count} pods, not 1"))
    }

    /// Names and UIDs of an `LLMDeployment`'s pods.
    pub async fn uids(&self, name: &str) -> Result<Vec<(String, String)>> {
        let pods = self.pods(name).await?;
        Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }

    /// Waits until `is` holds for an `LLMDeployment` and its status is about the spec as it is.
    /// Where that does not come, fails with everything there is to know.
    pub async fn wait_llm(
        &self,
        name: &str,
        what: &str,
        mut is: impl FnMut(&LLMDeployment) -> bool,
    ) -> Result<LLMDeployment> {
        let waited = until(format!("LLMDeployment {name} {what}"), patience(), async || {
            let llm = self.llm(name).await?;
            if is_current(&llm) && is(&llm) {
                return Ok(Look::Done(llm));
            }
            let current = if is_current(&llm) { "" } else { "status is of an older spec; " };
            Ok(Look::NotYet(format!("{current}{}", complaints(&llm))))
        })
        .await;
        match waited {
            Ok(llm) => Ok(llm),
            Err(error) => Err(error.context(explain(self, name).await)),
        }
    }

    /// Waits until so many replicas are wanted, exist and are ready, and nothing else is going on.
    pub async fn ready(&self, name: &str, replicas: i32) -> Result<LLMDeployment> {
        self.wait_llm(name, &format!("is Ready with {replicas}"), |llm| {
            let counts = llm
                .status
                .as_ref()
                .map(|s| [s.replicas, s.updated_replicas, s.ready_replicas, s.available_replicas]);
            counts == Some([replicas; 4]) && status_of(llm, "Ready") == "True"
        })
        .await
    }

    /// Waits until so many replicas of the newest revision are all there is, and Ready, by status
    /// and by the pods themselves: status says what was where its operator does not run. Where every
    /// pod is real, a change of some takes longer than usual.
    pub async fn steady(&self, name: &str, replicas: i32) -> Result<LLMDeployment> {
        let waited = until(format!("{replicas} are Ready"), 3 * patience(), async || {
            let llm = self.llm(name).await?;
            let status = llm.status.clone().unwrap_or_default();
            let counts = [status.replicas, status.updated_replicas, status.available_replicas];
            let pods = self.pods(name).await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let done = is_current(&llm)
                && counts == [replicas; 3]
                && status_of(&llm, "Ready") == "True"
                && [pods.len(), ready] == [usize::try_from(replicas)?; 2];
            let seen = || format!("{ready} of {} pods are; {}", pods.len(), complaints(&llm));
            Ok(if done { Look::Done(llm) } else { Look::NotYet(seen()) })
        });
        match waited.await {
            Ok(llm) => Ok(llm),
            Err(error) => Err(error.context(explain(self, name).await)),
        }
    }

    /// Waits until it is refused a place, and returns the reason and message of `Placed`.
    pub async fn unplaced(&self, name: &str) -> Result<Condition> {
        let llm =
            self.wait_llm(name, "waits for a place", |llm| status_of(llm, "Placed") == "False");
        let llm = llm.await?;
        llm.condition("Placed").cloned().context("no condition Placed")
    }

    /// Waits until all of its pods are gone.
    pub async fn no_pods(&self, name: &str) -> Result<()> {
        let waited = until(format!("{name} has no pods"), patience(), async || {
            let pods = self.uids(name).await?;
            Ok(if pods.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{pods:?}")) })
        });
        match waited.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(explain(self, name).await)),
        }
    }
}
