//! `hf://ORG/NAME`: the Hugging Face hub, by the engine's own downloader.
//!
//! The engine downloads into an emptyDir of the pod, so a restarted container finds what is there,
//! and a new pod starts anew. `HF_HOME` points there (both engines honour it; set with the
//! engine's environment).

use k8s_openapi::api::core::v1::EnvVar;

use super::{Mounted, download, mount, secret};
use crate::{ModelSource, Template};

/// The key of the secret that holds the token.
const TOKEN_KEY: &str = "token";

pub(super) fn parse(
    rest: &str,
    revision: Option<&str>,
    files: Option<String>,
) -> Option<ModelSource> {
    let (organisation, name) = rest.split_once('/')?;
    (!organisation.is_empty() && !name.is_empty() && !name.contains('/')).then(|| {
        ModelSource::Hub {
            repository: rest.to_owned(),
            revision: revision.unwrap_or("main").to_owned(),
            files,
        }
    })
}

pub(super) fn mounted(template: &Template) -> Mounted {
    Mounted {
        volumes: vec![download(template)],
        mounts: vec![mount(false)],
        init: vec![],
        env: template.source_secret.iter().map(|name| token(name)).collect(),
    }
}

fn token(name: &str) -> EnvVar {
    secret("HF_TOKEN", name, TOKEN_KEY, false)
}
