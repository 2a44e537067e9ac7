//! Reads what models are from the hub that the administrator configured, a few at a time, and keeps what
//! was learnt in the cluster, so that each is asked about once. Only a leader does.
//!
//! Nothing that a tenant names becomes an address: repository and revision are parts of a path at the
//! hub, and redirects lead only where the administrator allows.

use std::{sync::Arc, time::Duration};

use berth_inspect::{
    InspectError, Inspection, Selection,
    hub::{self, Hub},
    redirects::{Hosts, Redirects},
    retry::Policy,
    settings::{Authorities, Settings, endpoint},
};
use berth_render::Site;
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use kube::{Api, api::ListParams};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

use super::{Tasks, named};
use crate::{
    args::Args,
    client::{WriteError, gone},
    models::{
        Question, kept,
        library::{Library, News},
    },
    reconcile::Context,
};

/// Models that are looked at side by side.
const AT_ONCE: usize = 4;
/// The public hub.
const PUBLIC: &str = "https://huggingface.co";
/// For how long nothing may come. A hub that nobody can reach must not hold up for long a model that
/// the catalogue knows.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For one model, all requests together.
const DEADLINE: Duration = Duration::from_mins(1);
/// Further attempts are made later, with longer pauses.
const POLICY: Policy = Policy { attempts: 2, pause: Duration::from_millis(500) };

/// Reads what is asked for.
pub struct Reader {
    hub: Hub,
    asked: UnboundedReceiver<Question>,
}

/// The library, and who reads for it, if anybody may.
pub fn library(args: &Args, site: &Site) -> anyhow::Result<(Arc<Library>, Option<Reader>)> {
    if args.no_inspect || site.offline {
        return Ok((Arc::new(Library::new(None)), None));
    }
    let hub = endpoint(site.hub.as_deref().unwrap_or(PUBLIC))
        .map_err(|error| anyhow::anyhow!("--hub: {error}"))?;
    let by_default =
        || if site.hub.is_none() { Hosts::of_the_public_hub() } else { Hosts::default() };
    let settings = Settings {
        endpoint: hub,
        token: None,
        timeout: TIMEOUT,
        authorities: Authorities { file: None, pem: site.hub_ca.clone() },
        redirects: Redirects::Only(args.hub_redirect_hosts.clone().unwrap_or_else(by_default)),
    };
    let (asks, asked) = unbounded_channel();
    let reader = Reader { hub: Hub::new(settings, POLICY, DEADLINE)?, asked };
    Ok((Arc::new(Library::new(Some(asks))), Some(reader)))
}

/// Takes in what was kept in earlier terms. Without the right to look it is learnt anew.
pub async fn remember(context: &Context, namespace: &str) -> anyhow::Result<()> {
    let api = Api::<ConfigMap>::namespaced(context.writer.client().clone(), namespace);
    match api.list(&ListParams::default().labels(&kept::selector())).await {
        Ok(objects) => {
            let entries: Vec<_> = objects.iter().filter_map(kept::entry).collect();
            tracing::info!(models = entries.len(), "read what is known about models");
            context.library.remember(entries);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(error = status.message, "what was learnt about models cannot be kept");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads from now on what is asked for, where anybody may.
pub fn start(reader: Option<Reader>, context: &Arc<Context>, namespace: &str, tasks: &mut Tasks) {
    if let Some(reader) = reader {
        let reading = reader.every(Arc::clone(context), namespace.to_owned());
        tasks.spawn(named("reading models", reading));
    }
}

impl Reader {
    /// For ever: reads what is asked for.
    async fn every(self, context: Arc<Context>, namespace: String) {
        let (hub, namespace): (_, Arc<str>) = (Arc::new(self.hub), namespace.into());
        let mut asked = self.asked;
        let mut reads = JoinSet::new();
        loop {
            tokio::select! {
                question = asked.recv(), if reads.len() < AT_ONCE => {
                    let Some(question) = question else { return };
                    let (hub, context) = (Arc::clone(&hub), Arc::clone(&context));
                    reads.spawn(read(hub, question, context, Arc::clone(&namespace)));
                }
                Some(read) = reads.join_next() => {
                    // One that panicked would leave its question open for ever.
                    if let Err(error) = read {
                        tracing::error!(%error, "reading a model failed");
                        return;
                    }
                }
            }
        }
    }
}

async fn read(hub: Arc<Hub>, question: Question, context: Arc<Context>, own: Arc<str>) {
    let Question { repository, revision, .. } = &question;
    let result = look(&hub, &question).await;
    match &result {
        Ok(Inspection { commit, bytes_read, exact, .. }) => {
            tracing::info!(repository, revision, commit, bytes_read, exact, "read what a model is");
        }
        Err(error) => tracing::warn!(repository, revision, %error, "cannot read what a model is"),
    }
    let now = Timestamp::now().as_second();
    let News { waiting, keep, forget } =
        context.library.answered(&question, result.as_ref().map(Clone::clone), now);
    for (namespace, name) in waiting {
        context.world.look_at(&namespace, &name);
    }
    let api = Api::<ConfigMap>::namespaced(context.writer.client().clone(), &own);
    let object = keep.and_then(|entry| kept::object(&entry, &own));
    let writes = async {
        if let Some(object) = object {
            let name = object.metadata.name.clone().unwrap_or_default();
            context.writer.apply(&api, &name, &object).await?;
        }
        for old in &forget {
            let name = kept::name(old);
            let Some(object) = context.writer.get(&api, &name).await? else { continue };
            let uid = object.metadata.uid.unwrap_or_default();
            gone(context.writer.delete(&api, &name, &uid).await)?;
        }
        Ok::<(), WriteError>(())
    };
    if let Err(error) = writes.await {
        // It is known for as long as this operator leads.
        tracing::warn!(repository, %error, "cannot keep what a model is");
    }
}

async fn look(hub: &Hub, question: &Question) -> Result<Inspection, InspectError> {
    let (repository, revision) = question.names()?;
    let selection = Selection { files: question.files.as_deref(), gguf: question.gguf };
    hub::inspect(hub, &repository, &revision, selection).await
}
