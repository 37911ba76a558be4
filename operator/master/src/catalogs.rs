//! Catalogs, compiled once for each state of a host's inputs.
//!
//! What is kept for long is small: which entity tag a host's inputs lead to, or why they lead to none. A poll that finds
//! its catalog unchanged needs no more. Bodies are kept only while the fleet fetches them; an older one is compiled anew.
//! Compiling is work for a processor, so it happens beside the runtime unless it is short, and at a bounded number of places.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use drover_catalog::{Digest, Facts, RevisionRef};
use drover_core::compile::{Prepared, Subject, Written, write};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{fleet::HostView, metrics::Metrics, signing::Proof};

/// How long a compilation waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// A compilation that is expected to take no longer is done by the runtime itself, like the encryption of a large body.
const SHORT: Duration = Duration::from_millis(1);
/// How many wait for their turn; others are sent away at once.
const MAX_WAITING: usize = 1024;
/// How many hosts' results are kept.
const MAX_HOSTS: usize = 100_000;
/// How many bytes of bodies are kept.
const MAX_BODY_BYTES: usize = 64 << 20;

/// A revision, and how long its catalogs take.
pub(crate) struct Known {
    prepared: Prepared<'static>,
    /// Whether the last one took less than [`SHORT`].
    is_short: AtomicBool,
}

impl Known {
    /// The first one is taken for long: the revision is prepared with it.
    pub(crate) fn new(prepared: Prepared<'static>) -> Self {
        Self { prepared, is_short: AtomicBool::new(false) }
    }

    pub(crate) fn prepared(&self) -> &Prepared<'static> {
        &self.prepared
    }

    fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    fn took(&self, time: Duration) {
        self.is_short.store(time < SHORT, Ordering::Relaxed);
    }
}

/// A catalog as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body {
    pub(crate) json: Bytes,
    /// The catalog's own.
    pub(crate) digest: Digest,
    /// Of all answers with this catalog.
    pub(crate) proof: Arc<Proof>,
}

/// What a host's inputs lead to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Compiled {
    /// A catalog; its body is there unless it was dropped for want of room.
    Catalog { etag: String, body: Option<Body> },
    /// None, and why. The message holds no data of templates.
    Failed(Arc<str>),
}

/// All places for compilations are taken, and stayed so for [`TURN`].
#[derive(Debug, thiserror::Error)]
#[error("this master compiles as many catalogs as it can; try again")]
pub(crate) struct Busy;

