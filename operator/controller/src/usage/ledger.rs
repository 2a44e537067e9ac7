//! Tokens added up over restarts of engines, pods and operators. Pure.
//!
//! An engine counts from its own start. What it counted since the last look is added; an engine
//! that was started anew, by the kubelet's count or because its counter went backwards, is new
//! altogether. Totals and each pod's last look
//! are checkpointed in `status.usage`, at most once a minute and only when they moved by a
//! twentieth, once an hour otherwise, and before this operator ends. What a crash of this operator
//! loses is nothing of the engines that run on: they count on. Of engines that end before the next
//! operator looks, it loses what they served since the last checkpoint. What a crash of an *engine*
//! loses is what it served since the last look.

use std::collections::{BTreeMap, HashMap};

use berth_crds::llm_deployment::{FirstTokenUsage, PodUsage, UsageStatus};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    counters::{Counters, FirstTokens, read, written},
    scrape::Look,
};

/// Seconds between checkpoints at least, where the totals moved by a twentieth or more.
const SOON: i64 = 60;
/// Seconds between checkpoints at least, where they moved at all.
const LATE: i64 = 3600;

/// The usage of every deployment, by its UID.
#[derive(Debug, Default)]
pub struct Ledger(HashMap<String, Usage>);

/// The usage of one deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// What all replicas counted, those that are gone too.
    pub counted: Counters,
    /// Requests that run, all replicas together.
    pub running: f64,
    /// Requests that wait.
    pub waiting: f64,
    /// Part of the KV cache in use, the fullest replica's.
    pub kv_cache_use: Option<f64>,
    /// Part of the KV cache in use, the mean of all replicas.
    pub mean_kv_cache_use: Option<f64>,
    /// Tokens generated a second between the last two looks.
    pub tokens_per_second: f64,
    /// Each pod's counters at the last look.
    last: BTreeMap<String, Last>,
    looked: Option<f64>,
    /// Tokens that were served before this operator looked first: what they cost it does not know.
    before: u64,
    since: Option<Timestamp>,
    checkpoint: Option<UsageStatus>,
}

/// The counters of a pod's engine at the last look, and which start of it they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Last {
    counted: Counters,
    restarts: i32,
}

impl Ledger {
    /// Takes up what status remembers of a deployment, unless it is known already.
    pub fn resume(&mut self, uid: &str, status: Option<&UsageStatus>) {
        if self.0.contains_key(uid) {
            return;
        }
        let counters = |prompt, generated, first: Option<&FirstTokenUsage>| Counters {
            prompt_tokens: read(prompt),
            generated_tokens: read(generated),
            first_tokens: first.map(FirstTokens::from),
        };
        let last = |pod: &PodUsage| Last {
            counted: counters(pod.prompt_tokens, pod.generated_tokens, pod.first_tokens.as_ref()),
            restarts: pod.restarts,
        };
        let usage = status.map_or_else(Usage::default, |status| Usage {
            counted: counters(
                status.prompt_tokens,
                status.generated_tokens,
                status.first_tokens.as_ref(),
            ),
            last: status.pods.iter().map(|pod| (pod.uid.clone(), last(pod))).collect(),
            since: Some(status.since.0),
            checkpoint: Some(status.clone()),
            ..Usage::default()
        });
        self.0.insert(uid.to_owned(), usage);
    }

    /// Takes in one round of looks at a deployment's pods, by their UIDs. Pods that exist but gave
    /// no answer are in `pods` without a sample: what they showed last is remembered. Pods that are
    /// gone are forgotten. `now` is in seconds of any steady clock.
    pub fn look(&mut self, uid: &str, pods: &BTreeMap<String, Option<Look>>, now: f64) {
        let usage = self.0.entry(uid.to_owned()).or_default();
        usage.since.get_or_insert_with(Timestamp::now);
        let before = usage.counted.generated_tokens;
        usage.last.retain(|pod, _| pods.contains_key(pod));
        let samples = || pods.values().flatten().map(|look| look.sample);
        for (pod, look) in pods {
            let Some(Look { sample, restarts }) = *look else { continue };
            let last = usage.last.get(pod).filter(|last| last.restarts == restarts);
            let then = last.map_or_else(Counters::default, |last| last.counted);
            usage.counted.add(sample.counters.since(then));
            usage.last.insert(pod.clone(), Last { counted: sample.counters, restarts });
        }
        usage.running = samples().map(|sample| sample.running).sum();
        usage.waiting = samples().map(|sample| sample.waiting).sum();
        let kv_cache_uses: Vec<f64> = samples().filter_map(|sample| sample.kv_cache_use).collect();
        usage.kv_cache_use = kv_cache_uses.iter().copied().reduce(f64::max);
        usage.mean_kv_cache_use = (!kv_cache_uses.is_empty())
            .then(|| kv_cache_uses.iter().sum::<f64>() / kv_cache_uses.len() as f64);
        if usage.looked.is_none() && usage.checkpoint.is_some() {
            usage.before = usage.counted.tokens();
        }
        let elapsed = usage.looked.replace(now).map_or(0.0, |then| now - then);
        let generated = usage.counted.generated_tokens - before;
        usage.tokens_per_second = if elapsed > 0.0 { generated as f64 / elapsed } else { 0.0 };
    }

