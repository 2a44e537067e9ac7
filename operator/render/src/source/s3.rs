//! `s3://BUCKET/PREFIX`: a bucket, copied by an init step before the engine starts.
//!
//! An init step and not an engine's own streamer: vLLM's (Run:ai) is an extra that its images
//! need not have, streams safetensors only, and other engines have none. The init step is the same
//! for every engine, shows as its own line in `kubectl get pod` (`Init:0/1`), and a restarted
//! engine finds the files in place. What it costs is the disk and the time of one copy.

use berth_units::Bytes;
use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::{MODEL_PATH, Mounted, download, is_gguf, mount, secret, step};
use crate::{ModelSource, Template, engine::TMP, pod};

/// The image with the AWS command line that copies.
pub const IMAGE: &str = "docker.io/amazon/aws-cli:2.37.5";

pub(super) fn parse(rest: &str, files: Option<String>) -> Option<ModelSource> {
    let (bucket, prefix) = rest.split_once('/')?;
    let prefix = prefix.trim_matches('/');
    (!bucket.is_empty() && !prefix.is_empty()).then(|| ModelSource::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        files,
    })
}

pub(super) fn mounted(
    bucket: &str,
    prefix: &str,
    files: Option<&str>,
    template: &Template,
) -> Mounted {
    Mounted {
        volumes: vec![download(template)],
        mounts: vec![mount(true)],
        init: vec![copy(bucket, prefix, files, template)],
        ..Mounted::default()
    }
}

fn copy(bucket: &str, prefix: &str, files: Option<&str>, template: &Template) -> Container {
    let (prefix, files) = match files {
        None if is_gguf(prefix) => match prefix.rsplit_once('/') {
            Some((folder, name)) => (folder, Some(name)),
            None => ("", Some(prefix)),
        },
        files => (prefix, files),
    };
    let mut args = vec![
        "s3".to_owned(),
        "sync".to_owned(),
        format!("s3://{bucket}/{prefix}"),
        MODEL_PATH.to_owned(),
        "--no-progress".to_owned(),
    ];
    if let Some(files) = files {
        // The last pattern that matches decides.
        args.extend(["--exclude=*".to_owned(), format!("--include={}", every_part(files))]);
    }
    if template.source_secret.is_none() {
        // Never with whatever credentials the node may have: those are not the tenant's.
        args.push("--no-sign-request".to_owned());
    }
    Container {
        name: "download".to_owned(),
        image: Some(IMAGE.to_owned()),
        image_pull_policy: Some(pod::pull_policy(template.engine.image_pull_policy).to_owned()),
        command: Some(vec!["aws".to_owned()]),
        args: Some(args),
        env: Some(environment(template.source_secret.as_deref())),
        ..step(template, Bytes::gib(2))
    }
}

fn environment(source_secret: Option<&str>) -> Vec<EnvVar> {
    let mut env = vec![pod::plain("HOME", &TMP.path)];
    if let Some(name) = source_secret {
        env.extend(
            [
                ("AWS_ACCESS_KEY_ID", false),
                ("AWS_SECRET_ACCESS_KEY", false),
                ("AWS_SESSION_TOKEN", true),
                ("AWS_ENDPOINT_URL", true),
                ("AWS_REGION", true),
            ]
            .map(|(key, optional)| secret(key, name, key, optional)),
        );
    }
    env
}

/// A GGUF model in several files is named by its first (`x-00001-of-00003.gguf`); all are needed.
fn every_part(file: &str) -> String {
    let parts = file.rfind("-of-").and_then(|of| {
        let digits = file.get(of.checked_sub(5)?..of)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| format!("{}?????{}", &file[..of - 5], &file[of..]))
    });
    parts.unwrap_or_else(|| file.to_owned())
}

#[cfg(test)]
mod tests {
    use super::every_part;

    #[test]
    fn every_part_of_a_split_model_is_copied() {
        for (file, pattern) in [
            ("big-Q4_K_M-00001-of-00003.gguf", "big-Q4_K_M-?????-of-00003.gguf"),
            ("*Q4_K_M.gguf", "*Q4_K_M.gguf"),
            ("best-of-2.gguf", "best-of-2.gguf"),
            ("-of-", "-of-"),
        ] {
            assert_eq!(every_part(file), pattern);
        }
    }
}
