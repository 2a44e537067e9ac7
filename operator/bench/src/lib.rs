//! The figures that this project stands by: estimates beside what engines print.
//!
//! The story: [`cases`] are what engines printed, [`facts`] and [`workload`] say what ran, [`compare`]
//! puts the estimate beside the truth, [`report`] and [`page`] show it; [`fit`] finds the constants;
//! [`llama`] asks a real llama-server; [`speed`] measures the estimate itself.

pub mod cases;
pub mod causes;
pub mod compare;
pub mod facts;
pub mod fit;
pub mod fleet;
pub mod gguf;
pub mod llama;
pub mod page;
pub mod peers;
pub mod placement;
pub mod plot;
pub mod report;
pub mod speed;
pub mod table;
pub mod workload;

use std::path::{Path, PathBuf};

use cases::Case;
use facts::Configs;

/// Where the measured cases are if no path is given: `BERTH_SHARED`, else `shared` beside the
/// repository.
pub fn shared(file: &str) -> PathBuf {
    shared_data("vram").join(file)
}

/// Where the placement traces are if no path is given.
pub fn shared_placement(file: &str) -> PathBuf {
    shared_data("placement").join(file)
}

fn shared_data(subject: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("BERTH_SHARED").map_or_else(beside, PathBuf::from);
    root.join("data").join(subject)
}

/// The cases and their configs; none where there is no such file.
pub fn data(cases: &Path, configs: &Path) -> anyhow::Result<Option<(Vec<Case>, Configs)>> {
    if !cases.exists() || !configs.exists() {
        return Ok(None);
    }
    let cases = cases::read(&std::fs::read_to_string(cases)?)?;
    Ok(Some((cases, Configs::read(&std::fs::read_to_string(configs)?)?)))
}
