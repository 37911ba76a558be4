//! Commands and reboots.

use std::collections::BTreeMap;

use drover_catalog::{CommandSpec, Part, RebootSpec, Sensitive};
use drover_crds::{ContentSource, EnvironmentSource, Exec, Reboot};

use super::{
    Made,
    scope::{DEFAULT_TIMEOUT_SECONDS, Scope, positive},
    services::{VARIABLE, is_variable},
};
use crate::compile::CompileError;

pub(super) fn exec(spec: &Exec, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Exec {
        command,
        creates,
        unless,
        only_if,
        refresh_only,
        cwd,
        user,
        umask,
        environment,
        environment_from,
        timeout_seconds,
        tries,
        try_sleep_seconds,
        exit_codes,
    } = spec;
    let refresh_only = refresh_only.unwrap_or(false);
    let guarded = creates.is_some() || unless.is_some() || only_if.is_some() || refresh_only;
    let wanted = "must have a guard, or it would run at every check of the machine; add creates, unless, onlyIf or refreshOnly: true";
    scope.ensure(guarded, "exec", wanted)?;
    let argv = scope.argv("exec.command", Some(command))?.unwrap_or_default();
    let mut variables: BTreeMap<String, Sensitive> =
        environment.iter().flatten().map(|(name, value)| (name.clone(), Sensitive::new(value))).collect();
    for EnvironmentSource { name, config_map_key_ref, secret_key_ref } in environment_from {
        let source =
            ContentSource { config_map_key_ref: config_map_key_ref.clone(), secret_key_ref: secret_key_ref.clone() };
        let value = scope.text_of("exec.environmentFrom", &source)?.unwrap_or_default();
        variables.insert(name.clone(), value);
    }
    let fits = variables.iter().all(|(name, value)| is_variable(name) && !value.expose().contains('\0'));
    scope.ensure(fits, "exec.environment", VARIABLE)?;
    let cwd = cwd.as_deref().unwrap_or("/");
    if cwd != "/" {
        scope.path("exec.cwd", cwd)?;
    }
    Ok(Part::Command(CommandSpec {
        argv,
        creates: creates.as_ref().map(|creates| scope.path("exec.creates", creates)).transpose()?,
        unless: scope.argv("exec.unless", unless.as_ref())?,
        only_if: scope.argv("exec.onlyIf", only_if.as_ref())?,
        refresh_only,
        cwd: Some(cwd.to_owned()),
        user: user.as_ref().map(|user| scope.account("exec.user", Some(user))).transpose()?,
        umask: umask.as_ref().map(|umask| scope.octal("exec.umask", Some(umask), 0)).transpose()?,
        environment: variables,
        timeout_seconds: positive(*timeout_seconds, DEFAULT_TIMEOUT_SECONDS),
        tries: positive(*tries, 1),
        try_sleep_seconds: positive(*try_sleep_seconds, 0),
        exit_codes: exit_codes.clone(),
    })
    .into())
}

pub(super) fn reboot(spec: &Reboot, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Reboot { reason, when_system_asks } = spec;
    let reason = scope.one_line("reboot.reason", reason)?.to_owned();
    Ok(Part::Reboot(RebootSpec { reason, when_system_asks: when_system_asks.unwrap_or(false) }).into())
}
