//! Parts of files whose rest belongs to somebody else.

use drover_catalog::{Edit, EditSpec, Part, Place, Presence, Sensitive};
use drover_crds::{Block, Ensure, Ini, Line};
use regex::Regex;

use super::{
    Made,
    files::presence,
    scope::{Body, Owned, Scope, is_one_line},
};
use crate::compile::CompileError;

const REGEX: &str = "must be a regular expression of Rust's regex, see https://docs.rs/regex/latest/regex/#syntax";

pub(super) fn line(spec: &Line, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Line {
        path,
        line,
        matching,
        insert_after,
        insert_before,
        at_beginning,
        ensure,
        create,
        mode,
        owner,
        group,
        validate,
    } = spec;
    let absent = *ensure == Some(Ensure::Absent);
    let said = line.is_some() || absent && matching.is_some();
    scope.ensure(said, "line.line", "must be given; only with ensure: Absent may matching be alone")?;
    let line = line.as_deref().unwrap_or_default();
    scope.ensure(is_one_line(line), "line.line", "must be one line, without its end")?;
    let matching = pattern("line.matching", matching.as_ref(), scope)?;
    if let Some(matching) = &matching
        && !absent
        && !Regex::new(matching).is_ok_and(|regex| regex.is_match(line))
    {
        let wanted = "must match line too, or the next run would add it once more";
        return Err(scope.invalid("line.matching", wanted));
    }
    let owned = Owned {
        fields: ["line.mode", "line.owner", "line.group"],
        mode: mode.as_ref(),
        default_mode: 0o644,
        owner: owner.as_ref(),
        group: group.as_ref(),
    };
    let after = pattern("line.insertAfter", insert_after.as_ref(), scope)?;
    let before = pattern("line.insertBefore", insert_before.as_ref(), scope)?;
    let place = match (after, before, *at_beginning) {
        (None, None, None | Some(false)) => Place::End,
        (Some(after), None, None | Some(false)) => Place::After(after),
        (None, Some(before), None | Some(false)) => Place::Before(before),
        (None, None, Some(true)) => Place::Beginning,
        _ => return Err(scope.invalid("line", "must have at most one of insertAfter, insertBefore and atBeginning")),
    };
    let edit = Edit::Line { state: presence(*ensure), line: Sensitive::new(line), matching, place };
    Ok(Part::Edit(EditSpec {
        path: scope.path("line.path", path)?,
        edit,
        create: create.unwrap_or(false).then(|| scope.ownership(&owned)).transpose()?,
        validate: scope.validate("line.validate", validate.as_ref())?,
    })
    .into())
}

pub(super) fn block(spec: &Block, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Block { path, content, template, comment, insert_after, ensure, create, mode, owner, group, validate } = spec;
    let wanted = "must have either content or template, or ensure: Absent and neither of them";
    let body = Body { ensure: *ensure, content: content.as_ref(), template: template.as_ref(), from: None };
    let content = scope.body("block", wanted, body)?;
    let text = |bytes: drover_catalog::SensitiveBytes| String::from_utf8_lossy(bytes.expose()).into_owned();
    let content = content.map(text).unwrap_or_default();
    let comment = comment.as_deref().unwrap_or("#");
    scope.ensure(
        is_one_line(comment) && !comment.is_empty(),
        "block.comment",
        "must be what begins a comment, such as #",
    )?;
    let (begin, end) =
        (format!("{comment} BEGIN Drover {}", scope.label()), format!("{comment} END Drover {}", scope.label()));
    let marker = content.lines().any(|line| line == begin || line == end);
    scope.ensure(!marker, "block", "must not have its own marker lines in it; leave them out, they are added")?;
    let place = pattern("block.insertAfter", insert_after.as_ref(), scope)?.map_or(Place::End, Place::After);
    let owned = Owned {
        fields: ["block.mode", "block.owner", "block.group"],
        mode: mode.as_ref(),
        default_mode: 0o644,
        owner: owner.as_ref(),
        group: group.as_ref(),
    };
    Ok(Part::Edit(EditSpec {
        path: scope.path("block.path", path)?,
        edit: Edit::Block { state: presence(*ensure), content: Sensitive::new(content), begin, end, place },
        create: create.unwrap_or(false).then(|| scope.ownership(&owned)).transpose()?,
        validate: scope.validate("block.validate", validate.as_ref())?,
    })
    .into())
}

pub(super) fn ini(spec: &Ini, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Ini { path, section, key, value, separator, ensure, create, mode, owner, group, validate } = spec;
    let state = presence(*ensure);
    let wanted = "must be given, and left out with ensure: Absent";
    scope.ensure(value.is_some() == (state == Presence::Present), "ini.value", wanted)?;
    let value = value.as_deref().unwrap_or_default();
    scope.ensure(is_one_line(value), "ini.value", "must be one line")?;
    let section = section.as_deref().unwrap_or_default();
    scope.ensure(
        is_one_line(section) && !section.contains(']'),
        "ini.section",
        "must be one line, without brackets",
    )?;
    let plain = !key.is_empty()
        && key.trim() == key
        && is_one_line(key)
        && !key.contains('=')
        && !key.starts_with(['[', '#', ';']);
    scope.ensure(plain, "ini.key", "must be one line without =, which begins with neither [, # nor ;")?;
    let separator = separator.as_deref().unwrap_or(" = ");
    let fits = matches!(separator.trim_matches([' ', '\t']), "=" | ":") || matches!(separator, " " | "\t");
    scope.ensure(fits, "ini.separator", "must be = or :, with or without spaces around, or a space")?;
    let owned = Owned {
        fields: ["ini.mode", "ini.owner", "ini.group"],
        mode: mode.as_ref(),
        default_mode: 0o644,
        owner: owner.as_ref(),
        group: group.as_ref(),
    };
    Ok(Part::Edit(EditSpec {
        path: scope.path("ini.path", path)?,
        edit: Edit::Ini {
            state,
            section: section.to_owned(),
            key: key.clone(),
            value: Sensitive::new(value),
            separator: separator.to_owned(),
        },
        create: create.unwrap_or(false).then(|| scope.ownership(&owned)).transpose()?,
        validate: scope.validate("ini.validate", validate.as_ref())?,
    })
    .into())
}

fn pattern(field: &'static str, given: Option<&String>, scope: &Scope<'_>) -> Result<Option<String>, CompileError> {
    let Some(given) = given else { return Ok(None) };
    scope.ensure(!given.is_empty() && Regex::new(given).is_ok(), field, REGEX)?;
    Ok(Some(given.clone()))
}
