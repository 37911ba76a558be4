//! Tells one story at a time on the one cluster that there is.

use std::{fs::File, panic::AssertUnwindSafe, path::Path, time::Instant};

use futures::FutureExt as _;

use crate::{
    Fleet,
    clean::clean,
    cluster::{KUBECONFIG, required},
    diagnose::diagnose,
};

/// Tells a story: alone on the cluster, in all threads and processes; on a fleet that is as if newly installed; and
/// leaving nothing behind, also when it fails. Then it says what was going on.
pub async fn story(tell: impl AsyncFnOnce(&Fleet)) {
    let _turn = turn(&required(KUBECONFIG)).await;
    let started = Instant::now();
    let mut fleet = Fleet::connect().await;
    clean(&fleet).await;
    fleet.begin();
    let begun = Instant::now();
    let told = AssertUnwindSafe(tell(&fleet)).catch_unwind().await;
    let over = Instant::now();
    if told.is_err() {
        diagnose(&fleet).await;
    }
    let cleaned = AssertUnwindSafe(clean(&fleet)).catch_unwind().await;
    let (cleaning, telling) = (begun - started + over.elapsed(), over - begun);
    eprintln!("told in {:.1} s, cleaned up in {:.1} s", telling.as_secs_f32(), cleaning.as_secs_f32());
    for result in [told, cleaned] {
        if let Err(failure) = result {
            std::panic::resume_unwind(failure);
        }
    }
}

/// Waits for the turn of this story. It lasts as long as the file is open.
async fn turn(kubeconfig: &str) -> File {
    let path = Path::new(kubeconfig).with_file_name("story.lock");
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    tokio::task::spawn_blocking(move || {
        file.lock().expect("the file can be locked");
        file
    })
    .await
    .expect("the lock is waited for")
}
