//! HTTPS to whichever master answers.
//!
//! Where the masters are and who vouches for them is read anew for each request, so that a rotated certificate, token
//! or address needs no restart. What is asked of a master, and what its answers mean, is the [`link`](crate::link)'s.

mod directory;

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use directory::{Candidate, Directory};
use drover_catalog::{
    Digest, Locality, Slot,
    routes::{CERTIFICATES_HEADER, LOCALITY_HEADER, SIGNATURE_HEADER, SLOT_HEADER},
};
use http::{HeaderName, Method, StatusCode, header};
use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tracing::debug;

use crate::signature::{Proof, Trust};

/// How long it may take until a master greets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take, beside the wait that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a master that lets us wait is asked whether it is there, and how long it may take to say so: a machine that was cut
/// off closes no connection.
const ALIVE_EVERY: Duration = Duration::from_secs(20);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long others are tried after one did not answer.
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long until the nearest masters are tried again, by one that went to others.
const BACK: Duration = Duration::from_secs(300);
/// A catalog is some hundred KiB; a master that sends more without end must not fill the machine's memory.
const ANSWER_LIMIT: usize = 16 << 20;

/// The masters, as one.
pub(crate) struct Masters {
    folder: PathBuf,
    token_file: PathBuf,
    /// This machine's own number, so that machines spread over the masters.
    own: usize,
    /// Where this machine belongs.
    locality: RefCell<Locality>,
    /// Whose turn it is among those that can be asked, and since when.
    turn: Cell<(usize, Instant)>,
    /// The connections to one master, for as long as it answers.
    session: RefCell<Option<(SessionKey, Client)>>,
}

/// What connections depend on.
#[derive(Clone, PartialEq, Eq)]
struct SessionKey {
    authorities: Digest,
    candidate: Candidate,
}

/// What is asked.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The entity tag of what is at hand.
    pub(crate) if_none_match: Option<String>,
    /// How long the master may wait for something new.
    pub(crate) wait: Option<Duration>,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
}

/// What a master said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The entity tag of the body.
    pub(crate) etag: Option<String>,
    /// How long to stay away.
    pub(crate) retry_after: Option<Duration>,
    /// When the machine is to run by itself.
    pub(crate) slot: Option<Slot>,
    /// Which masters the machine belongs to.
    pub(crate) locality: Option<Locality>,
    /// Where the master is.
    pub(crate) from: String,
    /// The name in its certificate.
    pub(crate) server_name: String,
    /// What proves the body, where it is a catalog.
    pub(crate) proof: Proof,
    pub(crate) body: Vec<u8>,
}

/// Why no master was asked, or none answered.
#[derive(Debug, Error)]
pub(crate) enum MastersError {
    /// A file that says where the masters are, or who this is, is not there.
    #[error("could not read {}: {source}; is the ConfigMap or the token mounted there?", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file makes no sense.
    #[error("{} {problem}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No master answered; the last one's reason stands for all.
    #[error("no master answered; the last one, {address}: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// Its reason.
        reason: String,
    },
}

impl Masters {
    /// The masters that a mounted folder names; `own` is this machine's own number, the same at each start.
    pub(crate) fn new(folder: PathBuf, token_file: PathBuf, own: usize, locality: Locality) -> Self {
        let turn = Cell::new((0, Instant::now()));
        Self { folder, token_file, own, locality: RefCell::new(locality), turn, session: RefCell::new(None) }
    }

    /// The machine belongs to these masters from now on; says whether that is new.
    pub(crate) fn settle(&self, locality: &Locality) -> bool {
        let is_new = *self.locality.borrow() != *locality;
        if is_new {
            self.locality.replace(locality.clone());
            self.turn.set((0, Instant::now()));
        }
        is_new
    }

