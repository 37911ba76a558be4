//! The conversation with the masters: facts up, catalogs down, reports up.
//!
//! It goes on while a run does, and only ever hands things over: what is done with a catalog is the
//! [`keeper`](crate::keeper)'s. Trouble is logged when it begins, changes or ends, not at each try.

mod pace;
mod trouble;

use std::{
    cell::RefCell,
    convert::Infallible,
    rc::Rc,
    time::{Instant, SystemTime},
};

use drover_apply::facts::{Gathered, Gatherer};
use drover_catalog::{Catalog, Digest, Facts, Report, Slot, routes};
use http::{Method, StatusCode};
use pace::Pace;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use trouble::Trouble;

use crate::{
    masters::{Answer, Masters, Request},
    memory::Memory,
    signature,
};

/// One machine's conversation with the masters.
pub(crate) struct Link<'a> {
    pub(crate) masters: Masters,
    pub(crate) memory: Memory<'a>,
    /// Looks at the machine.
    pub(crate) facts: Gatherer<'a>,
    /// Where catalogs go.
    pub(crate) catalogs: watch::Sender<Option<Rc<Catalog>>>,
    /// Where it goes when the machine is to run by itself.
    pub(crate) slots: watch::Sender<Option<Slot>>,
    /// Where reports come from. Only the latest counts.
    pub(crate) reports: watch::Receiver<Option<Report>>,
}

/// What to do after an answer.
enum Next {
    /// Go on.
    GoOn,
    /// Another catalog came: go on.
    Came,
    /// Nothing is there yet: go on asking for it.
    NotYet(Trouble),
    /// It went wrong in this way; try again when that may have passed.
    Pause(Trouble),
}

impl Link<'_> {
    /// Talks for ever. `etag` is that of the catalog at hand.
    pub(crate) async fn talk(self, etag: Option<String>) -> Infallible {
        let Self { masters, memory, facts, catalogs, slots, reports } = self;
        // Both meet the same trouble, which is worth one line.
        let trouble = RefCell::new(trouble::Log::default());
        let mut inquiry =
            Inquiry { masters: &masters, memory, facts, catalogs, slots, etag, known: None, warned: Vec::new() };
        let mut delivery = Delivery { masters: &masters, memory, reports };
        tokio::select! {
            never = inquiry.go_on(&trouble) => never,
            never = delivery.go_on(&trouble) => never,
        }
    }
}

/// Tells facts and asks for catalogs.
struct Inquiry<'a> {
    masters: &'a Masters,
    memory: Memory<'a>,
    facts: Gatherer<'a>,
    catalogs: watch::Sender<Option<Rc<Catalog>>>,
    slots: watch::Sender<Option<Slot>>,
    /// Of the last catalog of a master that came, be it accepted or not: a refused one is not sent again and again.
    etag: Option<String>,
    /// The digest of the facts that a master has.
    known: Option<Digest>,
    /// What was last said to be wrong with the facts.
    warned: Vec<String>,
}

