//! `drover-agent ping`: whether this machine's masters answer, which of them, and how fast. It asks for the catalog as the agent
//! does, with the agent's own client, and leaves everything as it is.

use std::time::{Duration, Instant, SystemTime};

use drover_apply::StateDir;
use drover_catalog::{Catalog, routes};
use http::{Method, StatusCode};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    cli::{Exit, PingOptions},
    keeper::own_number,
    masters::{Answer, Masters, Request},
    memory::Memory,
    one_shot::print,
    signature,
};

/// How long an agent goes on that is sent away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it stays away that is not told.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks so many times.
pub(crate) async fn run(options: PingOptions) -> anyhow::Result<Exit> {
    let PingOptions { root, masters_dir, token_file, state_dir, count, every } = options;
    let state = StateDir::new(&root, &state_dir)?;
    let masters = Masters::new(masters_dir, token_file, own_number(&root), Memory(&state).locality()?);
    let request = Request { method: Method::GET, path: routes::CATALOG, if_none_match: None, wait: None, body: None };
    let (mut answered, mut slowest) = (0, Duration::ZERO);
    let mut turns = interval(Duration::from_millis(every).max(Duration::from_millis(1)));
    // Of turns that an answer took too long for, none is made up: an agent would not ask twice at once.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1..=count {
        turns.tick().await;
        let began = Instant::now();
        let found = ask(&masters, &request).await;
        let took = began.elapsed();
        slowest = slowest.max(took);
        let (line, is_fine) = match &found {
            Ok(answer) => told(answer, |catalog| prove(&masters, catalog, answer)),
            Err(reason) => (reason.clone(), false),
        };
        answered += u32::from(is_fine);
        // Of many, those that are no news are not told.
        if count == 1 || !is_fine {
            print(&format!("{number}: {line}, after {:.3} s\n", took.as_secs_f64()))?;
        }
    }
    if count > 1 {
        print(&format!("answered {answered} of {count}, slowest {:.3} s\n", slowest.as_secs_f64()))?;
    }
    Ok(if answered == count { Exit::Ok } else { Exit::Failed })
}

/// As the agent does: one that is sent away comes back when it was told to.
async fn ask(masters: &Masters, request: &Request) -> Result<Answer, String> {
    let began = Instant::now();
    loop {
        let answer = masters.ask(request).await.map_err(|error| error.to_string())?;
        if let Some(locality) = &answer.locality {
            masters.settle(locality);
        }
        let later = matches!(answer.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        let pause = answer.retry_after.unwrap_or(PAUSE);
        if !later || began.elapsed() + pause > PATIENCE {
            return Ok(answer);
        }
        sleep(pause).await;
    }
}

/// Whether a catalog is one that the agent would take, or why not.
fn prove(masters: &Masters, catalog: &Catalog, answer: &Answer) -> Result<(), String> {
    let trust = masters.trust(&answer.server_name).map_err(|error| error.to_string())?;
    signature::verify(catalog, &answer.proof, &trust, SystemTime::now()).map_err(|distrust| distrust.to_string())
}

/// What an answer means, and whether it is one that all is well with.
fn told(answer: &Answer, prove: impl Fn(&Catalog) -> Result<(), String>) -> (String, bool) {
    let Answer { status, from, body, locality, .. } = answer;
    let of = locality.as_ref().map(ToString::to_string).filter(|text| !text.is_empty());
    let from = of.map_or_else(|| from.clone(), |of| format!("{from} ({of})"));
    let (what, is_fine) = match *status {
        StatusCode::OK => match serde_json::from_slice::<Catalog>(body) {
            Ok(catalog) => match prove(&catalog) {
                Ok(()) => {
                    let resources = catalog.resources.len();
                    (format!("has a catalog of generation {} with {resources} resources", catalog.generation), true)
                }
                Err(why) => (format!("has a catalog that is refused: {why}"), false),
            },
            Err(_) => ("sent no catalog; is it of another release?".to_owned(), false),
        },
        StatusCode::NOT_FOUND => ("has nothing for this machine yet; does a NodeConfig select it?".to_owned(), true),
        StatusCode::PRECONDITION_REQUIRED => ("waits for this machine's facts; does its agent run?".to_owned(), true),
        StatusCode::UNAUTHORIZED => ("does not accept this machine's token".to_owned(), false),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => ("is too busy".to_owned(), false),
        status => (format!("answered {status}"), false),
    };
    (format!("{from} {what}"), is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_who_gave_it() {
        let answer = |status, body: &[u8]| Answer {
            status,
            etag: None,
            retry_after: None,
            slot: None,
            locality: Some("pool=eu, zone=eu-1a".parse().unwrap_or_default()),
            from: "192.0.2.1:8443".into(),
            server_name: "eu.svc".into(),
            proof: crate::signature::Proof::default(),
            body: body.to_vec(),
        };
        let (text, is_fine) = told(&answer(StatusCode::NOT_FOUND, b""), |_| Ok(()));
        assert!(is_fine && text.starts_with("192.0.2.1:8443 (pool=eu, zone=eu-1a) has nothing"), "{text}");
        for (status, body) in
            [(StatusCode::OK, &b"moo"[..]), (StatusCode::UNAUTHORIZED, b""), (StatusCode::SERVICE_UNAVAILABLE, b"")]
        {
            assert!(!told(&answer(status, body), |_| Ok(())).1, "{status}");
        }
    }
}
