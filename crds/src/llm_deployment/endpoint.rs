//! `spec.endpoint`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How clients reach the model inside the cluster: a Service of the deployment's name that speaks
/// the OpenAI API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Port of the Service.
    #[serde(default = "http")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { port: http() }
    }
}

fn http() -> i32 {
    80
}
