//! Tokens by two accounts: what the answers to us took, by the engines' own words in each answer,
//! and what the operator counts. Where no engine ended in between they must be the same, to the
//! token. Where engines ended the operator may lack what they served since its last look at them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;

use super::SCRAPE;
use crate::{
    Cluster,
    chat::Tokens,
    load::Counts,
    wait::{Look, patience, until},
};

/// The operator's metric.
const TOKENS: &str = "berth_deployment_tokens_total";

/// Both accounts of one `LLMDeployment`.
#[derive(Clone, Debug)]
pub struct Tally {
    deployment: String,
    /// What the answers took: prompts, and what was generated.
    told: [u64; 2],
    /// What the operator lacks of it, for good.
    lost: [u64; 2],
}

impl Tally {
    /// Nothing was asked yet.
    pub fn of(deployment: &str) -> Self {
        Self { deployment: deployment.to_owned(), told: [0; 2], lost: [0; 2] }
    }

    /// Adds what answers took.
    pub fn add(&mut self, tokens: Tokens) {
        self.told[0] += tokens.prompt;
        self.told[1] += tokens.generated;
    }

    /// Tokens of prompts, and tokens generated, that the operator should have.
    pub fn expected(&self) -> [u64; 2] {
        [self.told[0] - self.lost[0], self.told[1] - self.lost[1]]
    }

    /// Both kinds together.
    pub fn total(&self) -> u64 {
        self.expected().iter().sum()
    }

    /// Waits until the operator's count is what it should be, to the token. It may never be more.
    pub async fn agrees(&self, cluster: &Cluster, operator: &Pod) -> Result<()> {
        let expected = self.expected();
        let what = format!("the operator counts {expected:?} tokens of prompts and generated");
        let counted = until(what, patience(), async || {
            let counted = self.counted(cluster, operator).await?;
            let more = (0..2).any(|kind| counted[kind] > expected[kind]);
            let done = more || counted == expected;
            Ok(if done { Look::Done(counted) } else { Look::NotYet(format!("{counted:?}")) })
        })
        .await?;
        ensure!(counted == expected, "more is counted than served: {counted:?} of {expected:?}");
        Ok(())
    }

    /// Waits until the operator's count rests, and returns how much more it lacks than before: not
    /// less than nothing, and at most `most`. To be called when nothing is asked.
    pub async fn agrees_but_for(
        &mut self,
        most: u64,
        cluster: &Cluster,
        operator: &Pod,
    ) -> Result<u64> {
        let expected = self.expected();
        let mut last = None;
        let counted = until("the operator's count rests", patience(), async || {
            let counted = self.counted(cluster, operator).await?;
            if counted == expected || last.replace(counted) == Some(counted) {
                return Ok(Look::Done(counted));
            }
            // Two looks of the operator lie in between.
            tokio::time::sleep(SCRAPE * 5 / 2).await;
            Ok(Look::NotYet(format!("{counted:?}")))
        })
        .await?;
        ensure!(
            (0..2).all(|kind| counted[kind] <= expected[kind]),
            "more is counted than served: {counted:?} of {expected:?}"
        );
        let missing = self.total() - counted.iter().sum::<u64>();
        ensure!(
            missing <= most,
            "{missing} tokens are lost, and {most} can be: {counted:?} of {expected:?}"
        );
        self.lost = [self.told[0] - counted[0], self.told[1] - counted[1]];
        Ok(missing)
    }

    /// Waits until status has what was counted but for a twentieth, which is not worth a write, and
    /// returns how many tokens it lacks: what is lost with an operator and all engines at once.
    pub async fn unwritten(&self, cluster: &Cluster) -> Result<u64> {
        until("status.usage is written", patience(), async || {
            let status = cluster.llm(&self.deployment).await?.status.unwrap_or_default();
            let usage = status.usage.context("no usage in status")?;
            let written = u64::try_from(usage.prompt_tokens + usage.generated_tokens)?;
            let total = self.total();
            let missing = total.checked_sub(written).context("it has more than was served")?;
            let done = missing * 20 <= written;
            let seen = || format!("it has {written} of {total}");
            Ok(if done { Look::Done(missing) } else { Look::NotYet(seen()) })
        })
        .await
    }

    async fn counted(&self, cluster: &Cluster, operator: &Pod) -> Result<[u64; 2]> {
        let metrics = cluster.operator_metrics(operator).await?;
        let of = |kind: &str| {
            let labels = [("deployment", self.deployment.as_str()), ("kind", kind)];
            let count = metrics.sum(TOKENS, &labels)?;
            count.to_string().parse().with_context(|| format!("{count} {kind} tokens"))
        };
        Ok([of("prompt")?, of("generated")?])
    }
}

/// The most tokens that so many replicas `of` these can have served at their ends without a look
/// of the operator: it looks at them every [`SCRAPE`], and two of those at once never go by.
pub fn unseen(counts: &Counts, ended: u32, of: u32) -> Result<u64> {
    let tokens = u128::from(counts.tokens.prompt + counts.tokens.generated);
    let share = tokens * u128::from(ended) / u128::from(of);
    let time = Duration::from_secs_f64(counts.seconds).as_millis().max(1);
    Ok(u64::try_from((share * (2 * SCRAPE).as_millis()).div_ceil(time))?)
}
