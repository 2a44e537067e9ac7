//! Mixtures of experts: routed ones, and those that every token goes through.

use serde_json::Value;

use super::{modules::Modules, traits::Traits};
use crate::read::{ReadError, fields::Fields, tensors::Class};

/// A mixture of experts, as a config describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Experts {
    pub count: u32,
    pub per_token: u32,
    pub width: u32,
    pub shared: Shared,
    /// Width of what goes into an expert, where it is not the hidden state's.
    pub latent: Option<u32>,
    /// Whether experts have biases.
    biases: bool,
    /// What checkpoints call the matrices.
    names: &'static Names,
}

/// The experts that every token goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    pub count: u32,
    /// Of all of them together.
    pub width: u64,
    /// Whether they have a gate of their own.
    gate: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Names {
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    router: &'static str,
}

const NAMES: Names = Names {
    gate: "mlp.experts.0.gate_proj",
    up: "mlp.experts.0.up_proj",
    down: "mlp.experts.0.down_proj",
    router: "mlp.gate",
};

/// Gemma 4 has a dense layer of the usual name beside them.
const BESIDE_DENSE: Names = Names {
    gate: "experts.0.gate_proj",
    up: "experts.0.up_proj",
    down: "experts.0.down_proj",
    router: "router.proj",
};

impl Experts {
    /// The experts of a model that has some.
    pub(super) fn of(kind: &str, fields: &Fields<'_>) -> Result<Option<Self>, ReadError> {
        if fields.flag(&["enable_moe_block"]) == Some(false) {
            return Ok(None);
        }
        let Some(count) = count(fields)?.filter(|&count| count > 1) else { return Ok(None) };
        let width = width(fields)?;
        let count = match kind {
            "ernie4_5_moe_vl" | "ernie4_5_vl_moe" | "ernie4_5_vl_moe_text" => {
                with_a_second_set(fields, count, width)
            }
            _ => count,
        };
        let nested = fields.object(&["ffn_config"]);
        let per_token = match most(fields, &PER_TOKEN)? {
            None => nested.map_or(Ok(None), |own| own.number(&["moe_top_k"]))?,
            own => own,
        };
        Ok(Some(Self {
            count,
            per_token: per_token.unwrap_or(1).clamp(1, count),
            width,
            shared: Shared::of(kind, fields, width)?,
            latent: most(fields, &["moe_latent_size", "routed_expert_hidden_size"])?,
            biases: kind == "gpt_oss",
            names: if kind.starts_with("gemma4") { &BESIDE_DENSE } else { &NAMES },
        }))
    }

    /// The matrices of one layer of experts.
    pub(super) fn modules(&self, into: &mut Modules, traits: &Traits, hidden: u32) {
        let (hidden, width) = (u64::from(hidden), u64::from(self.width));
        let (count, names) = (u64::from(self.count), self.names);
        let input = self.latent.map_or(hidden, u64::from);
        if self.latent.is_some() {
            into.linear(Class::Dense, "mixer.fc1_latent_proj", hidden, input, false);
            into.linear(Class::Dense, "mixer.fc2_latent_proj", input, hidden, false);
        }
        if traits.gated {
            into.experts(names.gate, input, width, count);
        }
        into.experts(names.up, input, width, count);
        into.experts(names.down, width, input, count);
        if self.biases {
            let each = if traits.gated { 2 * width } else { width } + input;
            into.small(Class::Experts, each.saturating_mul(count));
        }
        into.table(Class::Replicated, names.router, count, hidden);
        into.small(Class::Replicated, count);
        self.shared.modules(into, traits, hidden);
    }
}

const PER_TOKEN: [&str; 9] = [
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
    "top_k_experts",
    "experts_per_token",
    "num_selected_experts",
    "top_k",
];

fn count(fields: &Fields<'_>) -> Result<Option<u32>, ReadError> {
    let names = [
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_num_experts",
        "num_routed_experts",
        "n_experts",
        "num_moe_experts",
    ];
    let nested = fields.object(&["ffn_config"]);
    let own = nested.map_or(Ok(None), |own| own.number(&["moe_num_experts"]))?;
    Ok(own.or(most(fields, &names)?))
}

