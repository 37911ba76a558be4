//! Load balancers that are told by HTTP requests. Headers may hold credentials, which are read from Secrets at each call
//! and are in no message.

use drover_core::rollout::{LoadBalancerAction, LoadBalancerAnswer};
use drover_crds::{ContentSource, HttpCall, HttpLoadBalancer, HttpMethod, KeyRef};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use reqwest::{
    Certificate, Client, Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use super::TIMEOUT;
use crate::{context::Context, objects};

pub(super) async fn tell(
    context: &Context,
    http: &HttpLoadBalancer,
    action: LoadBalancerAction,
) -> Result<LoadBalancerAnswer, String> {
    let call = match action {
        // It can not be asked.
        LoadBalancerAction::Look => return Ok(LoadBalancerAnswer::Done),
        LoadBalancerAction::Leave => &http.leave,
        LoadBalancerAction::Return => &http.return_,
    };
    let HttpCall { method, url, body, headers_from: _, expect_status } = call;
    let client = client(context, url, http.ca_from.as_ref()).await?;
    let mut request = client.request(as_method(*method), url).headers(headers(context, call).await?);
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
    }
    let answer = request.send().await.map_err(|error| format!("{url}: {}", objects::chain(&error.without_url())))?;
    let status = answer.status();
    let expected = match expect_status.as_slice() {
        [] => status.is_success(),
        codes => codes.contains(&i32::from(status.as_u16())),
    };
    if expected { Ok(LoadBalancerAnswer::Done) } else { Err(format!("{url} answered {status}")) }
}

fn as_method(method: Option<HttpMethod>) -> Method {
    match method.unwrap_or(HttpMethod::Post) {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

async fn client(context: &Context, url: &str, ca: Option<&ContentSource>) -> Result<Client, String> {
    let mut builder =
        Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).pool_max_idle_per_host(0);
    if url.starts_with("http://") {
        // There is nobody to verify, and the system may have no authorities to load.
        builder = builder.tls_danger_accept_invalid_certs(true);
    } else if let Some(ca) = ca {
        let pem = authorities(context, ca).await?;
        let wrong = |error: reqwest::Error| format!("caFrom is no list of certificates: {}", objects::chain(&error));
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(wrong)?);
    }
    builder
        .build()
        .map_err(|error| format!("cannot verify {url}: {}; name its authority in caFrom", objects::chain(&error)))
}

async fn headers(context: &Context, call: &HttpCall) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in &call.headers_from {
        let KeyRef { name: secret, key } = &header.secret_key_ref;
        let value = secret_value(context, &header.secret_key_ref).await?;
        // A line's end comes with many a Secret that was made from a file.
        let mut value = HeaderValue::from_bytes(value.trim_ascii_end())
            .map_err(|_| format!("key {key} of Secret {secret} can not be the value of a header"))?;
        value.set_sensitive(true);
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| format!("{} can not be the name of a header", header.name))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

async fn authorities(context: &Context, source: &ContentSource) -> Result<Vec<u8>, String> {
    if let Some(reference) = &source.secret_key_ref {
        return secret_value(context, reference).await;
    }
    let Some(KeyRef { name, key }) = &source.config_map_key_ref else { return Err("caFrom is empty".to_owned()) };
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let found = maps.get_opt(name).await;
    let found = found.map_err(|error| format!("cannot read ConfigMap {name}: {}", objects::chain(&error)))?;
    let value = found.and_then(|map| map.data?.remove(key)).map(String::into_bytes);
    value.ok_or_else(|| format!("ConfigMap {name} has no key {key}"))
}

async fn secret_value(context: &Context, KeyRef { name, key }: &KeyRef) -> Result<Vec<u8>, String> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let found = secrets.get_opt(name).await;
    let found = found.map_err(|error| format!("cannot read Secret {name}: {}", objects::chain(&error)))?;
    let value = found.and_then(|secret| secret.data?.remove(key)).map(|value| value.0);
    value.ok_or_else(|| format!("Secret {name} has no key {key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::testing;

    const SECRET: &str = "/api/v1/namespaces/drover-system/secrets/lb";

    /// What the load balancer was sent, and what came of it.
    async fn told(action: LoadBalancerAction, answer: &str) -> (String, Result<LoadBalancerAnswer, String>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/pool/node-1", listener.local_addr().unwrap());
        let header = json!([{"name": "Authorization", "secretKeyRef": {"name": "lb", "key": "token"}}]);
        let http: HttpLoadBalancer = serde_json::from_value(json!({
            "leave": {"url": url, "body": "{\"weight\": 0}", "headersFrom": header},
            "return": {"url": url, "method": "DELETE", "expectStatus": [404]},
        }))
        .unwrap();
        let (context, mut server) = testing::context(true);
        // "Bearer s3cret\n"
        let secret = json!({"metadata": {"name": "lb"}, "data": {"token": "QmVhcmVyIHMzY3JldAo="}});
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![];
            let wants_body = action == LoadBalancerAction::Leave;
            while !asked.ends_with(if wants_body { b"{\"weight\": 0}" } else { b"\r\n\r\n" }) {
                asked.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        };
        let objects = [(SECRET, secret)];
        let telling = server.serve(&objects, tell(&context, &http, action));
        let (asked, (result, _)) = tokio::join!(serve, telling);
        (asked, result)
    }

    #[tokio::test]
    async fn it_is_told_with_the_credentials_of_a_secret_which_no_message_shows() {
        let (asked, answer) = told(LoadBalancerAction::Leave, "204 No Content").await;
        assert_eq!(answer, Ok(LoadBalancerAnswer::Done));
        assert!(asked.starts_with("POST /pool/node-1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("authorization: bearer s3cret\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("content-type: application/json\r\n"), "{asked}");

        let (_, answer) = told(LoadBalancerAction::Leave, "503 Service Unavailable").await;
        let error = answer.unwrap_err();
        assert!(
            error.ends_with("/pool/node-1 answered 503 Service Unavailable") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_status_that_is_expected_counts() {
        let (asked, answer) = told(LoadBalancerAction::Return, "404 Not Found").await;
        assert!(asked.starts_with("DELETE /pool/node-1 "), "{asked}");
        assert_eq!(answer, Ok(LoadBalancerAnswer::Done));
        let (_, answer) = told(LoadBalancerAction::Return, "200 OK").await;
        assert!(answer.unwrap_err().ends_with("answered 200 OK"));
    }

    #[tokio::test]
    async fn a_secret_that_is_not_there_is_named() {
        let (context, mut server) = testing::context(true);
        let call: HttpCall = serde_json::from_value(json!({
            "url": "http://lb", "headersFrom": [{"name": "X-Key", "secretKeyRef": {"name": "lb", "key": "token"}}],
        }))
        .unwrap();
        let (result, _) = server.serve(&[], headers(&context, &call)).await;
        assert_eq!(result.unwrap_err(), "Secret lb has no key token");
    }
}
