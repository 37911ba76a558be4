//! A report from the wire is written again as it was, and its numbers overflow nothing.
#![no_main]

use drover_catalog::{Report, Totals};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let Ok(report) = serde_json::from_slice::<Report>(text) else { return };
    let again = serde_json::to_vec(&report).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<Report>(&again).expect("what was written can be read"), report);
    let _ = report.totals.resources();
    let mut totals = Totals::default();
    report.resources.iter().for_each(|resource| totals.add(resource));
    assert_eq!(usize::try_from(totals.resources()), Ok(report.resources.len()));
});
