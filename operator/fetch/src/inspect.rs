//! Says what a model is, in a pod of the tenant's: the way from arguments to one line of JSON.

use std::{fs::File, io::Read, path::Path};

use berth_inspect::{
    InspectError, directory,
    hub::{self, Hub},
    oci::{self, Registry},
};

use crate::{args::Inspect, error::Error};

/// What was learnt, in JSON.
pub async fn inspect(asked: &Inspect) -> Result<String, Error> {
    let inspection = match asked {
        Inspect::Hub(args) => {
            let (settings, policy) = (args.reach.settings()?, args.reach.patience.policy());
            let hub = Hub::new(settings, policy, args.chosen.deadline)?;
            hub::inspect(&hub, &args.repository, &args.revision, args.chosen.selection()).await?
        }
        Inspect::Oci(args) => {
            let registry = Registry {
                passwords: args.passwords.as_deref().map(passwords).transpose()?,
                plain_http: args.plain_http,
                timeout: args.patience.timeout,
                authorities: args.patience.authorities(),
                policy: args.patience.policy(),
                deadline: args.chosen.deadline,
            };
            oci::inspect(&registry, &args.reference, args.chosen.selection()).await?
        }
        Inspect::Dir(args) => {
            let within = args.within.as_deref().unwrap_or(&args.path);
            let (selection, deadline) = (args.chosen.selection(), args.chosen.deadline);
            directory::inspect(&args.path, within, selection, deadline).await?
        }
    };
    Ok(inspection.to_json().map_err(|error| InspectError::Usage(error.to_string()))?)
}

/// The text of a mounted secret, which is never large.
fn passwords(path: &Path) -> Result<String, InspectError> {
    const LONGEST: u64 = 1 << 20;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|source| InspectError::Io { action: "read", path: path.to_owned(), source })?;
    Ok(text)
}
