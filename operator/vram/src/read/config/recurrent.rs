//! Layers with a state of fixed size: Mamba, gated `DeltaNet`, and others of their kind.

use super::modules::Modules;
use crate::read::{ReadError, fields::Fields, tensors::Class};

/// What one layer keeps of a sequence, in values: the window of its convolution in 16 bits, and the
/// state, whose type is the config's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub convolution: u64,
    pub state: u64,
}

impl State {
    /// In bytes. vLLM stores the state in 16 bits unless the config asks for fp32.
    pub(super) fn bytes(self, fields: &Fields<'_>) -> u64 {
        let wide = fields.text(&["mamba_ssm_dtype", "mamba_ssm_cache_dtype"]) == Some("float32");
        let width = if wide { 4 } else { 2 };
        self.convolution.saturating_mul(2).saturating_add(self.state.saturating_mul(width))
    }
}

/// Adds the matrices of a recurrent layer, and says what it keeps.
pub(super) fn modules(
    into: &mut Modules,
    kind: &str,
    fields: &Fields<'_>,
    hidden: u32,
) -> Result<State, ReadError> {
    let hidden = u64::from(hidden);
    if fields.number(&["linear_num_value_heads"])?.is_some() {
        delta_net(into, kind, fields, hidden)
    } else if fields.get(&["linear_attn_config"]).is_some() || kind == "kimi_linear" {
        kimi_delta(into, fields, hidden)
    } else if kind.starts_with("lfm") {
        short_convolution(into, fields, hidden)
    } else if kind.starts_with("minimax") || kind.starts_with("bailing") {
        lightning(into, fields, hidden)
    } else if fields.number(&["mamba_n_heads", "mamba_num_heads", "n_mamba_heads"])?.is_some()
        && kind != "jamba"
        && kind != "zamba"
        || kind == "mamba2"
    {
        mamba2(into, kind, fields, hidden)
    } else if fields.number(&["mamba_d_state", "state_size"])?.is_some() {
        mamba(into, kind, fields, hidden)
    } else {
        Err(ReadError::Unsupported {
            what: format!("a {kind:?} model's recurrent layers"),
            advice: "give spec.model.facts with recurrent, and parameters or weightBytes",
        })
    }
}

/// Mamba 2: one in-projection to gate, values, input and output vectors, and time steps.
fn mamba2(
    into: &mut Modules,
    kind: &str,
    fields: &Fields<'_>,
    hidden: u64,
) -> Result<State, ReadError> {
    let number = |names: &[&str]| Ok::<_, ReadError>(fields.number(names)?.map(u64::from));
    let heads = number(&["mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads"])?
        .ok_or_else(|| fields.missing("mamba_n_heads"))?;
    let expand = number(&["mamba_expand", "expand"])?.unwrap_or(2);
    let head = number(&["mamba_d_head", "mamba_head_dim", "mamba_headdim", "head_dim"])?
        .filter(|_| kind != "zamba2" || fields.has_own("mamba_headdim"));
    let inner = match (number(&["mamba_d_ssm"])?, head) {
        (Some(inner), _) => inner,
        (None, Some(head)) => heads.saturating_mul(head),
        (None, None) => hidden.saturating_mul(expand),
    };
    let head = head.unwrap_or(inner / heads.max(1));
    let state = number(&["mamba_d_state", "ssm_state_size", "state_size"])?
        .ok_or_else(|| fields.missing("mamba_d_state"))?;
    let groups = number(&["mamba_n_groups", "n_groups", "mamba_ngroups"])?.unwrap_or(1);
    let kernel = number(&["mamba_d_conv", "conv_kernel"])?.unwrap_or(4);
    let mixed = inner.saturating_add(groups.saturating_mul(state).saturating_mul(2));
    let class = Class::Attention;
    into.linear(
        class,
        "mixer.in_proj",
        hidden,
        inner.saturating_add(mixed).saturating_add(heads),
        false,
    );
    into.table(class, "mixer.conv1d", mixed, kernel.saturating_add(1));
    into.linear(class, "mixer.out_proj", inner, hidden, false);
    into.small(Class::Replicated, inner.saturating_add(heads.saturating_mul(3)));
    Ok(State {
        convolution: mixed.saturating_mul(kernel.saturating_sub(1)),
        state: heads.saturating_mul(head).saturating_mul(state),
    })
}

/// Mamba: time steps and vectors are projected from the convolved values.
fn mamba(
    into: &mut Modules,
    kind: &str,
    fields: &Fields<'_>,
    hidden: u64,
) -> Result<State, ReadError> {
    let number = |names: &[&str]| Ok::<_, ReadError>(fields.number(names)?.map(u64::from));
    let expand = number(&["mamba_expand", "expand"])?.unwrap_or(2);
    let inner = match number(&["intermediate_size"])? {
        Some(inner) if kind.contains("mamba") => inner,
        _ => hidden.saturating_mul(expand),
    };
    let state = number(&["mamba_d_state", "state_size"])?.unwrap_or(16);
    let kernel = number(&["mamba_d_conv", "conv_kernel"])?.unwrap_or(4);
    let rank = match fields.get(&["mamba_dt_rank", "time_step_rank"]) {
        Some(serde_json::Value::Number(_)) => number(&["mamba_dt_rank", "time_step_rank"])?,
        _ => None,
    };
    let rank = rank.unwrap_or(hidden.div_ceil(16));
    let class = Class::Attention;
    into.linear(class, "mixer.in_proj", hidden, inner.saturating_mul(2), false);
    into.table(class, "mixer.conv1d", inner, kernel.saturating_add(1));
    into.linear(class, "mixer.x_proj", inner, state.saturating_mul(2).saturating_add(rank), false);
    into.linear(class, "mixer.dt_proj", rank, inner, true);
    into.table(class, "mixer.A_log", inner, state.saturating_add(1));
    into.linear(class, "mixer.out_proj", inner, hidden, false);
    Ok(State {
        convolution: inner.saturating_mul(kernel.saturating_sub(1)),
        state: inner.saturating_mul(state),
    })
}

