//! Who may do what: agents nothing on the API server, and a caller of a master what belongs to its own machine.

use drover_catalog::{Catalog, TOKEN_AUDIENCE};
use drover_e2e::{
    NODES,
    fleet::NAMESPACE,
    masters::{Master, token},
    story,
};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use reqwest::StatusCode;
use serde_json::json;

use crate::file;

#[tokio::test]
async fn agents_have_no_rights_on_the_api_server() {
    story(async |fleet| {
        let agent = format!("--as=system:serviceaccount:{NAMESPACE}:drover-agent");
        let group = "--as-group=system:serviceaccounts";
        let mine = [
            "auth",
            "can-i",
            "--list",
            "--no-headers",
            &agent,
            group,
            "--as-group=system:authenticated",
            "-n",
            NAMESPACE,
        ];
        let rights = fleet.cluster.kubectl(&mine).await;
        // What every account has: to ask who it is and what it may do, and to discover the API.
        for right in rights.lines() {
            let own = right.starts_with("selfsubject") && right.trim_end().ends_with("[create]");
            let discovery = right.starts_with(' ') && right.trim_end().ends_with("[get]");
            assert!(own || discovery, "an agent may: {right}");
        }
        assert!(rights.lines().count() > 5, "rights are listed: {rights}");
        for (verb, what) in
            [("get", "nodes"), ("list", "hosts.drover.dev"), ("get", "secrets"), ("create", "tokenreviews")]
        {
            let answer = fleet.cluster.try_kubectl(&["auth", "can-i", verb, what, &agent, "-n", NAMESPACE]).await;
            assert!(answer.is_err(), "an agent may {verb} {what}: {answer:?}");
        }

        // And the one token that it has is none for the API server.
        let pod = fleet.agent("node-1").await;
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap();
        let projected: Vec<_> = volumes.iter().filter_map(|volume| volume.projected.as_ref()).collect();
        let sources: Vec<_> = projected.iter().flat_map(|p| p.sources.iter().flatten()).collect();
        let audiences: Vec<_> = sources
            .iter()
            .map(|source| source.service_account_token.as_ref().and_then(|token| token.audience.as_deref()))
            .collect();
        assert_eq!(audiences, [Some(TOKEN_AUDIENCE)]);
        let uid = pod.metadata.uid.clone().unwrap();
        let machine = fleet.machine("node-1");
        let held =
            machine.run(&format!("cat /var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/token/token")).await;
        let review = TokenReview { spec: TokenReviewSpec { token: held, audiences: None }, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(fleet.cluster.client.clone());
        let verdict = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
        assert_ne!(verdict.authenticated, Some(true), "the API server takes the agent's token: {:?}", verdict.user);
    })
    .await;
}

#[tokio::test]
async fn a_master_serves_an_agent_its_own_machine_and_nobody_else_anything() {
    story(async |fleet| {
        let revision = fleet.configure("base", json!([file("motd", "for the agents alone")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &revision).await;
        let master = Master::any(fleet).await;
        let agents = [fleet.agent(NODES[0]).await, fleet.agent(NODES[1]).await];

        // Each gets the catalog of the node that its token names; there is no way to ask for another one's.
        for (agent, node) in agents.iter().zip(NODES) {
            let token = token(fleet, "drover-agent", TOKEN_AUDIENCE, Some(agent)).await;
            let (status, body) = master.catalog(Some(&token)).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            let catalog: Catalog = serde_json::from_str(&body).unwrap();
            assert_eq!(catalog.host.name, node);
        }

        let agent = Some(&agents[0]);
        let of_the_api_server = token(fleet, "drover-agent", "https://kubernetes.default.svc", agent).await;
        let of_nobody = "eyJhbGciOiJub25lIn0.e30.";
        let of_no_node = token(fleet, "drover-agent", TOKEN_AUDIENCE, None).await;
        let of_another_account = token(fleet, "drover-operator", TOKEN_AUDIENCE, Some(&fleet.operator().await)).await;
        for (token, wanted) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some(of_nobody), StatusCode::UNAUTHORIZED),
            (Some(of_the_api_server.as_str()), StatusCode::UNAUTHORIZED),
            (Some(of_no_node.as_str()), StatusCode::FORBIDDEN),
            (Some(of_another_account.as_str()), StatusCode::FORBIDDEN),
        ] {
            let (status, body) = master.catalog(token).await;
            assert_eq!(status, wanted, "{body}");
            assert!(!body.contains("for the agents alone"), "{body}");
        }

        // What node-1 says of node-2 is not believed.
        let hosts = fleet.api::<drover_crds::Host>();
        let before = hosts.get(NODES[1]).await.unwrap();
        let active = before.status.clone().and_then(|status| status.active).unwrap();
        let report = json!({
            "host": {"name": NODES[1], "uid": before.metadata.uid},
            "generation": active.generation, "catalog": active.catalog, "revisions": [],
            "outcome": "Failed", "resources": [], "duration_millis": 1, "boot_id": "forged", "agent_version": "0",
        });
        let of_node_1 = token(fleet, "drover-agent", TOKEN_AUDIENCE, agent).await;
        let (status, body) = master.report(Some(&of_node_1), &report).await;
        assert!(status.is_client_error() && body.contains("this report is of the host node-2"), "{status} {body}");
        let (status, _) = master.report(None, &report).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(hosts.get(NODES[1]).await.unwrap().status, before.status);
    })
    .await;
}
