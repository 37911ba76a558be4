//! The headers of a catalog: what is read is written again as it was.
#![no_main]

use std::{fmt::Display, str::FromStr};

use drover_catalog::{CertificateChain, Signature, Slot};

fn survives<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{value}");
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A header that is no text is none.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    survives::<Signature>(text);
    survives::<CertificateChain>(text);
    survives::<Slot>(text);
});
