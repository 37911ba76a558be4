//! A master that a test scripts: real HTTPS, one request after the other handed to the test, which answers it. Catalogs are
//! signed with the key of its certificate, as a real one does.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, SystemTime},
};

use drover_catalog::{
    Catalog, CertificateChain, Signature,
    routes::{CERTIFICATES_HEADER, SIGNATURE_HEADER},
};
use rustls::{
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};

const NAME: &str = "masters.test";
/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(60);

/// Names in lower case, and values.
type Headers = Vec<(String, String)>;

/// The scripted master.
pub(crate) struct Master {
    asked: Receiver<Asked>,
    certified: Arc<CertifiedKey>,
    address: SocketAddr,
}

/// A request that waits for its answer.
pub(crate) struct Asked {
    /// Such as `GET /v1/catalog`.
    pub(crate) line: String,
    /// Which of the master's addresses it came to.
    pub(crate) reached_at: SocketAddr,
    headers: Headers,
    pub(crate) body: Vec<u8>,
    answer: Sender<String>,
}

impl Master {
    /// Starts, and writes the folder that tells an agent of it.
    pub(crate) fn start(folder: &Path) -> Self {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = CertifiedKey::from_der(vec![certified.cert.der().clone()], key, &provider).unwrap();
        let key = Arc::new(key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        // The first address of the two leads nowhere: the agent must go on to the next.
        let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (name, text) in [
            ("ca.crt", certified.cert.pem()),
            ("server-name", NAME.to_owned()),
            ("addresses", format!("{nowhere}\n{address}\n")),
            ("token", "s3cret\n".to_owned()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let (asking, asked) = mpsc::channel();
        let config = Arc::new(config);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (config, asking) = (Arc::clone(&config), asking.clone());
                thread::spawn(move || serve(connection, config, &asking));
            }
        });
        Self { asked, certified: key, address }
    }

    /// Looks like two masters to agents that start from now on, by two addresses.
    pub(crate) fn appear_twice(&self, folder: &Path) {
        let second = SocketAddr::from(([127, 0, 0, 2], self.address.port()));
        std::fs::write(folder.join("addresses"), format!("{}\n{second}\n", self.address)).unwrap();
    }

    /// The headers that prove a catalog for this long from now; whole lines.
    pub(crate) fn sign(&self, catalog: &Catalog, for_seconds: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let expires = now.checked_add_signed(for_seconds).unwrap();
        let signer = self.certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let text = Signature::text(&catalog.digest, &catalog.host.uid, catalog.generation, expires);
        let bytes = signer.sign(text.as_bytes()).unwrap();
        let signature = Signature { expires, scheme: signer.scheme().into(), bytes };
        let chain = CertificateChain(self.certified.cert.iter().map(|certificate| certificate.to_vec()).collect());
        format!("{SIGNATURE_HEADER}: {signature}\r\n{CERTIFICATES_HEADER}: {chain}\r\n")
    }

    /// Answers with this catalog, as real masters do.
    pub(crate) fn send(&self, asked: Asked, catalog: &Catalog) {
        let headers = format!("etag: {}\r\n{}", catalog.etag(), self.sign(catalog, 24 * 60 * 60));
        asked.answer_with("200 OK", &headers, &serde_json::to_vec(catalog).unwrap());
    }

    /// The next request, which must be this one.
    #[track_caller]
    pub(crate) fn expect(&self, line: &str) -> Asked {
        let asked = self.asked.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no {line} came"));
        assert_eq!(asked.line, line);
        assert_eq!(asked.header("authorization"), "Bearer s3cret");
        asked
    }

    /// Whether no request has come.
    pub(crate) fn is_unasked(&self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// The next of two that may come in any order; the other one waits in `aside`.
    #[track_caller]
    pub(crate) fn expect_among(&self, line: &str, aside: &mut Vec<Asked>) -> Asked {
        loop {
            let asked = self.asked.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no {line} came"));
            if asked.line == line {
                return asked;
            }
            aside.push(asked);
        }
    }
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn answer(self, status: &str) {
        self.answer_with(status, "", b"");
    }

    /// `headers`: whole lines.
    pub(crate) fn answer_with(self, status: &str, headers: &str, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{text}");
        // The agent may have gone.
        let _ = self.answer.send(answer);
    }
}

fn serve(connection: TcpStream, config: Arc<ServerConfig>, asking: &Sender<Asked>) {
    let reached_at = connection.local_addr().unwrap();
    let tls = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(tls, connection));
    while let Some((line, headers, body)) = read(&mut stream) {
        let (answer, answered) = mpsc::channel();
        if asking.send(Asked { line, reached_at, headers, body, answer }).is_err() {
            return;
        }
        let Ok(answer) = answered.recv() else { return };
        if stream.get_mut().write_all(answer.as_bytes()).and_then(|()| stream.get_mut().flush()).is_err() {
            return;
        }
    }
}

/// The request line, the headers and the body; `None` when the agent has closed the connection.
fn read(stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>) -> Option<(String, Headers, Vec<u8>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (request, headers) = lines.split_first()?;
    let headers: Headers = headers
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, value)| value);
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((request.trim_end_matches(" HTTP/1.1").to_owned(), headers, body))
}
