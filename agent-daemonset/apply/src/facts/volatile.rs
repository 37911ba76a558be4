//! What changes by itself, from `/proc`.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use drover_catalog::{
    VolatileFacts,
    facts::{Available, AvailableMemory, LoadAverages, Uptime},
};

use super::{Files, hardware::bytes_of};
use crate::host::Tree;

/// Looks at the machine below a root, which runs.
pub fn gather(root: &Path, now: SystemTime) -> VolatileFacts {
    let files = Files(Tree::open(root).ok());
    let text = |name: &str| files.text(&format!("/proc/{name}"));
    let time = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    VolatileFacts {
        memory: memory(&text("meminfo")),
        load_averages: load_averages(&text("loadavg")),
        system_uptime: uptime(&text("uptime")),
        time,
    }
}

fn memory(meminfo: &str) -> AvailableMemory {
    let available = |key| Available { available_bytes: bytes_of(meminfo, key) };
    AvailableMemory { system: available("MemAvailable"), swap: available("SwapFree") }
}

/// The first three words of `/proc/loadavg`.
fn load_averages(loadavg: &str) -> LoadAverages {
    let mut words = loadavg.split_whitespace().map(|word| word.parse().unwrap_or(0.0));
    let mut next = || words.next().unwrap_or(0.0);
    LoadAverages { one_minute: next(), five_minutes: next(), fifteen_minutes: next() }
}

/// The first word of `/proc/uptime`, in whole seconds.
fn uptime(uptime: &str) -> Uptime {
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.trim().parse().ok());
    Uptime { seconds: seconds.unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::tests::machine;

    #[test]
    fn reads_the_kernels_formats() {
        let (root, _) = machine(&[
            ("/proc/meminfo", "MemTotal: 16 kB\nMemAvailable: 8 kB\nSwapTotal: 4 kB\nSwapFree: 2 kB\n"),
            ("/proc/loadavg", "0.50 1.25 2.00 1/99 1234\n"),
            ("/proc/uptime", "350735.47 234388.90\n"),
        ]);
        let facts = gather(root.path(), UNIX_EPOCH + Duration::from_secs(7));
        let expected = VolatileFacts {
            memory: AvailableMemory {
                system: Available { available_bytes: 8192 },
                swap: Available { available_bytes: 2048 },
            },
            load_averages: LoadAverages { one_minute: 0.5, five_minutes: 1.25, fifteen_minutes: 2.0 },
            system_uptime: Uptime { seconds: 350_735 },
            time: 7,
        };
        assert_eq!(facts, expected);
        let nothing = gather(machine(&[]).0.path(), UNIX_EPOCH);
        assert_eq!(nothing, VolatileFacts::default());
    }
}
