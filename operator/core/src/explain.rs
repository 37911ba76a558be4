//! Why a resource is on a machine, in words for the person who asks for it there.

use std::fmt::Write as _;

use drover_catalog::{Catalog, Disruption, DriftMode, Finish, Part, Resource};

use crate::{compile::Hint, disruption};

/// There is nothing to explain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No resource has this name.
    #[error("no resource of this machine's catalog is called `{name}`{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// Which name may have been meant.
        hint: Hint,
    },
    /// Several resources have this name.
    #[error("several NodeConfigs have a resource `{name}`; write one of {}", .ids.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// `<node config>/<resource>`.
        ids: Vec<String>,
    },
}

/// Says why a resource is on the machine: from which NodeConfig and revision, what it consists of, what it waits for and
/// tells, what happens when the machine differs, what a change costs, and where its data is from. Without any content.
///
/// `name` is `<node config>/<resource>`, or the name alone where one NodeConfig has it.
pub fn explain(catalog: &Catalog, name: &str) -> Result<String, ExplainError> {
    let resource = find(catalog, name)?;
    let node_config = resource.id.node_config();
    let revision = catalog.revisions.iter().find(|revision| revision.node_config == node_config);
    let mut lines = vec![
        format!("{} {}", resource.type_name, resource.id),
        match revision {
            Some(revision) => format!("from: NodeConfig {node_config}, revision {}", revision.revision),
            None => format!("from: NodeConfig {node_config}"),
        },
    ];
    if resource.secret_names {
        lines.push("makes so: not shown, as a secret is in its fields".to_owned());
    } else {
        lines.extend(resource.parts.iter().map(|part| format!("makes so: {}", part_in_words(part))));
        lines.extend(resource.finish.iter().map(|finish| format!("then: {}", finish_in_words(finish))));
    }
    lines.extend(order(catalog, resource));
    lines.push(format!("drift: {}", drift_in_words(resource.drift)));
    lines.push(format!("disruption: {}", cost_in_words(catalog, resource)));
    lines.extend(resource.origins.iter().map(|origin| format!("reads: {} of {}", origin.key, origin.source)));
    lines.push(
        if resource.sensitive {
            "sensitive: yes; no value of it is shown in diffs, reports and backups"
        } else {
            "sensitive: no"
        }
        .to_owned(),
    );
    Ok(lines.into_iter().enumerate().fold(String::new(), |mut text, (number, line)| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}{line}", if number == 0 { "" } else { "  " });
        text
    }))
}

fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Resource, ExplainError> {
    let called = |resource: &&Resource| {
        let id = resource.id.as_str();
        id == name || id.split_once('/').is_some_and(|(_, short)| short == name)
    };
    let found: Vec<&Resource> = catalog.resources.iter().filter(called).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let ids = catalog.resources.iter().map(|resource| resource.id.as_str());
            let names = ids.flat_map(|id| [id, id.split_once('/').map_or(id, |(_, short)| short)]);
            Err(ExplainError::Unknown { name: name.to_owned(), hint: Hint::near(name, names) })
        }
        several => Err(ExplainError::Ambiguous {
            name: name.to_owned(),
            ids: several.iter().map(|resource| resource.id.to_string()).collect(),
        }),
    }
}

/// What it waits for and what waits for it, with the reason.
fn order<'a>(catalog: &'a Catalog, resource: &'a Resource) -> impl Iterator<Item = String> + 'a {
    let id = &resource.id;
    let ours = [
        ("requires", &resource.require, "comes first; when it fails, this one is skipped"),
        ("notifies", &resource.notify, "is told in its turn when this one changed"),
        ("notifies at the end", &resource.notify_at_end, "is told at the end of the run when this one changed"),
    ];
    let ours = ours
        .into_iter()
        .flat_map(|(verb, ids, why)| ids.iter().map(move |other| format!("{verb}: {other}, which {why}")));
    let theirs = catalog.resources.iter().flat_map(move |other| {
        let links = [
            ("required by", &other.require, "which is skipped when this one fails"),
            ("notified by", &other.notify, "whose change makes this one act"),
            ("notified at the end by", &other.notify_at_end, "whose change makes this one act once"),
        ];
        let about_us = links.into_iter().filter(|(_, ids, _)| ids.contains(id));
        about_us.map(|(verb, _, why)| format!("{verb}: {}, {why}", other.id)).collect::<Vec<_>>()
    });
    ours.chain(theirs)
}

fn drift_in_words(mode: DriftMode) -> &'static str {
    match mode {
        DriftMode::Correct => "Correct: a difference is corrected at the next check",
        DriftMode::Report => "Report: a difference is reported and left",
        DriftMode::Ignore => "Ignore: once applied, nobody looks at it until it is written anew",
    }
}

fn cost_in_words(catalog: &Catalog, resource: &Resource) -> String {
    let of_config: Vec<Resource> =
        catalog.resources.iter().filter(|other| other.id.node_config() == resource.id.node_config()).cloned().collect();
    let costs = disruption::by_nature(&of_config);
    let by_nature = of_config.iter().zip(costs).find(|(other, _)| other.id == resource.id).map(|(_, cost)| cost);
    let why = if by_nature == Some(resource.disruption) {
        "as its nature and what it notifies have it"
    } else {
        "as its `disruption`, or spec.disruption of its NodeConfig, says"
    };
    let what = match resource.disruption {
        Disruption::None => "None: nobody notices a change",
        Disruption::Reload => "Reload: a change makes a service read its configuration again",
        Disruption::Restart => "Restart: a change restarts a service",
        Disruption::Drain => "Drain: before a change, the machine's work goes elsewhere",
        Disruption::Reboot => "Reboot: a change reboots the machine",
    };
    format!("{what}; {why}")
}

