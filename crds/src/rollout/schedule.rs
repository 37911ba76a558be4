//! When machines may be begun.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When machines may be begun. Machines under way are always finished, whatever it says, and a rollback does not wait for
/// it: it makes good what is wrong now.
///
/// For example, in the nights before Saturday and not over the turn of the year:
/// `{windows: [{kind: Allow, schedule: "0 22 * * FRI", durationSeconds: 21600, timeZone: Europe/Berlin},
/// {kind: Deny, from: "2026-12-20T00:00:00+01:00", to: "2027-01-04T00:00:00+01:00", reason: year-end}]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.minRemainingSeconds) || !has(self.windows) || self.windows.all(w, w.kind == 'Deny' || !has(w.durationSeconds) || w.durationSeconds >= self.minRemainingSeconds)",
    "a window with kind Allow is shorter than minRemainingSeconds, so no machine would ever begin in it: write a longer durationSeconds or a smaller minRemainingSeconds"
))]
pub struct Schedule {
    /// When machines may be begun (`Allow`), and when not (`Deny`, which wins where both are open). Without any `Allow`,
    /// machines may be begun whenever no `Deny` is open. A window that can not be understood closes all: the Rollout says
    /// which one it is.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32))]
    pub windows: Vec<Window>,
    /// What happens when an `Allow` window ends while machines are left. Left out: `FinishHosts`. When a `Deny` window
    /// begins, it is `FinishHosts` in any case.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_close: Option<OnClose>,
    /// A machine is begun only when so much of the window is left, in seconds. Left out: as much as nine of ten machines
    /// took, as soon as that was measured, but never more than half of the window.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 0, max = 2_678_400))]
    pub min_remaining_seconds: Option<i32>,
}

/// A time that comes again and again, or once.
///
/// It is either `schedule` with `durationSeconds`, or `from` with `to`. It includes its first moment and not its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.schedule) != has(self.from)", "a window has either schedule and durationSeconds, or from and to"),
    validation = ("has(self.schedule) == has(self.durationSeconds)", "a window with a schedule needs durationSeconds: how long it is open from each start; and nothing else has durationSeconds"),
    validation = ("has(self.from) == has(self.to)", "a window of dates has both from and to"),
    validation = ("!has(self.from) || !has(self.to) || self.from < self.to", "from must be before to"),
    validation = ("!has(self.timeZone) || has(self.schedule)", "timeZone is for schedule; from and to carry their offset, as in 2026-12-20T00:00:00+01:00")
)]
pub struct Window {
    /// Whether machines may be begun while it is open.
    pub kind: WindowKind,
    /// When it opens, as a cron expression of five fields: minute, hour, day of month, month, day of week, such as
    /// `0 22 * * FRI`. Where both days are given, either of them suffices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 9, max = 128))]
    #[x_kube(validation = (r"self.matches('^[^ ]+( +[^ ]+){4}$')", "write five fields with spaces between them: minute, hour, day of month, month, day of week; such as 0 22 * * FRI"))]
    pub schedule: Option<String>,
    /// How long it is open from each start, in seconds that really pass: a window of four hours has four hours also in the
    /// night in which the clock is changed. It may reach over midnight.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(range(min = 60, max = 2_678_400))]
    pub duration_seconds: Option<i32>,
    /// The time zone of `schedule`, by its IANA name, such as `Europe/Berlin`. A start that falls into the hour that the
    /// change to summer time leaves out comes at the end of that hour; one in the hour that comes twice in autumn counts the
    /// first time, unless the schedule's minute or hour is a `*`: then it counts both times. Left out: `UTC`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = (r"self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')", "write the IANA name of a time zone, such as Europe/Berlin or UTC"))]
    pub time_zone: Option<String>,
    /// When it opens, once, as a date with time and offset, such as `2026-12-20T00:00:00+01:00`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Time>,
    /// When it closes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Time>,
    /// Why, for people: it is part of the message while a `Deny` is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(min = 1, max = 200))]
    pub reason: Option<String>,
}

/// Whether machines may be begun while a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WindowKind {
    /// They may.
    Allow,
    /// They may not, whatever else is open.
    Deny,
}

/// What happens when a window ends while machines are left. Machines under way are finished in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnClose {
    /// No further machine is begun until the next window.
    FinishHosts,
    /// The batch is finished, if one of its machines was begun; the next batch waits for the next window.
    FinishBatch,
    /// The run is finished, if one of its machines was begun.
    FinishRun,
}

impl Schedule {
    /// What happens when a window ends while machines are left.
    pub fn resolved_on_close(&self) -> OnClose {
        self.on_close.unwrap_or(OnClose::FinishHosts)
    }
}

impl Window {
    /// How long it is open from each start, in seconds; 0 for one of dates.
    pub fn resolved_duration_seconds(&self) -> i32 {
        self.duration_seconds.unwrap_or(0)
    }

    /// The IANA name of the time zone.
    pub fn resolved_time_zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("UTC")
    }
}
