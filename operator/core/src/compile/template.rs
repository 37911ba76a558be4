//! Files from Jinja templates: strict (an unknown name is an error), bounded (fuel and size), without includes, macros
//! or escaping, and with all white space as it was written.
//!
//! Errors show the template's own text at most, never a value: minijinja's error may carry values (its details print
//! operands, its debug form prints variables), so no part of it leaves this module but its kind, its line and spans of
//! the source. A template's author is trusted as one who may run commands as root on the machines anyway; the bounds
//! protect a master from mistakes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    sync::Arc,
};

use drover_catalog::Facts;
use minijinja::{
    Environment, Error, ErrorKind, Template, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind},
};

use super::{
    inputs::Read,
    names::{self, Hint},
    watched::Watched,
};
use crate::data::Data;

/// Instructions that one template may run: some 100,000 turns of a loop.
const FUEL: u64 = 1_000_000;
/// Bytes that one template may write: a revision must fit in etcd, and so should what a machine gets.
const MAX_OUTPUT: usize = 1 << 20;
/// Characters of a template that an error shows.
const EXCERPT: usize = 80;
/// Facts that agents show and templates do not know, each with all below it: with them, a catalog would be another one
/// every minute.
const VOLATILE: [&str; 7] = [
    "facts.load_averages",
    "facts.memory.swap.available_bytes",
    "facts.memory.swap.used_bytes",
    "facts.memory.system.available_bytes",
    "facts.memory.system.used_bytes",
    "facts.system_uptime",
    "facts.time",
];

/// Why a template gave no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is no Jinja template.
    #[error("line {line} of its template: {detail}; see https://docs.rs/minijinja/latest/minijinja/syntax")]
    Syntax {
        /// From 1.
        line: usize,
        /// What the parser says.
        detail: String,
    },
    /// It reads a name that is not known.
    #[error("line {line} of its template: `{name}` is not known{hint}")]
    UnknownName {
        /// From 1.
        line: usize,
        /// The name, as far as it could be followed.
        name: String,
        /// What would be known.
        hint: Hint,
    },
    /// It reads a name that no host can know.
    #[error("its template reads `{name}`, which is not known{hint}")]
    UnknownRoot {
        /// The name.
        name: String,
        /// What would be known.
        hint: Hint,
    },
    /// It reads a fact that changes by itself.
    #[error(
        "its template reads `{name}`, which changes by itself, so it is no part of a catalog; use a fact that stays the same while the machine runs"
    )]
    Volatile {
        /// The fact.
        name: String,
    },
    /// A condition gives something else than true or false.
    #[error("`when` gives {kind}; write a comparison, such as data.tier == 'web', which is true or false")]
    NoCondition {
        /// What it gives.
        kind: String,
    },
    /// It ran for too long.
    #[error("line {line} of its template: stopped after {FUEL} instructions; loop over less")]
    OutOfFuel {
        /// From 1.
        line: usize,
    },
    /// It wrote too much.
    #[error("its template writes more than {MAX_OUTPUT} bytes; a file of that size belongs in a package")]
    TooLarge,
    /// An operation does not fit its values.
    #[error("line {line} of its template: {what}{excerpt}")]
    Failed {
        /// From 1.
        line: usize,
        /// The kind of failure.
        what: String,
        /// The part of the template that failed, with its introduction.
        excerpt: String,
    },
}

