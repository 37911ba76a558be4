//! Jobs that a Rollout makes for its hooks and gates: made from CronJobs, as `kubectl create job --from=cronjob/…` does.

use std::collections::BTreeMap;

use drover_core::rollout::{JobView, RolloutJob, Wanted, label_value};
use drover_crds::{Rollout, keys};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job, JobTemplateSpec},
        core::v1::EnvVar,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, Preconditions},
};
use serde_json::json;

use super::carry_out::{Outcome, patching, posting};
use crate::context::Context;

/// The Jobs of a Rollout that made any, by name.
pub(super) async fn list(context: &Context, rollout: &Rollout) -> kube::Result<BTreeMap<String, RolloutJob>> {
    let api: Api<Job> = Api::namespaced(context.client.clone(), &context.namespace);
    let params = ListParams::default().labels(&format!("{}={}", keys::ROLLOUT_LABEL, label_value(&rollout.name_any())));
    let ours = |job: &Job| job.owner_references().iter().any(|owner| Some(&owner.uid) == rollout.metadata.uid.as_ref());
    let jobs = api.list(&params).await?.items;
    Ok(jobs.iter().filter(|job| ours(job)).map(|job| (job.name_any(), view(job))).collect())
}

fn view(job: &Job) -> RolloutJob {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    let not_begun = job.annotations().get(keys::NOT_BEGUN_ANNOTATION);
    // One that is being deleted is waited for: then it is made again.
    let state = match (&job.metadata.deletion_timestamp, condition("Complete"), condition("Failed")) {
        (None, Some(_), _) => JobView::Succeeded,
        (None, None, None) if let Some(suspended) = not_begun => JobView::Made { suspended: suspended == "suspended" },
        (None, None, Some(failed)) => {
            let reason = failed.reason.as_deref().unwrap_or("Failed");
            JobView::Failed(match failed.message.as_deref() {
                Some(message) if !message.is_empty() => format!("{reason}: {message}"),
                _ => reason.to_owned(),
            })
        }
        _ => JobView::Running,
    };
    RolloutJob {
        state,
        uid: job.uid().unwrap_or_default(),
        resource_version: job.resource_version().unwrap_or_default(),
        run: job.labels().get(keys::RUN_LABEL).and_then(|run| run.parse().ok()),
        of_host: job.labels().contains_key(keys::HOST_LABEL),
        token: job.annotations().get(keys::HOLD_TOKEN_ANNOTATION).cloned(),
    }
}

/// Makes a Job. That one of its name is there already, or why it can not be made, is an answer.
pub(super) async fn create(context: &Context, rollout: &Rollout, wanted: Wanted) -> kube::Result<Outcome> {
    let templates: Api<CronJob> = Api::namespaced(context.client.clone(), &context.namespace);
    let refused = |why: String| Ok(Outcome::RefusedJob(wanted.name.clone(), why));
    let template = match templates.get_opt(&wanted.template).await {
        Ok(Some(template)) => template,
        Ok(None) => {
            return refused(format!(
                "there is no CronJob {} in this namespace to make its Job from; make one, with spec.suspend: true",
                wanted.template
            ));
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return refused(format!("the operator may not read CronJob {}: {}", wanted.template, status.message));
        }
        Err(error) => return Err(error),
    };
    let job = job(rollout, &wanted, template.spec.job_template);
    let jobs: Api<Job> = Api::namespaced(context.once.clone(), &context.namespace);
    match jobs.create(&posting(), &job).await {
        Ok(_) => {
            tracing::info!(job = wanted.name, template = wanted.template, "Job made");
            Ok(Outcome::Done(None))
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            refused(format!("a Job {} is there already that is not the Rollout's: delete it", wanted.name))
        }
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            refused(format!("its Job can not be made from CronJob {}: {}", wanted.template, status.message))
        }
        Err(error) => Err(error),
    }
}

/// Lets a Job begin that was made, if it is still in the version that was read.
pub(super) async fn start(
    context: &Context,
    name: &str,
    (uid, resource_version): (String, String),
    suspended: bool,
) -> kube::Result<Outcome> {
    let annotations = json!({(keys::NOT_BEGUN_ANNOTATION): null});
    let metadata = json!({"uid": uid, "resourceVersion": resource_version, "annotations": annotations});
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"suspend": suspended}}));
    let jobs: Api<Job> = Api::namespaced(context.once.clone(), &context.namespace);
    match jobs.patch(name, &patching(), &patch).await {
        Ok(_) => {
            tracing::info!(job = name, "Job begins");
            Ok(Outcome::Done(None))
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(Outcome::Conflict),
        Err(error) => Err(error),
    }
}

/// Removes a Job that ended or never began, and its pods.
pub(super) async fn delete(context: &Context, name: &str, uid: String) -> kube::Result<Outcome> {
    let jobs: Api<Job> = Api::namespaced(context.once.clone(), &context.namespace);
    let preconditions = Preconditions { uid: Some(uid), resource_version: None };
    match jobs.delete(name, &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() }).await {
        Ok(_) => Ok(Outcome::Done(None)),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(Outcome::Conflict),
        Err(error) => Err(error),
    }
}

