//! One look at an engine: its counters and gauges, read from Prometheus text. Pure.

use berth_render::engine::Metrics;

/// What an engine says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Tokens of prompts since the engine started.
    pub prompt_tokens: u64,
    /// Tokens generated since the engine started.
    pub generated_tokens: u64,
    /// Requests that run now.
    pub running: f64,
    /// Requests that wait now.
    pub waiting: f64,
    /// Part of the KV cache in use, from 0 to 1, where the engine tells.
    pub kv_cache_use: Option<f64>,
}

/// Why a text says nothing about tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine's metrics lack {0}; an absent metric is not zero")]
pub struct Missing(pub &'static str);

/// Reads a sample from the text of an engine's metrics page.
pub fn read(text: &str, names: &Metrics) -> Result<Sample, Missing> {
    let need = |name| sum(text, name).ok_or(Missing(name));
    Ok(Sample {
        prompt_tokens: count(need(names.prompt_tokens)?),
        generated_tokens: count(need(names.generated_tokens)?),
        running: need(names.running)?,
        waiting: need(names.waiting)?,
        kv_cache_use: names.kv_cache_use.and_then(|name| sum(text, name)),
    })
}

/// Sum of all series of a metric; `None` where there is none. Nonsense values are left out.
fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            // Label values may hold anything, braces too, but a value holds none.
            Some(labels) => &labels[labels.rfind('}')? + 1..],
            None if rest.starts_with(char::is_whitespace) => rest,
            None => return None,
        };
        let value: f64 = value.split_whitespace().next()?.parse().ok()?;
        value.is_finite().then_some(value)
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn count(value: f64) -> u64 {
    value.clamp(0.0, 1e18) as u64
}

#[cfg(test)]
mod tests {
    use berth_crds::llm_deployment::EngineType;

    use super::*;

    #[test]
    fn vllm_says_what_it_served() {
        let text = "# HELP vllm:prompt_tokens_total Prompt tokens.\n\
            # TYPE vllm:prompt_tokens_total counter\n\
            vllm:prompt_tokens_total{engine=\"0\",model_name=\"a } b\"} 1200.0\n\
            vllm:prompt_tokens_total{engine=\"1\",model_name=\"a } b\"} 34.0\n\
            vllm:generation_tokens_total{engine=\"0\"} 5.6e+02 1700000000\n\
            vllm:num_requests_running{engine=\"0\"} 2.0\n\
            vllm:num_requests_waiting{engine=\"0\"} 1.0\n\
            vllm:num_requests_waiting_by_reason{engine=\"0\"} 99.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n";
        let sample = read(text, berth_render::engine::of(EngineType::VLLM).metrics()).unwrap();
        assert_eq!(
            sample,
            Sample {
                prompt_tokens: 1234,
                generated_tokens: 560,
                running: 2.0,
                waiting: 1.0,
                kv_cache_use: Some(0.25),
            }
        );
    }

    #[test]
    fn llama_cpp_has_no_labels() {
        let text = "llamacpp:prompt_tokens_total 12\nllamacpp:tokens_predicted_total 34\n\
                    llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n";
        let sample = read(text, berth_render::engine::of(EngineType::LlamaCpp).metrics()).unwrap();
        assert_eq!((sample.prompt_tokens, sample.generated_tokens), (12, 34));
        assert_eq!(sample.kv_cache_use, None);
    }

    #[test]
    fn an_absent_metric_is_not_zero() {
        let names = berth_render::engine::of(EngineType::LlamaCpp).metrics();
        for text in ["", "<html>not found</html>", "llamacpp:prompt_tokens_total NaN\n"] {
            assert_eq!(read(text, names), Err(Missing("llamacpp:prompt_tokens_total")), "{text}");
        }
    }
}
