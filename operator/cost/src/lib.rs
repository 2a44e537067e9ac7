//! What a fleet costs and who pays for it: prices and claims in, decimal money out.
//!
//! Pure: no clock, no I/O, no Kubernetes. Elapsed time is an argument, prices are data. The
//! controller feeds it from a `CostProfile` and the ledger; the CLI and the benchmarks call the
//! same functions.
//!
//! The way through, each step a type:
//!
//! ```text
//! Prices ──validated()──► PriceList ──hourly(asset)──► HourlyCost, or Unpriced
//!                                          └─allocate(shares)──► Allocation: holders + idle
//!                         PriceList ──bill(all assets)──► Bill ──charge(elapsed)──► FleetMeter
//! ```
//!
//! What holds everywhere:
//! - Money is decimal and carries its currency; amounts are kept to 12 decimals ([`SCALE`]).
//! - For any hour, Σ over deployments + foreign + idle is the bill of all priced assets, exactly.
//! - What has no price is reported ([`Unpriced`], [`HourlyCost::unknown`]), never guessed and
//!   never zero.
//! - Nothing here panics on a number: input is bounded, arithmetic is checked.
//!
//! A month is 730 hours and a year 8,760 hours throughout.

mod allocate;
mod bill;
mod component;
mod hourly;
mod meter;
mod money;
mod prices;
mod validate;

pub use allocate::{Allocation, Charge, Deployment, Holder, Idle, Share, State, allocate};
pub use bill::{AssetUse, Bill, DeploymentCost, NodeBill, bill};
pub use component::{Component, EnergySource, HourlyCost};
pub use hourly::{Asset, HOURS_PER_MONTH, HOURS_PER_YEAR, Unpriced, hourly};
pub use meter::{FleetMeter, Meter, NodeGpus};
pub use money::{Currency, DecimalError, Money, MoneyError, SCALE, parse_decimal};
pub use prices::{Basis, EnergyPrice, HardwarePrice, HardwareSelector, Owned, Per, Prices, Rented};
pub use rust_decimal::Decimal;
pub use validate::{InvalidPrices, PriceError, PriceList, PriceProblem};
