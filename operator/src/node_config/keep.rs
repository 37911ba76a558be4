//! Keeps revisions: made once, never changed, and removed when no machine has them and newer ones are enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use drover_core::revision::Content;
use drover_crds::{Host, NodeConfig, keys};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::ControllerRevision, core::v1::Secret},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, PostParams},
};

use super::{MANAGER, gather::Revisions};
use crate::context::Context;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot describe revision {0}")]
    Describe(String, #[source] serde_json::Error),
    #[error("cannot create revision {0}")]
    Create(String, #[source] kube::Error),
    /// In words for a status.
    #[error("{0}")]
    TooLarge(String),
    #[error("cannot list the machines before a revision is removed")]
    Read(#[source] kube::Error),
    #[error("cannot remove revision {0}, which no host has")]
    Remove(String, #[source] kube::Error),
}

/// Creates the revision unless it is there. Its Secret comes first, so that a revision that can be seen is whole.
pub(super) async fn keep(
    context: &Context,
    config: &NodeConfig,
    name: &str,
    content: &Content,
    kept: &Revisions,
) -> Result<(), Error> {
    if kept.content(name).is_some() {
        return Ok(());
    }
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(keys::NODE_CONFIG_LABEL.to_owned(), config.name_any())])),
        owner_references: config.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let (stored, secrets) = content.store();
    if !secrets.is_empty() {
        let data = secrets.into_iter().map(|(key, value)| (key, ByteString(value.expose().to_vec())));
        let secret = Secret {
            metadata: metadata.clone(),
            immutable: Some(true),
            data: Some(data.collect()),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
        created(api.create(&params, &secret).await, name)?;
    }
    let number = kept.of(&config.name_any()).last().map_or(0, |revision| revision.revision) + 1;
    let data = serde_json::to_value(&stored).map_err(|error| Error::Describe(name.to_owned(), error))?;
    let revision = ControllerRevision { metadata, revision: number, data: Some(RawExtension(data)) };
    let api: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &context.namespace);
    created(api.create(&params, &revision).await, name)?;
    tracing::info!(revision = name, "New revision");
    Ok(())
}

/// That it is there already is as good: its name says what is in it.
fn created<T>(result: kube::Result<T>, name: &str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        // By the request's size, by a Secret's own limit, or by etcd's. The message is not shown: it may quote values.
        Err(kube::Error::Api(status))
            if matches!(status.code, 413 | 422) || status.message.contains("request is too large") =>
        {
            Err(Error::TooLarge(format!(
                "its content with all that it refers to is too large for the API server, which takes about 1 MiB of plain \
             content and 1 MiB from Secrets; split the NodeConfig, or fetch large files by a `download` (code {})",
                status.code
            )))
        }
        Err(error) => Err(Error::Create(name.to_owned(), error)),
    }
}

/// Removes the oldest revisions that no machine has or gets, beyond the limit.
pub(super) async fn prune(
    context: &Context,
    config: &NodeConfig,
    newest: &str,
    hosts: &[Arc<Host>],
    kept: &Revisions,
) -> Result<(), Error> {
    if surplus(config, newest, hosts, kept).is_empty() {
        return Ok(());
    }
    // What is in memory can be behind, and what is removed is gone.
    context.fleet.read(&context.client, &context.namespace).await.map_err(Error::Read)?;
    let revisions: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &context.namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    for name in surplus(config, newest, &context.fleet.hosts.all(), kept) {
        removed(revisions.delete(&name, &DeleteParams::default()).await, &name)?;
        removed(secrets.delete(&name, &DeleteParams::default()).await, &name)?;
        tracing::info!(revision = name, "Removed an old revision");
    }
    Ok(())
}

/// The revisions that nobody needs, beyond the limit, oldest first.
fn surplus(config: &NodeConfig, newest: &str, hosts: &[Arc<Host>], kept: &Revisions) -> Vec<String> {
    let mut needed: BTreeSet<&str> = BTreeSet::from([newest]);
    needed.extend(
        config
            .status
            .iter()
            .flat_map(|status| [&status.revision, &status.completed_revision])
            .flatten()
            .map(String::as_str),
    );
    for status in hosts.iter().filter_map(|host| host.status.as_ref()) {
        needed.extend(status.assigned.iter().map(|assignment| assignment.revision.as_str()));
        needed.extend(status.active.iter().flat_map(|active| &active.revisions).map(|active| active.revision.as_str()));
        needed.extend(status.claim.iter().map(|claim| claim.target.revision.as_str()));
    }
    let names = kept.of(&config.name_any()).into_iter().map(kube::ResourceExt::name_any);
    let mut unused: Vec<String> = names.filter(|name| !needed.contains(name.as_str())).collect();
    unused.truncate(unused.len().saturating_sub(config.spec.resolved_history_limit()));
    unused
}

fn removed<T>(result: kube::Result<T>, name: &str) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::Remove(name.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_finds_too_large_is_told_as_such() {
        let answer = |code, message: &str| {
            let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
            created::<()>(Err(kube::Error::Api(Box::new(status))), "base-1").unwrap_err()
        };
        for (code, message, large) in [
            (413, "", true),
            (422, "data: Too long: hunter2", true),
            (500, "etcdserver: request is too large", true),
            (500, "etcdserver: leader changed", false),
        ] {
            let error = answer(code, message);
            assert_eq!(matches!(error, Error::TooLarge(_)), large, "{code} {message}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