    /// The usage of a deployment.
    pub fn get(&self, uid: &str) -> Option<&Usage> {
        self.0.get(uid)
    }

    /// Forgets deployments that are gone.
    pub fn keep(&mut self, alive: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| alive(uid));
    }

    /// What status says of a deployment's usage: the last checkpoint, or a new one where one is
    /// due. `price` tells what its tokens so far cost.
    pub fn checkpoint(
        &mut self,
        uid: &str,
        now: Timestamp,
        price: impl FnOnce(&Usage) -> Option<String>,
    ) -> Option<UsageStatus> {
        let usage = self.0.get_mut(uid)?;
        if usage.is_due(now) {
            let cost = price(usage);
            usage.checkpoint = Some(usage.status(now, cost));
        }
        usage.checkpoint.clone()
    }

    /// A checkpoint of a deployment that served anything since the last one, due or not: for when
    /// there will be no other.
    pub fn last_checkpoint(
        &mut self,
        uid: &str,
        now: Timestamp,
        price: impl FnOnce(&Usage) -> Option<String>,
    ) -> Option<UsageStatus> {
        let usage = self.0.get_mut(uid).filter(|usage| usage.moved() > 0)?;
        let cost = price(usage);
        usage.checkpoint = Some(usage.status(now, cost));
        usage.checkpoint.clone()
    }

    /// Whether a new checkpoint of a deployment is due.
    pub fn is_due(&self, uid: &str, now: Timestamp) -> bool {
        self.0.get(uid).is_some_and(|usage| usage.is_due(now))
    }
}

impl Usage {
    /// Tokens served while this operator looked on, and so knows what they cost.
    pub fn priced_tokens(&self) -> u64 {
        self.counted.tokens() - self.before
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let Some(last) = &self.checkpoint else { return self.counted.generated_tokens > 0 };
        let (old, moved) = (tokens(last), self.moved());
        let age = now.as_second() - last.at.0.as_second();
        age >= SOON && moved * 20 > old || age >= LATE && moved > 0
    }

    /// Tokens that the last checkpoint lacks.
    fn moved(&self) -> u64 {
        self.counted.tokens().abs_diff(self.checkpoint.as_ref().map_or(0, tokens))
    }

    fn status(&self, now: Timestamp, cost_per_million_tokens: Option<String>) -> UsageStatus {
        let pod = |(uid, last): (&String, &Last)| PodUsage {
            uid: uid.clone(),
            prompt_tokens: written(last.counted.prompt_tokens),
            generated_tokens: written(last.counted.generated_tokens),
            first_tokens: last.counted.first_tokens.map(Into::into),
            restarts: last.restarts,
        };
        UsageStatus {
            since: Time(self.since.unwrap_or(now)),
            at: Time(now),
            prompt_tokens: written(self.counted.prompt_tokens),
            generated_tokens: written(self.counted.generated_tokens),
            tokens_per_second: format!("{:.1}", self.tokens_per_second),
            cost_per_million_tokens,
            first_tokens: self.counted.first_tokens.map(Into::into),
            pods: self.last.iter().map(pod).collect(),
        }
    }
}

/// All tokens of a checkpoint.
fn tokens(status: &UsageStatus) -> u64 {
    read(status.prompt_tokens) + read(status.generated_tokens)
}

#[cfg(test)]
mod tests {
    use super::{super::sample::Sample, *};

    fn sample(prompt_tokens: u64, generated_tokens: u64) -> Sample {
        let first = FirstTokens { milliseconds: generated_tokens * 3, requests: generated_tokens };
        let counters = Counters { prompt_tokens, generated_tokens, first_tokens: Some(first) };
        Sample { counters, ..Sample::default() }
    }

    fn counted(ledger: &Ledger) -> (u64, u64) {
        let Counters { prompt_tokens, generated_tokens, first_tokens } =
            ledger.get("d").unwrap().counted;
        let first = FirstTokens { milliseconds: generated_tokens * 3, requests: generated_tokens };
        assert_eq!(first_tokens, Some(first), "first tokens are counted as tokens are");
        (prompt_tokens, generated_tokens)
    }

    fn pods(samples: &[(&str, Sample)]) -> BTreeMap<String, Option<Look>> {
        started(0, samples)
    }

