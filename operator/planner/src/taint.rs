//! Taints and tolerations, with Kubernetes' own semantics.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// They are not scheduled there.
    NoSchedule,
    /// They are scheduled elsewhere if possible. Blocks nothing.
    PreferNoSchedule,
    /// They are not scheduled there, and evicted.
    NoExecute,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        })
    }
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// As kubectl writes it: `key=value:Effect`.
impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, effect } = self;
        if value.is_empty() {
            write!(f, "{key}:{effect}")
        } else {
            write!(f, "{key}={value}:{effect}")
        }
    }
}

/// What a taint that Kubernetes itself sets says of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// Its kubelet does not answer, or it is not set up.
    NotReady,
    /// It is cordoned.
    Cordoned,
    /// It is short of memory, disk or process ids.
    Pressure,
}

impl Taint {
    /// Whether pods that do not tolerate it stay away.
    pub fn blocks(&self) -> bool {
        self.effect != Effect::PreferNoSchedule
    }

    /// Of taints that Kubernetes sets and takes away by itself: what they mean. Such a node may be
    /// back in a minute, so they never decide whether a request could *ever* fit.
    pub(crate) fn lifecycle(&self) -> Option<Lifecycle> {
        match self.key.as_str() {
            "node.kubernetes.io/not-ready"
            | "node.kubernetes.io/unreachable"
            | "node.kubernetes.io/network-unavailable"
            | "node.kubernetes.io/out-of-service"
            | "node.cloudprovider.kubernetes.io/uninitialized"
            | "node.cloudprovider.kubernetes.io/shutdown" => Some(Lifecycle::NotReady),
            "node.kubernetes.io/unschedulable" => Some(Lifecycle::Cordoned),
            key if key.starts_with("node.kubernetes.io/") => Some(Lifecycle::Pressure),
            _ => None,
        }
    }
}

/// How a toleration compares.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Operator {
    /// Key and value are the taint's.
    #[default]
    Equal,
    /// The key is the taint's, whatever the value.
    Exists,
}

/// A toleration of a pod. (How long an eviction is put off does not matter to placement.)
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Toleration {
    /// The taint's key; empty matches every key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// The taint's value, for `Equal`.
    pub value: String,
    /// The taint's effect; absent matches every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether a pod with this toleration tolerates `taint`: the rule of Kubernetes'
    /// `Toleration.ToleratesTaint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator {
                Operator::Equal => self.value == taint.value,
                Operator::Exists => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Effect::{NoExecute, NoSchedule},
        Operator::{Equal, Exists},
        *,
    };

    #[test]
    fn tolerations_match_as_in_kubernetes() {
        let taint = |effect| Taint { key: "team".into(), value: "a".into(), effect };
        let toleration = |key: &str, operator, value: &str, effect| Toleration {
            key: key.into(),
            operator,
            value: value.into(),
            effect,
        };
        for (toleration, effect, tolerated) in [
            (toleration("team", Equal, "a", Some(NoSchedule)), NoSchedule, true),
            (toleration("team", Equal, "a", None), NoExecute, true),
            (toleration("team", Equal, "a", Some(NoSchedule)), NoExecute, false),
            (toleration("team", Equal, "b", None), NoSchedule, false),
            (toleration("team", Equal, "", None), NoSchedule, false),
            (toleration("team", Exists, "", None), NoSchedule, true),
            (toleration("other", Exists, "", None), NoSchedule, false),
            (toleration("", Exists, "", None), NoExecute, true),
            (toleration("", Exists, "", Some(NoExecute)), NoSchedule, false),
            (toleration("", Equal, "a", None), NoSchedule, true),
        ] {
            assert_eq!(toleration.tolerates(&taint(effect)), tolerated, "{toleration:?} {effect}");
        }
    }

    #[test]
    fn taints_print_as_kubectl_writes_them() {
        let mut taint = Taint { key: "team".into(), value: "a".into(), effect: NoExecute };
        assert_eq!(taint.to_string(), "team=a:NoExecute");
        taint.value.clear();
        assert_eq!(taint.to_string(), "team:NoExecute");
    }
}
