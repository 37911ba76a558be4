//! What may be logged. Other people's libraries log what they send and receive when they are asked for their traces:
//! requests with tokens, answers with Secrets. So a level without a module is for Drover's own modules, and the libraries say
//! at most `info`, unless somebody names one of them.

/// The filter, in the syntax of `tracing_subscriber::EnvFilter`, for what a person asked for: `debug`, or by module,
/// `info,drover_core=trace`.
pub fn filter(wanted: &str) -> String {
    let own = |directive: &str| {
        let directive = directive.trim();
        if ["debug", "trace", "4", "5"].iter().any(|level| directive.eq_ignore_ascii_case(level)) {
            format!("info,drover={directive}")
        } else {
            directive.to_owned()
        }
    };
    let directives: Vec<String> = wanted.split(',').map(own).collect();
    // kube's client logs an answer that it can not read as a whole, and that may be a Secret or a token.
    format!("{},kube_client::client=error", directives.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_for_our_own_modules() {
        for (wanted, expected) in [
            ("info", "info"),
            ("warn,drover_core=debug", "warn,drover_core=debug"),
            ("trace", "info,drover=trace"),
            ("DEBUG, hyper=trace", "info,drover=DEBUG,hyper=trace"),
        ] {
            assert_eq!(filter(wanted), format!("{expected},kube_client::client=error"));
        }
    }
}
