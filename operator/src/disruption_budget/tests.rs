use serde_json::{Value, json};

use super::*;
use crate::testing::{self, Asked};

fn budget() -> DisruptionBudget {
    let mut budget = DisruptionBudget::new("all", serde_json::from_value(json!({"maxUnavailable": 1})).unwrap());
    budget.metadata.generation = Some(3);
    budget
}

async fn written(budget: DisruptionBudget, leads: bool) -> Vec<Asked> {
    let (context, mut server) = testing::context(leads);
    let (action, writes) = server.serve(&[], reconcile(Arc::new(budget), Arc::new(context))).await;
    // What the script answers to a write is no budget.
    drop(action);
    writes
}

#[tokio::test]
async fn a_budget_says_what_uses_it_once() {
    let writes = written(budget(), true).await;
    assert_eq!(writes.len(), 1);
    let status: Value = writes[0].body["status"].clone();
    assert_eq!((&status["hosts"], &status["maxUnavailable"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&status["observedGeneration"], &status["message"]),
        (&json!(3), &json!("0 of 0 held, 0 out of service"))
    );
    let mut told = budget();
    told.status = Some(serde_json::from_value(status).unwrap());
    assert!(written(told, true).await.is_empty());
}

#[tokio::test]
async fn an_operator_that_does_not_lead_writes_nothing() {
    assert!(written(budget(), false).await.is_empty());
}
