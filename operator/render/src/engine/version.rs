//! The version of an engine, by the tag of its image.

use berth_crds::llm_deployment::{EngineType, Vendor};
use berth_vram::Version;

use super::default_image;

/// The version that the memory of an image is counted for: the one that its tag states, else that
/// of Berth's own image. `None` for engines whose memory does not depend on it.
pub fn version(engine: EngineType, image: &str) -> Option<Version> {
    stated_version(engine, image).or_else(|| {
        let own = default_image(engine, Vendor::NVIDIA)?;
        stated_version(engine, own)
    })
}

/// The version that the tag of an image states: at its beginning (`v0.33.0-cu129`), or after the
/// engine's name (`rocm6.4.1_vllm_0.10.1`).
pub fn stated_version(engine: EngineType, image: &str) -> Option<Version> {
    let name = match engine {
        EngineType::VLLM => "vllm",
        EngineType::SGLang => "sglang",
        EngineType::LlamaCpp | EngineType::Custom => return None,
    };
    let image = image.split('@').next().unwrap_or(image);
    let (_, tag) = image.rsplit('/').next()?.split_once(':')?;
    let tag = tag.to_ascii_lowercase();
    let rest = tag.split_once(name).map_or(tag.as_str(), |(_, rest)| rest);
    let rest = rest.trim_start_matches(['-', '_']).trim_start_matches('v');
    rest.starts_with(|c: char| c.is_ascii_digit())
        .then(|| Version::parse(rest.split(['-', '_']).next().unwrap_or(rest)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_states_the_version_or_nothing_does() {
        for (image, stated) in [
            ("docker.io/vllm/vllm-openai:v0.33.0", Some((0, 33))),
            ("registry.local:5000/vllm/vllm-openai:v0.19.1-cu129", Some((0, 19))),
            ("vllm/vllm-openai:v0.18.0@sha256:0123456789.10", Some((0, 18))),
            ("rocm/vllm:rocm6.4.1_vllm_0.10.1_20250909", Some((0, 10))),
            ("10.0.0.1:5000/vllm:latest", None),
            ("10.0.0.1:5000/vllm", None),
            ("vllm/vllm-openai:nightly-0.33", None),
            ("rocm/vllm:rocm7.2-preview", None),
            ("vllm/vllm-openai@sha256:0123456789.10", None),
        ] {
            let stated = stated.map(|(major, minor)| Version::new(major, minor));
            assert_eq!(stated_version(EngineType::VLLM, image), stated, "{image}");
        }
        let sglang = "docker.io/lmsysorg/sglang:v0.5.21-rocm10-mi30x";
        assert_eq!(stated_version(EngineType::SGLang, sglang), Some(Version::new(0, 5)));
        assert_eq!(stated_version(EngineType::LlamaCpp, "a/b:v1.2"), None);
    }

    #[test]
    fn what_is_not_stated_is_our_own_image() {
        assert_eq!(version(EngineType::VLLM, "a/vllm:latest"), Some(berth_vram::RENDERED_VLLM));
        assert!(version(EngineType::SGLang, "a/sglang:latest").is_some());
        assert_eq!(version(EngineType::Custom, "a/b:v1.2.3"), None);
    }
}