/// Templates that are parsed once, and rendered for many machines.
#[derive(Clone)]
pub(super) struct Parsed(Arc<Environment<'static>>);

impl Parsed {
    /// What is no template is left out: where it is rendered, it is told why.
    pub(super) fn new(templates: impl IntoIterator<Item = String>) -> Self {
        let mut environment = environment();
        for template in templates {
            // Each is known by its own text.
            let _ = environment.add_template_owned(template.clone(), template);
        }
        Self(Arc::new(environment))
    }
}

/// What templates read of a machine: `facts` and `node`.
pub(super) struct Machine {
    facts: Value,
    node: Value,
}

impl Machine {
    pub(super) fn new(facts: &Facts, node_name: &str, labels: &BTreeMap<String, String>) -> Self {
        let node = Value::from_pairs([("name", Value::from(node_name)), ("labels", Value::from(Serde(labels)))]);
        Self { facts: Value::from(Serde(facts)), node }
    }
}

/// Renders the templates of one NodeConfig for one host.
pub(super) struct Templates {
    parsed: Parsed,
    context: Value,
    data: Watched,
}

impl Templates {
    /// What templates may read: `facts`, `data` and `node`.
    pub(super) fn new(parsed: &Parsed, machine: &Machine, data: &Data) -> Self {
        let data = Watched::new(data);
        let Machine { facts, node } = machine;
        let context = [("facts", facts.clone()), ("data", data.value()), ("node", node.clone())];
        Self { parsed: parsed.clone(), context: Value::from_pairs(context), data }
    }

    /// The file that the template makes, and what it read for that.
    pub(super) fn render(&self, template: &str) -> Result<(String, Read), TemplateError> {
        let Parsed(environment) = &self.parsed;
        if let Ok(parsed) = environment.get_template(template) {
            return self.rendered(template, &parsed);
        }
        // A template lives as long as its source, so the environment is borrowed for this one only; its filters are
        // shared by reference.
        let environment: Environment<'_> = (**environment).clone();
        let parsed = environment.template_from_str(template).map_err(|error| syntax_error(template, &error))?;
        self.rendered(template, &parsed)
    }

    fn rendered(&self, template: &str, parsed: &Template<'_, '_>) -> Result<(String, Read), TemplateError> {
        let mut output = Bounded { bytes: Vec::new(), full: false };
        self.data.read();
        match parsed.render_captured_to(self.context.clone(), &mut output) {
            Ok(_) => {}
            Err(_) if output.full => return Err(TemplateError::TooLarge),
            Err(error) => return Err(self.explain(template, &error)),
        }
        let text = String::from_utf8(output.bytes).map_err(|_| TemplateError::Failed {
            line: 1,
            what: "the result is not UTF-8".into(),
            excerpt: String::new(),
        })?;
        Ok((text, self.data.read()))
    }

    /// Whether the expression is true, and what it read for that.
    pub(super) fn holds(&self, expression: &str) -> Result<(bool, Read), TemplateError> {
        let environment: Environment<'_> = (*self.parsed.0).clone();
        let parsed = environment.compile_expression(expression).map_err(|error| syntax_error(expression, &error))?;
        self.data.read();
        let value = parsed.eval(self.context.clone()).map_err(|error| self.explain(expression, &error))?;
        match bool::try_from(value.clone()) {
            Ok(holds) if value.kind() == ValueKind::Bool => Ok((holds, self.data.read())),
            // An expression that is one name gives what is not there as undefined, and no error.
            _ if value.is_undefined() => Err(TemplateError::UnknownName {
                line: 1,
                hint: self.hint(expression.trim()),
                name: shorten(expression),
            }),
            _ => Err(TemplateError::NoCondition { kind: format!("a {}", value.kind()) }),
        }
    }

    fn explain(&self, template: &str, error: &Error) -> TemplateError {
        let line = error.line().unwrap_or(1);
        if error.kind() == ErrorKind::OutOfFuel {
            return TemplateError::OutOfFuel { line };
        }
        if let Some(name) = undefined_name(template, error) {
            // What is missing may be above the fact: `facts.memory.system` of `facts.memory.system.available_bytes`.
            let above = |fact: &&&str| fact.starts_with(&format!("{name}.")) && template.contains(**fact);
            let below = VOLATILE.iter().find(above).map(|fact| (*fact).to_owned());
            if let Some(name) = volatile(&name).or(below) {
                return TemplateError::Volatile { name };
            }
            return TemplateError::UnknownName { line, hint: self.hint(&name), name };
        }
        let source = error.range().and_then(|range| template.get(range)).unwrap_or_default();
        let excerpt = if source.is_empty() { String::new() } else { format!(" in `{}`", shorten(source)) };
        TemplateError::Failed { line, what: error.kind().to_string(), excerpt }
    }

    /// The names beside the one that is not known, found by following the path to it.
    fn hint(&self, name: &str) -> Hint {
        let (parent, last) = name.rsplit_once(['.', '[']).unwrap_or(("", name));
        let last = last.trim_matches(['"', ']', '\'']);
        let mut value = self.context.clone();
        // The keys of a map that came from a Secret are as secret as its values.
        if parent.strip_prefix("data.").is_some_and(|below| self.data.is_secret(below)) {
            return Hint::default();
        }
        for segment in parent.split('.').filter(|segment| !segment.is_empty()) {
            match value.get_attr(segment) {
                Ok(inner) if !inner.is_undefined() => value = inner,
                _ => return Hint::default(),
            }
        }
        // Keys only: `try_iter` of a map gives its keys, of anything else its elements, which may be secret.
        if value.kind() != ValueKind::Map {
            return Hint::default();
        }
        let Ok(keys) = value.try_iter() else {
            return Hint::default();
        };
        let known: BTreeSet<String> = keys.filter_map(|key| key.as_str().map(str::to_owned)).collect();
        let known: Vec<String> = known.into_iter().collect();
        names::known_in(if parent.is_empty() { "a template" } else { parent }, last, &known)
    }
}

/// What can be said of a template without a host: its syntax, that it starts from known names, and that none of them is of
/// what changes by itself.
pub(super) fn check(template: &str) -> Result<(), TemplateError> {
    let environment = environment();
    let parsed = environment.template_from_str(template).map_err(|error| syntax_error(template, &error))?;
    check_names(&environment, parsed.undeclared_variables(false), parsed.undeclared_variables(true))
}

/// As [`check`], of an expression.
pub(super) fn check_expression(expression: &str) -> Result<(), TemplateError> {
    let environment = environment();
    let parsed = environment.compile_expression(expression).map_err(|error| syntax_error(expression, &error))?;
    check_names(&environment, parsed.undeclared_variables(false), parsed.undeclared_variables(true))
}

fn check_names(
    environment: &Environment<'_>,
    names: HashSet<String>,
    paths: HashSet<String>,
) -> Result<(), TemplateError> {
    let roots: Vec<String> = ["data", "facts", "node"].map(str::to_owned).into();
    let known: BTreeSet<&str> =
        environment.globals().map(|(name, _)| name).chain(roots.iter().map(String::as_str)).collect();
    let unknown: BTreeSet<String> = names.into_iter().filter(|name| !known.contains(name.as_str())).collect();
    if let Some(name) = unknown.into_iter().next() {
        return Err(TemplateError::UnknownRoot { hint: names::known_in("a template", &name, &roots), name });
    }
    let paths: BTreeSet<String> = paths.into_iter().collect();
    match paths.iter().find_map(|path| volatile(path)) {
        Some(name) => Err(TemplateError::Volatile { name }),
        None => Ok(()),
    }
}

/// The fact that changes by itself, if this is one or a part of one.
fn volatile(path: &str) -> Option<String> {
    let within = |fact: &str| {
        let rest = path.strip_prefix(fact)?.as_bytes().first();
        matches!(rest, None | Some(b'.' | b'[')).then(|| shorten(path))
    };
    VOLATILE.into_iter().find_map(within)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    // Spans and the names of what is undefined; see the module's documentation for what is never shown.
    environment.set_debug(true);
    // It would print the whole context.
    environment.remove_global("debug");
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(false).build() {
        environment.set_syntax(syntax);
    }
    environment
}

/// A syntax error comes before any value is known, so what the parser says is about the source alone.
fn syntax_error(template: &str, error: &Error) -> TemplateError {
    let detail = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    // The end of the template is reported as the line after the last.
    let last = template.lines().count().max(1);
    TemplateError::Syntax { line: error.line().unwrap_or(1).min(last), detail }
}

/// The name that minijinja found undefined: it writes it as "`facts.os.famly` is undefined" into the detail, from the
/// template's instructions. The detail may hold values as well, so a name counts only when each word of it is in the
/// template.
fn undefined_name(template: &str, error: &Error) -> Option<String> {
    let from_detail = error.detail().and_then(|detail| {
        let (before, _) = detail.rsplit_once("` is undefined")?;
        Some(before.rsplit_once('`')?.1)
    });
    let from_source = || error.range().and_then(|range| template.get(range));
    let name = match from_detail {
        Some(name) => name,
        None if error.kind() == ErrorKind::UndefinedError => from_source()?,
        None => return None,
    };
    let mut words = name.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.all(|word| template.contains(word)).then(|| shorten(name))
}

fn shorten(source: &str) -> String {
    let one_line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", &one_line[..end]),
        None => one_line,
    }
}

