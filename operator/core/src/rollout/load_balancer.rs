//! What is next while a machine leaves load balancers, and when it comes back to them: the cluster's by a label of its
//! node, others by what the spec says.
//!
//! A load balancer outside the cluster is recorded in the claim before it is told, filled in for the machine, and struck
//! out after it was told that the machine is back. So whatever happens in between, it is told.

use std::time::Duration;

use drover_crds::{Claim, ClaimStep, LeftLoadBalancer, LoadBalancerStep};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minijinja::{Environment, UndefinedBehavior, context};

use super::{
    request::{NodeChange, Request},
    snapshot::{LoadBalancerAction, LoadBalancerAnswer, LoadBalancerCall, NodeView},
    steps::{Next, SOON, Subject},
};
use crate::metadata::name;

impl Subject<'_> {
    pub(super) fn leave_load_balancer(&self) -> Next {
        let node = match self.node() {
            Ok(node) => node,
            Err(next) => return next,
        };
        if self.spec.excludes_from_load_balancers() && node.load_balancer_label.is_none() {
            return self.patch_node(node, NodeChange::ExcludeFromLoadBalancers(self.claim.token.clone()));
        }
        let told = self.claim.left_load_balancers.iter().position(|left| !left.was_out && left.left_at.is_none());
        if let Some(index) = told {
            return self.tell_to_leave(index);
        }
        let is_known =
            |step: &&LoadBalancerStep| self.claim.left_load_balancers.iter().any(|left| left.step.name == step.name);
        match self.spec.load_balancer_steps().iter().find(|step| !is_known(step)) {
            Some(step) => self.begin_to_leave(step, node),
            None => self.settle(),
        }
    }

    /// Records that this load balancer is to be told, filled in for the machine.
    fn begin_to_leave(&self, step: &LoadBalancerStep, node: &NodeView) -> Next {
        let step = match fill_in(step, name(&self.host.metadata), node.address.as_deref()) {
            Ok(step) => step,
            Err(why) => return self.fail(format!("load balancer {}: {why}", step.name)),
        };
        // Only HAProxy can say whether somebody took the machine out before.
        let was_out = if step.haproxy.is_some() {
            match self.answer(&step, LoadBalancerAction::Look) {
                Ok(LoadBalancerAnswer::Done) => false,
                Ok(LoadBalancerAnswer::Out) => true,
                Ok(LoadBalancerAnswer::Busy(why) | LoadBalancerAnswer::Failed(why)) => {
                    return self.not_yet(&step, why);
                }
                Err(request) => return request,
            }
        } else {
            false
        };
        let mut left = self.claim.left_load_balancers.clone();
        left.push(LeftLoadBalancer { step, was_out, left_at: None });
        self.record_left(left)
    }

    fn tell_to_leave(&self, index: usize) -> Next {
        let mut all = self.claim.left_load_balancers.clone();
        let Some(left) = all.get_mut(index) else { return Next::Wait(SOON) };
        match self.answer(&left.step, LoadBalancerAction::Leave) {
            Err(request) => request,
            Ok(LoadBalancerAnswer::Failed(why)) => self.not_yet(&left.step, why),
            Ok(LoadBalancerAnswer::Done | LoadBalancerAnswer::Out | LoadBalancerAnswer::Busy(_)) => {
                left.left_at = Some(Time(self.now));
                self.record_left(all)
            }
        }
    }

    /// Waits until load balancers have noticed.
    fn settle(&self) -> Next {
        let left = &self.claim.left_load_balancers;
        let told = left.iter().filter_map(|left| left.left_at.as_ref()).map(|time| time.0);
        let since = told.chain([self.claim.step_started_at.0]).max().unwrap_or(self.now);
        let settle = SignedDuration::from_secs(i64::from(self.spec.resolved_settle_seconds()));
        let time_left = Duration::try_from(settle - self.now.duration_since(since)).unwrap_or_default();
        if time_left.is_zero() {
            return self.enter(self.after_load_balancer());
        }
        let only_time_tells =
            self.spec.excludes_from_load_balancers() || left.iter().any(|left| left.step.http.is_some());
        if only_time_tells {
            return Next::Wait(time_left);
        }
        for left in left.iter().filter(|left| !left.was_out) {
            match self.answer(&left.step, LoadBalancerAction::Leave) {
                Err(request) => return request,
                Ok(LoadBalancerAnswer::Busy(why) | LoadBalancerAnswer::Failed(why)) => {
                    return self.wait_for(format!("load balancer {}: {why}", left.step.name), SOON.min(time_left));
                }
                Ok(LoadBalancerAnswer::Done | LoadBalancerAnswer::Out) => {}
            }
        }
        self.enter(self.after_load_balancer())
    }

    /// What is left to do before the machine is back in the load balancers outside the cluster.
    pub(super) fn return_to_load_balancers(&self) -> Option<Next> {
        let mut left = self.claim.left_load_balancers.clone();
        let last = left.pop()?;
        if last.was_out {
            return Some(self.record_left(left));
        }
        Some(match self.answer(&last.step, LoadBalancerAction::Return) {
            Err(request) => request,
            Ok(LoadBalancerAnswer::Done | LoadBalancerAnswer::Out) => self.record_left(left),
            Ok(LoadBalancerAnswer::Busy(why) | LoadBalancerAnswer::Failed(why)) => {
                let what = format!("load balancer {} to take the machine back: {why}", last.step.name);
                self.wait_for(what, SOON)
            }
        })
    }

    fn record_left(&self, left_load_balancers: Vec<LeftLoadBalancer>) -> Next {
        let mut status = self.status.clone();
        status.claim = Some(Claim { left_load_balancers, waiting_for: None, ..self.claim.clone() });
        self.write(status)
    }

    /// One that does not do what is asked is told again, until the time is over.
    fn not_yet(&self, step: &LoadBalancerStep, why: &str) -> Next {
        let timeout = self.spec.resolved_load_balancer_timeout_seconds();
        debug_assert_eq!(self.claim.step, ClaimStep::LeaveLoadBalancer);
        if self.is_over(timeout) {
            return self.fail(format!("load balancer {} did not let it go within {timeout} s: {why}", step.name));
        }
        self.wait_for(format!("load balancer {}: {why}", step.name), SOON)
    }

    /// What a load balancer answered, or the request that asks it.
    fn answer(&self, step: &LoadBalancerStep, action: LoadBalancerAction) -> Result<&LoadBalancerAnswer, Next> {
        let call = LoadBalancerCall { token: self.claim.token.clone(), step: step.name.clone(), action };
        self.snapshot
            .load_balancers
            .get(&call)
            .ok_or_else(|| Next::Request(Request::TellLoadBalancer { call, step: Box::new(step.clone()) }))
    }
}