impl Inquiry<'_> {
    async fn go_on(&mut self, trouble: &RefCell<trouble::Log>) -> Infallible {
        let mut pace = Pace::new();
        loop {
            let asked = Instant::now();
            match self.once().await {
                Next::GoOn => {
                    trouble.borrow_mut().over();
                    pace.keep(asked).await;
                }
                Next::Came => {
                    trouble.borrow_mut().over();
                    pace.came(asked).await;
                }
                Next::NotYet(found) => {
                    trouble.borrow_mut().note(found);
                    pace.keep(asked).await;
                }
                Next::Pause(found) => {
                    let retry_after = found.retry_after();
                    trouble.borrow_mut().note(found);
                    pace.wait(retry_after).await;
                }
            }
        }
    }

    async fn once(&mut self) -> Next {
        let Gathered { facts, warnings } = self.facts.gather().await;
        // Each is worth a line when it is new, and not at each poll.
        warnings.iter().filter(|warning| !self.warned.contains(warning)).for_each(|warning| warn!("{warning}"));
        self.warned = warnings;
        match facts_digest(&facts) {
            Some(digest) if self.known.as_ref() != Some(&digest) => match self.tell(&facts).await {
                Next::GoOn => self.known = Some(digest),
                trouble => return trouble,
            },
            _ => {}
        }
        let request = Request {
            method: Method::GET,
            path: routes::CATALOG,
            if_none_match: self.etag.clone(),
            wait: Some(pace::LONG_POLL),
            body: None,
        };
        match self.masters.ask(&request).await {
            Err(error) => Next::Pause(Trouble::Unreachable(error)),
            Ok(answer) => self.hear(answer),
        }
    }

    async fn tell(&self, facts: &Facts) -> Next {
        let Ok(body) = serde_json::to_vec(facts) else {
            return Next::GoOn;
        };
        match self.masters.ask(&put(Method::PUT, routes::FACTS, body)).await {
            Err(error) => Next::Pause(Trouble::Unreachable(error)),
            Ok(answer) if answer.status.is_success() => {
                debug!("a master knows the facts of this machine");
                Next::GoOn
            }
            Ok(answer) => Next::Pause(Trouble::of(&answer)),
        }
    }

    /// Hands over a catalog, if the answer is one and a master's.
    fn hear(&mut self, answer: Answer) -> Next {
        if answer.slot.is_some() {
            // Before the catalog: its run is followed by the machine's next turn.
            self.slots.send_replace(answer.slot);
        }
        if let Some(locality) = answer.locality.as_ref().filter(|locality| self.masters.settle(locality)) {
            info!(%locality, "this machine belongs to these masters");
            if let Err(error) = self.memory.keep_locality(locality) {
                error!(%error, "could not note on disk which masters this machine belongs to; after a restart one tells it again");
            }
        }
        match answer.status {
            StatusCode::OK => match serde_json::from_slice::<Catalog>(&answer.body) {
                Ok(catalog) => {
                    if let Err(trouble) = self.believe(&catalog, &answer) {
                        // Its entity tag is not kept: the same catalog may come with a signature that holds.
                        self.masters.pass_over();
                        return Next::Pause(trouble);
                    }
                    self.etag = Some(answer.etag.unwrap_or_else(|| catalog.etag()));
                    self.catalogs.send_replace(Some(Rc::new(catalog)));
                    Next::Came
                }
                Err(error) => Next::Pause(Trouble::NoCatalog { line: error.line(), column: error.column() }),
            },
            StatusCode::NOT_MODIFIED => Next::GoOn,
            StatusCode::PRECONDITION_REQUIRED => {
                // Another master than the one that was told, or one that started anew.
                self.known = None;
                Next::GoOn
            }
            StatusCode::NOT_FOUND => Next::NotYet(Trouble::Unassigned),
            _ => Next::Pause(Trouble::of(&answer)),
        }
    }

    /// Whether the catalog is proven to be a master's.
    fn believe(&self, catalog: &Catalog, answer: &Answer) -> Result<(), Trouble> {
        let trust = self.masters.trust(&answer.server_name).map_err(Trouble::Unreachable)?;
        signature::verify(catalog, &answer.proof, &trust, SystemTime::now())
            .map_err(|distrust| Trouble::Distrusted { generation: catalog.generation, distrust })
    }
}

/// Delivers reports.
struct Delivery<'a> {
    masters: &'a Masters,
    memory: Memory<'a>,
    reports: watch::Receiver<Option<Report>>,
}

impl Delivery<'_> {
    async fn go_on(&mut self, trouble: &RefCell<trouble::Log>) -> Infallible {
        let mut pace = Pace::new();
        loop {
            let latest = self.reports.borrow_and_update().clone();
            let Some(report) = latest else {
                self.next_report().await;
                continue;
            };
            match self.deliver(&report).await {
                Next::GoOn | Next::Came => {
                    trouble.borrow_mut().over();
                    pace.reset();
                    self.next_report().await;
                }
                Next::Pause(found) | Next::NotYet(found) => {
                    let retry_after = found.retry_after();
                    trouble.borrow_mut().note(found);
                    pace.wait(retry_after).await;
                }
            }
        }
    }

    async fn next_report(&mut self) {
        if self.reports.changed().await.is_err() {
            // The keeper has ended, and soon so does this.
            std::future::pending::<()>().await;
        }
    }

    async fn deliver(&self, report: &Report) -> Next {
        let Ok(body) = serde_json::to_vec(report) else {
            return Next::GoOn;
        };
        let answer = match self.masters.ask(&put(Method::POST, routes::REPORT, body)).await {
            Err(error) => return Next::Pause(Trouble::Unreachable(error)),
            Ok(answer) => answer,
        };
        let status = answer.status;
        let never = matches!(status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY);
        if !status.is_success() && !never {
            return Next::Pause(Trouble::of(&answer));
        }
        if never {
            error!(%status, "a master does not take the report of the last run, and never will; it is dropped");
        } else {
            info!(generation = report.generation, outcome = ?report.outcome, "reported");
        }
        // A newer one may have taken its place.
        if self.reports.has_changed().is_ok_and(|newer| !newer)
            && let Err(error) = self.memory.report_delivered()
        {
            error!(%error, "could not note that the report was delivered; it will be sent again");
        }
        Next::GoOn
    }
}

fn put(method: Method, path: &'static str, body: Vec<u8>) -> Request {
    Request { method, path, if_none_match: None, wait: None, body: Some(body) }
}

fn facts_digest(facts: &Facts) -> Option<Digest> {
    Digest::of_json(facts).ok()
}