    /// Asks one master after the other, the nearest first, until one answers; round after round for [`PATIENCE`]. An address may be
    /// that of many masters, so that the next connection to it finds another one.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, MastersError> {
        let mut pauses = pauses();
        let mut failing_since = None;
        let mut left = None;
        loop {
            // Read anew each time: the address that does not answer may just have been replaced.
            let directory = Directory::read(&self.folder)?;
            let token = directory::read_text(&self.token_file)?;
            let candidates = directory.candidates(&self.locality.borrow(), self.own);
            let (turn, candidate) = self.whose_turn(&candidates);
            let reason = match self.ask_one(&directory, candidate, token.trim(), request).await {
                Ok(answer) => {
                    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                        // This one is full or leaves; after the pause it is another's turn.
                        self.next_turn(turn);
                    }
                    return Ok(answer);
                }
                Err(reason) => reason,
            };
            self.next_turn(turn);
            debug!(master = %candidate.address, reason, "a master did not answer");
            let since = *failing_since.get_or_insert_with(Instant::now);
            let of_this_round = left.get_or_insert(candidates.len());
            *of_this_round = of_this_round.saturating_sub(1);
            if *of_this_round > 0 {
                continue;
            }
            if since.elapsed() >= PATIENCE {
                return Err(MastersError::Unreachable { address: candidate.address.to_string(), reason });
            }
            left = None;
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// Whose turn it is. One that went to masters that are further away goes back after a while.
    fn whose_turn<'a>(&self, candidates: &'a [Candidate]) -> (usize, &'a Candidate) {
        // There is at least one.
        let of = |turn: usize| &candidates[turn % candidates.len()];
        let (turn, since) = self.turn.get();
        if of(turn).tier > 0 && since.elapsed() >= BACK {
            self.turn.set((0, Instant::now()));
            return (0, of(0));
        }
        (turn, of(turn))
    }

    /// Whom to believe who answered under this name, as the folder says by now.
    pub(crate) fn trust(&self, server_name: &str) -> Result<Trust, MastersError> {
        let authorities = Directory::read(&self.folder)?.authorities;
        Ok(Trust { authorities, server_name: server_name.to_owned() })
    }

    /// What the master said whose turn it is can not be believed: another one is asked next.
    pub(crate) fn pass_over(&self) {
        self.next_turn(self.turn.get().0);
    }

    /// Lets the next one have its turn, unless another request has seen to it.
    fn next_turn(&self, turn: usize) {
        if self.turn.get().0 == turn {
            self.turn.set((turn.wrapping_add(1), Instant::now()));
            self.session.replace(None);
        }
    }

    async fn ask_one(
        &self,
        directory: &Directory,
        candidate: &Candidate,
        token: &str,
        request: &Request,
    ) -> Result<Answer, String> {
        let client = self.client(directory, candidate).await?;
        let url = format!("https://{}:{}{}", candidate.server_name, candidate.address.port(), request.path);
        let mut call = client
            .request(request.method.clone(), url)
            .bearer_auth(token)
            .timeout(ANSWER_TIMEOUT + request.wait.unwrap_or_default());
        if let Some(etag) = &request.if_none_match {
            call = call.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(wait) = request.wait {
            call = call.header("prefer", format!("wait={}", wait.as_secs()));
        }
        if let Some(body) = &request.body {
            call = call.header(header::CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = call.send().await.map_err(|error| explain(&error))?;
        read(response, candidate).await
    }

    async fn client(&self, directory: &Directory, candidate: &Candidate) -> Result<Client, String> {
        let key = SessionKey { authorities: directory.digest.clone(), candidate: candidate.clone() };
        if let Some((known, client)) = &*self.session.borrow()
            && *known == key
        {
            return Ok(client.clone());
        }
        let reached_at = candidate.address.resolve().await.map_err(|error| format!("could not look it up: {error}"))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(directory)?)
            .resolve_to_addrs(&candidate.server_name, &reached_at)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(ALIVE_EVERY)
            .http2_keep_alive_interval(ALIVE_EVERY)
            .http2_keep_alive_timeout(ALIVE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .https_only(true)
            .build()
            .map_err(|error| explain(&error))?;
        self.session.replace(Some((key, client.clone())));
        Ok(client)
    }
}

/// From a tenth of a second to two; jitter lengthens each by up to its own length, because all agents of a master lose it at once.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Trusts the given authorities alone; what the system trusts does not count.
fn tls(directory: &Directory) -> Result<ClientConfig, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in &directory.authorities {
        authorities.add(certificate.clone()).map_err(|error| format!("ca.crt holds a wrong certificate: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("could not set up TLS: {error}"))?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn read(mut response: Response, from: &Candidate) -> Result<Answer, String> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut answer = Answer {
        status: response.status(),
        etag: text(header::ETAG),
        retry_after: text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        slot: text(HeaderName::from_static(SLOT_HEADER)).and_then(|slot| slot.parse().ok()),
        locality: text(HeaderName::from_static(LOCALITY_HEADER)).and_then(|locality| locality.parse().ok()),
        from: from.address.to_string(),
        server_name: from.server_name.clone(),
        proof: Proof {
            signature: text(HeaderName::from_static(SIGNATURE_HEADER)),
            certificates: text(HeaderName::from_static(CERTIFICATES_HEADER)),
        },
        body: Vec::new(),
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
        if answer.body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(format!("its answer is longer than {} MiB", ANSWER_LIMIT >> 20));
        }
        answer.body.extend_from_slice(&chunk);
    }
    Ok(answer)
}

/// All causes in one line: the outermost, "error sending request", says nothing.
fn explain(error: &reqwest::Error) -> String {
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    if error.is_timeout() {
        reasons.push("it took too long".to_owned());
    }
    reasons.dedup();
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}
