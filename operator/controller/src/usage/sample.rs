//! One look at an engine: its counters and gauges, read from Prometheus text. Pure.

use berth_render::engine::metrics::{Metrics, Names};

use super::{
    counters::{Counters, FirstTokens},
    page::{count, greatest, sum},
};

/// What an engine says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// What it counted since it started.
    pub counters: Counters,
    /// Requests that run now.
    pub running: f64,
    /// Requests that wait now.
    pub waiting: f64,
    /// Part of the KV cache in use, from 0 to 1, where the engine tells; of several, the fullest.
    pub kv_cache_use: Option<f64>,
}

/// Why a text says nothing about tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine's metrics lack {0}; an absent metric is not zero")]
pub struct Missing(pub &'static str);

/// Reads a sample from the text of an engine's metrics page.
pub fn read(text: &str, names: &Metrics) -> Result<Sample, Missing> {
    let need = |names: Names| {
        let found = names.iter().find_map(|name| sum(text, name));
        found.ok_or(Missing(names.first().copied().unwrap_or_default()))
    };
    let counters = Counters {
        prompt_tokens: count(need(names.prompt_tokens)?),
        generated_tokens: count(need(names.generated_tokens)?),
        first_tokens: names.first_token_seconds.iter().find_map(|name| {
            Some(FirstTokens {
                milliseconds: count(sum(text, &format!("{name}_sum"))? * 1000.0),
                requests: count(sum(text, &format!("{name}_count"))?),
            })
        }),
    };
    Ok(Sample {
        counters,
        running: need(names.running)?,
        waiting: need(names.waiting)?,
        // A part of a whole: that of several engines in one pod is no sum.
        kv_cache_use: names.kv_cache_use.iter().find_map(|name| greatest(text, name)),
    })
}

#[cfg(test)]
mod tests {
    use berth_render::engine::metrics::{ALL, LLAMA_CPP, SGLANG, VLLM};

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
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n\
            vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
            vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.25\"} 3.0\n\
            vllm:time_to_first_token_seconds_count{engine=\"0\"} 4.0\n\
            vllm:time_to_first_token_seconds_sum{engine=\"0\"} 1.2345\n";
        let expected = Sample {
            counters: Counters {
                prompt_tokens: 1234,
                generated_tokens: 560,
                first_tokens: Some(FirstTokens { milliseconds: 1234, requests: 4 }),
            },
            running: 2.0,
            waiting: 1.0,
            kv_cache_use: Some(0.75),
        };
        assert_eq!(read(text, &VLLM).unwrap(), expected);
        let older = text.replace("kv_cache_usage", "gpu_cache_usage");
        assert_eq!(read(&older, &VLLM).unwrap(), expected, "by the name that older versions have");
    }

    #[test]
    fn sglang_says_what_it_served() {
        let text = "sglang:prompt_tokens_total{is_streaming=\"true\",model_name=\"m\"} 100.0\n\
            sglang:prompt_tokens_total{is_streaming=\"false\",model_name=\"m\"} 20.0\n\
            sglang:generation_tokens_total{is_streaming=\"true\",model_name=\"m\"} 7.0\n\
            sglang:num_running_reqs{model_name=\"m\",tp_rank=\"0\"} 3.0\n\
            sglang:num_queue_reqs{model_name=\"m\",tp_rank=\"0\"} 1.0\n\
            sglang:token_usage{model_name=\"m\",tp_rank=\"0\"} 0.5\n\
            sglang:time_to_first_token_seconds_sum{model_name=\"m\"} 0.5\n\
            sglang:time_to_first_token_seconds_count{model_name=\"m\"} 2.0\n";
        let expected = Sample {
            counters: Counters {
                prompt_tokens: 120,
                generated_tokens: 7,
                first_tokens: Some(FirstTokens { milliseconds: 500, requests: 2 }),
            },
            running: 3.0,
            waiting: 1.0,
            kv_cache_use: Some(0.5),
        };
        assert_eq!(read(text, &SGLANG).unwrap(), expected);
    }

    /// As llama-server b11434 wrote it.
    #[test]
    fn llama_cpp_has_no_labels_and_does_not_tell_all() {
        let text = include_str!("../../../render/tests/said/llama-server-b11434-metrics.txt");
        let expected = Sample {
            counters: Counters { prompt_tokens: 34, generated_tokens: 4, first_tokens: None },
            running: 0.0,
            waiting: 0.0,
            kv_cache_use: None,
        };
        assert_eq!(read(text, &LLAMA_CPP).unwrap(), expected);
    }

    #[test]
    fn an_absent_metric_is_not_zero() {
        for names in ALL {
            let name = names.prompt_tokens[0];
            for text in [String::new(), "<html>no</html>".to_owned(), format!("{name} NaN\n")] {
                assert_eq!(read(&text, names), Err(Missing(name)), "{text}");
            }
        }
    }
}