/// The thing that the part is about, without what it shall be like.
fn part_in_words(part: &Part) -> String {
    match (part, part.claims().into_iter().next()) {
        // An edit is of one line or key, which its claim names without content.
        (Part::Edit(_), Some(claim)) => format!("edit {claim}"),
        (_, Some(claim)) => claim.thing,
        // The arguments may be secret.
        (Part::Command(command), None) => {
            format!("command {}", command.argv.first().map_or("without a program", String::as_str))
        }
        (Part::Reboot(_), None) => "a reboot, when its Rollout says so".to_owned(),
        (_, None) => "nothing that has a name".to_owned(),
    }
}

fn finish_in_words(finish: &Finish) -> String {
    match finish {
        Finish::Command { argv, .. } => {
            format!("command {}", argv.first().map_or("without a program", String::as_str))
        }
        Finish::ReadUnitFiles => "systemd reads its unit files again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::{
        CommandSpec, Digest, FileSpec, HostIdentity, Origin, ResourceId, RevisionRef, SensitiveBytes, ServiceSpec,
        ServiceState,
    };
    use expect_test::expect;

    use super::*;

    fn catalog() -> Catalog {
        let file = FileSpec {
            path: "/etc/web".into(),
            content: Some(SensitiveBytes::new("hunter2")),
            mode: 0o600,
            owner: "root".into(),
            group: "root".into(),
            validate: None,
        };
        let service = ServiceSpec {
            unit: "web.service".into(),
            state: Some(ServiceState::Running),
            enabled: None,
            masked: None,
            reload_on_notify: true,
        };
        let command = CommandSpec { argv: vec!["curl".into(), "hunter2".into()], ..CommandSpec::default() };
        let id = |name: &str| ResourceId::new("web", name);
        let config = Resource {
            finish: vec![Finish::ReadUnitFiles],
            require: vec![id("fetch")],
            notify: vec![id("service")],
            drift: DriftMode::Report,
            disruption: Disruption::Drain,
            sensitive: true,
            origins: vec![Origin { key: "data.password".into(), source: "Secret door".into() }],
            ..Resource::new(id("config"), "file", vec![Part::File(file)])
        };
        let service = Resource {
            disruption: Disruption::Restart,
            ..Resource::new(id("service"), "service", vec![Part::Service(service)])
        };
        let fetch = Resource {
            notify_at_end: vec![id("service")],
            ..Resource::new(id("fetch"), "exec", vec![Part::Command(command)])
        };
        let other = Resource::new(ResourceId::new("base", "service"), "exec", vec![]);
        Catalog {
            host: HostIdentity { name: "n".into(), uid: "u".into() },
            generation: 1,
            revisions: vec![RevisionRef { node_config: "web".into(), revision: "web-1".into() }],
            interval_seconds: 60,
            resources: vec![other, fetch, config, service],
            reboot: None,
            commands: vec![],
            digest: Digest::of(b""),
        }
    }

    #[test]
    fn says_all_that_is_known_and_no_content() {
        let all: String = ["config", "web/service", "fetch"].map(|name| explain(&catalog(), name).unwrap()).concat();
        assert!(!all.contains("hunter2"), "{all}");
        expect![[r"
            file web/config
              from: NodeConfig web, revision web-1
              makes so: path:/etc/web
              then: systemd reads its unit files again
              requires: web/fetch, which comes first; when it fails, this one is skipped
              notifies: web/service, which is told in its turn when this one changed
              drift: Report: a difference is reported and left
              disruption: Drain: before a change, the machine's work goes elsewhere; as its `disruption`, or spec.disruption of its NodeConfig, says
              reads: data.password of Secret door
              sensitive: yes; no value of it is shown in diffs, reports and backups
            service web/service
              from: NodeConfig web, revision web-1
              makes so: unit:web.service
              notified at the end by: web/fetch, whose change makes this one act once
              notified by: web/config, whose change makes this one act
              drift: Correct: a difference is corrected at the next check
              disruption: Restart: a change restarts a service; as its nature and what it notifies have it
              sensitive: no
            exec web/fetch
              from: NodeConfig web, revision web-1
              makes so: command curl
              notifies at the end: web/service, which is told at the end of the run when this one changed
              required by: web/config, which is skipped when this one fails
              drift: Correct: a difference is corrected at the next check
              disruption: None: nobody notices a change; as its `disruption`, or spec.disruption of its NodeConfig, says
              sensitive: no
        "]].assert_eq(&all);
    }

    #[test]
    fn an_unknown_name_gets_a_hint_and_one_of_several_a_question() {
        let told = |name: &str| explain(&catalog(), name).unwrap_err().to_string();
        expect!["no resource of this machine's catalog is called `confg`; did you mean `config`?"]
            .assert_eq(&told("confg"));
        expect!["several NodeConfigs have a resource `service`; write one of base/service, web/service"]
            .assert_eq(&told("service"));
    }
}
