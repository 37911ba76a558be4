//! Which type a resource has.

use std::fmt;

use drover_crds::{
    AptRepository, Archive, AuthorizedKey, Block, CaCertificate, Cron, Directory, Download, Exec, File, Group,
    Hostname, HostsEntry, Ini, KernelModule, Limits, Line, Mount, NodeConfigResource, Package, Reboot, Service,
    Sudoers, Swap, Symlink, Sysctl, SystemdDropIn, SystemdUnit, Timer, Timezone, User, YumRepository,
};

/// The one type of a resource.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) enum Kind<'a> {
    File(&'a File),
    Directory(&'a Directory),
    Symlink(&'a Symlink),
    Line(&'a Line),
    Block(&'a Block),
    Ini(&'a Ini),
    Download(&'a Download),
    Archive(&'a Archive),
    Package(&'a Package),
    AptRepository(&'a AptRepository),
    YumRepository(&'a YumRepository),
    Service(&'a Service),
    SystemdUnit(&'a SystemdUnit),
    SystemdDropIn(&'a SystemdDropIn),
    Timer(&'a Timer),
    Cron(&'a Cron),
    User(&'a User),
    Group(&'a Group),
    AuthorizedKey(&'a AuthorizedKey),
    Sudoers(&'a Sudoers),
    Sysctl(&'a Sysctl),
    KernelModule(&'a KernelModule),
    Mount(&'a Mount),
    Swap(&'a Swap),
    Limits(&'a Limits),
    Hostname(&'a Hostname),
    Timezone(&'a Timezone),
    HostsEntry(&'a HostsEntry),
    CaCertificate(&'a CaCertificate),
    Exec(&'a Exec),
    Reboot(&'a Reboot),
}

/// What a resource has that has not exactly one type: the names of its types.
#[derive(Debug)]
pub(in crate::compile) struct Given(Vec<&'static str>);

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(" and ")) }
    }
}

impl<'a> Kind<'a> {
    /// The type that a resource has.
    pub(in crate::compile) fn of(resource: &'a NodeConfigResource) -> Result<Self, Given> {
        // Each field is named, so that a new type is not forgotten here.
        let NodeConfigResource {
            name: _,
            file,
            directory,
            symlink,
            line,
            block,
            ini,
            download,
            archive,
            package,
            apt_repository,
            yum_repository,
            service,
            systemd_unit,
            systemd_drop_in,
            timer,
            cron,
            user,
            group,
            authorized_key,
            sudoers,
            sysctl,
            kernel_module,
            mount,
            swap,
            limits,
            hostname,
            timezone,
            hosts_entry,
            ca_certificate,
            exec,
            reboot,
            require: _,
            before: _,
            notify: _,
            notify_at_end: _,
            when: _,
            render: _,
            drift: _,
            disruption: _,
            sensitive: _,
        } = resource;
        let given = [
            file.as_deref().map(Self::File),
            directory.as_deref().map(Self::Directory),
            symlink.as_deref().map(Self::Symlink),
            line.as_deref().map(Self::Line),
            block.as_deref().map(Self::Block),
            ini.as_deref().map(Self::Ini),
            download.as_deref().map(Self::Download),
            archive.as_deref().map(Self::Archive),
            package.as_deref().map(Self::Package),
            apt_repository.as_deref().map(Self::AptRepository),
            yum_repository.as_deref().map(Self::YumRepository),
            service.as_deref().map(Self::Service),
            systemd_unit.as_deref().map(Self::SystemdUnit),
            systemd_drop_in.as_deref().map(Self::SystemdDropIn),
            timer.as_deref().map(Self::Timer),
            cron.as_deref().map(Self::Cron),
            user.as_deref().map(Self::User),
            group.as_deref().map(Self::Group),
            authorized_key.as_deref().map(Self::AuthorizedKey),
            sudoers.as_deref().map(Self::Sudoers),
            sysctl.as_deref().map(Self::Sysctl),
            kernel_module.as_deref().map(Self::KernelModule),
            mount.as_deref().map(Self::Mount),
            swap.as_deref().map(Self::Swap),
            limits.as_deref().map(Self::Limits),
            hostname.as_deref().map(Self::Hostname),
            timezone.as_deref().map(Self::Timezone),
            hosts_entry.as_deref().map(Self::HostsEntry),
            ca_certificate.as_deref().map(Self::CaCertificate),
            exec.as_deref().map(Self::Exec),
            reboot.as_deref().map(Self::Reboot),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(kind), None) => Ok(kind),
            (first, second) => Err(Given(first.into_iter().chain(second).chain(given).map(Self::name).collect())),
        }
    }

    /// Its name in a NodeConfig.
    pub(in crate::compile) fn name(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Symlink(_) => "symlink",
            Self::Line(_) => "line",
            Self::Block(_) => "block",
            Self::Ini(_) => "ini",
            Self::Download(_) => "download",
            Self::Archive(_) => "archive",
            Self::Package(_) => "package",
            Self::AptRepository(_) => "aptRepository",
            Self::YumRepository(_) => "yumRepository",
            Self::Service(_) => "service",
            Self::SystemdUnit(_) => "systemdUnit",
            Self::SystemdDropIn(_) => "systemdDropIn",
            Self::Timer(_) => "timer",
            Self::Cron(_) => "cron",
            Self::User(_) => "user",
            Self::Group(_) => "group",
            Self::AuthorizedKey(_) => "authorizedKey",
            Self::Sudoers(_) => "sudoers",
            Self::Sysctl(_) => "sysctl",
            Self::KernelModule(_) => "kernelModule",
            Self::Mount(_) => "mount",
            Self::Swap(_) => "swap",
            Self::Limits(_) => "limits",
            Self::Hostname(_) => "hostname",
            Self::Timezone(_) => "timezone",
            Self::HostsEntry(_) => "hostsEntry",
            Self::CaCertificate(_) => "caCertificate",
            Self::Exec(_) => "exec",
            Self::Reboot(_) => "reboot",
        }
    }
}
