//! The gate on the value of a query, by Prometheus' HTTP API: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::fmt::Write as _;

use drover_crds::{PrometheusGate, with_host};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, de::IgnoredAny};

use super::{Asker, Told};
use crate::objects;

/// How long an answer may be, in bytes. That of one value is some hundred.
const LONGEST: usize = 256 * 1024;

/// An answer, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", tag = "resultType", content = "result")]
enum Data {
    Vector(Vec<Sample>),
    /// A time in seconds, and the value as text.
    Scalar((f64, String)),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Sample {
    /// Absent for a native histogram.
    value: Option<(f64, String)>,
}

impl Asker {
    pub(super) async fn prometheus(&self, gate: &PrometheusGate, host: Option<&str>) -> Told {
        let client = match self.verifying() {
            Ok(client) => client,
            Err(_) if gate.url.starts_with("http:") => &self.machines,
            Err(told) => return told,
        };
        let headers = match self.headers(gate).await {
            Ok(headers) => headers,
            Err(told) => return told,
        };
        let url = format!("{}/api/v1/query", gate.url.trim_end_matches('/'));
        let query = with_host(&gate.query, host);
        // A query may be too long for a URL.
        let form: String = form_urlencoded(&query);
        let request = client
            .post(&url)
            .headers(headers)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("query={form}"));
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Told::inconclusive(format!("{url}: {}", objects::chain(&error.without_url()))),
        };
        let code = answer.status();
        let mut body = vec![];
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LONGEST => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Told::inconclusive(format!("{url} answered more than {LONGEST} bytes")),
                Ok(None) => break,
                Err(error) => return Told::inconclusive(format!("{url}: {}", objects::chain(&error.without_url()))),
            }
        }
        match serde_json::from_slice(&body) {
            Ok(answer) => judge(gate, answer),
            Err(_) => Told::inconclusive(format!("{url} answered {code}, and not as Prometheus does")),
        }
    }

    async fn headers(&self, gate: &PrometheusGate) -> Result<HeaderMap, Told> {
        let mut headers = HeaderMap::new();
        let Some(from) = &gate.headers_from else { return Ok(headers) };
        let name = &from.name;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = match secrets.get_opt(name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return Err(Told::inconclusive(format!("there is no Secret {name}"))),
            Err(error) => {
                return Err(Told::inconclusive(format!("Secret {name} can not be read: {}", objects::chain(&error))));
            }
        };
        for (key, value) in secret.data.unwrap_or_default() {
            let trimmed = value.0.trim_ascii_end();
            match (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_bytes(trimmed)) {
                (Ok(header), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(header, value);
                }
                _ => return Err(Told::inconclusive(format!("key {key} of Secret {name} is no header"))),
            }
        }
        Ok(headers)
    }
}

