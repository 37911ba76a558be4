//! Who calls: the Node that an agent's token is bound to, as the API server's TokenReview says.
//!
//! The kubelet projects a token for the agent's service account with our audience, and the API server signs the Node's
//! name and UID into it (`authentication.kubernetes.io/node-name`, `node-uid`; Kubernetes 1.32 and later). A master takes
//! no other proof, and no other account's. A verified token is believed for [`FRESH`]; while the API server can not be
//! asked, for [`STALE`], so that a fleet keeps its masters through an outage. Tokens are kept as digests only.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use drover_catalog::{Digest, TOKEN_AUDIENCE};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{fleet::NodeIdentity, unavailable};

/// How long a verified token is believed without asking again: ten thousand agents are then some thirty questions a second. That a
/// Node is gone, or is another one under its name, is known by its Host at once.
const FRESH: Duration = Duration::from_secs(300);
/// How long a verified token is believed while the API server can not be asked.
const STALE: Duration = Duration::from_secs(1800);
/// For how long nobody waits for the API server again that could not be asked, whose token is believed meanwhile.
const AWAY: Duration = Duration::from_secs(10);
/// How many verified tokens are kept: for agents, and for those that get another token meanwhile.
const CAPACITY: usize = 50_000;
/// How many tokens are reviewed at once: a flood of bad tokens must not become a flood at the API server.
const REVIEWS: usize = 32;
/// How long a review may take, waiting for its turn included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// No token of Kubernetes is longer.
const MAX_TOKEN: usize = 16 * 1024;

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// Why a caller is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("send the agent's service account token as Authorization: Bearer TOKEN")]
    NoToken,
    #[error(
        "the API server does not accept this token for the audience {TOKEN_AUDIENCE}; it may have expired, or be projected for another audience"
    )]
    BadToken,
    #[error("only the agents' service account is served; this token is another account's")]
    OtherAccount,
    #[error(
        "the token is not bound to a Node; it must be projected into a pod (Kubernetes 1.32 and later name the Node in it)"
    )]
    NoNode,
    #[error("the API server can not be asked about this token now; try again")]
    CanNotAsk,
}

/// Verifies tokens.
pub(crate) struct Authenticator {
    reviews: Api<TokenReview>,
    agent: String,
    turns: Semaphore,
    verified: Mutex<HashMap<Digest, Verified>>,
    /// When the API server last could not be asked.
    away: Mutex<Option<Instant>>,
}

struct Verified {
    node: NodeIdentity,
    at: Instant,
}

impl Authenticator {
    /// `agent` is the user name of the agents' service account.
    pub(crate) fn new(client: Client, agent: String) -> Self {
        Self {
            reviews: Api::all(client),
            agent,
            turns: Semaphore::new(REVIEWS),
            verified: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// The Node that the request's token is bound to.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<NodeIdentity, Refusal> {
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let digest = Digest::of(token.as_bytes());
        if let Some(node) = self.recall(&digest, FRESH) {
            return Ok(node);
        }
        if self.is_away()
            && let Some(node) = self.recall(&digest, STALE)
        {
            return Ok(node);
        }
        match timeout(REVIEW_TIMEOUT, self.review(token)).await {
            Ok(Ok(status)) => {
                let judged = judge(status, &self.agent);
                match &judged {
                    Ok(node) => self.remember(digest, node.clone()),
                    Err(_) => drop(self.lock().remove(&digest)),
                }
                judged
            }
            Ok(Err(error)) if !unavailable(&error) => {
                tracing::error!(%error, "the API server refuses to review tokens; grant this master `create` on tokenreviews");
                Err(Refusal::CanNotAsk)
            }
            away @ (Ok(Err(_)) | Err(_)) => {
                let error = away.ok().and_then(Result::err).map(|error| error.to_string());
                *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                let recalled = self.recall(&digest, STALE);
                tracing::warn!(error, served = recalled.is_some(), "the API server can not be asked about a token");
                recalled.ok_or(Refusal::CanNotAsk)
            }
        }
    }

    /// Whether the API server could not be asked a moment ago.
    fn is_away(&self) -> bool {
        let away = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|away| away.elapsed() < AWAY)
    }

