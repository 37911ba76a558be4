//! The masters' certificates: another authority takes over, and no agent notices.

use std::time::Duration;

use drover_e2e::{
    Fleet,
    cert_manager::CertManager,
    certificates::{Callers, Handover, OVERLAP, certificate_ready, reaches_agents, serve_under, told},
    story,
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{file, masters::change};

/// Each machine has a catalog: agents are not only answered, they prove what they are given.
async fn configured(fleet: &Fleet) {
    let revision = fleet.configure("trust", json!([file("trust", "moo")])).await;
    fleet.roll("trust", json!({})).await;
    fleet.completes("trust", &revision).await;
}

/// Whom agents trust, where that is one authority.
async fn authority(fleet: &Fleet) -> String {
    let [authority] = <[String; 1]>::try_from(told(fleet).await).expect("agents are told of one authority");
    assert_served(fleet, &authority, true).await;
    authority
}

async fn assert_served(fleet: &Fleet, authority: &str, served: bool) {
    assert_eq!(serve_under(fleet, authority).await, [served; 2], "both masters serve under {authority}: {served}");
}

/// Hands over by this change of the pool's certificates; returns the new authority when all of it is over.
async fn hand_over(fleet: &Fleet, before: &str, certificates: Value) -> String {
    let handover = Handover::watch(fleet).await;
    change(fleet, json!({"certificates": certificates}), "at the new authority", |status| {
        certificate_ready(status) == "True Current"
    })
    .await;
    let after = authority(fleet).await;
    assert_served(fleet, before, false).await;
    reaches_agents(fleet, &after).await;
    let (ahead, behind) = handover.is_over(before, &after).await;
    // A watch may tell the one sooner than the other.
    let late = Duration::from_millis(500);
    assert!(ahead + late >= OVERLAP && behind + late >= OVERLAP, "{ahead:?}, {behind:?}");
    after
}

/// The callers go: all of their questions were answered.
async fn all_answered(fleet: &Fleet, callers: Callers) {
    let (agents, open) = callers.go(fleet).await;
    assert_eq!(agents.lost, [""; 0], "{} were answered", agents.answered);
    assert_eq!(open.lost, [""; 0], "{} were answered on an open connection", open.answered);
}

#[tokio::test]
async fn agents_know_a_new_authority_before_masters_use_it() {
    story(async |fleet| {
        configured(fleet).await;
        let before = authority(fleet).await;
        let secret = fleet.api::<Secret>().get("drover-masters-ca").await.unwrap();
        let generation = secret.annotations().get("drover.dev/authority-generation");
        let generation: u32 = generation.map_or(0, |text| text.parse().unwrap());

        let callers = Callers::come(fleet, &before).await;
        let wanted = json!({"authorityGeneration": generation + 1, "overlapSeconds": OVERLAP.as_secs()});
        let after = hand_over(fleet, &before, wanted).await;
        assert_ne!(after, before);
        all_answered(fleet, callers).await;
    })
    .await;
}

#[tokio::test]
async fn masters_serve_with_the_certificate_of_a_cert_manager_issuer() {
    story(async |fleet| {
        configured(fleet).await;
        let own = authority(fleet).await;
        let callers = Callers::come(fleet, &own).await;

        // What is asked for is not there: the pool says so, and goes on with what it has.
        let wanted = json!({"issuerRef": {"name": "e2e-authority"}, "overlapSeconds": OVERLAP.as_secs()});
        let waiting = change(fleet, json!({"certificates": wanted}), "without cert-manager", |status| {
            certificate_ready(status) == "False NoCertManager"
        });
        let message = waiting.await.message.unwrap();
        let expected = "2 of 2 masters serve, with the certificate of before: there is no cert-manager in this cluster, \
                        which spec.certificates.issuerRef asks for: install it, or leave issuerRef out";
        assert_eq!(message, expected);
        let cert_manager = CertManager::start(fleet).await;
        let waiting = change(fleet, json!({"certificates": wanted}), "without an issuer", |status| {
            certificate_ready(status) == "False NotIssued"
        });
        let message = waiting.await.message.unwrap();
        assert!(message.contains("Issuer e2e-authority has not issued the Certificate"), "{message}");
        assert_eq!(told(fleet).await, [own.as_str()]);
        assert_served(fleet, &own, true).await;

        cert_manager.authority(fleet, "e2e-authority").await;
        let theirs = hand_over(fleet, &own, wanted).await;
        let root = fleet.api::<Secret>().get("e2e-authority").await.unwrap().data.unwrap();
        assert_eq!(theirs, String::from_utf8(root["tls.crt"].0.clone()).unwrap().trim());

        // And back; nothing that was asked of cert-manager is left.
        let again = hand_over(fleet, &theirs, json!({"issuerRef": null})).await;
        assert_eq!(again, own);
        let left = fleet.cluster.kubectl(&["-n", "drover-system", "get", "certificates", "-o", "name"]).await;
        assert_eq!(left.trim(), "certificate.cert-manager.io/e2e-authority");
        assert!(fleet.api::<Secret>().get_opt("drover-masters-issued").await.unwrap().is_none());
        all_answered(fleet, callers).await;
        drop(cert_manager);
    })
    .await;
}
