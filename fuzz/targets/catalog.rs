//! A catalog from the wire: what is decoded is written again as it was, a changed digest is found, and an order that
//! contradicts itself is an error.
#![no_main]

use drover_apply::{LocalHost, Mode, Run, StateDir};
use drover_catalog::{Catalog, Digest, Resource};
use libfuzzer_sys::Corpus;

struct Machine {
    state: StateDir,
    host: LocalHost,
}

/// An empty folder; nothing is written to it.
fn machine() -> Machine {
    let root = tempfile::tempdir().expect("no folder for a machine").keep();
    let state = StateDir::new(&root, "/state").expect("no state folder");
    let host = LocalHost::open(&root, false).expect("the folder cannot be opened");
    let _ = std::fs::remove_dir(&root);
    Machine { state, host }
}

thread_local! {
    static MACHINE: Machine = machine();
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| -> Corpus {
    let Ok(catalog) = serde_json::from_slice::<Catalog>(text) else { return Corpus::Keep };
    let again = serde_json::to_vec(&catalog).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<Catalog>(&again).expect("what was written can be read"), catalog);
    let parts = catalog.resources.iter().flat_map(|resource| &resource.parts);
    assert!(parts.flat_map(drover_catalog::Part::claims).all(|claim| claim.conflicts_with(&claim)));

    let forged = !catalog.is_intact();
    let digest = catalog.digest.clone();
    let sealed = catalog.seal().expect("what was read can be sealed");
    assert!(sealed.is_intact());
    assert_eq!(forged, digest != sealed.digest, "a digest either fits or does not");
    assert!(!Catalog { digest: Digest::of(text), ..sealed.clone() }.is_intact());

    // Order and notifications are the engine's. Without parts, because a guard of a command would run even now.
    let resources = sealed.resources.iter().map(|one| Resource { parts: vec![], finish: vec![], ..one.clone() });
    let empty = Catalog { resources: resources.collect(), ..sealed.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    MACHINE.with(|Machine { state, host }| {
        let run = Run { host, state, mode: Mode::Noop, differences: true, stop: &|| false };
        if let Ok(result) = runtime.block_on(run.apply(&empty)) {
            assert_eq!(result.resources.len(), empty.resources.len());
        }
    });
    Corpus::Keep
});
