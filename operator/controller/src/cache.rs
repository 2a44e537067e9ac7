//! The nodes' caches: which models lie on which node, and what has to come or go.
//!
//! What lies there is written on the volume of each folder, so it outlives the operator; what is
//! used is what pods claim; what may be evicted follows from both, in the ledger. [`content`] and
//! [`shelves`] say what is and what shall be, and are pure; [`volumes`] makes the volumes that pods
//! mount; [`tend`] writes down what changed and sends keepers to the nodes.

pub mod content;
pub mod shelves;
pub mod tend;
pub mod volumes;
