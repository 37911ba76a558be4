//! The gate on an object of the cluster: a CEL expression over it is true.
//!
//! What an expression may cost is bounded before it is run: its length (by the CRD), how many loops it has and how deep they
//! are in one another, and the time that is waited for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use drover_crds::{ObjectGate, with_host};
use kube::{
    Api,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    discovery::{ApiCapabilities, Scope, pinned_kind},
};
use kube_cel::{
    KubeCelExt as _,
    cel::{
        Context, Program, Value,
        common::ast::{EntryExpr, Expr},
        objects::{Key, Map},
    },
};

use super::{Asker, TIMEOUT, Told};
use crate::objects;

/// How many loops an expression may have, and how deep they may be in one another.
const MOST_LOOPS: usize = 4;
const DEEPEST_LOOPS: usize = 2;
/// How deep an expression's parts may be in one another: evaluation is recursive.
const DEEPEST: usize = 64;

/// What the API server said of kinds: it is asked once for each.
#[derive(Default)]
pub(super) struct Kinds(Mutex<HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>>);

impl Asker {
    pub(super) async fn object(&self, gate: &ObjectGate, host: Option<&str>) -> Told {
        let kind = &gate.kind;
        let name = with_host(&gate.name, host);
        let (group, version) = gate.api_version.split_once('/').unwrap_or(("", &gate.api_version));
        if group.is_empty() && kind == "Secret" {
            return Told::inconclusive("a gate reads no Secrets");
        }
        let program = match compile(&gate.expression) {
            Ok(program) => program,
            Err(why) => return Told::inconclusive(why),
        };
        let wanted = GroupVersionKind::gvk(group, version, kind);
        let (resource, scope) = match self.kind(&wanted).await {
            Ok((resource, capabilities)) => (resource, capabilities.scope),
            Err(error) => {
                let why = objects::chain(&error);
                return Told::inconclusive(format!("the API server has no kind {kind} of {}: {why}", gate.api_version));
            }
        };
        let namespace = gate.namespace.as_deref().unwrap_or(&self.namespace);
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let object = match tokio::time::timeout(TIMEOUT, api.get_opt(&name)).await {
            Ok(Ok(Some(object))) => object,
            Ok(Ok(None)) => return Told::failed(format!("there is no {kind} {name}")),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Told::inconclusive(format!(
                    "the operator may not read {kind} {name}: bind a Role with the verb get on {} to the ServiceAccount drover-operator",
                    resource.plural
                ));
            }
            Ok(Err(error)) => return Told::inconclusive(format!("{kind} {name}: {}", objects::chain(&error))),
            Err(_) => return Told::inconclusive(format!("{kind} {name} could not be read in time")),
        };
        let Ok(object) = serde_json::to_value(&object) else {
            return Told::inconclusive(format!("{kind} {name} can not be read"));
        };
        let evaluated = tokio::task::spawn_blocking(move || evaluate(&program, &object));
        match tokio::time::timeout(TIMEOUT, evaluated).await {
            Ok(Ok(Ok(true))) => Told::passed(),
            Ok(Ok(Ok(false))) => Told::failed(format!("the expression over {kind} {name} is false")),
            Ok(Ok(Err(why))) => Told::inconclusive(format!("the expression over {kind} {name}: {why}")),
            Ok(Err(_)) => Told::inconclusive(format!("the expression over {kind} {name} can not be evaluated")),
            Err(_) => Told::inconclusive(format!("the expression over {kind} {name} takes too long")),
        }
    }

    async fn kind(&self, wanted: &GroupVersionKind) -> kube::Result<(ApiResource, ApiCapabilities)> {
        let known = self.kinds.0.lock().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = pinned_kind(&self.client, wanted).await?;
        self.kinds.0.lock().unwrap_or_else(PoisonError::into_inner).insert(wanted.clone(), found.clone());
        Ok(found)
    }
}

/// Reads an expression, and refuses what could cost too much.
fn compile(expression: &str) -> Result<Program, String> {
    let code = without_strings(expression);
    let dense: String = code.chars().filter(|character| !character.is_whitespace()).collect();
    if dense.contains("!!") || dense.contains("--") {
        // cel 0.13 takes an even number of them for one (`visit_LogicalNot`, `visit_Negate`).
        return Err("the expression negates something twice in a row, which is not supported: write none".to_owned());
    }
    // The parser is recursive, too.
    let mut depth: usize = 0;
    for character in code.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err("the expression is nested too deeply".to_owned());
        }
    }
    let program = Program::compile(expression).map_err(|error| {
        let why = error.to_string();
        format!("the expression can not be read: {}", why.lines().next().unwrap_or_default())
    })?;
    let loops = count(&program.expression().expr, 0, 0)?;
    if loops > MOST_LOOPS {
        return Err(format!("the expression has {loops} loops; it may have {MOST_LOOPS}"));
    }
    Ok(program)
}

/// The expression without what is in its string literals.
fn without_strings(expression: &str) -> String {
    let (mut code, mut quote, mut escaped) = (String::new(), None, false);
    for character in expression.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if character == '\\' => escaped = true,
            Some(end) if character == end => quote = None,
            Some(_) => {}
            None => {
                code.push(character);
                quote = Some(character).filter(|character| ['\'', '"'].contains(character));
            }
        }
    }
    code
}

