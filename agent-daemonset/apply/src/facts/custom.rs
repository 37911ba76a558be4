//! Custom facts: what a machine's own files and programs in [`FOLDER`] say of it.
//!
//! - `NAME.json` holds a JSON object, and is read each time.
//! - A program prints a JSON object or lines of `key=value`. It runs inside the machine's root for at most [`TIMEOUT`],
//!   and is asked again when its time is up or its file has changed.
//!
//! Facts decide what root does to the machine, so only files that nobody else can change count. One that is refused or
//! fails gives a warning and no fact.

mod remembered;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use remembered::Remembered;
use serde_json::{Map, Value};

use crate::{
    StateDir,
    host::{Command, Entry, EntryKind, Host, HostError},
};

/// Where custom facts come from, on the machine.
pub const FOLDER: &str = "/etc/drover/facts.d";

/// How many files of the folder count, the first by name.
const MAX_FILES: usize = 20;
/// How many bytes a file or a program may say. [`Host::run`] keeps so many.
const MAX_BYTES: usize = 64 << 10;
/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a name may be.
const MAX_NAME: usize = 64;

type Facts = BTreeMap<String, Value>;

/// Asks a machine for its custom facts.
pub(super) struct Asked<'a, H> {
    pub(super) host: &'a H,
    pub(super) state: &'a StateDir,
    /// How long what a program said counts.
    pub(super) ttl: Duration,
    /// Asks each program anew.
    pub(super) refresh: bool,
}

impl<H: Host> Asked<'_, H> {
    /// The custom facts, and what was left out and why. Where two files have a fact of the same name, the later by name
    /// counts.
    pub(super) async fn gather(&self, now: SystemTime) -> (Facts, Vec<String>) {
        let mut warnings = Vec::new();
        let (mut remembered, unreadable) = Remembered::load(self.state, now);
        let mut facts = Facts::new();
        for name in self.files(&mut warnings) {
            let path = format!("{FOLDER}/{name}");
            match self.ask(&path, &mut remembered).await {
                Ok(said) => facts.extend(said),
                Err(why) => warnings.push(format!("{path} gives no facts: {why}")),
            }
        }
        if let Err(error) = remembered.save(self.state).and(unreadable) {
            warnings
                .push(format!("what programs of {FOLDER} say can not be remembered, so they run each time: {error}"));
        }
        (facts, warnings)
    }

    /// The names of the files that count.
    fn files(&self, warnings: &mut Vec<String>) -> Vec<String> {
        let trusted = || {
            let Some(folder) = self.host.entry(FOLDER).map_err(|error| error.to_string())? else {
                return Ok(Vec::new());
            };
            if folder.kind != EntryKind::Directory {
                return Err("it is no directory".to_owned());
            }
            refuse_others(&folder)?;
            Ok(self.host.list_directory(FOLDER).map_err(|error| error.to_string())?.unwrap_or_default())
        };
        let mut names: Vec<String> = match trusted() {
            Ok(names) => names.into_iter().filter(|name| !is_leftover(name)).collect(),
            Err(why) => {
                warnings.push(format!("{FOLDER} is left out: {why}"));
                return Vec::new();
            }
        };
        if names.len() > MAX_FILES {
            let last = names.get(MAX_FILES - 1).cloned().unwrap_or_default();
            warnings.push(format!(
                "{FOLDER} has {} files, and only the first {MAX_FILES} count, up to {last}; join some",
                names.len()
            ));
            names.truncate(MAX_FILES);
        }
        names
    }

    /// What one file says.
    async fn ask(&self, path: &str, remembered: &mut Remembered) -> Result<Facts, String> {
        let told = |error: HostError| error.to_string();
        let entry = self.host.entry(path).map_err(told)?.ok_or("it is gone")?;
        if entry.kind != EntryKind::File {
            return Err("it is no regular file (links are not followed)".to_owned());
        }
        refuse_others(&entry)?;
        let is_json = std::path::Path::new(path).extension().is_some_and(|extension| extension == "json");
        if is_json {
            if entry.size > MAX_BYTES as u64 {
                return Err(format!("it has {} bytes, and {MAX_BYTES} are allowed", entry.size));
            }
            let content = self.host.read_file(path).map_err(told)?.ok_or("it is gone")?;
            return parse_json(&content);
        }
        if entry.access.mode & 0o111 == 0 {
            return Err("it is neither a .json file nor executable".to_owned());
        }
        let version = self.host.file_version(path).map_err(told)?.ok_or("it is gone")?;
        if !self.refresh
            && let Some(said) = remembered.get(path, &version, self.ttl)
        {
            return said;
        }
        let said = self.run(path).await;
        remembered.put(path, version, said.clone());
        said
    }

    async fn run(&self, path: &str) -> Result<Facts, String> {
        let output = match self.host.run(&Command::new([path], TIMEOUT)).await {
            Ok(output) => output,
            Err(HostError::Timeout { seconds, .. }) => {
                return Err(format!(
                    "it was still running after {seconds} s and was ended; have a timer write a .json file instead"
                ));
            }
            Err(error) => return Err(error.to_string()),
        };
        if !output.success() {
            return Err(format!("it {}", output.failure()));
        }
        if output.stdout.len() >= MAX_BYTES {
            return Err(format!("it prints more than the {MAX_BYTES} bytes that are allowed"));
        }
        parse_output(&output.stdout)
    }
}

