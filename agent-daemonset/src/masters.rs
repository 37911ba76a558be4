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
    time::Duration,
};

use directory::{Address, Directory};
use drover_catalog::{
    Digest, Slot,
    routes::{CERTIFICATES_HEADER, SIGNATURE_HEADER, SLOT_HEADER},
};
use http::{HeaderName, Method, StatusCode, header};
use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::signature::{Proof, Trust};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take, beside the wait that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A catalog is some hundred KiB; a master that sends more without end must not fill the machine's memory.
const ANSWER_LIMIT: usize = 16 << 20;

/// The masters, as one.
pub(crate) struct Masters {
    folder: PathBuf,
    token_file: PathBuf,
    /// Whose turn it is. It starts at a place of this machine's own, so that machines spread over the masters.
    turn: Cell<usize>,
    /// The connections to one master, for as long as it answers.
    session: RefCell<Option<(SessionKey, Client)>>,
}

/// What connections depend on.
#[derive(Clone, PartialEq, Eq)]
struct SessionKey {
    directory: Digest,
    address: Address,
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
    /// The masters that a mounted folder names; `place` is this machine's own, the same at each start.
    pub(crate) fn new(folder: PathBuf, token_file: PathBuf, place: usize) -> Self {
        Self { folder, token_file, turn: Cell::new(place), session: RefCell::new(None) }
    }

    /// Asks one master after the other, until one answers.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, MastersError> {
        let directory = Directory::read(&self.folder)?;
        let token = directory::read_text(&self.token_file)?;
        let mut left = directory.addresses.len();
        loop {
            let turn = self.turn.get();
            let address = directory.address(turn);
            match self.ask_one(&directory, address, token.trim(), request).await {
                Ok(answer) => {
                    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                        // This one is full or leaves; after the pause it is another's turn.
                        self.next_turn(turn);
                    }
                    return Ok(answer);
                }
                Err(reason) => {
                    self.next_turn(turn);
                    left -= 1;
                    if left == 0 {
                        return Err(MastersError::Unreachable { address: address.to_string(), reason });
                    }
                }
            }
        }
    }

    /// Whom to believe, as the folder says by now.
    pub(crate) fn trust(&self) -> Result<Trust, MastersError> {
        let Directory { server_name, authorities, .. } = Directory::read(&self.folder)?;
        Ok(Trust { authorities, server_name })
    }

    /// What the master said whose turn it is can not be believed: another one is asked next.
    pub(crate) fn pass_over(&self) {
        self.next_turn(self.turn.get());
    }

    /// Lets the next one have its turn, unless another request has seen to it.
    fn next_turn(&self, turn: usize) {
        if self.turn.get() == turn {
            self.turn.set(turn.wrapping_add(1));
            self.session.replace(None);
        }
    }

    async fn ask_one(
        &self,
        directory: &Directory,
        address: &Address,
        token: &str,
        request: &Request,
    ) -> Result<Answer, String> {
        let client = self.client(directory, address).await?;
        let url = format!("https://{}:{}{}", directory.server_name, address.port(), request.path);
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
        read(call.send().await.map_err(|error| explain(&error))?).await
    }

    async fn client(&self, directory: &Directory, address: &Address) -> Result<Client, String> {
        let key = SessionKey { directory: directory.digest.clone(), address: address.clone() };
        if let Some((known, client)) = &*self.session.borrow()
            && *known == key
        {
            return Ok(client.clone());
        }
        let reached_at = address.resolve().await.map_err(|error| format!("could not look it up: {error}"))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls(directory)?)
            .resolve_to_addrs(&directory.server_name, &reached_at)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(20))
            .pool_max_idle_per_host(1)
            .https_only(true)
            .build()
            .map_err(|error| explain(&error))?;
        self.session.replace(Some((key, client.clone())));
        Ok(client)
    }
}

/// Trusts the given authorities alone; what the system trusts does not count.
fn tls(directory: &Directory) -> Result<ClientConfig, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in &directory.authorities {
        authorities.add(certificate.clone()).map_err(|error| format!("ca.crt holds a wrong certificate: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("could not set up TLS: {error}"))?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(config)
}

async fn read(mut response: Response) -> Result<Answer, String> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut answer = Answer {
        status: response.status(),
        etag: text(header::ETAG),
        retry_after: text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        slot: text(HeaderName::from_static(SLOT_HEADER)).and_then(|slot| slot.parse().ok()),
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
