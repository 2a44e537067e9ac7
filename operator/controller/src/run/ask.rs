//! Asks replicas, round after round, what they served and how far their downloads are; writes down
//! what was served before the process ends.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_crds::{LLMDeployment, llm_deployment::UsageStatus};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt, runtime::reflector::Store};
use tokio::time::timeout;

use super::{Tasks, named, starts};
use crate::{
    client::WriteError,
    reconcile::{Context, apply},
    usage::scrape::{Looks, Of, Scraper, Target},
    world::{Guarded, pod::Progress, readable},
};

/// How long writing down may take, the last look included.
pub const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the last look may take; what it brings after that is left out.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// Writes down so many deployments at once.
const AT_ONCE: usize = 16;

/// Who asks.
#[derive(Clone)]
pub struct Asking {
    context: Arc<Context>,
    deployments: Store<Guarded>,
    scraper: Scraper,
    started: Instant,
}

/// How often replicas are asked. `None`: never, as their addresses can be reached from inside the
/// cluster only, or as that is what the administrator wants.
fn interval(given: Option<Duration>) -> Option<Duration> {
    let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let by_default = Duration::from_secs(if in_a_pod { 15 } else { 0 });
    Some(given.unwrap_or(by_default)).filter(|interval| !interval.is_zero())
}

impl Asking {
    /// Asks from now on, for ever, as often as the command line says, and reads the logs of engines
    /// that started; unless that is never.
    pub fn start(
        context: &Arc<Context>,
        deployments: &Store<Guarded>,
        given: Option<Duration>,
        tasks: &mut Tasks,
    ) -> Option<Self> {
        let Some(interval) = interval(given) else {
            tracing::info!("replicas are not asked for what they serve, nor are their logs read");
            return None;
        };
        let asking = Self {
            context: Arc::clone(context),
            deployments: deployments.clone(),
            scraper: Scraper::default(),
            started: Instant::now(),
        };
        tasks.spawn(named("asking replicas", asking.clone().every(interval)));
        let reading = starts::every(Arc::clone(context), deployments.clone(), interval);
        tasks.spawn(named("reading engines' logs", reading));
        Some(asking)
    }

    async fn every(self, interval: Duration) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.round().await;
        }
    }

    /// Asks every replica, and has those deployments looked at whose status should say so.
    async fn round(&self) {
        let context = &self.context;
        let objects = readable(&self.deployments);
        let round = self
            .scraper
            .round(targets(context, &objects), |target, error| {
                tracing::debug!(pod = target.pod, %error, "a replica did not answer");
                context.metrics.look_failed(error.label());
            })
            .await;
        for object in &objects {
            let uid = object.uid().unwrap_or_default();
            if self.take_in(object, &uid, round.get(&uid)) {
                context.world.look_at(&object.namespace().unwrap_or_default(), &object.name_any());
            }
        }
        let alive: HashSet<_> = objects.iter().filter_map(|object| object.uid()).collect();
        context.world.update(|state| {
            state.usage.keep(|uid| alive.contains(uid));
            state.keep_learning(|uid| alive.contains(uid));
        });
    }

    /// Takes in what a round brought for a deployment; whether its status should say so.
    fn take_in(&self, object: &LLMDeployment, uid: &str, looks: Option<&Looks>) -> bool {
        let status = object.status.as_ref().and_then(|status| status.usage.as_ref());
        let (elapsed, now) = (self.started.elapsed().as_secs_f64(), Timestamp::now());
        self.context.world.update(|state| {
            state.usage.resume(uid, status);
            let mut news = false;
            if let Some(looks) = looks {
                state.usage.look(uid, &looks.engines, elapsed);
                let downloads = &looks.downloads;
                news = state
                    .learn(uid, |learning| learning.downloads(uid, downloads, now.as_second()));
            }
            news || state.usage.is_due(uid, now)
        })
    }

    /// Writes down what was served since the last checkpoints, so that a restart loses nothing of
    /// it. Call it when nothing else writes any more; a failure is only logged.
    pub async fn write_down(&self) {
        let all = async {
            if timeout(LAST_LOOK, self.round()).await.is_err() {
                tracing::info!("the last look at engines took too long, and is left out");
            }
            let moved = self.moved();
            stream::iter(moved)
                .for_each_concurrent(AT_ONCE, |(object, usage)| async move {
                    if let Err(error) = self.write(&object, usage).await {
                        let (namespace, name) = (object.namespace(), object.name_any());
                        tracing::warn!(namespace, name, %error, "cannot write down what was served");
                    }
                })
                .await;
        };
        if timeout(LAST_WORDS, all).await.is_err() {
            tracing::warn!("not all of what was served could be written down in {LAST_WORDS:?}");
        }
    }

    fn moved(&self) -> Vec<(Arc<LLMDeployment>, UsageStatus)> {
        let now = Timestamp::now();
        let moved = |object: Arc<LLMDeployment>| {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let usage = self.context.world.update(|state| {
                state.usage.last_checkpoint(&object.uid().unwrap_or_default(), now, |usage| {
                    let tokens = usage.priced_tokens();
                    self.context.metrics.cost_per_million_tokens(&namespace, &name, tokens)
                })
            });
            Some((object, usage?))
        };
        readable(&self.deployments).into_iter().filter_map(moved).collect()
    }

    async fn write(&self, object: &LLMDeployment, usage: UsageStatus) -> Result<(), WriteError> {
        let writer = &self.context.writer;
        let namespace = object.namespace().unwrap_or_default();
        let api = Api::<LLMDeployment>::namespaced(writer.client().clone(), &namespace);
        // The store may not have our own last write yet.
        let Some(newest) = writer.get(&api, &object.name_any()).await? else { return Ok(()) };
        if newest.uid() != object.uid() {
            return Ok(());
        }
        let mut status = newest.status.clone().unwrap_or_default();
        status.usage = Some(usage);
        apply::status(&self.context, &newest, &status).await
    }
}

/// Whom to ask: the engines of all replicas that exist, and the downloads that go on.
fn targets(context: &Context, objects: &[Arc<LLMDeployment>]) -> Vec<Target> {
    let state = context.world.lock();
    let mut targets = Vec::new();
    for object in objects {
        let deployment = object.uid().unwrap_or_default();
        let resolved = object.status.as_ref().and_then(|status| status.resolved.as_ref());
        let Some(resolved) = resolved else { continue };
        let names = berth_render::engine::of(resolved.engine).metrics();
        for replica in state.replicas_of(&deployment) {
            let target = |address, of| Target {
                deployment: deployment.clone(),
                pod: replica.uid.clone(),
                address,
                of,
            };
            let address = replica.address.filter(|_| replica.may_serve());
            if let Some(names) = names {
                targets.push(target(address, Of::Engine { names, restarts: replica.restarts }));
            }
            if let Progress::Fetching { tries, .. } = replica.progress {
                targets.push(target(replica.address, Of::Fetch { tries }));
            }
        }
    }
    targets
}