/// How many loops the expression has.
fn count(expression: &Expr, inside: usize, depth: usize) -> Result<usize, String> {
    if depth > 4 * DEEPEST {
        return Err("the expression is nested too deeply".to_owned());
    }
    let of = |expression: &Expr, inside| count(expression, inside, depth + 1);
    let entry = |entry: &EntryExpr| match entry {
        EntryExpr::StructField(field) => of(&field.value.expr, inside),
        EntryExpr::MapEntry(entry) => Ok(of(&entry.key.expr, inside)? + of(&entry.value.expr, inside)?),
    };
    match expression {
        Expr::Comprehension(each) => {
            if inside >= DEEPEST_LOOPS {
                return Err(format!("the expression has loops in one another deeper than {DEEPEST_LOOPS}"));
            }
            let once =
                of(&each.iter_range.expr, inside)? + of(&each.accu_init.expr, inside)? + of(&each.result.expr, inside)?;
            Ok(1 + once + of(&each.loop_cond.expr, inside + 1)? + of(&each.loop_step.expr, inside + 1)?)
        }
        Expr::Call(call) => {
            let target = call.target.as_ref().map_or(Ok(0), |target| of(&target.expr, inside))?;
            call.args.iter().try_fold(target, |sum, argument| Ok(sum + of(&argument.expr, inside)?))
        }
        Expr::Select(select) => of(&select.operand.expr, inside),
        Expr::List(list) => list.elements.iter().try_fold(0, |sum, element| Ok(sum + of(&element.expr, inside)?)),
        Expr::Map(map) => map.entries.iter().try_fold(0, |sum, one| Ok(sum + entry(&one.expr)?)),
        Expr::Struct(object) => object.entries.iter().try_fold(0, |sum, one| Ok(sum + entry(&one.expr)?)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(0),
    }
}

/// Whether the expression is true of the object.
fn evaluate(program: &Program, object: &serde_json::Value) -> Result<bool, String> {
    let mut context = Context::default().with_all();
    let object = value(object);
    context.add_variable_from_value("self", object.clone());
    context.add_variable_from_value("object", object);
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("it gives a {}, not true or false", other.type_of())),
        // The words may hold whole parts of the object.
        Err(error) => Err(error.to_string().chars().take(200).collect()),
    }
}

/// JSON as CEL has it. Whole numbers are `int`, as in Kubernetes.
fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(bool) => Value::Bool(*bool),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(value).collect())),
        serde_json::Value::Object(object) => {
            let entries = object.iter().map(|(key, one)| (Key::String(Arc::new(key.clone())), value(one)));
            Value::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(expression: &str, expected: &Result<bool, &str>) {
        let object = json!({
            "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "memory": "1Gi"},
            "status": {"readyReplicas": 3, "load": 0.5, "conditions": [{"type": "Available", "status": "True"}]},
        });
        let told = compile(expression).and_then(|program| evaluate(&program, &object));
        match (&told, expected) {
            (Ok(told), Ok(expected)) => assert_eq!(told, expected, "{expression}"),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{expression}: {told}"),
            _ => panic!("{expression}: {told:?}, not {expected:?}"),
        }
    }

    #[test]
    fn an_expression_is_true_false_or_in_error_and_an_error_is_no_evidence() {
        check("object.status.readyReplicas == object.spec.replicas", &Ok(true));
        check("self.status.readyReplicas >= 4", &Ok(false));
        check("self.status.load < 1.0", &Ok(true));
        check("self.metadata.labels['app.kubernetes.io/name'] == 'web'", &Ok(true));
        check("object.status.conditions.exists(c, c.type == 'Available' && c.status == 'True')", &Ok(true));
        check("has(object.status.failed) && object.status.failed > 0", &Ok(false));
        check("quantity(object.spec.memory).isGreaterThan(quantity('512Mi'))", &Ok(true));
        check("object.metadata.name.lowerAscii().matches('^w')", &Ok(true));
        check("object.status.missing == 1", &Err("No such key: missing"));
        check("object.spec.replicas", &Err("it gives a int, not true or false"));
        check("object.spec.replicas ==", &Err("the expression can not be read"));
        check("other.spec == 1", &Err("Undeclared reference"));
    }

    #[test]
    fn what_the_library_gets_wrong_is_refused() {
        check("!!true", &Err("negates something twice in a row"));
        check("! ! has(object.spec)", &Err("negates something twice in a row"));
        check("object.spec.replicas == --3", &Err("negates something twice in a row"));
        check("'!!' != \"--\"", &Ok(true));
        check("!(!true)", &Ok(true));
        check("-(-3) == object.spec.replicas && !has(object.status.failed)", &Ok(true));
    }

    #[test]
    fn an_expression_that_could_cost_too_much_is_not_run() {
        let l = "[1,2,3]";
        check(&format!("{l}.all(a, {l}.all(b, a + b > 0))"), &Ok(true));
        check(&format!("{l}.all(a, {l}.all(b, {l}.all(c, a + b + c > 0)))"), &Err("deeper than 2"));
        let one = format!("{l}.all(a, a > 0)");
        check(&[one.as_str(); 4].join(" && "), &Ok(true));
        check(&[one.as_str(); 5].join(" && "), &Err("has 5 loops; it may have 4"));
        check(&format!("{}true{}", "(".repeat(400), ")".repeat(400)), &Err("nested too deeply"));
        check(&vec!["1"; 500].join("+"), &Err("nested too deeply"));
    }
}
