//! One resource: what blocks it, what of it must change, who must hear of that, and what is said of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use drover_catalog::{
    Digest, DriftMode, Finish, Part, PropertyEvent, Resource, ResourceId, ResourceReport, ResourceStatus,
};
use thiserror::Error;
use tracing::warn;

use super::{Mode, difference::Difference};
use crate::{
    host::{Command, Host, HostError},
    providers::{
        Change as _, Contents, Provider, ProviderError,
        package::{Lists, run_patiently},
    },
    state::{Applied, Pending, StateDir, StateError},
};

/// A message's limit by the contract of [`ResourceReport`].
const MESSAGE_LIMIT: usize = 1000;
/// The limit of events by the contract of [`ResourceReport`].
const EVENT_LIMIT: usize = 50;

/// A run on its way through a catalog.
pub(super) struct Visit<'a, H> {
    pub(super) host: &'a H,
    pub(super) state: &'a StateDir,
    pub(super) mode: Mode,
    pub(super) wants_differences: bool,
    pub(super) pending: Pending<'a>,
    pub(super) applied: Applied,
    pub(super) ended: BTreeMap<&'a ResourceId, ResourceStatus>,
    pub(super) differences: Vec<Difference>,
    /// What this run knows of the lists of packages.
    pub(super) lists: Lists,
}

/// What is known of a resource before it is looked at.
#[expect(clippy::struct_excessive_bools, reason = "four independent facts, each with a name of its own")]
pub(super) struct Stance {
    /// The digest of what it must be.
    pub(super) digest: Digest,
    /// Whether exactly that was applied before: a difference is drift then.
    pub(super) known: bool,
    /// Whether somebody told it of a change.
    pub(super) notified: bool,
    /// Whether an earlier run was cut off between its change and what makes the change take effect.
    pub(super) unfinished: bool,
    /// Whether it is only looked at.
    pub(super) look_only: bool,
}

impl Stance {
    /// Whether nobody wants to know how the resource is.
    pub(super) fn is_ignored(&self, resource: &Resource) -> bool {
        self.known && resource.drift == DriftMode::Ignore && !self.notified && !self.unfinished
    }
}

/// What came of a resource.
#[derive(Default)]
pub(super) struct Done {
    pub(super) messages: Vec<String>,
    pub(super) events: Vec<PropertyEvent>,
    /// Whether its change makes a notification needless: a service that has just started.
    pub(super) absorbs: bool,
}

#[derive(Debug, Error)]
pub(super) enum SettleError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<HostError> for SettleError {
    fn from(error: HostError) -> Self {
        Self::Provider(error.into())
    }
}

