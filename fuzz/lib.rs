//! Stands for the functions of `drover_apply::fuzzing` until they are there; then the targets name those instead.

/// `drover_apply::fuzzing`.
pub mod stand_in {
    use drover_catalog::Edit;

    /// What an edit makes of a text; `None` where nothing changes, or where it is refused.
    pub fn edit(_text: &[u8], _edit: &Edit) -> Option<Vec<u8>> {
        None
    }

    /// Unpacks an archive into a new folder. An error that begins with `ESCAPE` says that something got out of it.
    pub fn unpack(_archive: &[u8]) -> Result<usize, String> {
        Err("nothing is unpacked yet".to_owned())
    }
}
