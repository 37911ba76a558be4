//! What the agent remembers across restarts and reboots, beside the notifications that the engine owes: the catalog
//! that it keeps, whether a run was cut off, and the report that no master has yet.

use drover_apply::{StateDir, StateError};
use drover_catalog::{Catalog, CommandResult, Locality, Report};
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

const CATALOG: &str = "catalog.json";
const RUNNING: &str = "running";
const REPORT: &str = "report.json";
const COMMANDS: &str = "commands.json";
const LOCALITY: &str = "locality";

/// The agent's part of the state folder.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a>(pub(crate) &'a StateDir);

impl Memory<'_> {
    /// The catalog that this machine was told to keep. One that is damaged is no loss: a master has it.
    pub(crate) fn catalog(self) -> Result<Option<Catalog>, StateError> {
        Ok(self.get::<Catalog>(CATALOG)?.filter(Catalog::is_intact))
    }

    /// Keeps a catalog, from before it is first applied.
    pub(crate) fn keep_catalog(self, catalog: &Catalog) -> Result<(), StateError> {
        self.put(CATALOG, catalog)
    }

    /// Whether a run began that never ended.
    pub(crate) fn was_cut_off(self) -> Result<bool, StateError> {
        Ok(self.0.read(RUNNING)?.is_some())
    }

    /// Notes that a run begins.
    pub(crate) fn begin_run(self) -> Result<(), StateError> {
        self.0.write(RUNNING, b"")
    }

    /// Notes that a run has ended.
    pub(crate) fn end_run(self) -> Result<(), StateError> {
        self.0.remove(RUNNING)
    }

    /// The report that no master has yet.
    pub(crate) fn undelivered_report(self) -> Result<Option<Report>, StateError> {
        self.get(REPORT)
    }

    /// Keeps a report until a master has it, in place of an older one.
    pub(crate) fn keep_report(self, report: &Report) -> Result<(), StateError> {
        self.put(REPORT, report)
    }

    /// A master has the report.
    pub(crate) fn report_delivered(self) -> Result<(), StateError> {
        self.0.remove(REPORT)
    }

    /// How the commands ended that were run last.
    pub(crate) fn command_results(self) -> Result<Vec<CommandResult>, StateError> {
        Ok(self.get(COMMANDS)?.unwrap_or_default())
    }

    /// Keeps how commands ended: they are not run again.
    pub(crate) fn keep_command_results(self, results: &[CommandResult]) -> Result<(), StateError> {
        self.put(COMMANDS, &results)
    }

    /// Which masters this machine belongs to, as far as one told.
    pub(crate) fn locality(self) -> Result<Locality, StateError> {
        let text = self.0.read(LOCALITY)?.unwrap_or_default();
        let Ok(locality) = String::from_utf8_lossy(&text).parse();
        Ok(locality)
    }

    /// Keeps which masters this machine belongs to: after a restart those may be gone that tell everybody.
    pub(crate) fn keep_locality(self, locality: &Locality) -> Result<(), StateError> {
        self.0.write(LOCALITY, locality.to_string().as_bytes())
    }

    fn get<T: DeserializeOwned>(self, name: &str) -> Result<Option<T>, StateError> {
        let Some(text) = self.0.read(name)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                // Where in the text, but never the text.
                warn!(
                    file = name,
                    line = error.line(),
                    column = error.column(),
                    "a file of the state folder is damaged and is left out"
                );
                Ok(None)
            }
        }
    }

    fn put(self, name: &'static str, value: &impl Serialize) -> Result<(), StateError> {
        let text = serde_json::to_vec(value).map_err(|error| StateError::Damaged { name, source: error.into() })?;
        self.0.write(name, &text)
    }
}
