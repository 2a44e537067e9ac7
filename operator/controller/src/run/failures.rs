//! When a reconcile that failed is tried again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};

use crate::{reconcile::Error, world::Guarded};

/// How often each deployment failed in a row.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<HashMap<ObjectRef<Guarded>, u32>>>);

impl Failures {
    /// It went well.
    pub fn forget(&self, key: &ObjectRef<Guarded>) {
        self.lock().remove(key);
    }

    /// Again after 1, 2, 4 … 60 seconds.
    pub fn again(&self, object: &Arc<Guarded>, error: &Error) -> Action {
        let seconds = {
            let mut failures = self.lock();
            let count = failures.entry(ObjectRef::from_obj(object.as_ref())).or_default();
            let seconds = (1_u64 << (*count).min(6)).min(60);
            *count += 1;
            seconds
        };
        tracing::warn!(
            namespace = object.namespace(),
            deployment = object.name_any(),
            %error,
            "a reconcile failed; next try in {seconds} s"
        );
        Action::requeue(Duration::from_secs(seconds))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<Guarded>, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
