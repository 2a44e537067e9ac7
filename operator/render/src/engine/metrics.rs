//! What engines call their metrics, in the Prometheus format: one table for the scraper and for
//! `docs/metrics.md`.
//!
//! Names change from version to version. Each figure has all of its names, the newest first; the
//! first that a page has is read. Counters have their suffix `_total` here, as on the wire; a
//! histogram is named without `_sum` and `_count`.

/// All names of one figure, the newest first; empty where the engine has no such figure.
pub type Names = &'static [&'static str];

/// An engine's metrics: where they are and what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The engine, for people.
    pub engine: &'static str,
    /// The version whose source the newest names were read in.
    pub version: &'static str,
    /// HTTP path.
    pub path: &'static str,
    /// Counter of prompt tokens.
    pub prompt_tokens: Names,
    /// Counter of generated tokens.
    pub generated_tokens: Names,
    /// Gauge of requests in progress.
    pub running: Names,
    /// Gauge of requests that wait.
    pub waiting: Names,
    /// Gauge of the KV cache in use, 0 to 1.
    pub kv_cache_use: Names,
    /// Histogram of the seconds from a request to its first token.
    pub first_token_seconds: Names,
}

impl Metrics {
    /// The figures that every engine has, or may have.
    pub fn figures(&self) -> [(&'static str, Names); 6] {
        [
            ("prompt tokens", self.prompt_tokens),
            ("generated tokens", self.generated_tokens),
            ("requests running", self.running),
            ("requests waiting", self.waiting),
            ("KV cache in use", self.kv_cache_use),
            ("time to first token", self.first_token_seconds),
        ]
    }
}

/// Every engine whose metrics can be read.
pub const ALL: [&Metrics; 3] = [&VLLM, &SGLANG, &LLAMA_CPP];

/// `vllm/v1/metrics/loggers.py` of 0.33.0. Older versions call the KV cache's gauge after the GPU.
pub const VLLM: Metrics = Metrics {
    engine: "vLLM",
    version: "0.33.0",
    path: "/metrics",
    prompt_tokens: &["vllm:prompt_tokens_total"],
    generated_tokens: &["vllm:generation_tokens_total"],
    running: &["vllm:num_requests_running"],
    waiting: &["vllm:num_requests_waiting"],
    kv_cache_use: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
    first_token_seconds: &["vllm:time_to_first_token_seconds"],
};

/// `sglang/srt/observability/metrics_collector.py` of 0.5.23. They are there only with
/// `--enable-metrics`. With priority scheduling the gauges of requests hold the total and its parts
/// by priority, so that their sum would count twice: do not turn it on.
pub const SGLANG: Metrics = Metrics {
    engine: "SGLang",
    version: "0.5.23",
    path: "/metrics",
    prompt_tokens: &["sglang:prompt_tokens_total"],
    generated_tokens: &["sglang:generation_tokens_total"],
    running: &["sglang:num_running_reqs"],
    waiting: &["sglang:num_queue_reqs"],
    kv_cache_use: &["sglang:token_usage"],
    first_token_seconds: &["sglang:time_to_first_token_seconds"],
};

/// `tools/server/server-task.cpp` of b11434. Only older builds tell of the KV cache. Numbers have
/// six digits there: ten million tokens are counted by the hundred.
pub const LLAMA_CPP: Metrics = Metrics {
    engine: "llama.cpp",
    version: "b11434",
    path: "/metrics",
    prompt_tokens: &["llamacpp:prompt_tokens_total"],
    generated_tokens: &["llamacpp:tokens_predicted_total"],
    running: &["llamacpp:requests_processing"],
    waiting: &["llamacpp:requests_deferred"],
    kv_cache_use: &["llamacpp:kv_cache_usage_ratio"],
    first_token_seconds: &[],
};