/// Gated `DeltaNet` (Qwen3-Next, Qwen 3.5).
fn delta_net(
    into: &mut Modules,
    kind: &str,
    fields: &Fields<'_>,
    hidden: u64,
) -> Result<State, ReadError> {
    let need = |name: &'static str| Ok::<_, ReadError>(u64::from(fields.need(&[name])?));
    let (key_heads, value_heads) = (need("linear_num_key_heads")?, need("linear_num_value_heads")?);
    let (key_dim, value_dim) = (need("linear_key_head_dim")?, need("linear_value_head_dim")?);
    let kernel = u64::from(fields.number(&["linear_conv_kernel_dim"])?.unwrap_or(4));
    let (keys, values) = (key_heads.saturating_mul(key_dim), value_heads.saturating_mul(value_dim));
    let mixed = keys.saturating_mul(2).saturating_add(values);
    let class = Class::Attention;
    if kind.starts_with("qwen3_next") {
        // One matrix for queries, keys, values and gates.
        into.linear(class, "linear_attn.in_proj_qkvz", hidden, mixed.saturating_add(values), false);
        into.table(class, "linear_attn.in_proj_ba", value_heads.saturating_mul(2), hidden);
    } else {
        into.linear(class, "linear_attn.in_proj_qkv", hidden, mixed, false);
        into.linear(class, "linear_attn.in_proj_z", hidden, values, false);
        into.table(class, "linear_attn.in_proj_b", value_heads, hidden);
        into.table(class, "linear_attn.in_proj_a", value_heads, hidden);
    }
    into.table(class, "linear_attn.conv1d", mixed, kernel);
    into.linear(class, "linear_attn.out_proj", values, hidden, false);
    into.small(Class::Replicated, value_dim.saturating_add(value_heads.saturating_mul(2)));
    Ok(State {
        convolution: mixed.saturating_mul(kernel.saturating_sub(1)),
        state: value_heads.saturating_mul(value_dim).saturating_mul(key_dim),
    })
}

/// Kimi Delta Attention: its gates are projected through a narrow layer.
fn kimi_delta(into: &mut Modules, fields: &Fields<'_>, hidden: u64) -> Result<State, ReadError> {
    let own = fields.object(&["linear_attn_config"]).unwrap_or_default();
    let number = |inner: &[&str], outer: &[&str]| {
        Ok::<_, ReadError>(own.number(inner)?.or(fields.number(outer)?).map(u64::from))
    };
    let heads = number(&["num_heads"], &["linear_num_heads"])?
        .ok_or_else(|| fields.missing("linear_attn_config"))?;
    let head = number(&["head_dim"], &["linear_head_dim"])?.unwrap_or(128);
    let kernel = number(&["short_conv_kernel_size"], &["linear_conv_kernel_dim"])?.unwrap_or(4);
    let width = heads.saturating_mul(head);
    let class = Class::Attention;
    for name in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] {
        into.linear(class, name, hidden, width, false);
        into.table(class, "self_attn.q_conv1d", width, kernel);
    }
    into.linear(class, "self_attn.f_a_proj", hidden, head, false);
    into.linear(class, "self_attn.f_b_proj", head, width, false);
    if own.flag(&["use_full_rank_gate"]) == Some(true) {
        into.linear(class, "self_attn.g_proj", hidden, width, false);
    } else {
        into.linear(class, "self_attn.g_a_proj", hidden, head, false);
        into.linear(class, "self_attn.g_b_proj", head, width, false);
    }
    into.table(class, "self_attn.b_proj", heads, hidden);
    into.linear(class, "self_attn.o_proj", width, hidden, false);
    into.small(Class::Replicated, width.saturating_add(heads).saturating_add(head));
    Ok(State {
        convolution: width.saturating_mul(3).saturating_mul(kernel.saturating_sub(1)),
        // In fp32 whatever the config says: counted twice here, as values of 16 bits.
        state: width.saturating_mul(head).saturating_mul(2),
    })
}

/// Lightning attention (MiniMax-Text-01).
fn lightning(into: &mut Modules, fields: &Fields<'_>, hidden: u64) -> Result<State, ReadError> {
    let heads = u64::from(fields.need(&["num_attention_heads"])?);
    let head = fields.number(&["head_dim"])?.map_or(hidden / heads.max(1), u64::from);
    let width = heads.saturating_mul(head);
    let class = Class::Attention;
    into.linear(class, "self_attn.qkv_proj", hidden, width.saturating_mul(3), false);
    into.linear(class, "self_attn.output_gate", hidden, width, false);
    into.linear(class, "self_attn.out_proj", width, hidden, false);
    into.small(Class::Replicated, width);
    Ok(State { convolution: 0, state: width.saturating_mul(head) })
}

/// LFM 2: a gated convolution over a few tokens, no state beside it.
fn short_convolution(
    into: &mut Modules,
    fields: &Fields<'_>,
    hidden: u64,
) -> Result<State, ReadError> {
    let kernel = u64::from(fields.number(&["conv_L_cache", "conv_kernel_size"])?.unwrap_or(3));
    let class = Class::Attention;
    into.linear(class, "conv.in_proj", hidden, hidden.saturating_mul(3), false);
    into.table(class, "conv.conv", hidden, kernel);
    into.linear(class, "conv.out_proj", hidden, hidden, false);
    Ok(State { convolution: hidden.saturating_mul(kernel.saturating_sub(1)), state: 0 })
}