/// The step for one machine.
fn fill_in(step: &LoadBalancerStep, host: &str, address: Option<&str>) -> Result<LoadBalancerStep, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(10_000));
    let host = if let Some(address) = address {
        context! { name => host, address => address }
    } else {
        context! { name => host }
    };
    let fill = |text: &str, field: &str| {
        let filled = environment.render_str(text, context! { host => host.clone() });
        filled.map_err(|error| {
            format!("cannot fill in {field}: {error}; it may use {{{{ host.name }}}} and {{{{ host.address }}}}")
        })
    };
    let mut step = step.clone();
    if let Some(http) = &mut step.http {
        for (call, field) in [(&mut http.leave, "http.leave"), (&mut http.return_, "http.return")] {
            call.url = fill(&call.url, &format!("{field}.url"))?;
            if let Some(body) = &mut call.body {
                *body = fill(body, &format!("{field}.body"))?;
            }
        }
    }
    if let Some(haproxy) = &mut step.haproxy {
        let server = fill(haproxy.resolved_server(), "haproxy.server")?;
        // It becomes part of a line of the runtime API, where other characters would begin another command.
        if server.is_empty() || !server.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c)) {
            return Err(format!("haproxy.server is {server:?}, which can not be the name of a server in HAProxy"));
        }
        haproxy.server = Some(server);
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn filled(step: Value, address: Option<&str>) -> Result<Value, String> {
        let step = serde_json::from_value(step).unwrap();
        fill_in(&step, "node-1", address).map(|step| serde_json::to_value(step).unwrap())
    }

    #[test]
    fn the_machine_is_filled_in_and_nothing_else() {
        let call = |path: &str| json!({"url": format!("http://lb/{path}"), "body": "{{ host.address }}"});
        let http = json!({"name": "x", "http": {"leave": call("{{ host.name }}"), "return": call("b")}});
        let step = filled(http, Some("10.0.0.1")).unwrap();
        assert_eq!(step["http"]["leave"], json!({"url": "http://lb/node-1", "body": "10.0.0.1"}));
        let haproxy =
            |server: Value| json!({"name": "x", "haproxy": {"address": "lb:9999", "backend": "web", "server": server}});
        assert_eq!(filled(haproxy(Value::Null), None).unwrap()["haproxy"]["server"], "node-1");
        for (server, address, why) in [
            ("{{ host.address }}", None, "cannot fill in haproxy.server: undefined value"),
            ("{{ node.name }}", Some("a"), "cannot fill in haproxy.server: undefined value"),
            ("{{ host.name }};shutdown sessions", Some("a"), "haproxy.server is \"node-1;shutdown sessions\""),
            ("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}", None, "cannot fill in"),
        ] {
            let error = filled(haproxy(json!(server)), address).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
