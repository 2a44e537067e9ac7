//! Advice: on which GPUs, how many of them and how quantised a model runs, what that costs, and how
//! fast it could be at best.
//!
//! Pure, like the rest of the crate, and called by the command line; the controller asks only for
//! changes, against the room that its fleet really has ([`Room`]). A [`Question`] names the ways
//! in which a model is published ([`Variant`]), the GPUs to choose among ([`Gpu`], a [`Product`]
//! with what is usable of it and its price), and what is asked; [`advise`] answers with [`Offer`]s,
//! the cheapest first, and for a product that nothing fits on with a [`Misfit`] and what would make
//! it fit ([`Change`]): taken word for word, it does.
//!
//! The chapters: the table of products, prices, the question, the estimates that all products share,
//! upper bounds of speed, the search, changes, and the variants that the catalogue knows.

mod change;
mod price;
mod product;
mod question;
mod roofline;
mod search;
mod table;
#[cfg(test)]
mod tests;
mod variants;

pub use change::{Change, Room, changes, changes_for};
pub use price::{ParsePriceError, PricePerHour};
pub use product::{Product, Teraflops, product, products};
pub use question::{Gpu, Question, Setup, Variant, is_wide, smaller};
pub use roofline::Roofline;
pub use search::{Advice, Misfit, Offer, advise};
pub use variants::others;
