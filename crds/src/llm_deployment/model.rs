//! `spec.model`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;

/// The model to serve and where its files are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("self.uri.matches('^(hf://[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*|oci://[a-z0-9][-a-z0-9.]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)+(:[A-Za-z0-9._][-A-Za-z0-9._]*)?(@sha256:[a-f0-9]{64})?|s3://[a-z0-9][-a-z0-9.]{2,62}/[-A-Za-z0-9._/]+|pvc://[a-z0-9][-a-z0-9.]*(/[-A-Za-z0-9._/]+)?|cache://[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?(/[-A-Za-z0-9._/]+)?)$')")
        .message("model.uri must be one of hf://ORG/NAME, oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST], s3://BUCKET/PREFIX, pvc://CLAIM[/PATH] or cache://NAME[/PATH]")
        .field_path(".uri"),
    validation = kube::core::Rule::new("!self.uri.contains('/../') && !self.uri.endsWith('/..')")
        .message("model.uri must not contain '..'")
        .field_path(".uri"),
    validation = kube::core::Rule::new("!has(self.files) || !self.files.contains('..')")
        .message("model.files must not contain '..'")
        .field_path(".files"),
    validation = kube::core::Rule::new("!has(self.revision) || self.uri.startsWith('hf://')")
        .message("model.revision is only for hf:// models; pin others in the uri itself")
        .field_path(".revision"),
    validation = kube::core::Rule::new("!has(self.secretRef) || self.uri.startsWith('hf://') || self.uri.startsWith('s3://')")
        .message("model.secretRef is only for hf:// and s3:// models; registries of oci:// models take imagePullSecrets")
        .field_path(".secretRef"),
)]
pub struct Model {
    /// Where the files are: `hf://ORG/NAME` (Hugging Face hub), `oci://REGISTRY/REPOSITORY:TAG`
    /// (an OCI artifact, mounted as an image volume), `s3://BUCKET/PREFIX`, `pvc://CLAIM/PATH`
    /// (a PersistentVolumeClaim of this namespace, mounted read-only), or `cache://NAME/PATH` (a
    /// model that the administrator put into the nodes' caches).
    #[schemars(length(min = 1, max = 512))]
    pub uri: String,

    /// Branch, tag or commit on the hub. Absent: `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._/]*$"))]
    pub revision: Option<String>,

    /// One file of many, by name or pattern, such as `*Q4_K_M.gguf`. Needed where a repository
    /// holds several quantisations of one model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9*?][-A-Za-z0-9._*?/]*$"))]
    pub files: Option<String>,

    /// The name that clients put into the request's `model`. Absent: the last part of the uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$"))]
    pub served_name: Option<String>,

    /// Secret in this namespace with the credentials of the source: for `hf://` the key `token`;
    /// for `s3://` the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and where needed
    /// `AWS_ENDPOINT_URL` and `AWS_REGION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// What Berth must know about the architecture of a model that its catalogue lacks. The
    /// numbers stand in the model's `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,

    /// Whether the engine may run code that comes with the model.
    #[serde(default)]
    pub trust_remote_code: bool,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
