//! The environment of servers written in Python, on `PyTorch`.

use super::HOME;

/// Switches that keep it from calling home and from fetching anything; the user's value counts.
pub(super) const QUIET: [&str; 4] =
    ["DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/// Who runs it, and where its files go.
///
/// Python and `PyTorch` look the user up by name; an id without an entry in the image's /etc/passwd has
/// none, and they fail.
pub(super) fn user() -> Vec<(&'static str, String)> {
    vec![
        ("HOME", HOME.to_owned()),
        ("USER", "berth".to_owned()),
        ("LOGNAME", "berth".to_owned()),
        ("XDG_CACHE_HOME", cache("")),
        ("XDG_CONFIG_HOME", format!("{HOME}/.config")),
        ("HF_HOME", cache("/huggingface")),
    ]
}

/// Where kernels go that are compiled at the start.
pub(super) fn kernels() -> Vec<(&'static str, String)> {
    vec![
        ("TRITON_CACHE_DIR", cache("/triton")),
        ("TORCHINDUCTOR_CACHE_DIR", cache("/torchinductor")),
        ("FLASHINFER_WORKSPACE_BASE", HOME.to_owned()),
        ("NUMBA_CACHE_DIR", cache("/numba")),
        ("CUDA_CACHE_PATH", cache("/nv")),
    ]
}

/// All of [`QUIET`], on.
pub(super) fn quiet() -> Vec<(&'static str, String)> {
    QUIET.map(|name| (name, "1".to_owned())).into()
}

/// A folder in the user's cache.
pub(super) fn cache(folder: &str) -> String {
    format!("{HOME}/.cache{folder}")
}