/// As a form has it: <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>.
fn form_urlencoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => {
                // Writing to a String does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Whether the one value is within bounds.
fn judge(gate: &PrometheusGate, answer: Answer) -> Told {
    if answer.status != "success" {
        let why = answer.error.unwrap_or_default();
        return Told::inconclusive(format!("the query is refused: {}", why.chars().take(200).collect::<String>()));
    }
    let text = match answer.data {
        Some(Data::Scalar((_, text))) => text,
        Some(Data::Vector(samples)) => match samples.as_slice() {
            [] => return Told::inconclusive("the query gives no value"),
            [Sample { value: Some((_, text)) }] => text.clone(),
            [Sample { value: None }] => return Told::inconclusive("the query gives a histogram, not a value"),
            _ => return Told::inconclusive("the query gives more than one value: aggregate them, such as by sum()"),
        },
        Some(Data::Matrix(_) | Data::String(_)) | None => {
            return Told::inconclusive("the query gives no instant value");
        }
    };
    let value: f64 = match text.parse() {
        Ok(value) => value,
        Err(_) => return Told::inconclusive("the value is no number"),
    };
    if value.is_nan() {
        return Told::inconclusive("the value is NaN: there is nothing to divide by yet");
    }
    let bounds = [
        gate.max.filter(|max| value > *max).map(|max| format!("the value is above {max}")),
        gate.min.filter(|min| value < *min).map(|min| format!("the value is below {min}")),
    ];
    let mut told = bounds.into_iter().flatten().next().map_or_else(Told::passed, Told::failed);
    told.measured = Some(format!("it is {text}"));
    told
}

#[cfg(test)]
mod tests {
    use drover_core::rollout::GateAnswer;
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::testing;

    /// Answers one request as Prometheus does, and returns what was asked and what the gate made of the answer.
    async fn ask(gate: Value, code: u16, body: &str) -> (String, Told) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut all =
            json!({"url": url, "query": "sum(rate(errors{code=~\"5..\", host=\"$(HOST)\"}[5m])) + 1", "max": 0.01});
        all.as_object_mut().unwrap().extend(gate.as_object().unwrap().clone());
        let gate: PrometheusGate = serde_json::from_value(all).unwrap();
        let (context, mut server) = testing::context(true);
        let gates = super::super::Gates::new(context.client.clone(), context.namespace.clone()).unwrap();
        let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            while !asked.ends_with("+1") && !asked.ends_with("%2B+1") {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).await.unwrap();
                asked.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked
        };
        let secret = json!({"metadata": {"name": "token"}, "data": {"Authorization": "QmVhcmVyIHgK"}});
        let objects = [("/api/v1/namespaces/drover-system/secrets/token", secret)];
        let (told, _) =
            server.serve(&objects, async { tokio::join!(serve, gates.asker.prometheus(&gate, Some("node-1"))) }).await;
        told
    }

    #[tokio::test]
    async fn a_query_is_sent_as_a_form_with_the_headers_of_the_secret() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"0.005"]}]}}"#;
        let (asked, told) = ask(json!({"headersFrom": {"name": "token"}}), 200, body).await;
        assert_eq!(told.answer, GateAnswer::Passed);
        assert!(asked.starts_with("POST /api/v1/query HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer x\r\n"), "{asked}");
        let query = "query=sum%28rate%28errors%7Bcode%3D%7E%225..%22%2C+host%3D%22node-1%22%7D%5B5m%5D%29%29+%2B+1";
        assert!(asked.ends_with(query), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_inconclusive() {
        let (_, told) = ask(json!({}), 502, "<html>bad gateway</html>").await;
        let GateAnswer::Inconclusive(why) = told.answer else { panic!() };
        assert!(why.ends_with("/api/v1/query answered 502 Bad Gateway, and not as Prometheus does"), "{why}");
        let (_, told) = ask(json!({}), 400, r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#).await;
        assert_eq!(told.answer, GateAnswer::Inconclusive("the query is refused: parse error".into()));
    }

    #[test]
    fn one_value_within_bounds_passes_and_none_or_nan_is_no_evidence() {
        let check = |bounds: Value, data: Value, expected: Result<(), &str>| {
            let mut gate = json!({"url": "http://x", "query": "up"});
            gate.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
            let gate: PrometheusGate = serde_json::from_value(gate).unwrap();
            let answer: Answer = serde_json::from_value(json!({"status": "success", "data": data})).unwrap();
            let told = judge(&gate, answer);
            match (&told.answer, expected) {
                (GateAnswer::Passed, Ok(())) => {}
                (GateAnswer::Failed(why), Err(expected)) => assert_eq!(format!("failed: {why}"), expected),
                (GateAnswer::Inconclusive(why), Err(expected)) => assert_eq!(why, expected),
                (answer, expected) => panic!("{data}: {answer:?}, not {expected:?}"),
            }
            told.measured
        };
        let vector = |values: &[&str]| {
            let samples: Vec<_> = values.iter().map(|value| json!({"metric": {}, "value": [1.5, value]})).collect();
            json!({"resultType": "vector", "result": samples})
        };
        let max = || json!({"max": 0.01});
        check(max(), vector(&["0.01"]), Ok(()));
        let measured = check(max(), vector(&["0.02"]), Err("failed: the value is above 0.01"));
        assert_eq!(measured.as_deref(), Some("it is 0.02"));
        check(max(), vector(&["+Inf"]), Err("failed: the value is above 0.01"));
        check(json!({"min": 2}), vector(&["1"]), Err("failed: the value is below 2"));
        check(json!({"min": 0, "max": 2}), vector(&["1"]), Ok(()));
        check(max(), json!({"resultType": "scalar", "result": [1.5, "0"]}), Ok(()));
        check(max(), vector(&["NaN"]), Err("the value is NaN: there is nothing to divide by yet"));
        check(max(), vector(&[]), Err("the query gives no value"));
        check(max(), vector(&["0", "0"]), Err("the query gives more than one value: aggregate them, such as by sum()"));
        check(max(), json!({"resultType": "matrix", "result": []}), Err("the query gives no instant value"));
        check(max(), json!({"resultType": "string", "result": [1.5, "x"]}), Err("the query gives no instant value"));
        let histogram = json!({"resultType": "vector", "result": [{"metric": {}, "histogram": [1.5, {}]}]});
        check(max(), histogram, Err("the query gives a histogram, not a value"));
    }
}
