//! How the newest content did on each machine, remembered for as long as nothing changed that it depends on.
//!
//! To try a content out is to compile a catalog for each machine, which is seconds of work for thousands of them. While a
//! Rollout moves machines, what they have changes all the time. So the trial is done anew at once when the content, the
//! other NodeConfigs, or the machines themselves (their facts and labels) changed; and when only what is assigned to them
//! did, no more often than that it takes a twentieth of the time.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_core::{
    revision::Content,
    trial::{Refusal, Tally, Trial},
};
use drover_crds::{Host, NodeConfig};
use kube::ResourceExt as _;

use super::{
    Error,
    gather::{self, Revisions},
};
use crate::context::Context;

/// The least time between two trials that only what is assigned to machines calls for, and how many times as long as
/// the trial it is.
const LEAST: Duration = Duration::from_secs(5);
const TIMES: u32 = 20;

/// The last trial of each NodeConfig, by its name.
#[derive(Default)]
pub(super) struct Trials(Mutex<HashMap<String, Last>>);

struct Last {
    content: Content,
    basis: Basis,
    result: Result<Trial, Refusal>,
    ended: Instant,
    took: Duration,
}

/// What a trial depends on, beside the content.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Basis {
    /// The NodeConfigs and the machines.
    inputs: u64,
    /// What is assigned to the machines and active on them.
    assigned: u64,
}

/// What is tried out, where nobody waits.
struct Subject {
    config: Arc<NodeConfig>,
    content: Content,
    configs: Vec<NodeConfig>,
    revisions: Arc<Revisions>,
}

impl Trials {
    /// How the content does, and when to look again although nothing happens.
    pub(super) async fn of(
        &self,
        context: &Context,
        config: &Arc<NodeConfig>,
        content: &Content,
        (hosts, configs, revisions): (&[Arc<Host>], &[NodeConfig], &Arc<Revisions>),
    ) -> Result<(Result<Trial, Refusal>, Option<Duration>), Error> {
        let name = config.name_any();
        let basis = Basis { inputs: inputs(context, config, configs), assigned: assigned(hosts) };
        {
            let trials = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let last = trials.get(&name).filter(|last| last.basis.inputs == basis.inputs && last.content == *content);
            if let Some(last) = last {
                let left = (last.took * TIMES).max(LEAST).checked_sub(last.ended.elapsed());
                if last.basis == basis {
                    return Ok((last.result.clone(), None));
                }
                if left.is_some() {
                    return Ok((last.result.clone(), left));
                }
            }
        }
        let subject = Subject {
            config: Arc::clone(config),
            content: content.clone(),
            configs: configs.to_vec(),
            revisions: Arc::clone(revisions),
        };
        let (result, took) = try_out(context, Arc::new(subject)).await?;
        let last = Last { content: content.clone(), basis, result: result.clone(), ended: Instant::now(), took };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, last);
        Ok((result, None))
    }

    /// The NodeConfig is gone.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Tries the content out on all machines, a portion at a time, and says how long that took. It takes the processor, so it
/// is done where nobody waits: the Lease must be renewed meanwhile.
async fn try_out(context: &Context, subject: Arc<Subject>) -> Result<(Result<Trial, Refusal>, Duration), Error> {
    let began = Instant::now();
    let mut tally = match Tally::of(&subject.content) {
        Ok(tally) => tally,
        Err(refusal) => return Ok((Err(refusal), began.elapsed())),
    };
    let mut from = None;
    loop {
        let (hosts, next) = gather::next_hosts(context, &subject.config, from).await?;
        let on = Arc::clone(&subject);
        let trying = move || {
            let Subject { config, content, configs, revisions } = &*on;
            let added = tally.add(config, content, &hosts, configs, |revision| revisions.content(revision));
            (added, tally)
        };
        let added;
        (added, tally) = tokio::task::spawn_blocking(trying).await.map_err(Error::Try)?;
        if let Err(refusal) = added {
            return Ok((Err(refusal), began.elapsed()));
        }
        match next {
            Some(next) => from = Some(next),
            None => return Ok((tally.conclude(), began.elapsed())),
        }
    }
}

fn inputs(context: &Context, config: &NodeConfig, configs: &[NodeConfig]) -> u64 {
    let mut hasher = DefaultHasher::new();
    context.fleet.inputs_version().hash(&mut hasher);
    config.metadata.generation.hash(&mut hasher);
    for config in configs {
        let status = config.status.as_ref();
        (&config.metadata.uid, config.metadata.generation).hash(&mut hasher);
        // Its own revision is what comes of the trial.
        status.and_then(|status| status.revision.as_ref()).hash(&mut hasher);
        status.is_some_and(|status| !status.conflicts.is_empty()).hash(&mut hasher);
    }
    hasher.finish()
}

fn assigned(hosts: &[Arc<Host>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for host in hosts {
        host.metadata.uid.hash(&mut hasher);
        let assigned = host.status.iter().flat_map(|status| &status.assigned);
        let active =
            host.status.iter().filter_map(|status| status.active.as_ref()).flat_map(|active| &active.revisions);
        for assignment in assigned.chain(active) {
            (&assignment.node_config, &assignment.revision).hash(&mut hasher);
        }
    }
    hasher.finish()
}