    async fn review(&self, token: &str) -> kube::Result<TokenReviewStatus> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Ok(TokenReviewStatus::default());
        };
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await?;
        Ok(reviewed.status.unwrap_or_default())
    }

    fn recall(&self, digest: &Digest, within: Duration) -> Option<NodeIdentity> {
        self.lock().get(digest).filter(|verified| verified.at.elapsed() < within).map(|verified| verified.node.clone())
    }

    fn remember(&self, digest: Digest, node: NodeIdentity) {
        let mut verified = self.lock();
        if verified.len() >= CAPACITY && !verified.contains_key(&digest) {
            verified.retain(|_, entry| entry.at.elapsed() < STALE);
            if verified.len() >= CAPACITY {
                let oldest = verified.iter().min_by_key(|(_, entry)| entry.at).map(|(digest, _)| digest.clone());
                oldest.and_then(|oldest| verified.remove(&oldest));
            }
        }
        verified.insert(digest, Verified { node, at: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    // A header has no control characters. `to_str` looks for them byte by byte, and tokens are long.
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = str::from_utf8(value).ok().filter(|text| text.is_ascii())?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

/// What the API server's answer proves.
fn judge(status: TokenReviewStatus, agent: &str) -> Result<NodeIdentity, Refusal> {
    let TokenReviewStatus { authenticated, audiences, user, error: _ } = status;
    // Without our audience in the answer, the API server did not look at audiences at all.
    let ours = audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE);
    let Some(user) = user.filter(|_| authenticated == Some(true) && ours) else {
        return Err(Refusal::BadToken);
    };
    if user.username.as_deref() != Some(agent) {
        return Err(Refusal::OtherAccount);
    }
    let extra = user.extra.unwrap_or_default();
    match (single(&extra, NODE_NAME), single(&extra, NODE_UID)) {
        (Some(name), Some(uid)) => Ok(NodeIdentity { name, uid }),
        _ => Err(Refusal::NoNode),
    }
}

fn single(extra: &BTreeMap<String, Vec<String>>, key: &str) -> Option<String> {
    match extra.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;
    use serde_json::{Value, json};
    use tokio::time::advance;

    use super::*;
    use crate::testing::{AGENT, Asked, MockApi, bearer, node, review};

    fn accepted() -> TokenReviewStatus {
        let extra =
            [(NODE_NAME, "a"), (NODE_UID, "node-a")].map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            user: Some(UserInfo { username: Some(AGENT.into()), extra: Some(extra.into()), ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn nothing_less_than_the_whole_proof_is_taken() {
        assert_eq!(judge(accepted(), AGENT), Ok(node("a")));
        let with = |change: fn(&mut TokenReviewStatus)| {
            let mut status = accepted();
            change(&mut status);
            judge(status, AGENT).unwrap_err()
        };
        assert_eq!(with(|s| s.authenticated = Some(false)), Refusal::BadToken);
        assert_eq!(with(|s| s.authenticated = None), Refusal::BadToken);
        assert_eq!(with(|s| s.audiences = None), Refusal::BadToken);
        assert_eq!(with(|s| s.audiences = Some(vec!["https://kubernetes.default.svc".into()])), Refusal::BadToken);
        assert_eq!(with(|s| s.user = None), Refusal::BadToken);
        let user = |s: &mut TokenReviewStatus, name: &str| s.user.as_mut().unwrap().username = Some(name.into());
        let mut other = accepted();
        user(&mut other, "system:serviceaccount:other:drover-agent");
        assert_eq!(judge(other, AGENT), Err(Refusal::OtherAccount));
        assert_eq!(with(|s| s.user.as_mut().unwrap().username = None), Refusal::OtherAccount);
        assert_eq!(with(|s| s.user.as_mut().unwrap().extra = None), Refusal::NoNode);
        for key in [NODE_NAME, NODE_UID] {
            for values in [vec![], vec![""], vec!["a", "b"]] {
                let mut status = accepted();
                let values = values.into_iter().map(str::to_owned).collect();
                status.user.as_mut().unwrap().extra.as_mut().unwrap().insert(key.into(), values);
                assert_eq!(judge(status, AGENT), Err(Refusal::NoNode), "{key}");
            }
        }
    }

    type Answer = Result<NodeIdentity, Refusal>;

    /// Without an answer of the API server.
    async fn alone(authenticator: &Authenticator, token: &str) -> Answer {
        authenticator.authenticate(&bearer(token)).await
    }

    /// With this answer of the API server.
    async fn asked(authenticator: &Authenticator, api: &mut MockApi, status: u16, body: Value) -> (Answer, Asked) {
        tokio::join!(alone(authenticator, "t"), api.answer(status, body))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_about_now_and_then() {
        let (client, mut api) = MockApi::new();
        let authenticator = Authenticator::new(client, AGENT.into());
        for _ in 0..2 {
            let (answer, request) = asked(&authenticator, &mut api, 201, review("a")).await;
            assert_eq!(answer, Ok(node("a")));
            assert_eq!(request.path, "/apis/authentication.k8s.io/v1/tokenreviews");
            assert_eq!(request.body["spec"], json!({"token": "t", "audiences": [TOKEN_AUDIENCE]}));
            // Nobody answers this one; it comes from memory.
            assert_eq!(alone(&authenticator, "t").await, Ok(node("a")));
            advance(FRESH).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_the_api_server_is_outlived_for_half_an_hour() {
        let (client, mut api) = MockApi::new();
        let authenticator = Authenticator::new(client, AGENT.into());
        let (answer, _) = asked(&authenticator, &mut api, 201, review("a")).await;
        assert_eq!(answer, Ok(node("a")));
        advance(FRESH).await;
        let (answer, _) = asked(&authenticator, &mut api, 503, json!({})).await;
        assert_eq!(answer, Ok(node("a")));
        // The next one does not wait for it, and after a while it is asked again.
        assert_eq!(alone(&authenticator, "t").await, Ok(node("a")));
        advance(AWAY).await;
        let (answer, _) = asked(&authenticator, &mut api, 503, json!({})).await;
        assert_eq!(answer, Ok(node("a")));
        // A token that was never verified has no credit, and the lack of an answer is not waited for.
        assert_eq!(alone(&authenticator, "unknown").await, Err(Refusal::CanNotAsk));
        advance(STALE).await;
        assert_eq!(alone(&authenticator, "t").await, Err(Refusal::CanNotAsk));
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_token_has_no_credit() {
        let (client, mut api) = MockApi::new();
        let authenticator = Authenticator::new(client, AGENT.into());
        let (answer, _) = asked(&authenticator, &mut api, 201, review("a")).await;
        assert_eq!(answer, Ok(node("a")));
        advance(FRESH).await;
        let no = json!({"spec": {}, "status": {"authenticated": false}});
        let (answer, _) = asked(&authenticator, &mut api, 201, no).await;
        assert_eq!(answer, Err(Refusal::BadToken));
        let (answer, _) = asked(&authenticator, &mut api, 503, json!({})).await;
        assert_eq!(answer, Err(Refusal::CanNotAsk));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_oldest_goes_first() {
        let (client, _api) = MockApi::new();
        let authenticator = Authenticator::new(client, AGENT.into());
        for number in 0..=CAPACITY {
            authenticator.remember(Digest::of(&number.to_be_bytes()), node("a"));
            if number == 0 {
                advance(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(authenticator.lock().len(), CAPACITY);
        assert_eq!(authenticator.recall(&Digest::of(&0_usize.to_be_bytes()), FRESH), None);
    }

    #[tokio::test]
    async fn what_is_no_bearer_token_asks_nobody() {
        let (client, _api) = MockApi::new();
        let authenticator = Authenticator::new(client, AGENT.into());
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        for value in ["", "Bearer", "Bearer ", "Basic dTpw", long.as_str()] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            assert_eq!(authenticator.authenticate(&headers).await, Err(Refusal::NoToken), "{value}");
        }
        assert_eq!(authenticator.authenticate(&HeaderMap::new()).await, Err(Refusal::NoToken));
    }
}
