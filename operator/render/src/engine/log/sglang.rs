//! `SGLang`, from the source of 0.5.21: `sglang/srt/entrypoints/engine.py`,
//! `sglang/srt/model_executor/model_runner.py`, `sglang/srt/mem_cache/memory_pool.py` and
//! `sglang/srt/model_executor/model_runner_components/kv_pool_runtime.py`. Its "GB" are GiB.

use berth_units::Bytes;

use super::{Accelerator, CPU, GPU, Measured, Startup, between};

pub(in crate::engine) fn startup(log: &str) -> Startup {
    Startup { accelerator: accelerator(log), measured: measured(log) }
}

/// `server_args={'model_path': '…', 'device': 'cuda', …}`: `cuda` stands for `ROCm` too. Older
/// versions say `server_args=ServerArgs(model_path='…', device='cuda', …)`.
fn accelerator(log: &str) -> Option<Accelerator> {
    let args = log.lines().find_map(|line| Some(line.split_once("server_args=")?.1))?;
    let named = between(args, "'device': '", "'").or_else(|| between(args, " device='", "'"));
    let device = match named? {
        "cpu" => CPU,
        "cuda" | "xpu" => GPU,
        _ => return None,
    };
    Some(Accelerator { device: device.to_owned(), layers: None })
}

/// Said once for each rank: the fullest GPU has the most weights. What a step takes is not said.
fn measured(log: &str) -> Option<Measured> {
    let weights = log
        .lines()
        .filter(|line| line.contains("Load weight end."))
        .filter_map(|line| gibibytes(between(line, "mem usage=", " GB")?))
        .max();
    let cache = cache(log);
    Measured {
        weights,
        kv_cache: cache.map(|(bytes, _)| bytes),
        compute: None,
        kv_tokens: cache.map(|(_, tokens)| tokens),
    }
    .told()
}

/// The KV cache and its tokens. Since 0.5.20 or so it may be sized once more after graphs are
/// captured, and that counts. Pools of different lengths (layers with a window beside others) cannot
/// be told from ranks, so nothing is said of them.
fn cache(log: &str) -> Option<(Bytes, u64)> {
    let sized = |what: &'static str| {
        let lines = log.lines().filter(move |line| line.contains(what));
        lines.filter_map(|line| {
            let tokens = between(line, "#tokens: ", ",")?.parse().ok()?;
            let whole = between(line, "KV size: ", " GB").and_then(gibibytes);
            let halves = || {
                let keys = gibibytes(between(line, " K size: ", " GB")?)?;
                Some(keys + gibibytes(between(line, "V size: ", " GB")?)?)
            };
            Some((whole.or_else(halves)?, tokens))
        })
    };
    let mut all: Vec<(Bytes, u64)> = sized("Post-capture KV sizing: KV cache allocated.").collect();
    if all.is_empty() {
        all = sized("KV Cache is allocated.").collect();
    }
    let &(_, tokens) = all.first()?;
    let alike = all.iter().all(|&(_, other)| other == tokens);
    alike.then(|| all.iter().map(|&(bytes, _)| bytes).min().map(|bytes| (bytes, tokens)))?
}

fn gibibytes(text: &str) -> Option<Bytes> {
    text.parse().ok().map(Bytes::from_gib_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = "\
        [2026-11-24 20:00:01] server_args={'model_path': '/model/m', 'host': '0.0.0.0', 'device': \
        'cuda', 'mem_fraction_static': 0.7842}\n\
        [2026-11-24 20:00:40 TP0] Load weight end. elapsed=12.31 s, type=LlamaForCausalLM, \
        avail mem=63.40 GB, mem usage=15.02 GB.\n\
        [2026-11-24 20:00:40 TP1] Load weight end. elapsed=12.40 s, type=LlamaForCausalLM, \
        avail mem=63.40 GB, mem usage=15.03 GB.\n\
        [2026-11-24 20:00:41 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 399360, \
        K size: 24.37 GB, V size: 24.38 GB\n\
        [2026-11-24 20:00:41 TP1] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 399360, \
        K size: 24.37 GB, V size: 24.38 GB\n\
        [2026-11-24 20:00:41 TP0] Memory pool end. avail mem=14.10 GB\n";

    #[test]
    fn sglang_says_what_the_fullest_rank_takes() {
        let said = startup(STARTED);
        assert_eq!(said.accelerator.map(|on| on.device).as_deref(), Some(GPU));
        let measured = said.measured.unwrap();
        assert_eq!(measured.weights, Some(Bytes::from_gib_f64(15.03)));
        let cache = measured.kv_cache.unwrap().as_gib_f64();
        assert!((cache - 48.75).abs() < 1e-6, "{cache}");
        assert_eq!(measured.kv_tokens, Some(399_360));
    }

    #[test]
    fn what_is_sized_after_the_capture_counts() {
        let log = "KV Cache VA upper bound. dtype: torch.bfloat16, #tokens: 500000, K size: 30.00 GB, \
                   V size: 30.00 GB\n\
                   Post-capture KV sizing: full_layer_tokens=410000, swa_layer_tokens=0\n\
                   Post-capture KV sizing: KV cache allocated. dtype: torch.bfloat16, #tokens: \
                   410000, KV size: 50.05 GB, avail mem=9.71 GB\n";
        let measured = startup(log).measured.unwrap();
        assert_eq!(measured.kv_cache, Some(Bytes::from_gib_f64(50.05)));
        assert_eq!(measured.kv_tokens, Some(410_000));
    }

    #[test]
    fn what_is_not_sure_is_not_said() {
        let two_pools = "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1000, KV size: 1.00 GB\n\
                         KV Cache is allocated. dtype: torch.bfloat16, #tokens: 4000, KV size: 2.00 GB\n";
        assert_eq!(startup(two_pools), Startup::default());
        assert_eq!(
            startup("server_args={'device': 'npu'}\nKV Cache is allocated. #tokens: many,"),
            Startup::default()
        );
        let older = "server_args=ServerArgs(model_path='m', device='cpu', port=8000)";
        assert_eq!(startup(older).accelerator.map(|on| on.device).as_deref(), Some(CPU));
    }
}