fn width(fields: &Fields<'_>) -> Result<u32, ReadError> {
    let names = [
        "moe_intermediate_size",
        "moe_ffn_hidden_size",
        "expert_ffn_hidden_size",
        "expert_intermediate_size",
        "moe_ffn_dim",
        "ffn_hidden_size",
    ];
    let nested = fields.object(&["ffn_config"]);
    let own = nested.map_or(Ok(None), |own| own.number(&["ffn_hidden_size"]))?;
    match own.or(most(fields, &names)?).filter(|&width| width > 0) {
        Some(width) => Ok(width),
        None => most(fields, &["intermediate_size"])?
            .ok_or_else(|| fields.missing("moe_intermediate_size")),
    }
}

/// ERNIE 4.5 VL has a second set for images, of another width: counted in whole experts.
fn with_a_second_set(fields: &Fields<'_>, count: u32, width: u32) -> u32 {
    let lists = (fields.numbers(&["moe_num_experts"]), fields.numbers(&["moe_intermediate_size"]));
    let (counts, widths) = match lists {
        (None, Some(widths)) if widths.len() > 1 => (vec![u64::from(count); widths.len()], widths),
        (Some(counts), Some(widths)) => (counts, widths),
        _ => return count,
    };
    let sum = counts
        .iter()
        .zip(&widths)
        .fold(0, |sum: u64, (count, width)| sum.saturating_add(count.saturating_mul(*width)));
    u32::try_from(sum / u64::from(width.max(1))).unwrap_or(u32::MAX)
}

impl Shared {
    fn of(kind: &str, fields: &Fields<'_>, routed_width: u32) -> Result<Self, ReadError> {
        let names = [
            "n_shared_experts",
            "num_shared_experts",
            "moe_num_shared_experts",
            "num_shared_expert",
        ];
        let each = [
            "moe_shared_expert_intermediate_size",
            "shared_expert_intermediate_size",
            "share_expert_dim",
            "share_expert_dims",
            "shared_experts_intermediate_size",
        ];
        let count = most(fields, &names)?;
        let each = most(fields, &each)?;
        let together = most(fields, &["shared_intermediate_size"])?;
        let dense = most(fields, &["intermediate_size"])?.unwrap_or(routed_width);
        let starts = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
        let times = |width: u32, count: u32| u64::from(width) * u64::from(count);
        let (width, count) = match (count, each, together) {
            _ if starts(&["llama4"]) => (u64::from(routed_width), 1),
            _ if fields.flag(&["use_mixed_mlp_moe"]) == Some(false) => (0, 0),
            (_, _, Some(width)) => (u64::from(width), u32::from(width > 0)),
            (Some(0), ..) => (0, 0),
            // Some give the width of each, some (Nemotron-H among them) of all together.
            (Some(count), Some(each), _) if starts(&["ernie", "bailing", "dots3"]) => {
                (times(each, count), count)
            }
            (_, Some(0), _) => (0, 0),
            (count, Some(each), _) => (u64::from(each), count.unwrap_or(1)),
            // Hunyuan's are as wide as a dense layer.
            (count, None, _) if kind == "hunyuan_v1_moe" => {
                let count = count.unwrap_or(1);
                (times(dense, count), count)
            }
            (Some(count), None, _) => (times(routed_width, count), count),
            (None, None, _) => (0, 0),
        };
        let gate = width > 0 && starts(&["qwen", "lara_mini"]);
        Ok(Self { count, width, gate })
    }

    fn modules(&self, into: &mut Modules, traits: &Traits, hidden: u64) {
        let (class, width) = (Class::Dense, self.width);
        if traits.gated {
            into.linear(class, "mlp.shared_experts.gate_proj", hidden, width, false);
        }
        into.linear(class, "mlp.shared_experts.up_proj", hidden, width, false);
        into.linear(class, "mlp.shared_experts.down_proj", width, hidden, false);
        if self.gate {
            into.table(Class::Replicated, "mlp.shared_expert_gate", 1, hidden);
        }
    }

    /// The width of one of them.
    pub(super) fn each(&self) -> Option<u32> {
        let width = self.width.checked_div(u64::from(self.count))?;
        Some(u32::try_from(width).unwrap_or(u32::MAX))
    }
}

/// A number, or the largest of a list.
fn most(fields: &Fields<'_>, names: &[&str]) -> Result<Option<u32>, ReadError> {
    match fields.get(names) {
        Some(Value::Array(list)) => Ok(list
            .iter()
            .filter_map(Value::as_u64)
            .max()
            .and_then(|most| u32::try_from(most).ok())),
        _ => fields.number(names),
    }
}
