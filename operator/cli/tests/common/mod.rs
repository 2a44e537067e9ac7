//! Running the command.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// The repository: paths on the page are relative to it.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs `kubectl berth` with these arguments in the repository.
pub fn berth(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-berth"))
        .args(arguments)
        .current_dir(repository())
        .output()
        .expect("kubectl-berth starts")
}