fn job(rollout: &Rollout, wanted: &Wanted, template: JobTemplateSpec) -> Job {
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.extend(wanted.labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(keys::INSTANTIATE_ANNOTATION.to_owned(), "manual".to_owned());
    if let Some(token) = &wanted.token {
        annotations.insert(keys::HOLD_TOKEN_ANNOTATION.to_owned(), token.clone());
    }
    let mut spec = template.spec.unwrap_or_default();
    // One that vanished by itself would be made again: it goes with the run, or with the Rollout.
    spec.ttl_seconds_after_finished = None;
    // It begins with a write that names its version: this one could come late, from an operator that leads no more.
    let suspended = if spec.suspend.replace(true) == Some(true) { "suspended" } else { "" };
    annotations.insert(keys::NOT_BEGUN_ANNOTATION.to_owned(), suspended.to_owned());
    let deadline = i64::from(wanted.timeout_seconds);
    spec.active_deadline_seconds = Some(spec.active_deadline_seconds.map_or(deadline, |own| own.min(deadline)));
    // Two pods of a migration at once are none of what was asked for.
    spec.pod_replacement_policy.get_or_insert_with(|| "Failed".to_owned());
    if let Some(pod) = &mut spec.template.spec {
        let containers = pod.init_containers.iter_mut().flatten().chain(&mut pod.containers);
        for container in containers {
            let environment = container.env.get_or_insert_default();
            environment.retain(|variable| wanted.environment.iter().all(|(name, _)| variable.name != *name));
            environment.extend(wanted.environment.iter().map(|(name, value)| EnvVar {
                name: (*name).to_owned(),
                value: Some(value.clone()),
                value_from: None,
            }));
        }
    }
    Job {
        metadata: ObjectMeta {
            name: Some(wanted.name.clone()),
            namespace: rollout.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: rollout.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_what_its_template_says_with_an_owner_an_environment_and_a_deadline() {
        let mut rollout =
            Rollout::new("web", serde_json::from_value(json!({"nodeConfigRef": {"name": "web"}})).unwrap());
        rollout.metadata.uid = Some("u1".into());
        let wanted = Wanted {
            name: "web-migrate-1".into(),
            template: "migrate".into(),
            labels: vec![(keys::ROLLOUT_LABEL, "web".into())],
            token: None,
            environment: vec![("DROVER_RUN", "3".into())],
            timeout_seconds: 600,
        };
        let template = |own: serde_json::Value| {
            let mut spec = json!({"backoffLimit": 2, "ttlSecondsAfterFinished": 1, "template": {"spec": {
                "initContainers": [{"name": "a"}],
                "containers": [{"name": "b", "env": [{"name": "DROVER_RUN", "value": "x"}, {"name": "MINE", "value": "y"}]}],
            }}});
            spec.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            let template = json!({"metadata": {"labels": {"team": "db"}}, "spec": spec});
            serde_json::to_value(job(&rollout, &wanted, serde_json::from_value(template).unwrap())).unwrap()
        };
        let made = template(json!({}));
        assert_eq!(made["metadata"]["labels"], json!({"team": "db", "drover.dev/rollout": "web"}));
        let owner = &made["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"], &owner["controller"]),
            (&json!("Rollout"), &json!("u1"), &json!(true))
        );
        let spec = &made["spec"];
        assert_eq!((&spec["backoffLimit"], &spec["activeDeadlineSeconds"]), (&json!(2), &json!(600)));
        assert_eq!((&spec["podReplacementPolicy"], spec.get("ttlSecondsAfterFinished")), (&json!("Failed"), None));
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["env"], json!([{"name": "DROVER_RUN", "value": "3"}]));
        let env = json!([{"name": "MINE", "value": "y"}, {"name": "DROVER_RUN", "value": "3"}]);
        assert_eq!(pod["containers"][0]["env"], env);

        let made = template(json!({"activeDeadlineSeconds": 60, "podReplacementPolicy": "TerminatingOrFailed"}));
        assert_eq!(made["spec"]["activeDeadlineSeconds"], 60);
        // It begins with another write, and not at all where its template has it so.
        for (own, mark) in [(json!({}), ""), (json!({"suspend": false}), ""), (json!({"suspend": true}), "suspended")] {
            let made = template(own);
            assert_eq!(
                (&made["spec"]["suspend"], &made["metadata"]["annotations"]["drover.dev/not-begun"]),
                (&json!(true), &json!(mark))
            );
        }
        assert_eq!(made["spec"]["podReplacementPolicy"], "TerminatingOrFailed");
    }

    #[test]
    fn a_job_has_ended_when_its_condition_says_so_and_one_that_is_deleted_is_waited_for() {
        let made = |annotation: serde_json::Value| {
            let metadata = json!({"name": "web-migrate-1", "annotations": {"drover.dev/not-begun": annotation}});
            view(&serde_json::from_value(json!({"metadata": metadata})).unwrap()).state
        };
        assert_eq!(made(json!("")), JobView::Made { suspended: false });
        assert_eq!(made(json!("suspended")), JobView::Made { suspended: true });
        let state = |conditions: serde_json::Value, deleted: bool| {
            let mut job = json!({"metadata": {"name": "a"}, "status": {"conditions": conditions}});
            if deleted {
                job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            view(&serde_json::from_value(job).unwrap()).state
        };
        let complete =
            json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]);
        let failed = json!([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]);
        assert_eq!(state(json!([]), false), JobView::Running);
        assert_eq!(state(json!([{"type": "FailureTarget", "status": "True"}]), false), JobView::Running);
        assert_eq!(state(complete.clone(), false), JobView::Succeeded);
        assert_eq!(state(complete, true), JobView::Running);
        assert_eq!(state(failed, false), JobView::Failed("DeadlineExceeded: too long".into()));
    }
}
