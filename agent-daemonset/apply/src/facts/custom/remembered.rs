//! What programs said, across runs and restarts of the agent.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Facts;
use crate::{StateDir, StateError, host::FileVersion};

const FILE: &str = "facts-cache.json";

/// A failure is tried again after this time, also where answers last longer: at boot, the network may come later.
const RETRY: Duration = Duration::from_secs(300);

/// What a program said, or why it did not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    /// The program that said it.
    version: FileVersion,
    /// When it did, in seconds since 1970.
    at: u64,
    said: Result<Facts, String>,
}

/// What programs said, by path.
pub(super) struct Remembered {
    on_disk: BTreeMap<String, Answer>,
    /// Those that were asked for in this life; the others are gone.
    current: BTreeMap<String, Answer>,
    now: u64,
}

impl Remembered {
    /// What is on disk; nothing, and why, where that cannot be read. A damaged file is no loss.
    pub(super) fn load(state: &StateDir, now: SystemTime) -> (Self, Result<(), StateError>) {
        let (on_disk, readable) = match state.read_json(FILE) {
            Ok(found) => (found.unwrap_or_default(), Ok(())),
            Err(StateError::Damaged { .. }) => (BTreeMap::new(), Ok(())),
            Err(error) => (BTreeMap::new(), Err(error)),
        };
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        (Self { on_disk, current: BTreeMap::new(), now }, readable)
    }

    /// What this version of a program said, if it still counts.
    pub(super) fn get(&mut self, path: &str, version: &FileVersion, ttl: Duration) -> Option<Result<Facts, String>> {
        let answer = self.on_disk.get(path)?;
        let ttl = if answer.said.is_ok() { ttl } else { ttl.min(RETRY) };
        // `None`: the clock was set back, so nobody knows how old it is.
        let age = self.now.checked_sub(answer.at)?;
        if answer.version != *version || age >= ttl.as_secs() {
            return None;
        }
        self.current.insert(path.to_owned(), answer.clone());
        Some(answer.said.clone())
    }

    pub(super) fn put(&mut self, path: &str, version: FileVersion, said: Result<Facts, String>) {
        self.current.insert(path.to_owned(), Answer { version, at: self.now, said });
    }

    /// Writes it, if it is not what is on disk already.
    pub(super) fn save(self, state: &StateDir) -> Result<(), StateError> {
        if self.current == self.on_disk {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.current)
            .map_err(|error| StateError::Damaged { name: FILE, source: error.into() })?;
        state.write(FILE, &text)
    }
}