/// What editors and package managers leave behind, and what is hidden.
fn is_leftover(name: &str) -> bool {
    let ends = ["~", ".bak", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".rpmsave", ".rpmnew"];
    name.starts_with('.') || ends.iter().any(|end| name.ends_with(end))
}

/// Refuses what somebody else than root (or the user that the agent runs as) can change.
fn refuse_others(entry: &Entry) -> Result<(), String> {
    let owner = entry.access.user;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(format!("its owner is the user {owner}; make it root's, because facts decide what root does"));
    }
    if entry.access.mode & 0o022 != 0 {
        let mode = entry.access.mode;
        return Err(format!("others than its owner can write to it (mode {mode:04o}); chmod go-w"));
    }
    Ok(())
}

/// A JSON object, or lines of `key=value`.
fn parse_output(output: &[u8]) -> Result<Facts, String> {
    if output.trim_ascii_start().starts_with(b"{") {
        return parse_json(output);
    }
    let text = std::str::from_utf8(output).map_err(|_| "what it prints is not UTF-8")?;
    let mut facts = Facts::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Never the line: it may be an error message with who knows what in it.
        let (name, value) = line.split_once('=').ok_or_else(|| {
            format!("line {number} of what it prints is no key=value (nor is all of it a JSON object)")
        })?;
        facts.insert(checked(name.trim())?, Value::from(value.trim()));
    }
    Ok(facts)
}

fn parse_json(text: &[u8]) -> Result<Facts, String> {
    let object: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("it is no JSON object: see line {line}, column {column}")
    })?;
    let mut facts = Facts::new();
    for (name, value) in object {
        if let Some(value) = as_stored(value) {
            facts.insert(checked(&name)?, value);
        }
    }
    Ok(facts)
}

fn checked(name: &str) -> Result<String, String> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if begins && goes_on && name.len() <= MAX_NAME {
        return Ok(name.to_owned());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(format!("{shown:?} is no name: write letters, digits, _ and -, at most {MAX_NAME}, a letter or _ first"))
}

/// As the API server gives it back: without fields that are null, and a number without a fraction as an integer. Otherwise the machine's
/// facts and those in its Host would never be equal.
fn as_stored(value: Value) -> Option<Value> {
    Some(match value {
        Value::Null => return None,
        Value::Number(number) => whole(&number).map_or(Value::Number(number), Value::from),
        Value::Array(values) => values.into_iter().map(|value| as_stored(value).unwrap_or(Value::Null)).collect(),
        Value::Object(map) => map.into_iter().filter_map(|(name, value)| Some((name, as_stored(value)?))).collect(),
        other => other,
    })
}

/// The integer that a floating-point number is, as far as those are exact.
fn whole(number: &serde_json::Number) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT)?;
    // Without a fraction, Display writes it as an integer.
    format!("{float:.0}").parse().ok()
}

#[cfg(test)]
mod tests;
