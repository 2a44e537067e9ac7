//! The Berth operator's process.

use berth_operator::{args::Args, run, telemetry};
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(args.log_format);
    run::run(args).await
}