impl<H: Host> Visit<'_, H> {
    /// Visits one resource in its turn.
    pub(super) async fn resource(&mut self, resource: &Resource) -> Result<ResourceReport, StateError> {
        let began = Instant::now();
        if let Some((status, message)) = self.blocked(resource) {
            return Ok(report(resource, status, message));
        }
        let stance = self.stance(resource);
        if stance.is_ignored(resource) {
            return Ok(report(resource, ResourceStatus::Unchanged, String::new()));
        }
        let settled = self.settle(resource, &stance).await;
        self.conclude(resource, &stance, settled, began.elapsed())
    }

    /// Tells a resource, at the end of the run, what it was to be told then; says whether there was something.
    pub(super) async fn tell_at_end(
        &mut self,
        resource: &Resource,
        report: &mut ResourceReport,
    ) -> Result<bool, StateError> {
        let came_to_be =
            matches!(report.status, ResourceStatus::Unchanged | ResourceStatus::Changed | ResourceStatus::Pending);
        let told = self.pending.sources_at_end(&resource.id).any(|source| !self.failed(source));
        if !came_to_be || !told {
            return Ok(false);
        }
        let began = Instant::now();
        let mut stance = self.stance(resource);
        stance.notified = true;
        stance.look_only = self.mode == Mode::Noop;
        let settled = self.settle(resource, &stance).await;
        if settled.is_ok() {
            self.settle_at_end(resource)?;
        }
        let second = self.conclude(resource, &stance, settled, began.elapsed())?;
        let changed = second.status != ResourceStatus::Unchanged;
        if changed {
            let messages = [std::mem::take(&mut report.message), second.message];
            let messages: Vec<String> = messages.into_iter().filter(|message| !message.is_empty()).collect();
            report.message = limited(messages.join("; "));
            report.events.extend(second.events);
            report.events.truncate(EVENT_LIMIT);
            report.status = second.status;
            report.corrective = false;
        }
        report.millis += second.millis;
        Ok(changed)
    }

    /// Why a resource is not tried, if something that it requires did not come to be.
    pub(super) fn blocked(&self, resource: &Resource) -> Option<(ResourceStatus, String)> {
        resource.require.iter().find_map(|required| match self.ended.get(required)? {
            ResourceStatus::Failed => Some((ResourceStatus::Skipped, format!("requires {required}, which failed"))),
            ResourceStatus::Skipped => {
                Some((ResourceStatus::Skipped, format!("requires {required}, which was skipped")))
            }
            ResourceStatus::Deferred => {
                Some((ResourceStatus::Deferred, format!("requires {required}, which was deferred")))
            }
            ResourceStatus::Unchanged | ResourceStatus::Changed | ResourceStatus::Pending => None,
        })
    }

    pub(super) fn stance(&self, resource: &Resource) -> Stance {
        // Who announced a change and then failed has perhaps changed something by half: its word is kept for the run
        // in which it succeeds, and does not restart anything now.
        let mut others = self.pending.sources(&resource.id).filter(|source| **source != resource.id);
        let notified = others.any(|source| !self.failed(source));
        let unfinished = self.pending.sources(&resource.id).any(|source| *source == resource.id);
        let digest = Applied::digest(resource);
        let known = self.applied.is(&resource.id, &digest);
        let reports_only = known && resource.drift == DriftMode::Report && !notified && !unfinished;
        let look_only = self.mode == Mode::Noop || reports_only;
        Stance { digest, known, notified, unfinished, look_only }
    }

    /// Looks, decides, and changes what must change, part by part; then makes it take effect.
    async fn settle(&mut self, resource: &Resource, stance: &Stance) -> Result<Done, SettleError> {
        let (mut done, mut deferred) = (Done::default(), None);
        for part in &resource.parts {
            let settled = match part {
                Part::File(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Directory(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Symlink(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Edit(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Download(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Archive(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Package(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Service(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::User(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Group(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::AuthorizedKeys(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Sysctl(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Module(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Mount(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Swap(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Command(spec) => self.part(resource, spec, stance, &mut done).await,
                Part::Reboot(spec) => self.part(resource, spec, stance, &mut done).await,
            };
            match settled {
                // In the folder of a machine that does not run, nothing can be mounted, and its table is for the boot.
                Err(SettleError::Provider(ProviderError::Host(error @ HostError::Unavailable(_))))
                    if matches!(part, Part::Mount(_)) =>
                {
                    deferred = Some(error);
                }
                // What comes first is not there yet, so nobody can tell.
                Err(SettleError::Provider(error)) if self.mode == Mode::Noop && self.waits(resource, &done) => {
                    done.messages.push(format!("cannot be told before what it builds on is there: {error}"));
                    return Ok(done);
                }
                other => other?,
            }
        }
        if let Some(error) = deferred {
            return Err(error.into());
        }
        self.finish(resource, stance, &mut done).await?;
        if done.absorbs {
            self.settle_at_end(resource)?;
        }
        if stance.notified {
            let ended = &self.ended;
            self.pending.settle(&resource.id, |source| failed(ended, source))?;
        }
        Ok(done)
    }

    async fn part<P: Provider>(
        &mut self,
        resource: &Resource,
        spec: &P,
        stance: &Stance,
        done: &mut Done,
    ) -> Result<(), SettleError> {
        let observed = spec.observe(self.host, stance.notified).await?;
        let changes = spec.diff(&observed)?;
        if changes.is_empty() {
            return Ok(());
        }
        if (self.wants_differences || !stance.look_only)
            && let Some(contents) = spec.contents(self.host, &changes)?
        {
            self.look_at(resource, contents, stance)?;
        }
        if !stance.look_only {
            self.owe(resource)?;
            spec.apply(self.host, &changes).await?;
        } else if self.mode == Mode::Noop {
            self.owe(resource)?;
        }
        done.messages.extend(changes.iter().map(ToString::to_string));
        done.events.extend(changes.iter().map(P::Change::event));
        done.absorbs |= spec.absorbs_notification(&changes);
        Ok(())
    }

    /// Writes down, before a change, who must hear of it.
    pub(super) fn owe(&mut self, resource: &Resource) -> Result<(), StateError> {
        self.pending.owe(&resource.id, &resource.notify)?;
        self.pending.owe_at_end(&resource.id, &resource.notify_at_end)?;
        if resource.finish.is_empty() {
            return Ok(());
        }
        self.pending.owe(&resource.id, std::slice::from_ref(&resource.id))
    }

    /// Strikes out what a resource was to be told at the end, except by those who failed.
    fn settle_at_end(&mut self, resource: &Resource) -> Result<(), StateError> {
        let ended = &self.ended;
        self.pending.settle_at_end(&resource.id, |source| failed(ended, source))
    }

    /// Makes a change take effect, of this run or of one that was cut off.
    async fn finish(&mut self, resource: &Resource, stance: &Stance, done: &mut Done) -> Result<(), SettleError> {
        if resource.finish.is_empty() || stance.look_only || (done.messages.is_empty() && !stance.unfinished) {
            return Ok(());
        }
        // Whoever was told in a run that was cut off here was told too early.
        self.owe(resource)?;
        for finish in &resource.finish {
            match finish {
                Finish::Command { argv, timeout_seconds } => {
                    let command = Command::of(argv.clone(), Duration::from_secs(u64::from(*timeout_seconds)));
                    let output = run_patiently(self.host, &command).await?;
                    if !output.success() {
                        let (program, failure) = (command.program().to_owned(), output.failure());
                        return Err(ProviderError::Command { program, failure }.into());
                    }
                    done.messages.push(format!("ran {}", command.program()));
                }
                Finish::ReadUnitFiles => match self.host.reload_unit_files().await {
                    // Where no systemd runs, it reads them when it starts.
                    Ok(()) | Err(HostError::Unavailable(_)) => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        self.pending.settle(&resource.id, |source| *source != resource.id)?;
        Ok(())
    }

    /// Keeps what a change replaces, and shows the difference where that is wanted; of no secret either.
    fn look_at(&mut self, resource: &Resource, contents: Contents, stance: &Stance) -> Result<(), StateError> {
        let Contents { path, before, public, after } = contents;
        let secret = resource.sensitive || self.applied.was_sensitive(&resource.id) || self.applied.had_secret(&path);
        if resource.sensitive && after.is_some() && !stance.look_only {
            self.applied.note_secret(self.state, &path)?;
        }
        if self.wants_differences {
            let id = resource.id.clone();
            self.differences.push(if secret || !public {
                Difference::withheld(id, if resource.secret_names { String::new() } else { path.clone() })
            } else {
                Difference::of(id, path.clone(), before.as_deref(), after.as_deref())
            });
        }
        if let Some(before) = before
            && !stance.look_only
            && !secret
            && public
            && let Err(error) = self.state.backups().keep(&path, &before)
        {
            // A full disk is no reason to stop: this very change may be what makes room.
            warn!(path, %error, "could not keep a copy of what is replaced");
        }
        Ok(())
    }

    /// What is said of a resource, and remembered.
    pub(super) fn conclude(
        &mut self,
        resource: &Resource,
        stance: &Stance,
        settled: Result<Done, SettleError>,
        took: Duration,
    ) -> Result<ResourceReport, StateError> {
        let told = stance.notified || stance.unfinished;
        let was_sensitive = self.applied.was_sensitive(&resource.id);
        let mut said = match settled {
            Ok(Done { messages, .. }) if messages.is_empty() => {
                self.applied.note_unchanged(&resource.id, &stance.digest, resource.sensitive);
                report(resource, ResourceStatus::Unchanged, String::new())
            }
            Ok(Done { messages, events, .. }) => {
                let status = if stance.look_only { ResourceStatus::Pending } else { ResourceStatus::Changed };
                let mut said = report(resource, status, messages.join("; "));
                said.corrective = stance.known && !told;
                said.events = events;
                said.events.truncate(EVENT_LIMIT);
                if status == ResourceStatus::Changed {
                    self.applied.note_changed(&resource.id, &stance.digest, resource.sensitive, told);
                }
                said
            }
            Err(SettleError::Provider(ProviderError::Host(HostError::Unavailable(why)))) => {
                report(resource, ResourceStatus::Deferred, why)
            }
            Err(SettleError::Provider(error)) => report(resource, ResourceStatus::Failed, reason(resource, &error)),
            Err(SettleError::State(error)) => return Err(error),
        };
        withhold(resource, was_sensitive, &mut said);
        said.flapping = self.applied.is_flapping(&resource.id);
        said.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Ok(said)
    }

    fn failed(&self, id: &ResourceId) -> bool {
        failed(&self.ended, id)
    }

    /// Whether something would have to change first.
    fn waits(&self, resource: &Resource, done: &Done) -> bool {
        !done.messages.is_empty()
            || resource.require.iter().any(|required| self.ended.get(required) == Some(&ResourceStatus::Pending))
    }

    /// A killed run may have left half-written files beside the ones that this run looks after.
    pub(super) fn remove_leftovers(&self, resources: &[Resource]) {
        let parts = resources.iter().flat_map(|resource| &resource.parts);
        let folders: BTreeSet<&str> = parts.filter_map(folder_written_to).collect();
        for folder in folders {
            if let Err(error) = self.host.remove_leftovers(folder) {
                warn!(folder, %error, "could not tidy up after an earlier run");
            }
        }
    }
}

/// Whether a resource of this run failed, or was not tried because another one did.
fn failed(ended: &BTreeMap<&ResourceId, ResourceStatus>, id: &ResourceId) -> bool {
    matches!(ended.get(id), Some(ResourceStatus::Failed | ResourceStatus::Skipped))
}

/// Why it failed. What a program printed about a secret may quote it.
fn reason(resource: &Resource, error: &ProviderError) -> String {
    const NOT_SHOWN: &str = "what it printed is not shown: it may hold a secret";
    // Before the colon is how it ended.
    let ending = |failure: &str| failure.split(':').next().unwrap_or_default().to_owned();
    match error {
        ProviderError::Command { program, failure } if resource.sensitive => {
            format!("{program} {}; {NOT_SHOWN}", ending(failure))
        }
        ProviderError::Host(HostError::Invalid { path, program, failure }) if resource.sensitive => {
            let (path, ending) = (path.display(), ending(failure));
            format!("the new {path} was refused by {program}, which {ending}, and the old one stays; {NOT_SHOWN}")
        }
        error => error.to_string(),
    }
}

/// Takes out of what is said what may hold a secret, be it a value that is wanted or one that was until now.
fn withhold(resource: &Resource, was_sensitive: bool, said: &mut ResourceReport) {
    if resource.sensitive || was_sensitive {
        if matches!(said.status, ResourceStatus::Changed | ResourceStatus::Pending) {
            said.message = said.events.iter().map(without_values).collect::<Vec<_>>().join("; ");
        }
        for event in &mut said.events {
            (event.previous, event.desired) = (None, None);
        }
    }
    let says_more = !matches!(said.status, ResourceStatus::Unchanged | ResourceStatus::Skipped);
    if says_more && (resource.secret_names || (was_sensitive && !resource.sensitive)) {
        said.events.clear();
        "details are not shown: a secret is, or was, in its fields".clone_into(&mut said.message);
    }
}

/// A change in words that name no value.
fn without_values(event: &PropertyEvent) -> String {
    match (event.property.as_str(), event.desired.as_deref()) {
        ("ensure", Some("absent")) => "removed".to_owned(),
        ("ensure", _) if event.previous.as_deref() == Some("absent") => "created".to_owned(),
        (property, _) => format!("{property} changed"),
    }
}

fn folder_written_to(part: &Part) -> Option<&str> {
    let path = match part {
        Part::File(spec) => &spec.path,
        Part::Symlink(spec) => &spec.path,
        Part::Edit(spec) => &spec.path,
        Part::Download(spec) => &spec.path,
        Part::Swap(spec) => &spec.path,
        Part::AuthorizedKeys(spec) => spec.path.as_ref()?,
        Part::Sysctl(_) => return Some("/etc/sysctl.d"),
        Part::Archive(spec) => return Some(&spec.into),
        Part::Directory(_)
        | Part::Package(_)
        | Part::Service(_)
        | Part::User(_)
        | Part::Group(_)
        | Part::Module(_)
        | Part::Mount(_)
        | Part::Command(_)
        | Part::Reboot(_) => return None,
    };
    let (folder, _) = path.rsplit_once('/')?;
    Some(if folder.is_empty() { "/" } else { folder })
}

/// What is said of a resource, before its details are known.
pub(super) fn report(resource: &Resource, status: ResourceStatus, message: String) -> ResourceReport {
    ResourceReport::new(resource.id.clone(), &resource.type_name, status, limited(message))
}

fn limited(mut message: String) -> String {
    let whole_characters = (0..=MESSAGE_LIMIT.min(message.len())).rev().find(|&end| message.is_char_boundary(end));
    message.truncate(whole_characters.unwrap_or_default());
    message
}