/// Takes [`MAX_OUTPUT`] bytes, and refuses the rest.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Os, Sensitive};
    use drover_crds::DataFormat;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        data,
        revision::{Layer, Source},
    };

    /// Stands in the data of every test; no error may show it.
    const SECRET: &str = "hunter2";

    fn templates(parsed: &Parsed) -> Templates {
        let facts = Facts { os: Os { id: "debian".into(), ..Os::default() }, ..Facts::default() };
        let layer = |source, format, values: &[(&str, &str)]| {
            let values = values.iter().map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value))).collect();
            Layer::new(source, None, format, values)
        };
        let big = "x".repeat(1 << 19);
        let plain = [("greeting", "moo & low"), ("big", big.as_str())];
        let secret = [("password", SECRET), ("trap", "`hunter2` is undefined")];
        let data = data::merge(
            &[
                layer(Source::config_map("herd"), DataFormat::Text, &plain),
                layer(Source::secret("door"), DataFormat::Text, &secret),
                layer(Source::config_map("lists"), DataFormat::Yaml, &[("users", "[{name: ann}, {name: bob}]")]),
                layer(Source::secret("keys"), DataFormat::Yaml, &[("keys", "{hunter2: {hunter2: x}}")]),
            ],
            &BTreeMap::new(),
        )
        .unwrap();
        let labels = BTreeMap::from([("example.com/rack".to_owned(), "r1".to_owned())]);
        Templates::new(parsed, &Machine::new(&facts, "node-1", &labels), &data)
    }

    fn rendered(template: &str) -> Result<String, TemplateError> {
        let afresh = templates(&Parsed::new([])).render(template);
        // What was parsed before is rendered again and again, and each time as it is the first time.
        let before = templates(&Parsed::new(["{{ node.name }}".to_owned(), template.to_owned()]));
        assert_eq!(before.render(template), afresh);
        assert_eq!(before.render("{{ node.name }}").unwrap().0, "node-1");
        assert_eq!(before.render(template), afresh);
        afresh.map(|(text, _)| text)
    }

    fn render(template: &str, expected: &Expect) {
        let actual = match rendered(template) {
            Ok(text) => text,
            Err(error) => {
                assert!(!error.to_string().contains(SECRET), "{error}");
                assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
                error.to_string()
            }
        };
        expected.assert_eq(&actual);
    }

    #[test]
    fn renders_what_is_known_and_keeps_white_space() {
        render("{{ facts.os.id }} {{ data.greeting }}\n\n", &expect!["debian moo & low\n\n"]);
        render("{{ node.name }} {{ node.labels['example.com/rack'] }}", &expect!["node-1 r1"]);
        assert_eq!(rendered("{% if true %}\nx\n{% endif %}\n").unwrap(), "\nx\n\n");
        render("{{ data.nothing | default('none') }}", &expect!["none"]);
        render("{% for user in data.users %}{{ user.name }} {% endfor %}", &expect!["ann bob "]);
        render("{% for name in ['a', 'b'] %}{{ loop.index }}{{ name }} {% endfor %}", &expect!["1a 2b "]);
    }

    #[test]
    fn says_which_name_is_unknown_and_what_is_known() {
        render(
            "a\n{{ facts.os.famly }}",
            &expect![
                "line 2 of its template: `facts.os.famly` is not known; did you mean `family`? facts.os has: architecture, distro, family, hardware, id, name, release, selinux"
            ],
        );
        render(
            "{{ facts.oss.family }}",
            &expect![
                "line 1 of its template: `facts.oss` is not known; did you mean `os`? facts has: custom, disks, dmi, fips_enabled, is_virtual, kernel, kernelmajversion, kernelrelease, kernelversion, machine_id, memory, mountpoints, networking, os, package_provider, processors, service_provider, ssh, timezone, virtual"
            ],
        );
        render(
            "{{ data.pasword }}",
            &expect![
                "line 1 of its template: `data.pasword` is not known; did you mean `password`? data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{{ data['x-y'] }}",
            &expect![
                "line 1 of its template: `data['x-y']` is not known; data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{{ fact.os }}",
            &expect![
                "line 1 of its template: `fact` is not known; did you mean `facts`? a template has: data, facts, node"
            ],
        );
        render(
            "{% if data.x %}{% endif %}",
            &expect![
                "line 1 of its template: `data.x` is not known; data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{{ data.x + 1 }}",
            &expect![
                "line 1 of its template: `data.x` is not known; data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{{ data.x | upper }}",
            &expect![
                "line 1 of its template: `data.x` is not known; data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{% for x in data.list %}{% endfor %}",
            &expect![
                "line 1 of its template: `data.list` is not known; data has: big, greeting, keys, password, trap, users"
            ],
        );
        render(
            "{{ node.labels.zone }}",
            &expect!["line 1 of its template: `node.labels.zone` is not known; node.labels has: example.com/rack"],
        );
    }

    #[test]
    fn never_shows_a_value() {
        render("{{ data.password / 2 }}", &expect!["line 1 of its template: invalid operation in `data.password / 2`"]);
        render(
            "{{ [1] | map(data.password) | list }}",
            &expect!["line 1 of its template: unknown filter in `map(data.password)`"],
        );
        render(
            "{{ [1] | map(data.trap) | list }}",
            &expect!["line 1 of its template: unknown filter in `map(data.trap)`"],
        );
        render("{{ data.password() }}", &expect!["line 1 of its template: invalid operation in `.password()`"]);
        render("{{ data[data.password] }}", &expect!["line 1 of its template: `data[...]` is not known"]);
        render("{{ data.keys.x }}", &expect!["line 1 of its template: `data.keys.x` is not known"]);
        render("{{ data.password.x }}", &expect!["line 1 of its template: `data.password.x` is not known"]);
        render("{{ dict(**{data.password: 1}).y.z }}", &expect!["line 1 of its template: `(...).y` is not known"]);
        render(
            "{{ 1 is sameas(**{data.password: 1}) }}",
            &expect!["line 1 of its template: too many arguments in `sameas(**{data.password: 1})`"],
        );
    }

    #[test]
    fn refuses_what_is_no_template_or_knows_no_bounds() {
        render(
            "a\n{{ 'x",
            &expect![
                "line 2 of its template: unexpected end of string; see https://docs.rs/minijinja/latest/minijinja/syntax"
            ],
        );
        render(
            "{% if true %}\n",
            &expect![
                "line 1 of its template: unexpected end of input, expected end of block; see https://docs.rs/minijinja/latest/minijinja/syntax"
            ],
        );
        render(
            "{% include 'x' %}",
            &expect![
                "line 1 of its template: unknown statement include; see https://docs.rs/minijinja/latest/minijinja/syntax"
            ],
        );
        render("{{ 1 | nofilter }}", &expect!["line 1 of its template: unknown filter in `nofilter`"]);
        render("{{ debug() }}", &expect!["line 1 of its template: unknown function in `debug()`"]);
        render(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            &expect!["line 1 of its template: stopped after 1000000 instructions; loop over less"],
        );
        render(
            "{{ data.big }}{{ data.big }}{{ data.big }}",
            &expect!["its template writes more than 1048576 bytes; a file of that size belongs in a package"],
        );
    }

    #[test]
    fn without_a_host_syntax_and_first_names_are_checked() {
        let told = |template: &str| check(template).map_err(|error| error.to_string());
        assert_eq!(
            told("{{ facts.anything }}{{ data.x }}{% for i in range(3) %}{{ i }}{{ loop.index }}{% endfor %}"),
            Ok(())
        );
        assert_eq!(told("{% set x = node.name %}{{ x }}"), Ok(()));
        expect![
            "its template reads `fact`, which is not known; did you mean `facts`? a template has: data, facts, node"
        ]
        .assert_eq(&told("{{ fact.os }}").unwrap_err());
        assert!(told("{{").unwrap_err().contains("line 1"));
    }
}
