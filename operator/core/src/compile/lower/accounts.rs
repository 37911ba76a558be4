//! Who is on a machine, how they get in, and what they may do.

use drover_catalog::{AuthorizedKeysSpec, GroupSpec, Part, Sensitive, SensitiveBytes, UserSpec};
use drover_crds::{AuthorizedKey, ContentSource, Ensure, Group, PasswordHash, Sudoers, User};

use super::{
    Made,
    files::{owned_by_root, presence},
    scope::{Body, Scope, is_account, is_one_line},
};
use crate::compile::CompileError;

const NAME: &str = "must be at most 32 lower-case letters, digits and _ . -, with a letter or _ first";

pub(super) fn user(spec: &User, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let User {
        name,
        ensure,
        uid,
        group,
        groups,
        groups_exclusive,
        home,
        manage_home,
        shell,
        comment,
        system,
        password_hash,
        locked,
    } = spec;
    let groups_exclusive = groups_exclusive.unwrap_or(false);
    scope.ensure(!groups_exclusive || groups.is_some(), "user.groups", "must be given where groupsExclusive is")?;
    let are_groups = groups.iter().flatten().all(|group| is_account(group));
    scope.ensure(are_groups, "user.groups", "must be names of groups: letters, digits and _ . -")?;
    let comment_fits = comment.as_deref().is_none_or(|comment| is_one_line(comment) && !comment.contains(':'));
    scope.ensure(comment_fits, "user.comment", "must be one line without a colon, see passwd(5)")?;
    let hash = match password_hash {
        None => None,
        Some(PasswordHash { secret_key_ref }) => {
            let source = ContentSource { config_map_key_ref: None, secret_key_ref: Some(secret_key_ref.clone()) };
            // Secrets that are made from files end with a line break.
            let text = scope.text_of("user.passwordHash", &source)?;
            text.map(|text| Sensitive::new(text.expose().trim_end_matches(['\n', '\r'])))
        }
    };
    // A password in plain text would lock its user out, and be readable in /etc/shadow.
    let hashed = hash.as_ref().is_none_or(|hash| {
        hash.expose().starts_with('$') && !hash.expose().contains(|c: char| c == ':' || c.is_whitespace())
    });
    let wanted = "must be a hash that begins with $, see crypt(5); `mkpasswd` makes one of a password";
    scope.ensure(hashed, "user.passwordHash", wanted)?;
    let optional_path = |field, path: Option<&String>| path.map(|path| scope.path(field, path)).transpose();
    Ok(Part::User(UserSpec {
        name: scope.named("user.name", name.as_ref(), is_login, NAME)?,
        state: presence(*ensure),
        uid: id("user.uid", *uid, scope)?,
        group: group.as_ref().map(|group| scope.account("user.group", Some(group))).transpose()?,
        groups: groups.clone(),
        groups_exclusive,
        home: optional_path("user.home", home.as_ref())?,
        manage_home: manage_home.unwrap_or(false),
        shell: optional_path("user.shell", shell.as_ref())?,
        comment: comment.clone(),
        system: system.unwrap_or(false),
        password_hash: hash,
        locked: *locked,
    })
    .into())
}

pub(super) fn group(spec: &Group, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Group { name, ensure, gid, system } = spec;
    Ok(Part::Group(GroupSpec {
        name: scope.named("group.name", name.as_ref(), is_login, NAME)?,
        state: presence(*ensure),
        gid: id("group.gid", *gid, scope)?,
        system: system.unwrap_or(false),
    })
    .into())
}

/// A number of a user or group. The greatest of its type means "none" to the kernel.
fn id(field: &'static str, id: Option<i64>, scope: &Scope<'_>) -> Result<Option<u32>, CompileError> {
    let number = |id: i64| u32::try_from(id).ok().filter(|id| *id < u32::MAX);
    let wanted = "must be a number from 0 to 4294967294";
    id.map(|id| number(id).ok_or_else(|| scope.invalid(field, wanted))).transpose()
}

/// What useradd(8) and groupadd(8) take on all systems.
fn is_login(name: &str) -> bool {
    let name = name.strip_suffix('$').unwrap_or(name);
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.len() <= 32
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c))
}

pub(super) fn authorized_key(spec: &AuthorizedKey, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let AuthorizedKey { user, keys, exclusive, ensure, path } = spec;
    let exclusive = exclusive.unwrap_or(false);
    let apart = !(exclusive && *ensure == Some(Ensure::Absent));
    scope.ensure(
        apart,
        "authorizedKey.exclusive",
        "must be left out where ensure is Absent: the keys would be the only ones and gone",
    )?;
    let wanted = "must be lines of authorized_keys, such as `ssh-ed25519 AAAA… ann@laptop`; options may come first";
    scope.ensure(!keys.is_empty() && keys.iter().all(|key| is_key(key)), "authorizedKey.keys", wanted)?;
    Ok(Part::AuthorizedKeys(AuthorizedKeysSpec {
        user: scope.account("authorizedKey.user", Some(user))?,
        state: presence(*ensure),
        keys: keys.clone(),
        exclusive,
        path: path.as_ref().map(|path| scope.path("authorizedKey.path", path)).transpose()?,
    })
    .into())
}

/// A line of sshd(8), section `AUTHORIZED_KEYS FILE FORMAT`: somewhere a type of key, and its base64 after that.
fn is_key(line: &str) -> bool {
    let is_type = |word: &str| word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-");
    // Each key's base64 begins with the length of its type's name: three null bytes and more.
    let is_base64 = |word: &str| {
        word.starts_with("AAAA")
            && word.len() >= 40
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    is_one_line(line) && words.windows(2).any(|pair| is_type(pair[0]) && is_base64(pair[1]))
}

/// A file of `/etc/sudoers.d`. A mistake in any of them takes sudo from everybody, so visudo looks at it first.
pub(super) fn sudoers(spec: &Sudoers, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Sudoers { name, lines, content, template, ensure } = spec;
    let wanted = "must be a name of letters, digits, _ and -; sudo ignores files with . or ~ in their names";
    let name = scope.named("sudoers.name", name.as_ref(), is_sudoers_name, wanted)?;
    let fields = "must have exactly one of lines, content and template, or ensure: Absent and none of them";
    let one_line_each = lines.iter().all(|line| is_one_line(line));
    scope.ensure(one_line_each, "sudoers.lines", "must be one line each")?;
    let joined = (!lines.is_empty()).then(|| format!("{}{}\n", scope.header(), lines.join("\n")));
    scope.ensure(joined.is_none() || content.is_none(), "sudoers", fields)?;
    let content = content.as_ref().or(joined.as_ref());
    let body = Body { ensure: *ensure, content, template: template.as_ref(), from: None };
    let content: Option<SensitiveBytes> = scope.body("sudoers", fields, body)?;
    let mut file = owned_by_root(format!("/etc/sudoers.d/{name}"), content, 0o440);
    file.validate = file.content.is_some().then(|| ["visudo", "-cf", "%"].map(str::to_owned).into());
    Ok(Part::File(file).into())
}

fn is_sudoers_name(name: &str) -> bool {
    super::scope::is_file_name(name) && !name.contains('.')
}
