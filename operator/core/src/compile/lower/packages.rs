//! Packages and where they come from.

use drover_catalog::{DirectorySpec, Finish, PackageSpec, PackageState, Part, Presence, SensitiveBytes};
use drover_crds::{AptRepository, AptType, Ensure, Package, PackageEnsure, SignedBy, YumRepository};

use super::{
    Made,
    files::owned_by_root,
    scope::{DEFAULT_TIMEOUT_SECONDS, Scope, is_one_line},
};
use crate::compile::CompileError;

const KEYRINGS: &str = "/etc/apt/keyrings";

pub(super) fn package(spec: &Package, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Package { package, ensure, version, held, allow_downgrade } = spec;
    let state = match ensure.unwrap_or_default() {
        PackageEnsure::Present => PackageState::Present,
        PackageEnsure::Absent => PackageState::Absent,
        PackageEnsure::Latest => PackageState::Latest,
    };
    let wanted = "must be left out, or ensure be Present";
    scope.ensure(version.is_none() || state == PackageState::Present, "package.version", wanted)?;
    let whole = |version: &String| {
        !version.is_empty() && version.chars().all(|c| c.is_ascii_alphanumeric() || "+.:~^_-".contains(c))
    };
    let wanted = "must be a whole version as the package manager prints it, such as \"1:2.4.57-2\"";
    scope.ensure(version.as_ref().is_none_or(whole), "package.version", wanted)?;
    let wanted = "must be a package's name: letters, digits and + . _ -, with a letter or digit first";
    Ok(Part::Package(PackageSpec {
        package: scope.named("package.package", package.as_ref(), is_package, wanted)?,
        state,
        version: version.clone(),
        held: *held,
        allow_downgrade: allow_downgrade.unwrap_or(false),
    })
    .into())
}

/// Names of deb-control(5) and of RPM. No option of a package manager passes for one.
fn is_package(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
}

/// A source of sources.list(5) in deb822 form, and its key beside.
pub(super) fn apt_repository(spec: &AptRepository, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let AptRepository { name, uris, suites, components, types, architectures, signed_by, enabled, ensure } = spec;
    let name = scope.file_name("aptRepository.name", name.as_ref())?;
    let sources = format!("sources.list.d/{name}.sources");
    let path = format!("/etc/apt/{sources}");
    let keyring = format!("{KEYRINGS}/{name}.asc");
    if *ensure == Some(Ensure::Absent) {
        // Lists of a repository that is gone are removed by an update of all.
        let parts = vec![Part::File(owned_by_root(path, None, 0o644)), Part::File(owned_by_root(keyring, None, 0o644))];
        return Ok(Made::from(parts).then(apt_get_update(&[])));
    }

    let wanted = "must be given, or ensure be Absent";
    scope.ensure(!uris.is_empty(), "aptRepository.uris", wanted)?;
    scope.ensure(!suites.is_empty(), "aptRepository.suites", wanted)?;
    let flat = suites.iter().filter(|suite| suite.ends_with('/')).count();
    let fits = flat == 0 && !components.is_empty() || flat == suites.len() && components.is_empty();
    let wanted = "must be given, such as [main]; only suites that all end with a slash have none";
    scope.ensure(fits, "aptRepository.components", wanted)?;
    let mut parts = Vec::new();
    let mut signed = None;
    if let Some(signed_by) = signed_by {
        let (key, path) = signing_key(signed_by, keyring, scope)?;
        if let Some(key) = key {
            // Older systems have no such folder. All repositories ask for it in the same way, so they do not compete.
            parts.push(Part::Directory(DirectorySpec {
                path: KEYRINGS.to_owned(),
                state: Presence::Present,
                mode: 0o755,
                owner: "root".to_owned(),
                group: "root".to_owned(),
                purge: false,
                keep: Vec::new(),
            }));
            parts.push(Part::File(owned_by_root(path.clone(), Some(key), 0o644)));
        }
        signed = Some(path);
    }

    let mut text = scope.header();
    let mut field = |key: &str, value: &str| text.extend([key, ": ", value, "\n"]);
    let types: Vec<&str> = if types.is_empty() { vec!["deb"] } else { types.iter().map(|t| apt_type(*t)).collect() };
    field("Types", &types.join(" "));
    field("URIs", &scope.words("aptRepository.uris", uris)?.join(" "));
    field("Suites", &scope.words("aptRepository.suites", suites)?.join(" "));
    if !components.is_empty() {
        field("Components", &scope.words("aptRepository.components", components)?.join(" "));
    }
    if !architectures.is_empty() {
        field("Architectures", &scope.words("aptRepository.architectures", architectures)?.join(" "));
    }
    if let Some(signed) = signed {
        field("Signed-By", &signed);
    }
    if *enabled == Some(false) {
        field("Enabled", "no");
    }
    parts.push(Part::File(owned_by_root(path, Some(SensitiveBytes::new(text)), 0o644)));
    // Only this repository is asked, so one that is broken elsewhere does not stand in the way.
    let only = [format!("Dir::Etc::SourceList={sources}"), "Dir::Etc::SourceParts=-".to_owned()];
    Ok(Made::from(parts).then(apt_get_update(&only)))
}

