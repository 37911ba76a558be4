//! Readings of object metadata that the API server guarantees to be set on everything it returns.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The object's name.
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The object's UID.
pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}
