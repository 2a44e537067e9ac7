//! `hf://ORG/NAME`: the Hugging Face hub or a mirror of it, downloaded by an init step of ours
//! before the engine starts.
//!
//! An init step and not an engine's own downloader: it is the same for every engine, checks what
//! came, goes on where it was cut off, says how far it is, and is the only container that sees the
//! token. Into the node's cache where the cluster has one, shared by all replicas of the namespace
//! on the node; else into a volume that lives as long as the pod.

use berth_units::Bytes;
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar};

use super::{
    FETCH, Location, MODEL_PATH, Mounted, claimed, download, is_gguf, is_pattern, mount, secret,
    step,
};
use crate::{
    ModelSource, Replica, Site, Template, cache,
    engine::{self, Format},
    pod,
    short_hash::short_hash,
};

/// Name of the init container.
pub const CONTAINER: &str = "fetch";

/// Port of its metrics: how far it is.
pub const PORT: u16 = 8001;

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

/// The model's directory, readable for people and different for everything that is different.
pub(super) fn directory(repository: &str, revision: &str, files: Option<&str>) -> String {
    let readable: String = repository.replace('/', "--").chars().take(150).collect();
    let all = format!("{repository}\n{revision}\n{}", files.unwrap_or_default());
    format!("hf--{readable}--{}", short_hash(&all, 13))
}

/// A file by its name; one that only the download finds by the name that it leaves.
pub(super) fn location(repository: &str, revision: &str, files: Option<&str>) -> Location {
    let gguf = repository.to_ascii_lowercase().ends_with("gguf") || files.is_some_and(is_gguf);
    let file = match files {
        Some(file) if !is_pattern(file) => Some(file),
        _ if gguf => Some(".berth/model.gguf"),
        _ => None,
    };
    Location {
        directory: format!("{MODEL_PATH}/{}", directory(repository, revision, files)),
        file: file.map(ToOwned::to_owned),
    }
}

pub(super) fn mounted(
    repository: &str,
    revision: &str,
    files: Option<&str>,
    template: &Template,
    replica: &Replica,
    site: &Site,
) -> Mounted {
    let cached = replica.claim.cache.is_some();
    let volume = if cached {
        let folder = cache::Folder::of(&replica.node, &replica.deployment.namespace);
        claimed(folder.name())
    } else {
        download(template)
    };
    let Location { directory, file } = template.source.location();
    let mut args: Vec<String> =
        ["hub", "--repository", repository, "--revision", revision, "--into"]
            .map(ToOwned::to_owned)
            .into();
    args.push(directory);
    if let Some(files) = files {
        args.extend(["--files".to_owned(), files.to_owned()]);
    }
    let names = || engine::format(repository, files);
    let format = engine::of(template.engine.type_).format().unwrap_or_else(names);
    if format == Format::Gguf && files.is_none_or(is_pattern) && file.is_some() {
        args.push("--one-file".to_owned());
    }
    args.extend(["--listen".to_owned(), format!("0.0.0.0:{PORT}")]);
    if !cached {
        // The volume is this pod's own: nobody prepares it, and nobody makes room in it.
        args.extend(["--wait".to_owned(), "0s".to_owned()]);
    }
    if site.offline {
        args.push("--offline".to_owned());
    }
    Mounted {
        volumes: vec![volume],
        mounts: vec![mount(true)],
        init: vec![container(args, template, site)],
        group: site.cache.as_ref().filter(|_| cached).map(|cache| cache.group),
    }
}

fn container(args: Vec<String>, template: &Template, site: &Site) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(site.fetch_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![FETCH.to_owned()]),
        args: Some(args),
        env: Some(environment(template.source_secret.as_deref(), site)),
        ports: Some(vec![ContainerPort {
            name: Some(CONTAINER.to_owned()),
            container_port: i32::from(PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        ..step(template, Bytes::gib(1))
    }
}

fn environment(token: Option<&str>, site: &Site) -> Vec<EnvVar> {
    let endpoint = site.hub.as_ref().map(|hub| pod::plain("HF_ENDPOINT", hub));
    let ca = site.hub_ca.as_ref().map(|ca| pod::plain("HUB_CA_PEM", ca));
    let token = token.map(|name| secret("HF_TOKEN", name, TOKEN_KEY, false));
    [endpoint, ca, token].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_has_a_directory_of_its_own() {
        let name = directory("org/model-GGUF", "main", Some("*Q4_K_M.gguf"));
        assert!(name.starts_with("hf--org--model-GGUF--"), "{name}");
        for (repository, revision, files) in [
            ("org/model-gguf", "main", Some("*Q4_K_M.gguf")),
            ("org/model-GGUF", "v1", Some("*Q4_K_M.gguf")),
            ("org/model-GGUF", "main", Some("*Q8_0.gguf")),
            ("org/model-GGUF", "main", None),
        ] {
            assert_ne!(name, directory(repository, revision, files));
        }
        let long = directory(&format!("org/{}", "x".repeat(300)), "main", None);
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn a_file_is_known_by_its_name_or_by_the_link_to_it() {
        let file = |repository, files| location(repository, "main", files).file;
        assert_eq!(file("org/model", None), None);
        assert_eq!(file("org/model", Some("q4/m.gguf")).as_deref(), Some("q4/m.gguf"));
        let link = Some(".berth/model.gguf");
        assert_eq!(file("org/model", Some("*Q4_K_M.gguf")).as_deref(), link);
        assert_eq!(file("org/model-GGUF", None).as_deref(), link);
    }
}
