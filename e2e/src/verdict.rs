//! What the API server says to an object: accepted, or refused and why.

use anyhow::{Result, bail, ensure};
use berth_crds::{CostProfile, LLMDeployment};
use kube::{Client, Resource, api::PostParams, core::Request};
use serde_json::{Value, json};

use crate::NAMESPACE;

/// An answer of the API server.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It takes the object, which looks like this with all defaults.
    Accepted(Value),
    /// It does not.
    Refused {
        /// HTTP status.
        code: u16,
        /// What it says.
        message: String,
    },
}

impl Verdict {
    /// The object; fails if it was refused.
    pub fn accepted(self) -> Result<Value> {
        match self {
            Self::Accepted(object) => Ok(object),
            Self::Refused { code, message } => bail!("refused with {code}: {message}"),
        }
    }

    /// Fails unless the object was refused as invalid, with all of these words in the message.
    pub fn refused_with(self, words: &[&str]) -> Result<()> {
        let (code, message) = match self {
            Self::Accepted(object) => bail!("accepted: {}", object["spec"]),
            Self::Refused { code, message } => (code, message),
        };
        ensure!(code == 422 || code == 400, "refused with {code}, not as invalid: {message}");
        for word in words {
            ensure!(message.contains(word), "the message lacks {word:?}: {message}");
        }
        Ok(())
    }
}

/// What the API server would say to the creation of a resource with strict field validation, as
/// `kubectl create` asks for it. Creates nothing.
pub async fn of_text<K>(client: &Client, namespace: Option<&str>, text: String) -> Result<Verdict>
where
    K: Resource,
    K::DynamicType: Default,
{
    let url = K::url_path(&K::DynamicType::default(), namespace);
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let mut request = Request::new(url).create(&parameters, text.into_bytes())?;
    let strict = format!("{}&fieldValidation=Strict", request.uri());
    *request.uri_mut() = strict.parse()?;
    match client.request::<Value>(request).await {
        Ok(object) => Ok(Verdict::Accepted(object)),
        Err(kube::Error::Api(status)) => {
            Ok(Verdict::Refused { code: status.code, message: status.message.clone() })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the API server would say to an `LLMDeployment` with this name and spec.
pub async fn of_llm(client: &Client, name: &str, spec: Value) -> Result<Verdict> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": spec,
    });
    of_text::<LLMDeployment>(client, Some(NAMESPACE), object.to_string()).await
}

/// What the API server would say to a `CostProfile` with this spec.
pub async fn of_profile(client: &Client, spec: Value) -> Result<Verdict> {
    let object = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "CostProfile",
        "metadata": {"name": "prices"},
        "spec": spec,
    });
    of_text::<CostProfile>(client, None, object.to_string()).await
}
