//! The key of the names of revisions that hold secrets: made once in each namespace, and kept in a Secret.

use drover_core::revision::NameKey;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::PostParams};

use super::MANAGER;
use crate::context::Context;

/// The Secret's name. When it is removed, another is made, and revisions that are kept keep their names.
pub(super) const NAME: &str = "drover-revision-key";

/// The key in the Secret.
const KEY: &str = "key";

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read Secret {NAME}")]
    Read(#[source] kube::Error),
    #[error("cannot create Secret {NAME}")]
    Create(#[source] kube::Error),
    #[error("the system gives no random numbers for the key of Secret {NAME}")]
    Random(#[source] getrandom::Error),
    #[error(
        "Secret {NAME} holds no key of {} bytes under `{KEY}`; delete it, and the operator makes it anew",
        NameKey::LENGTH
    )]
    Malformed,
}

/// Reads the key, and makes it when there is none. Of several who make it at once, the first one's counts.
pub(super) async fn name_key(context: &Context) -> Result<NameKey, Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    if let Some(secret) = api.get_opt(NAME).await.map_err(Error::Read)? {
        return of(secret);
    }
    let mut bytes = [0; NameKey::LENGTH];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    let secret = Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        immutable: Some(true),
        data: Some([(KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &secret).await {
        Ok(secret) => of(secret),
        Err(kube::Error::Api(status)) if status.is_already_exists() => of(api.get(NAME).await.map_err(Error::Read)?),
        Err(error) => Err(Error::Create(error)),
    }
}

fn of(secret: Secret) -> Result<NameKey, Error> {
    let bytes = secret.data.and_then(|mut data| data.remove(KEY)).ok_or(Error::Malformed)?;
    bytes.0.try_into().map(NameKey::new).map_err(|_| Error::Malformed)
}
