//! The Service of a deployment: its name is the deployment's, and behind it is the `OpenAI` API.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{Owner, meta::leaders};

/// The Service on `port` of the spec's endpoint. It selects the replicas' leading pods of every
/// revision: readiness decides which of them get requests.
pub fn service(owner: &Owner, port: u16) -> Service {
    Service {
        metadata: owner.metadata(owner.name.clone()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(leaders(&owner.name)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(port),
                // By name: the port's number is the pod's own affair.
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                app_protocol: Some("http".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