    fn started(restarts: i32, samples: &[(&str, Sample)]) -> BTreeMap<String, Option<Look>> {
        let look = |sample| Some(Look { sample, restarts });
        samples.iter().map(|(uid, sample)| ((*uid).to_owned(), look(*sample))).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn what_is_new_since_the_last_look_is_added() {
        let mut ledger = Ledger::default();
        ledger.look("d", &pods(&[("a", sample(10, 100)), ("b", sample(1, 10))]), 0.0);
        ledger.look("d", &pods(&[("a", sample(20, 150)), ("b", sample(1, 10))]), 10.0);
        assert_eq!(counted(&ledger), (21, 160));
        let usage = ledger.get("d").unwrap();
        assert!((usage.tokens_per_second - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_counter_that_went_backwards_started_anew() {
        let mut ledger = Ledger::default();
        ledger.look("d", &pods(&[("a", sample(10, 100))]), 0.0);
        ledger.look("d", &pods(&[("a", sample(2, 30))]), 10.0);
        assert_eq!(counted(&ledger).1, 130);
    }

    #[test]
    fn an_engine_that_was_started_anew_and_has_passed_its_old_counter_is_counted_in_full() {
        let mut first = Ledger::default();
        first.look("d", &pods(&[("a", sample(10, 100))]), 0.0);
        let status = first.checkpoint("d", at(0), |_| None).unwrap();
        let mut second = Ledger::default();
        second.resume("d", Some(&status));
        second.look("d", &started(1, &[("a", sample(20, 150))]), 10.0);
        assert_eq!(counted(&second), (30, 250));
    }

    #[test]
    fn a_pod_that_does_not_answer_is_remembered_and_one_that_is_gone_is_not() {
        let mut ledger = Ledger::default();
        ledger.look("d", &pods(&[("a", sample(0, 100))]), 0.0);
        ledger.look("d", &BTreeMap::from([("a".to_owned(), None)]), 10.0);
        ledger.look("d", &pods(&[("a", sample(0, 120))]), 20.0);
        assert_eq!(counted(&ledger).1, 120);
        ledger.look("d", &pods(&[("b", sample(0, 5))]), 30.0);
        assert_eq!(counted(&ledger).1, 125);
    }

    #[test]
    fn another_operator_goes_on_where_this_one_stopped_and_counts_nothing_twice() {
        let mut first = Ledger::default();
        first.look("d", &pods(&[("a", sample(10, 100))]), 0.0);
        let status = first.checkpoint("d", at(0), |_| None).unwrap();
        // It served on after the checkpoint; the engine counted.
        let mut second = Ledger::default();
        second.resume("d", Some(&status));
        second.resume("d", None);
        second.look("d", &pods(&[("a", sample(15, 140))]), 500.0);
        assert_eq!(counted(&second), (15, 140));
        assert_eq!(
            second.get("d").unwrap().priced_tokens(),
            0,
            "they were served before it could charge"
        );
    }

    #[test]
    fn checkpoints_are_rare_and_none_is_made_of_nothing() {
        let mut ledger = Ledger::default();
        ledger.look("d", &pods(&[("a", sample(0, 0))]), 0.0);
        assert!(!ledger.is_due("d", at(0)));
        ledger.look("d", &pods(&[("a", sample(0, 1000))]), 1.0);
        assert!(ledger.is_due("d", at(0)));
        ledger.checkpoint("d", at(0), |_| None);
        ledger.look("d", &pods(&[("a", sample(0, 1200))]), 2.0);
        assert!(!ledger.is_due("d", at(30)), "too soon");
        assert!(ledger.is_due("d", at(61)));
        ledger.checkpoint("d", at(61), |_| None);
        ledger.look("d", &pods(&[("a", sample(0, 1201))]), 3.0);
        assert!(!ledger.is_due("d", at(1000)), "too little");
        assert!(ledger.is_due("d", at(61 + 3600)));
    }

    #[test]
    fn before_the_end_all_that_was_served_since_is_written_and_nothing_else() {
        let mut ledger = Ledger::default();
        ledger.look("d", &pods(&[("a", sample(0, 0))]), 0.0);
        assert_eq!(ledger.last_checkpoint("d", at(0), |_| None), None);
        ledger.look("d", &pods(&[("a", sample(0, 1000))]), 1.0);
        ledger.checkpoint("d", at(0), |_| None);
        ledger.look("d", &pods(&[("a", sample(0, 1001))]), 2.0);
        assert!(!ledger.is_due("d", at(1)));
        let last = ledger.last_checkpoint("d", at(1), |_| None).unwrap();
        assert_eq!((last.generated_tokens, last.pods[0].generated_tokens), (1001, 1001));
        assert_eq!(ledger.last_checkpoint("d", at(2), |_| None), None);
        assert_eq!(ledger.last_checkpoint("unknown", at(2), |_| None), None);
    }

    #[test]
    fn the_fullest_cache_and_the_mean_of_all_are_told() {
        let with = |kv_cache_use| Sample { kv_cache_use, ..sample(0, 0) };
        let mut ledger = Ledger::default();
        let samples = [("a", with(Some(0.2))), ("b", with(Some(0.6))), ("c", with(None))];
        ledger.look("d", &pods(&samples), 0.0);
        let usage = ledger.get("d").unwrap();
        assert_eq!((usage.kv_cache_use, usage.mean_kv_cache_use), (Some(0.6), Some(0.4)));
        ledger.look("d", &pods(&[("c", with(None))]), 1.0);
        let usage = ledger.get("d").unwrap();
        assert_eq!((usage.kv_cache_use, usage.mean_kv_cache_use), (None, None));
    }
}