/// The key's own text where it is not on the machine yet, and where it is then.
fn signing_key(
    signed_by: &SignedBy,
    keyring: String,
    scope: &mut Scope<'_>,
) -> Result<(Option<SensitiveBytes>, String), CompileError> {
    let SignedBy { key, key_from, path } = signed_by;
    let key = match (key, key_from, path) {
        (Some(key), None, None) => SensitiveBytes::new(key.as_str()),
        (None, Some(from), None) => {
            let key = scope.content(from)?;
            if scope.facts().is_none() {
                return Ok((Some(key), keyring));
            }
            key
        }
        (None, None, Some(path)) => {
            scope.words("aptRepository.signedBy.path", std::slice::from_ref(path))?;
            return Ok((None, scope.path("aptRepository.signedBy.path", path)?));
        }
        _ => return Err(scope.invalid("aptRepository.signedBy", "must have exactly one of key, keyFrom and path")),
    };
    let armored = std::str::from_utf8(key.expose())
        .is_ok_and(|key| key.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    let wanted = "must be an armored public key, -----BEGIN PGP PUBLIC KEY BLOCK-----; gpg --armor --export makes one";
    scope.ensure(armored, "aptRepository.signedBy", wanted)?;
    Ok((Some(key), keyring))
}

fn apt_type(kind: AptType) -> &'static str {
    match kind {
        AptType::Deb => "deb",
        AptType::DebSrc => "deb-src",
    }
}

/// A refresh of the package lists that fails when one can not be had; by itself, apt-get only warns.
fn apt_get_update(only: &[String]) -> Finish {
    let mut argv: Vec<String> =
        ["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"].map(str::to_owned).into();
    if !only.is_empty() {
        // The lists of the others stay.
        argv.extend(["-o", "APT::Get::List-Cleanup=0"].map(str::to_owned));
    }
    for option in only {
        argv.extend(["-o".to_owned(), option.clone()]);
    }
    Finish::Command { argv, timeout_seconds: DEFAULT_TIMEOUT_SECONDS }
}

/// A file of dnf.conf(5), section REPO OPTIONS. dnf reads it at its next run.
pub(super) fn yum_repository(spec: &YumRepository, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let YumRepository { name, description, baseurl, mirrorlist, metalink, gpgkey, gpgcheck, enabled, ensure } = spec;
    let name = scope.file_name("yumRepository.name", name.as_ref())?;
    let path = format!("/etc/yum.repos.d/{name}.repo");
    let absent = *ensure == Some(Ensure::Absent);
    let ways = usize::from(!baseurl.is_empty()) + usize::from(mirrorlist.is_some()) + usize::from(metalink.is_some());
    let wanted = "must have exactly one of baseurl, mirrorlist and metalink, or ensure: Absent and none of them";
    scope.ensure(ways == usize::from(!absent), "yumRepository", wanted)?;
    if absent {
        return Ok(Part::File(owned_by_root(path, None, 0o644)).into());
    }
    let description = description.as_deref().unwrap_or(&name);
    scope.one_line("yumRepository.description", description)?;
    let mut text = scope.header();
    let mut field = |key: &str, value: &str| text.extend([key, "=", value, "\n"]);
    field(&format!("[{name}]\nname"), description);
    if !baseurl.is_empty() {
        field("baseurl", &scope.words("yumRepository.baseurl", baseurl)?.join(" "));
    }
    for (key, label, url) in
        [("mirrorlist", "yumRepository.mirrorlist", mirrorlist), ("metalink", "yumRepository.metalink", metalink)]
    {
        if let Some(url) = url {
            scope.ensure(is_one_line(url) && !url.contains(' '), label, "must be a URL without white space")?;
            field(key, url);
        }
    }
    field("enabled", if enabled.unwrap_or(true) { "1" } else { "0" });
    field("gpgcheck", if gpgcheck.unwrap_or(true) { "1" } else { "0" });
    if !gpgkey.is_empty() {
        field("gpgkey", &scope.words("yumRepository.gpgkey", gpgkey)?.join(" "));
    }
    Ok(Part::File(owned_by_root(path, Some(SensitiveBytes::new(text)), 0o644)).into())
}
