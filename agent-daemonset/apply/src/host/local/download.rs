//! Files from a URL: streamed to a temporary file beside the target, hashed on the way, and put in place only when the
//! digest is right.
//!
//! The digest is what makes a file the wanted one. HTTPS is checked all the same, against the machine's own
//! authorities, since a URL can hold a password. The proxies are those of the agent's environment (`HTTPS_PROXY`,
//! `HTTP_PROXY`, `NO_PROXY`, as curl(1) reads them).

use std::{
    error::Error as _,
    fs::File,
    io::{self, Read as _, Write as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use drover_catalog::{Digest, Digester};
use reqwest::{Client, Url, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{Digests, Download, HostError, Tree};

/// A mistaken URL must not fill the machine's disk.
const SIZE_LIMIT: u64 = 4 << 30;
const REDIRECT_LIMIT: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Where systems keep the authorities that they trust: Debian's place, and Red Hat's.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Why nothing arrived.
enum Trouble {
    /// The other side, or the way there.
    Source(String),
    /// This machine's disk.
    Target(io::Error),
    /// This machine otherwise.
    Host(HostError),
}

/// See [`Host::download`](super::Host::download).
pub(super) async fn download(tree: &Tree, download: &Download<'_>) -> Result<(), HostError> {
    let Download { url, sha256, path, access, timeout } = *download;
    let failed = |why: String| HostError::Download { url: without_secrets(url), why };
    let address = Url::parse(url).map_err(|error| failed(format!("it is no URL: {error}")))?;
    let staged = tree.stage(path)?;
    let mut target = Target { file: staged.file()?, digester: Digester::default(), size: 0, limit: SIZE_LIMIT };
    match tokio::time::timeout(timeout, fetch(tree, &address, &mut target)).await {
        Ok(Ok(())) => {}
        Ok(Err(Trouble::Source(why))) => return Err(failed(why)),
        Ok(Err(Trouble::Target(source))) => {
            return Err(HostError::Path { action: "write", path: path.into(), source });
        }
        Ok(Err(Trouble::Host(error))) => return Err(error),
        Err(_) => {
            let seconds = timeout.as_secs();
            return Err(failed(format!("it took longer than {seconds} s; raise timeoutSeconds if it needs longer")));
        }
    }
    let found = target.digester.finish();
    if found != *sha256 {
        return Err(failed(format!(
            "its SHA-256 is {found}, but {sha256} is wanted, so it was not put in place; \
             check the digest, and whether the file at this URL has changed"
        )));
    }
    staged.seal(access)?;
    staged.place()
}

/// The digest of a file, by what is known from before if it has not changed since. `None` where nothing is.
pub(super) fn digest(tree: &Tree, digests: &Digests, path: &str) -> Result<Option<Digest>, HostError> {
    let Some(file) = tree.open_file(path)? else { return Ok(None) };
    let digest = digests.of(path, &file, SystemTime::now());
    digest.map(Some).map_err(|source| HostError::Path { action: "read", path: path.into(), source })
}

/// A file that is being written, and its digest.
struct Target {
    file: File,
    digester: Digester,
    size: u64,
    limit: u64,
}

impl Target {
    fn take(&mut self, chunk: &[u8]) -> Result<(), Trouble> {
        self.size = self.size.saturating_add(chunk.len() as u64);
        if self.size > self.limit {
            return Err(Trouble::Source(format!("it is larger than {} MiB, which is the limit", self.limit >> 20)));
        }
        self.digester.update(chunk);
        self.file.write_all(chunk).map_err(Trouble::Target)
    }
}

async fn fetch(tree: &Tree, url: &Url, target: &mut Target) -> Result<(), Trouble> {
    match url.scheme() {
        "file" => copy(tree, url, target).await,
        "http" | "https" => get(tree, url, target).await,
        other => Err(Trouble::Source(format!("{other} is not known; use https, http or file"))),
    }
}

/// A file of the machine itself.
async fn copy(tree: &Tree, url: &Url, target: &mut Target) -> Result<(), Trouble> {
    let source = |error: String| Trouble::Source(error);
    if url.host_str().is_some_and(|host| host != "localhost") {
        return Err(source("a file URL has three slashes, as in file:///srv/tool.tar.gz".to_owned()));
    }
    let path = url.to_file_path().ok().and_then(|path| path.to_str().map(str::to_owned));
    let path = path.ok_or_else(|| source("its path is not UTF-8".to_owned()))?;
    let opened = tree.open_file(&path).map_err(Trouble::Host)?;
    let mut file = opened.ok_or_else(|| source("the machine has no such file".to_owned()))?;
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => target.take(chunk.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(source(error.to_string())),
        }
        // So that the time limit and signals count also here.
        tokio::task::yield_now().await;
    }
}

async fn get(tree: &Tree, url: &Url, target: &mut Target) -> Result<(), Trouble> {
    let explained = |error: reqwest::Error| Trouble::Source(explain(error));
    let authorities = authorities(tree).map_err(Trouble::Host)?;
    if url.scheme() == "https" && authorities.is_empty() {
        let [debian, red_hat] = AUTHORITIES;
        return Err(Trouble::Source(format!(
            "the machine trusts no certificate authority: neither {debian} nor {red_hat} is there; \
             install ca-certificates, by a resource that this one requires"
        )));
    }
    let client = Client::builder()
        .tls_backend_preconfigured(tls(authorities).map_err(Trouble::Source)?)
        .redirect(redirect::Policy::custom(|attempt| match may_follow(attempt.previous(), attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(why) => attempt.error(why),
        }))
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("drover-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(explained)?;
    let mut response = client.get(url.clone()).send().await.map_err(explained)?;
    if !response.status().is_success() {
        return Err(Trouble::Source(format!("the server answered {}", response.status())));
    }
    while let Some(chunk) = response.chunk().await.map_err(explained)? {
        target.take(&chunk)?;
    }
    Ok(())
}

/// Whether a redirect is followed: a few, and none that gives up encryption.
fn may_follow(previous: &[Url], next: &Url) -> Result<(), String> {
    if previous.len() > REDIRECT_LIMIT {
        return Err(format!("there were more than {REDIRECT_LIMIT} redirects"));
    }
    if next.scheme() != "https" && previous.iter().any(|url| url.scheme() == "https") {
        return Err("it redirects from https to http, and that is not followed".to_owned());
    }
    Ok(())
}

/// What the machine itself trusts. A certificate that makes no sense is left out, as everybody does.
fn authorities(tree: &Tree) -> Result<RootCertStore, HostError> {
    let mut store = RootCertStore::empty();
    for path in AUTHORITIES {
        if let Some(bundle) = tree.read_file(path)? {
            store.add_parsable_certificates(CertificateDer::pem_slice_iter(&bundle).filter_map(Result::ok));
            if !store.is_empty() {
                break;
            }
        }
    }
    Ok(store)
}

fn tls(authorities: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("could not set up TLS: {error}"))?;
    Ok(config.with_root_certificates(authorities).with_no_client_auth())
}

/// All causes in one line, without URLs: those of redirects often carry a signature.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    reasons.dedup();
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}

/// A URL as it may be shown: without user, password, query and fragment.
fn without_secrets(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        let shown = url.split(['?', '#']).next().unwrap_or_default();
        return shown.rsplit_once('@').map_or(shown, |(_, rest)| rest).to_owned();
    };
    parsed.set_query(None);
    parsed.set_fragment(None);
    // Neither can fail where there is something to take away.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

#[cfg(test)]
mod tests;
