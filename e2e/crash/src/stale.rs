//! What an operator is not told: watches that fall silent, and events that are lost.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::watch;

use crate::history::Kind;

/// How the watches of an operator are spoiled.
#[derive(Clone)]
pub(crate) struct Stale {
    /// When it holds a kind, the watches of this kind that are open then stay open and tell nothing more. What is opened
    /// later works: this is a connection that died without a word.
    pub(crate) frozen: watch::Sender<BTreeSet<Kind>>,
    /// Events of these kinds are lost, this many of a hundred, chosen by the seed.
    pub(crate) lost: Option<Lost>,
    streams: Arc<AtomicU64>,
}

/// Which events are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) kinds: BTreeSet<Kind>,
    pub(crate) percent: u64,
    pub(crate) seed: u64,
}

impl Stale {
    pub(crate) fn new(lost: Option<Lost>) -> Self {
        Self { frozen: watch::channel(BTreeSet::new()).0, lost, streams: Arc::default() }
    }
}

/// Spoils the answer to a watch.
pub(crate) fn spoil(stale: &Stale, path: &str, answer: Response<Body>) -> Response<Body> {
    let Some(kind) = Kind::ALL.into_iter().find(|kind| path.ends_with(&format!("/{}", kind.plural()))) else {
        return answer;
    };
    let (head, body) = answer.into_parts();
    let number = stale.streams.fetch_add(1, Ordering::SeqCst);
    let mut sieve =
        Sieve { lost: stale.lost.clone().filter(|lost| lost.kinds.contains(&kind)), number, events: 0, rest: vec![] };
    let told = body.into_data_stream().map(move |chunk| chunk.map(|chunk| sieve.pass(&chunk)));
    if stale.frozen.borrow().contains(&kind) {
        return Response::from_parts(head, Body::from_stream(told));
    }
    let mut frozen = stale.frozen.subscribe();
    let silence = async move {
        if frozen.wait_for(|frozen| frozen.contains(&kind)).await.is_err() {
            std::future::pending::<()>().await;
        }
        kind
    };
    // A watch that the server ends before it is frozen ends for the operator as well.
    let stream = stream::unfold((told.boxed(), Box::pin(silence)), |(mut told, mut silence)| async move {
        tokio::select! {
            biased;
            _ = &mut silence => std::future::pending().await,
            chunk = told.next() => chunk.map(|chunk| (chunk, (told, silence))),
        }
    });
    Response::from_parts(head, Body::from_stream(stream))
}

/// Takes events out of a stream of lines.
struct Sieve {
    lost: Option<Lost>,
    number: u64,
    events: u64,
    rest: Vec<u8>,
}

impl Sieve {
    /// The lines that are complete, without the lost ones.
    fn pass(&mut self, chunk: &Bytes) -> Bytes {
        if self.lost.is_none() {
            return chunk.clone();
        }
        self.rest.extend_from_slice(chunk);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Bytes::new();
        };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        let mut told = vec![];
        for line in complete.split_inclusive(|byte| *byte == b'\n') {
            if !self.loses(line) {
                told.extend_from_slice(line);
            }
        }
        Bytes::from(told)
    }

    /// Only changes are lost: an object that an operator was never told of is a list that was wrong, and bookmarks and
    /// errors are the protocol's own.
    fn loses(&mut self, line: &[u8]) -> bool {
        let Some(lost) = &self.lost else { return false };
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        if event["type"] != "MODIFIED" {
            return false;
        }
        self.events += 1;
        let mut hasher = DefaultHasher::new();
        (lost.seed, self.number, self.events).hash(&mut hasher);
        hasher.finish() % 100 < lost.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lost_by_the_seed_and_lines_stay_whole() {
        let lines: Vec<String> = (0..200).map(|n| format!("{{\"type\":\"MODIFIED\",\"n\":{n}}}\n")).collect();
        let lines = lines.concat();
        let all = format!("{{\"type\":\"ADDED\"}}\n{lines}{{\"type\":\"BOOKMARK\"}}\n");
        let pass = |seed, size| {
            let lost = Some(Lost { kinds: BTreeSet::from([Kind::Host]), percent: 20, seed });
            let mut sieve = Sieve { lost, number: 0, events: 0, rest: vec![] };
            let told: Vec<u8> = all
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| sieve.pass(&Bytes::copy_from_slice(chunk)).to_vec())
                .collect();
            String::from_utf8(told).unwrap()
        };
        let told = pass(1, 7);
        assert_eq!(told, pass(1, 1000), "however it is cut");
        assert_ne!(told, pass(2, 7));
        assert!((120..190).contains(&told.matches("MODIFIED").count()), "{told}");
        assert!(told.starts_with("{\"type\":\"ADDED\"}\n") && told.ends_with("{\"type\":\"BOOKMARK\"}\n"));
        assert!(told.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
}