/// Compiles catalogs, and remembers them.
pub(crate) struct Catalogs {
    turns: Arc<Semaphore>,
    cache: Mutex<Cache>,
    /// How many wait for a turn.
    waiting: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Catalogs {
    /// Compiles up to `slots` catalogs at once, at least one.
    pub(crate) fn new(slots: usize, metrics: Arc<Metrics>) -> Self {
        let cache = Mutex::new(Cache::new(MAX_HOSTS, MAX_BODY_BYTES));
        let turns = Arc::new(Semaphore::new(slots.clamp(1, Semaphore::MAX_PERMITS)));
        Self { turns, cache, waiting: AtomicUsize::new(0), metrics }
    }

    /// What the host's inputs led to when they were compiled before.
    pub(crate) fn remembered(&self, host: &HostView) -> Option<Compiled> {
        self.lock().get(&host.identity.uid, &host.inputs)
    }

    /// A turn to compile, first come, first served.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Busy> {
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let began = Instant::now();
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
            return Err(Busy);
        }
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        drop(place);
        self.metrics.waited(began.elapsed());
        turn.map_err(|_| Busy)?.map_err(|_| Busy)
    }

    /// Compiles the host's catalog.
    pub(crate) async fn compile(
        &self,
        host: &Arc<HostView>,
        facts: &Facts,
        revisions: Vec<(RevisionRef, Arc<Known>)>,
    ) -> Result<Compiled, Busy> {
        let turn = self.turn().await?;
        // Another request of this host may have done it meanwhile.
        if let Some(compiled @ (Compiled::Failed(_) | Compiled::Catalog { body: Some(_), .. })) = self.remembered(host)
        {
            return Ok(compiled);
        }
        let subject = Subject {
            host: host.identity.clone(),
            node_name: host.node.name.clone(),
            labels: host.labels.clone(),
            facts: facts.clone(),
            generation: host.generation,
            reboot: host.reboot.clone(),
            commands: host.commands.clone(),
        };
        let metrics = Arc::clone(&self.metrics);
        let is_short = revisions.iter().all(|(_, known)| known.is_short());
        // The turn goes with the work: a caller that leaves does not stop it.
        let work = move || {
            let _turn = turn;
            let began = Instant::now();
            let compiled = render(&subject, &revisions);
            let took = began.elapsed();
            metrics.compiled(took);
            for (_, known) in &revisions {
                known.took(took);
            }
            compiled
        };
        // To wake another thread takes about as long as a short compilation.
        let done = if is_short { tokio::spawn(async move { work() }) } else { tokio::task::spawn_blocking(work) };
        let compiled = done.await;
        let compiled = compiled.unwrap_or_else(|_| {
            Compiled::Failed(
                "compiling this catalog broke the compiler; this is a defect of Drover, please report it".into(),
            )
        });
        self.lock().put(host.identity.uid.clone(), host.inputs.clone(), compiled.clone());
        Ok(compiled)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render(subject: &Subject, revisions: &[(RevisionRef, Arc<Known>)]) -> Compiled {
    let revisions: Vec<_> = revisions.iter().map(|(revision, known)| (revision.clone(), known.prepared())).collect();
    match write(subject, &revisions) {
        Ok(Written { json, etag, digest }) => {
            Compiled::Catalog { etag, body: Some(Body { json: json.into(), digest, proof: Arc::default() }) }
        }
        Err(error) => Compiled::Failed(error.to_string().into()),
    }
}

struct Entry {
    inputs: Digest,
    compiled: Compiled,
    /// Tells this entry from a later one of the same host in the queues.
    number: u64,
}

/// One entry a host: the newest. First in, first out, once for entries and once for bodies.
struct Cache {
    max_hosts: usize,
    max_body_bytes: usize,
    entries: HashMap<String, Entry>,
    queue: VecDeque<(u64, String)>,
    bodies: VecDeque<(u64, String, usize)>,
    body_bytes: usize,
    next: u64,
}

impl Cache {
    fn new(max_hosts: usize, max_body_bytes: usize) -> Self {
        Self {
            max_hosts,
            max_body_bytes,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            bodies: VecDeque::new(),
            body_bytes: 0,
            next: 0,
        }
    }

    fn get(&self, uid: &str, inputs: &Digest) -> Option<Compiled> {
        self.entries.get(uid).filter(|entry| entry.inputs == *inputs).map(|entry| entry.compiled.clone())
    }

    fn put(&mut self, uid: String, inputs: Digest, compiled: Compiled) {
        self.next += 1;
        let number = self.next;
        if let Compiled::Catalog { body: Some(body), .. } = &compiled {
            self.body_bytes += body.json.len();
            self.bodies.push_back((number, uid.clone(), body.json.len()));
        }
        self.queue.push_back((number, uid.clone()));
        self.entries.insert(uid, Entry { inputs, compiled, number });

        // Queues hold what was replaced as well, so they are bounded on their own.
        while self.queue.len() > self.max_hosts {
            let Some((number, uid)) = self.queue.pop_front() else {
                break;
            };
            if self.entries.get(&uid).is_some_and(|entry| entry.number == number) {
                self.entries.remove(&uid);
            }
        }
        while self.body_bytes > self.max_body_bytes {
            let Some((number, uid, bytes)) = self.bodies.pop_front() else {
                break;
            };
            self.body_bytes -= bytes;
            if let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.number == number)
                && let Compiled::Catalog { body, .. } = &mut entry.compiled
            {
                *body = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(etag: &str, bytes: usize) -> Compiled {
        let digest = Digest::of(etag.as_bytes());
        let body = Body { json: vec![0; bytes].into(), digest, proof: Arc::default() };
        Compiled::Catalog { etag: etag.into(), body: Some(body) }
    }

    #[test]
    fn bodies_go_first_then_hosts_and_the_oldest_of_each() {
        let inputs = Digest::of(b"1");
        let mut cache = Cache::new(3, 25);
        for uid in ["a", "b", "c"] {
            cache.put(uid.into(), inputs.clone(), catalog(uid, 10));
        }
        assert_eq!(cache.get("a", &inputs), Some(Compiled::Catalog { etag: "a".into(), body: None }));
        assert_eq!(cache.get("c", &inputs), Some(catalog("c", 10)));
        cache.put("d".into(), inputs.clone(), Compiled::Failed("why".into()));
        assert_eq!(cache.get("a", &inputs), None);
        assert_eq!(cache.get("d", &inputs), Some(Compiled::Failed("why".into())));
        assert_eq!(cache.get("d", &Digest::of(b"2")), None, "other inputs");
    }

    #[test]
    fn one_host_that_changes_often_stays_bounded() {
        let mut cache = Cache::new(3, 25);
        for number in 0_u8..100 {
            cache.put("a".into(), Digest::of(&[number]), catalog("a", 10));
            assert!(cache.queue.len() <= 3 && cache.body_bytes <= 25 && cache.bodies.len() <= 3);
        }
        assert_eq!(cache.get("a", &Digest::of(&[99])), Some(catalog("a", 10)));
    }
}
