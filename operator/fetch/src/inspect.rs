//! Says what a model is, in a pod of the tenant's: the way from arguments to one line of JSON.

use berth_inspect::{
    InspectError, directory,
    hub::{self, Hub},
};

use crate::{args::Inspect, error::Error};

/// What was learnt, in JSON.
pub async fn inspect(asked: &Inspect) -> Result<String, Error> {
    let inspection = match asked {
        Inspect::Hub(args) => {
            let (settings, policy) = (args.reach.settings()?, args.reach.policy());
            let hub = Hub::new(settings, policy, args.chosen.deadline)?;
            hub::inspect(&hub, &args.repository, &args.revision, args.chosen.selection()).await?
        }
        Inspect::Dir(args) => {
            let within = args.within.as_deref().unwrap_or(&args.path);
            let (selection, deadline) = (args.chosen.selection(), args.chosen.deadline);
            directory::inspect(&args.path, within, selection, deadline).await?
        }
    };
    Ok(inspection.to_json().map_err(|error| InspectError::Usage(error.to_string()))?)
}
