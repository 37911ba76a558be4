//! Data that notes which of its keys a template reads.
//!
//! What a template reads is noted while it is rendered, and not found in its text beforehand: `{% set data = data %}` and
//! the filter of a block are enough to hide a name from minijinja's analysis, and a secret that is not seen would be shown
//! in diffs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drover_catalog::Origin;
use minijinja::{
    Value,
    value::{Enumerator, Object, ObjectRepr, Serde},
};

use super::inputs::Read;
use crate::data::{Data, Datum};

/// `data` of a template.
pub(super) struct Watched(Arc<Keys>);

struct Keys {
    values: BTreeMap<String, Value>,
    /// What reading each key means.
    reads: BTreeMap<String, Read>,
    read: Mutex<BTreeSet<String>>,
}

impl Watched {
    pub(super) fn new(data: &Data) -> Self {
        let values = data.iter().map(|(key, datum)| (key.clone(), Value::from(Serde(&datum.value)))).collect();
        let reads = data.iter().map(|(key, datum)| (key.clone(), read(key, datum))).collect();
        Self(Arc::new(Keys { values, reads, read: Mutex::default() }))
    }

    /// For the context of a template.
    pub(super) fn value(&self) -> Value {
        Value::from_dyn_object(Arc::clone(&self.0))
    }

    /// What was read since this was last asked.
    pub(super) fn read(&self) -> Read {
        let mut all = Read::default();
        for key in std::mem::take(&mut *self.0.noted()) {
            all.add(self.0.reads.get(&key).cloned().unwrap_or_default());
        }
        all
    }

    /// Whether the path begins with a key that holds a secret.
    pub(super) fn is_secret(&self, path: &str) -> bool {
        let key = path.split(['.', '[']).next().unwrap_or_default();
        self.0.reads.get(key).is_some_and(|read| read.secret)
    }
}

fn read(key: &str, datum: &Datum) -> Read {
    let origin = |source: &crate::revision::Source| Origin { key: format!("data.{key}"), source: source.to_string() };
    Read { secret: datum.secret, origins: datum.sources.iter().map(origin).collect() }
}

impl Keys {
    fn noted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of names is whole at any moment.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Keys {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = key.as_str()?;
        let value = self.values.get(key)?;
        self.noted().insert(key.to_owned());
        Some(value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.keys().map(Value::from).collect())
    }
}

/// minijinja shows the variables of a template that failed.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}
