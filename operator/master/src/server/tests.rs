use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{
        HeaderMap, Method,
        header::{ETAG, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use drover_catalog::{
    Catalog, Digest, Facts, HostIdentity, Outcome, Part, Report, ResourceId, ResourceReport, ResourceStatus, Totals,
};
use drover_core::revision::Content;
use drover_crds::Host;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt;

use super::*;
use crate::{
    testing::{
        AGENT, Asked, Authority, MockApi, SECRET, assigned, bearer, content, from_template, host, review, stored,
        with_facts,
    },
    tls::Certificate,
};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// How long it took, on the paused clock.
    took: Duration,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn etag(&self) -> &str {
        self.headers[ETAG].to_str().unwrap()
    }

    fn retry_after(&self) -> u64 {
        self.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap()
    }

    fn catalog(&self) -> Catalog {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The content of the one file of the catalog.
    fn file(&self) -> String {
        let catalog = self.catalog();
        assert!(catalog.is_intact());
        match &catalog.resources[0].parts[0] {
            Part::File(file) => String::from_utf8(file.content.as_ref().unwrap().expose().to_owned()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

struct Master {
    app: App,
    api: MockApi,
    authority: Authority,
}

impl Master {
    /// A master that has read all that there is: nothing.
    fn new() -> Self {
        let master = Self::starting(100);
        master.app.fleet.hosts(Event::InitDone);
        master.app.fleet.revisions(Event::InitDone);
        master.app.fleet.secrets(Event::InitDone);
        master
    }

    fn starting(max_open_requests: usize) -> Self {
        let (client, api) = MockApi::new();
        let config = Config {
            namespace: "drover-system".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            tls_dir: "/nonexistent".into(),
            agent_service_account: AGENT.into(),
            max_open_requests,
            compile_slots: 2,
            metrics_listen: None,
        };
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        authority.write_certificate(folder.path(), &rcgen::PKCS_ECDSA_P256_SHA256);
        let signer = Certificate::load(folder.path()).unwrap().signer();
        let shared = Shared::new(&config, &client, Arc::default(), signer, CancellationToken::new());
        Self { app: Arc::new(shared), api, authority }
    }

    /// A master that serves the node `a`, whose token is `a` and verified.
    async fn serving(host: Host) -> Self {
        let mut master = Self::new();
        master.knows(host);
        master.login("a").await;
        master
    }

    /// A master that serves these nodes, each with something of its own assigned.
    async fn serving_all(names: [&str; 3]) -> Self {
        let mut master = Self::new();
        for name in names {
            master.keeps(&content(name));
            master.knows(assigned(with_facts(host(name)), &content(name), 1));
            master.login(name).await;
        }
        master
    }

    async fn login(&mut self, name: &str) {
        let call = call(&self.app, request(Method::PUT, routes::FACTS, name, "{"));
        let (answer, _) = tokio::join!(call, self.api.answer(201, review(name)));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
    }

    fn knows(&self, host: Host) {
        self.app.fleet.hosts(Event::Apply(host));
    }

    fn keeps(&self, content: &Content) {
        let (revision, secret) = stored(content);
        self.app.fleet.revisions(Event::Apply(revision));
        self.app.fleet.secrets(Event::Apply(secret));
    }
}

fn request(method: Method, path: &str, token: &str, body: impl Into<Body>) -> Request {
    let mut request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    *request.headers_mut() = bearer(token);
    request
}

fn poll(token: &str, etag: Option<&str>, seconds: u64) -> Request {
    let mut request = request(Method::GET, routes::CATALOG, token, Body::empty());
    request.headers_mut().insert("prefer", format!("wait={seconds}").parse().unwrap());
    if let Some(etag) = etag {
        request.headers_mut().insert(IF_NONE_MATCH, etag.parse().unwrap());
    }
    request
}

async fn call(app: &App, request: Request) -> Answer {
    let start = Instant::now();
    let response = router(Arc::clone(app)).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: head.status, headers: head.headers, body, took: start.elapsed() }
}

/// Sends a request, waits until nothing moves any more (the paused clock goes on only then), makes the change, and
/// returns the answer with the time it took.
async fn during(app: &App, request: Request, change: impl FnOnce()) -> Answer {
    let change = async {
        sleep(Duration::from_secs(1)).await;
        change();
    };
    tokio::join!(call(app, request), change).0
}

/// A body that tells whether somebody read of it.
fn watched_body() -> (Body, Arc<AtomicBool>) {
    let read = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&read);
    let chunks = futures::stream::repeat_with(move || {
        told.store(true, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]))
    });
    (Body::from_stream(chunks), read)
}

fn report(name: &str, generation: i64, status: ResourceStatus) -> Report {
    Report {
        host: HostIdentity { name: name.into(), uid: format!("host-{name}") },
        generation,
        catalog: Digest::of(b"catalog"),
        revisions: vec![],
        outcome: if status == ResourceStatus::Failed { Outcome::Failed } else { Outcome::Converged },
        totals: Totals {
            changed: u32::from(status == ResourceStatus::Changed),
            failed: u32::from(status == ResourceStatus::Failed),
            ..Totals::default()
        },
        resources: vec![ResourceReport::new(ResourceId::new("base", "motd"), "file", status, "no space left".into())],
        millis_by_type: std::collections::BTreeMap::new(),
        reboot_required: vec![],
        commands: vec![],
        duration_millis: 1,
        boot_id: "boot".into(),
        agent_version: "0.1.0".into(),
    }
}

fn send(report: &Report) -> Request {
    request(Method::POST, routes::REPORT, "a", serde_json::to_vec(report).unwrap())
}

/// The Host that the API server would answer to this write.
fn written(mut host: Host, asked: &Asked, version: &str) -> Value {
    host.metadata.resource_version = Some(version.into());
    let mut host = serde_json::to_value(host).unwrap();
    for (key, value) in asked.body["status"].as_object().unwrap() {
        host["status"][key] = value.clone();
    }
    host
}

#[tokio::test(start_paused = true)]
async fn who_is_not_known_is_refused_before_anything_is_read() {
    let mut master = Master::new();
    for route in [routes::FACTS, routes::REPORT] {
        let method = if route == routes::FACTS { Method::PUT } else { Method::POST };
        let (body, read) = watched_body();
        let mut anonymous = request(method.clone(), route, "x", body);
        anonymous.headers_mut().clear();
        let answer = call(&master.app, anonymous).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers[WWW_AUTHENTICATE], "Bearer");
        assert!(!read.load(Ordering::Relaxed), "{route}");

        let (body, read) = watched_body();
        let no = json!({"spec": {}, "status": {"authenticated": false}});
        let call = call(&master.app, request(method, route, "forged", body));
        let (answer, _) = tokio::join!(call, master.api.answer(201, no));
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(!read.load(Ordering::Relaxed), "{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_agents_of_this_cluster_are_served() {
    let mut master = Master::new();
    master.knows(host("a"));
    let review_with = |change: fn(&mut Value)| {
        let mut review = review("a");
        change(&mut review["status"]);
        review
    };
    let rows = [
        (review_with(|s| s["audiences"] = json!(["https://kubernetes.default.svc"])), StatusCode::UNAUTHORIZED),
        (review_with(|s| s["user"]["username"] = json!("system:serviceaccount:x:y")), StatusCode::FORBIDDEN),
        (review_with(|s| s["user"]["extra"] = json!({})), StatusCode::FORBIDDEN),
        // A Node that was made again under its name: its Host is not made yet, and the old one's is not served.
        (
            review_with(|s| s["user"]["extra"]["authentication.kubernetes.io/node-uid"] = json!(["another"])),
            StatusCode::NOT_FOUND,
        ),
        (review("a"), StatusCode::PRECONDITION_REQUIRED),
    ];
    for (number, (review, status)) in rows.into_iter().enumerate() {
        let call = call(&master.app, poll(&number.to_string(), None, 0));
        let (answer, _) = tokio::join!(call, master.api.answer(201, review));
        assert_eq!(answer.status, status, "row {number}: {}", answer.text());
    }
    // Nobody answers for this one.
    let answer = call(&master.app, poll("unknown", None, 0)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!((5..=10).contains(&answer.retry_after()));
}

#[tokio::test(start_paused = true)]
async fn a_catalog_is_served_once_and_then_only_news() {
    let master = Master::serving(assigned(with_facts(host("a")), &content("one"), 1)).await;
    master.keeps(&content("one"));
    let first = call(&master.app, poll("a", None, 0)).await;
    assert_eq!((first.status, first.file().as_str()), (StatusCode::OK, "one debian hunter2"));
    assert_eq!(first.headers["cache-control"], "no-store");

    let same = call(&master.app, poll("a", Some(first.etag()), 30)).await;
    assert_eq!(
        (same.status, same.took, same.etag()),
        (StatusCode::NOT_MODIFIED, Duration::from_secs(30), first.etag())
    );
    assert!(same.body.is_empty());

    // The same master knows less than the one that served the caller before.
    let newer = call(&master.app, poll("a", Some("\"2-other\""), 5)).await;
    assert_eq!((newer.status, newer.took), (StatusCode::NOT_MODIFIED, Duration::from_secs(5)));
    let older = call(&master.app, poll("a", Some("\"0-other\""), 5)).await;
    assert_eq!((older.status, older.took), (StatusCode::OK, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn each_catalog_is_signed_for_its_host_and_its_generation() {
    let master = Master::serving_all(["a", "b", "c"]).await;
    let a = call(&master.app, poll("a", None, 0)).await;
    assert!(master.authority.proves(&a.catalog(), &a.headers));
    let again = call(&master.app, poll("a", None, 0)).await;
    assert!(master.authority.proves(&again.catalog(), &again.headers), "from memory as well");
    assert!(!Authority::new().proves(&a.catalog(), &a.headers), "another authority");

    let b = call(&master.app, poll("b", None, 0)).await;
    let mut as_b = a.catalog();
    as_b.host.uid = b.catalog().host.uid;
    let older = Catalog { generation: 0, ..a.catalog() };
    for forged in [b.catalog(), as_b, older] {
        assert!(!master.authority.proves(&forged, &a.headers), "{forged:?}");
    }
    let same = call(&master.app, poll("a", Some(a.etag()), 1)).await;
    assert_eq!(same.headers.get(routes::SIGNATURE_HEADER), None, "there is nothing to sign");
}

#[tokio::test(start_paused = true)]
async fn a_poll_wakes_with_the_assignment() {
    let master = Master::serving(with_facts(host("a"))).await;
    master.keeps(&content("one"));
    let nothing = call(&master.app, poll("a", None, 3)).await;
    assert_eq!((nothing.status, nothing.took), (StatusCode::NOT_FOUND, Duration::from_secs(3)));
    assert!(nothing.text().contains("nothing is assigned to the Host a yet"), "{}", nothing.text());

    let assign = || master.knows(assigned(with_facts(host("a")), &content("one"), 1));
    let first = during(&master.app, poll("a", None, 60), assign).await;
    assert_eq!((first.status, first.took), (StatusCode::OK, Duration::from_secs(1)));

    master.keeps(&content("two"));
    let assign = || master.knows(assigned(with_facts(host("a")), &content("two"), 2));
    let second = during(&master.app, poll("a", Some(first.etag()), 60), assign).await;
    assert_eq!((second.file().as_str(), second.took), ("two debian hunter2", Duration::from_secs(1)));
    assert_ne!(first.etag(), second.etag());
}

#[tokio::test(start_paused = true)]
async fn a_poll_sleeps_through_what_is_no_news() {
    let master = Master::serving(assigned(with_facts(host("a")), &content("one"), 1)).await;
    master.keeps(&content("one"));
    let first = call(&master.app, poll("a", None, 0)).await;
    let others = || {
        master.knows(assigned(with_facts(host("b")), &content("one"), 1));
        // Labels are inputs, so this is looked at; no template here reads them, so the catalog stays the same.
        let mut labelled = assigned(with_facts(host("a")), &content("one"), 1);
        labelled.metadata.labels.get_or_insert_default().insert("zone".into(), "b".into());
        master.knows(labelled);
    };
    let same = during(&master.app, poll("a", Some(first.etag()), 30), others).await;
    assert_eq!((same.status, same.took), (StatusCode::NOT_MODIFIED, Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn the_first_host_and_its_facts_are_waited_for() {
    let master = Master::new();
    let mut master = {
        let mut master = master;
        master.knows(host("a"));
        master.login("a").await;
        master.app.fleet.hosts(Event::Delete(host("a")));
        master
    };
    let nobody = call(&master.app, poll("a", None, 2)).await;
    assert_eq!((nobody.status, nobody.took), (StatusCode::NOT_FOUND, Duration::from_secs(2)));
    assert!(nobody.text().contains("no Host for the node a"), "{}", nobody.text());
    let made = during(&master.app, poll("a", None, 60), || master.knows(host("a"))).await;
    assert_eq!((made.status, made.took), (StatusCode::PRECONDITION_REQUIRED, Duration::from_secs(1)));

    // The answer to the facts' write is known at once, before the watch tells.
    let facts = serde_json::to_vec(&Facts { kernel: "Linux".into(), ..Facts::default() }).unwrap();
    let put = call(&master.app, request(Method::PUT, routes::FACTS, "a", facts.clone()));
    let answer = with_facts(host("a"));
    let (put, asked) = tokio::join!(put, master.api.answer(200, serde_json::to_value(answer).unwrap()));
    assert_eq!(put.status, StatusCode::NO_CONTENT);
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str()),
        ("PATCH", "/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts/a/status")
    );
    assert!(
        asked.query.contains("fieldManager=drover-master-facts") && asked.query.contains("force=true"),
        "{}",
        asked.query
    );
    assert_eq!(asked.body["metadata"], json!({"name": "a", "uid": "host-a"}));
    assert_eq!(asked.body["status"]["facts"]["kernel"], "Linux");
    assert_eq!(asked.body["status"].as_object().unwrap().len(), 1);
    assert_eq!(call(&master.app, poll("a", None, 0)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_on_its_way_is_waited_for() {
    let master = Master::serving(assigned(with_facts(host("a")), &content("one"), 1)).await;
    let missing = call(&master.app, poll("a", None, 0)).await;
    assert_eq!((missing.status, missing.took), (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(2)));
    assert!((2..=4).contains(&missing.retry_after()) && missing.text().contains("base-"), "{}", missing.text());
    let found = during(&master.app, poll("a", None, 0), || master.keeps(&content("one"))).await;
    assert_eq!((found.status, found.took), (StatusCode::OK, Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_compile_is_told_to_the_host_and_changes_nothing() {
    let broken = from_template("{{ data.password }} {{ data.pasword }}");
    let host = assigned(with_facts(host("a")), &broken, 2);
    let mut master = Master::serving(host.clone()).await;
    master.keeps(&broken);

    let app = Arc::clone(&master.app);
    let poll_once = call(&app, poll("a", Some("\"1-good\""), 5));
    let api = async {
        let answer = master.api.answer(200, json!(null)).await;
        (written(host.clone(), &answer, "2"), answer)
    };
    // The API server's answer is not a Host here, so the write counts as failed; the caller does not notice.
    let (kept, (_, asked)) = tokio::join!(poll_once, api);
    assert_eq!((kept.status, kept.etag()), (StatusCode::NOT_MODIFIED, "\"1-good\""));
    assert!(asked.query.contains("fieldManager=drover-master-compile"), "{}", asked.query);
    let condition = &asked.body["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Applied"), &json!("False"), &json!("CompileFailed"))
    );
    assert_eq!(condition["observedGeneration"], 2);
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("base/motd") && message.contains("did you mean `password`"), "{message}");
    assert!(!asked.body.to_string().contains(SECRET));

    // Once the Host says so, it is not written again; a caller that has nothing hears why.
    let told: Host = serde_json::from_value(written(host, &asked, "2")).unwrap();
    master.knows(told.clone());
    let empty_handed = call(&master.app, poll("a", None, 5)).await;
    assert_eq!((empty_handed.status, empty_handed.took), (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(5)));
    assert!(empty_handed.text().contains("does not compile: base/motd"), "{}", empty_handed.text());

    // A better revision is served, and the Host no longer tells of the failure.
    master.keeps(&content("good"));
    let better = assigned(told, &content("good"), 3);
    master.knows(better.clone());
    let next = call(&master.app, poll("a", Some("\"1-good\""), 5));
    let (next, asked) = tokio::join!(next, master.api.answer(200, serde_json::to_value(better).unwrap()));
    assert_eq!((next.status, next.took), (StatusCode::OK, Duration::ZERO));
    assert_eq!(asked.body["status"]["conditions"][0]["reason"], "Compiled");
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_anothers_catalog() {
    let names = ["a", "b", "c"];
    let master = Master::serving_all(names).await;
    for name in names {
        let answer = call(&master.app, poll(name, None, 0)).await;
        assert_eq!(answer.file(), format!("{name} debian hunter2"));
        let catalog: Catalog = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(catalog.host.uid, format!("host-{name}"));
    }
}

/// Every agent on every route about every host: what is not its own is denied, and its own is all that is ever written.
#[tokio::test(start_paused = true)]
async fn an_agent_reaches_its_own_host_on_every_route_and_no_other_on_any() {
    let names = ["a", "b", "c"];
    let mut master = Master::serving_all(names).await;
    let own = |name: &str| format!("/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts/{name}/status");
    let (mut allowed, mut denied) = (0, 0);
    for agent in names {
        for about in names {
            let body = serde_json::to_vec(&report(about, 1, ResourceStatus::Changed)).unwrap();
            let sent = request(Method::POST, routes::REPORT, agent, body);
            if agent == about {
                let host = assigned(with_facts(host(agent)), &content(agent), 1);
                let answered = master.api.answer(200, serde_json::to_value(host).unwrap());
                let (answer, asked) = tokio::join!(call(&master.app, sent), answered);
                assert_eq!((answer.status, asked.path), (StatusCode::NO_CONTENT, own(agent)));
                allowed += 1;
            } else {
                // Nobody answers for the API server: nothing is asked of it.
                let answer = call(&master.app, sent).await;
                assert_eq!(answer.status, StatusCode::CONFLICT, "{agent} about {about}: {}", answer.text());
                denied += 1;
            }
            // A catalog and facts are about the caller, whatever it says of another host.
            let elsewhere = format!("{}?host={about}", routes::CATALOG);
            let mut asks = poll(agent, None, 0);
            *asks.uri_mut() = elsewhere.parse().unwrap();
            asks.headers_mut().insert("x-forwarded-user", about.parse().unwrap());
            let catalog: Catalog = serde_json::from_slice(&call(&master.app, asks).await.body).unwrap();
            assert_eq!(catalog.host.name, agent);

            let facts = json!({"networking": {"hostname": about, "fqdn": about}, "machine_id": about});
            let tells = request(Method::PUT, &format!("{}?host={about}", routes::FACTS), agent, facts.to_string());
            let answered = master.api.answer(503, json!({"kind": "Status", "code": 503}));
            let (answer, asked) = tokio::join!(call(&master.app, tells), answered);
            assert_eq!((answer.status, asked.path), (StatusCode::SERVICE_UNAVAILABLE, own(agent)));
        }
        for path in ["/v1/hosts", "/v1/catalog/b", "/v1/facts/b", "/metrics", "/load", "/"] {
            let answer = call(&master.app, request(Method::GET, path, agent, Body::empty())).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
    assert_eq!((allowed, denied), (3, 6));
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_and_understood() {
    let master = Master::serving(host("a")).await;
    for (method, route, bound) in [(Method::PUT, routes::FACTS, MAX_FACTS), (Method::POST, routes::REPORT, MAX_REPORT)]
    {
        let (endless, read) = watched_body();
        let answer = call(&master.app, request(method.clone(), route, "a", endless)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
        assert!(read.load(Ordering::Relaxed));
        let at_the_bound = call(&master.app, request(method.clone(), route, "a", vec![b' '; bound])).await;
        assert_eq!(at_the_bound.status, StatusCode::BAD_REQUEST, "{}", at_the_bound.text());
        let slow = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let answer = call(&master.app, request(method, route, "a", slow)).await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_goes_into_the_host_once() {
    let host = assigned(with_facts(host("a")), &content("one"), 3);
    let mut master = Master::serving(host.clone()).await;
    let failed = report("a", 3, ResourceStatus::Failed);
    let app = Arc::clone(&master.app);
    let (answer, asked) = tokio::join!(call(&app, send(&failed)), async {
        let asked = master.api.answer(503, json!({"kind": "Status", "code": 503})).await;
        (written(host.clone(), &asked, "5"), asked)
    });
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "the agent keeps it");
    assert!((5..=10).contains(&answer.retry_after()));
    let (host, asked) = asked;
    assert!(asked.query.contains("fieldManager=drover-master-report"), "{}", asked.query);
    let status = &asked.body["status"];
    assert_eq!((&status["active"]["generation"], &status["active"]["converged"]), (&json!(3), &json!(false)));
    assert_eq!(status["conditions"][0]["reason"], "ResourcesFailed");
    assert_eq!(status["conditions"][0]["message"], "base/motd: no space left");

    let (answer, _) = tokio::join!(call(&app, send(&failed)), master.api.answer(200, host));
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    // Nobody answers now: the same report again is no news, although the watch has told nothing yet.
    let again = call(&app, send(&failed)).await;
    assert_eq!((again.status, again.took), (StatusCode::NO_CONTENT, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_not_the_callers_or_not_of_now_is_refused() {
    let host = assigned(with_facts(host("a")), &content("one"), 3);
    let mut master = Master::serving(host.clone()).await;
    let other = call(&master.app, send(&report("b", 3, ResourceStatus::Changed))).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text());

    // From the future: the API server is asked, because another master may have been faster.
    let app = Arc::clone(&master.app);
    let early = report("a", 4, ResourceStatus::Unchanged);
    let (answer, asked) =
        tokio::join!(call(&app, send(&early)), master.api.answer(200, serde_json::to_value(&host).unwrap()));
    assert_eq!((answer.status, asked.method.as_str()), (StatusCode::CONFLICT, "GET"));
    assert!(answer.text().contains("of generation 4, and the Host a is at 3"), "{}", answer.text());
    let (answer, _) = tokio::join!(call(&app, send(&early)), master.api.answer(500, json!({})));
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);

    let newer = assigned(host, &content("two"), 4);
    let (answer, _) = tokio::join!(call(&app, send(&early)), async {
        master.api.answer(200, serde_json::to_value(&newer).unwrap()).await;
        master.api.answer(200, serde_json::to_value(&newer).unwrap()).await
    });
    assert_eq!(answer.status, StatusCode::NO_CONTENT);

    // Another Host has the name now.
    let changed = report("a", 4, ResourceStatus::Changed);
    let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409, "message": "uid mismatch", "metadata": {}});
    let (answer, _) = tokio::join!(call(&app, send(&changed)), master.api.answer(409, conflict));
    assert_eq!(answer.status, StatusCode::CONFLICT);
}

#[tokio::test(start_paused = true)]
async fn open_requests_are_bounded() {
    let mut master = Master::starting(1);
    for fill in [
        |fleet: &Fleet| fleet.hosts(Event::InitDone),
        |fleet: &Fleet| fleet.revisions(Event::InitDone),
        |fleet: &Fleet| fleet.secrets(Event::InitDone),
    ] {
        fill(&master.app.fleet);
    }
    master.knows(with_facts(host("a")));
    master.login("a").await;
    let app = Arc::clone(&master.app);
    let second = async {
        sleep(Duration::from_secs(1)).await;
        (
            call(&app, poll("a", None, 0)).await,
            call(&app, Request::get(routes::READY).body(Body::empty()).unwrap()).await,
        )
    };
    let (first, (second, ready)) = tokio::join!(call(&master.app, poll("a", None, 10)), second);
    assert_eq!((first.status, second.status), (StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE));
    assert!((5..=10).contains(&second.retry_after()));
    assert_eq!(ready.status, StatusCode::OK, "a full master is ready");
    assert_eq!(call(&master.app, poll("a", None, 0)).await.status, StatusCode::NOT_FOUND, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn ready_is_who_has_read_everything_and_does_not_end() {
    let mut master = Master::starting(10);
    let ready = async |app: &App| call(app, Request::get(routes::READY).body(Body::empty()).unwrap()).await.status;
    assert_eq!(ready(&master.app).await, StatusCode::SERVICE_UNAVAILABLE);
    // What is missing may only be unread, so nobody is told 404.
    let early = call(&master.app, poll("a", None, 0));
    let (early, _) = tokio::join!(early, master.api.answer(201, review("a")));
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE);
    master.app.fleet.hosts(Event::InitDone);
    master.app.fleet.revisions(Event::InitDone);
    assert_eq!(ready(&master.app).await, StatusCode::SERVICE_UNAVAILABLE);
    master.app.fleet.secrets(Event::InitDone);
    assert_eq!(ready(&master.app).await, StatusCode::OK);
    master.app.draining.cancel();
    assert_eq!(ready(&master.app).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_ends_serves_and_sends_callers_elsewhere() {
    let master = Master::serving(assigned(with_facts(host("a")), &content("one"), 1)).await;
    master.keeps(&content("one"));
    let ask = async |version| {
        let mut request = poll("a", None, 0);
        *request.version_mut() = version;
        let answer = call(&master.app, request).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.headers.get(CONNECTION).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!((ask(Version::HTTP_11).await, ask(Version::HTTP_2).await), (None, None));
    master.app.draining.cancel();
    // In HTTP/2 the header is forbidden, and there is GOAWAY.
    assert_eq!((ask(Version::HTTP_11).await.as_deref(), ask(Version::HTTP_2).await), (Some("close"), None));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_master_ends_its_polls() {
    let master = Master::serving(assigned(with_facts(host("a")), &content("one"), 1)).await;
    master.keeps(&content("one"));
    let first = call(&master.app, poll("a", None, 0)).await;
    let closing = &master.app.closing;
    let kept = during(&master.app, poll("a", Some(first.etag()), 60), || closing.cancel()).await;
    assert_eq!((kept.status, kept.took), (StatusCode::NOT_MODIFIED, Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_beside_the_routes() {
    let master = Master::serving(host("a")).await;
    for (method, path, status) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/catalog/a", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/../readyz", StatusCode::NOT_FOUND),
        (Method::GET, "/metrics", StatusCode::NOT_FOUND),
        (Method::DELETE, routes::CATALOG, StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, routes::READY, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        assert_eq!(call(&master.app, request(method, path, "a", Body::empty())).await.status, status, "{path}");
    }
}
