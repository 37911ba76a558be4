//! What the tests of the controllers share: an API server that answers what a test says, and says what it was asked.

use futures::{FutureExt as _, future::LocalBoxFuture};
use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower_test::mock::{self, Handle};

use crate::{
    context::{Context, MasterTemplate},
    leader::Leadership,
};

/// An API server in the hands of a test.
pub(crate) struct ApiServer(Handle<Request<Body>, Response<Body>>);

/// A request that was made.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// A context whose clients speak to the returned API server.
pub(crate) fn context(leads: bool) -> (Context, ApiServer) {
    let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "drover-system");
    let image = MasterTemplate {
        image: "drover:test".into(),
        pull_policy: "Never".into(),
        log: "info".into(),
        log_format: "json".into(),
    };
    let leadership = Leadership::fixed(leads);
    let context =
        Context::new((client.clone(), client), "drover-system".into(), "operator-0".into(), leadership, image);
    (context, ApiServer(handle))
}

impl ApiServer {
    /// Waits for the next request, and answers it.
    pub(crate) async fn answer(&mut self, code: u16, body: Value) -> Asked {
        let (request, reply) = self.0.next_request().await.expect("a request");
        let (head, asked) = request.into_parts();
        let asked = asked.collect_bytes().await.unwrap();
        let answer = Response::builder().status(code).header("content-type", "application/json");
        reply.send_response(answer.body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap());
        Asked {
            method: head.method,
            path: head.uri.path().to_owned(),
            body: serde_json::from_slice(&asked).unwrap_or(Value::Null),
        }
    }

    /// Answers with the object of this path, 404 where the test gives none, and an empty list for lists, until the future
    /// ends. Returns what it came to, and every write.
    pub(crate) fn serve<'a, T: 'a>(
        &'a mut self,
        objects: &'a [(&str, Value)],
        future: impl Future<Output = T> + 'a,
    ) -> LocalBoxFuture<'a, (T, Vec<Asked>)> {
        let mut future = Box::pin(future);
        async move {
            let mut writes = vec![];
            loop {
                tokio::select! {
                    result = &mut future => return (result, writes),
                    asked = self.next(objects) => writes.extend(asked),
                }
            }
        }
        .boxed_local()
    }

    async fn next(&mut self, objects: &[(&str, Value)]) -> Option<Asked> {
        let (request, reply) = self.0.next_request().await?;
        let (head, asked) = request.into_parts();
        let body: Value = serde_json::from_slice(&asked.collect_bytes().await.ok()?).unwrap_or(Value::Null);
        let path = head.uri.path().to_owned();
        let found = objects.iter().find(|(known, _)| path == *known).map(|(_, object)| object.clone());
        let is_read = head.method == Method::GET;
        let (code, answer) = match found {
            // What is created comes back; the list of its path is for reads.
            _ if head.method == Method::POST => (200, with_spec(body.clone())),
            Some(object) => (200, object),
            // What is written comes back, whole.
            None if !is_read => (200, with_spec(body.clone())),
            None if path.rsplit('/').next().is_some_and(|last| last.ends_with('s')) => {
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}))
            }
            None => (404, status(404, "NotFound", "not found")),
        };
        let builder = Response::builder().status(code).header("content-type", "application/json");
        reply.send_response(builder.body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap());
        (!is_read).then_some(Asked { method: head.method, path, body })
    }
}

/// Part of an object of ours, with a spec that its type can be read from.
fn with_spec(mut object: Value) -> Value {
    if object.get("spec").is_none() {
        object["spec"] = json!({
            "resources": [], "nodeConfigRef": {"name": ""}, "nodeRef": {"name": "", "uid": ""},
        });
    }
    object
}

/// An answer that refuses.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message})
}

/// A list of objects.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
}
