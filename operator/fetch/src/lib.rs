//! Brings a model's files onto a node before its engine starts: the init step of an engine's pod.
//!
//! It is also what keeps a node's cache, in a pod of the operator: [`keep`].
//!
//! The step runs in the tenant's pod with the tenant's token, without privileges, on a volume that other
//! pods may share. What it leaves is a directory with the files as the hub names them, and
//! `.berth/manifest.json`, written last: where it is, all files are, and nothing is asked of the
//! network again.
//!
//! It also says what a model is, from its headers: [`inspect`].
//!
//! [`fetch`] tells the story; [`hub`] and [`transfer`] talk to the hub, by what `berth-inspect` knows
//! of hubs; [`partial`], [`manifest`], [`link`], [`lock`], [`wait`] and [`disk`] to the volume.
//!
//! # Exit codes
//!
//! | code | meaning | worth another try |
//! |---|---|---|
//! | 0 | the files are there; what `inspect` learnt is on stdout | |
//! | 1 | an error of the volume, or `verify` found damage | perhaps |
//! | 2 | wrong usage | no |
//! | 10 | `--offline`, and the files are not there | no |
//! | 11 | 401 or 403 | once the secret has changed |
//! | 12 | no such repository, revision or file | no |
//! | 13 | the volume is full | once there is room |
//! | 14 | wrong checksum | perhaps |
//! | 15 | the network or the mirror failed again and again | yes |
//! | 16 | an answer that no hub gives | no |
//! | 17 | the directory holds another model or commit | no |
//! | 18 | a certificate that is not trusted | no |
//! | 19 | `--one-file`, and the model has several | no |
//! | 20 | the node's cache was not prepared in time | yes |
//! | 21 | a model that should be removed is being downloaded; all else is done | yes |
//! | 22 | `inspect`: no model that anything can be told of | no |
//! | 23 | `inspect`: a file that is broken, too large, or of a kind that is not read | no |
//! | 143 | stopped by a signal | yes |
//!
//! The last line on stderr says it in one sentence, and so does the termination message.

pub mod args;
pub mod disk;
pub mod error;
pub mod fetch;
pub mod hub;
pub mod inspect;
pub mod keep;
pub mod layout;
pub mod link;
pub mod lock;
pub mod manifest;
pub mod metrics;
pub mod partial;
pub mod progress;
pub mod transfer;
pub mod verify;
pub mod wait;

pub use berth_inspect::{checksum, http, name, retry, select, settings};
