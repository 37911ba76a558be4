//! systemd units, and what runs by the clock.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContentSource, Ensure, formats};

/// The state of a systemd unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.state) || has(self.enabled) || has(self.masked)",
    "a service says something of its unit: add state: Running or Stopped, enabled or masked"
))]
#[x_kube(validation = (
    "!has(self.masked) || !self.masked || !(has(self.state) && self.state == 'Running') && !(has(self.enabled) && self.enabled)",
    "a unit that is masked can neither run nor start at boot; leave state and enabled out"
))]
pub struct Service {
    /// The unit. Without a suffix it is a `.service`: `nginx`, `backup.timer`.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (r"self.contains('{{') || self.matches(r'^[A-Za-z0-9:_.\\@-]+$')", "write the name of a unit, such as nginx or backup.timer: letters, digits and : _ . \\ @ -"))]
    pub unit: String,
    /// Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<ServiceStateWanted>,
    /// Whether it starts at boot. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub enabled: Option<bool>,
    /// Whether it is masked: nobody can start it. Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub masked: Option<bool>,
    /// What a notification does. Left out: `Restart`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_notify: Option<NotifyAction>,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceStateWanted {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
}

/// What a notification does to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotifyAction {
    /// Restart it.
    Restart,
    /// Reload it where the unit can, else restart it.
    Reload,
}

/// A unit file in `/etc/systemd/system`. systemd reads it when it changed; notify a `service` to restart its unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.template) && !has(self.contentFrom) : [has(self.content), has(self.template), has(self.contentFrom)].filter(x, x).size() == 1",
    "a unit file has exactly one of content, template and contentFrom; to remove it write ensure: Absent and none of them"
))]
pub struct SystemdUnit {
    /// The unit with its suffix, such as `backup.service`. Left out: the name of the resource.
    #[schemars(schema_with = "formats::unit")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The whole unit file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The whole unit file as a Jinja template; see `file.template`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// The whole unit file from a ConfigMap or Secret of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_from: Option<ContentSource>,
    /// Stop a unit by a `service` before its file goes. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// Settings that are laid over a unit: `/etc/systemd/system/UNIT.d/NAME.conf`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.template) && !has(self.contentFrom) : [has(self.content), has(self.template), has(self.contentFrom)].filter(x, x).size() == 1",
    "a drop-in has exactly one of content, template and contentFrom; to remove it write ensure: Absent and none of them"
))]
pub struct SystemdDropIn {
    /// The unit with its suffix, such as `nginx.service`.
    #[schemars(schema_with = "formats::unit")]
    pub unit: String,
    /// Names the file, without `.conf`. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The whole drop-in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The whole drop-in as a Jinja template; see `file.template`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// The whole drop-in from a ConfigMap or Secret of this namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_from: Option<ContentSource>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// A command that systemd runs by the clock: a `.service` and a `.timer` in `/etc/systemd/system`; the timer runs and starts
/// at boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' || has(self.onCalendar) && has(self.command)",
    "a timer has onCalendar and command; to remove one write ensure: Absent"
))]
pub struct Timer {
    /// Names the units, without a suffix. Left out: the name of the resource.
    #[schemars(schema_with = "formats::file_name")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// What it is for, as `systemctl list-timers` shows it. Left out: that Drover made it.
    #[schemars(schema_with = "formats::line")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// When, as systemd.time(7) writes it, such as `daily` or `Mon..Fri 04:00`. `systemd-analyze calendar` explains one.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9*:.,/~ _+-]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_calendar: Option<String>,
    /// The program, by its absolute path, and its arguments, without a shell; for a shell write `["/bin/sh", "-c", "…"]`.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<Vec<String>>,
    /// The user that it runs as. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Environment variables. They are readable by all who may read the NodeConfig: no place for secrets.
    #[schemars(extend("maxProperties" = 64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<BTreeMap<String, String>>,
    /// Run at once when a run was missed while the machine was off. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persistent: Option<bool>,
    /// Wait for a random time of up to so many seconds, so that not all machines begin at once. Left out: 0.
    #[schemars(range(min = 0, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub randomized_delay_seconds: Option<i32>,
    /// The command is ended after so many seconds. Left out: never.
    #[schemars(range(min = 1, max = 86400))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<i32>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}

/// A command that cron runs: `/etc/cron.d/NAME`. A `timer` can do the same and says when it failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' || has(self.schedule) && has(self.command)",
    "a cron job has schedule and command; to remove one write ensure: Absent"
))]
pub struct Cron {
    /// Names the file: letters, digits, `-` and `_` only, because cron ignores other files. Left out: the name of the resource.
    #[schemars(length(max = 128), regex(pattern = r"^[A-Za-z0-9_-]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// `minute hour day-of-month month day-of-week` as in crontab(5), such as `30 4 * * 1-5`, or `@daily`, `@reboot`, ...
    #[schemars(length(min = 1, max = 255))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<String>,
    /// The user that it runs as. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The command, for a shell, on one line. A `%` is a `%`: it is escaped for cron.
    #[schemars(length(max = 900), regex(pattern = r"^[^\r\n\x00]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<String>,
    /// Environment variables of the job, such as `MAILTO`.
    #[schemars(extend("maxProperties" = 64))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<BTreeMap<String, String>>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
}
