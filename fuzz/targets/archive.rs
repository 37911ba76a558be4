//! An archive never puts anything outside the folder that it is unpacked into.
#![no_main]

use drover_apply::fuzzing;

libfuzzer_sys::fuzz_target!(|archive: &[u8]| {
    if let Err(why) = fuzzing::unpack(archive) {
        assert!(!why.starts_with("ESCAPE"), "{why}");
    }
});
