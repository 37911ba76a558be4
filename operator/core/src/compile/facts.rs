//! Facts as the API keeps them ([`FactsBrief`]) and as templates read them ([`Facts`]).
//!
//! The two are the same knowledge in two spellings: flat camelCase for `kubectl`, facter's tree for templates. Both
//! conversions name every field, so a new fact that only one side knows does not compile.

use drover_catalog::{Facts, Memory, Networking, Os, Processors};
use drover_crds::FactsBrief;

/// Facts for templates, from what the Host's status keeps. A negative number, which no agent reports, counts as 0.
pub fn facts_from_brief(brief: &FactsBrief) -> Facts {
    let FactsBrief {
        os_id,
        os_name,
        os_family,
        os_release,
        os_codename,
        kernel,
        kernel_release,
        architecture,
        hostname,
        fqdn,
        ip,
        interfaces,
        processors,
        memory_mib,
        init,
        machine_id,
    } = brief.clone();
    Facts {
        os: Os { id: os_id, name: os_name, family: os_family, release: os_release, codename: os_codename },
        kernel,
        kernelrelease: kernel_release,
        architecture,
        networking: Networking { hostname, fqdn, ip, interfaces },
        processors: Processors { count: u32::try_from(processors).unwrap_or(0) },
        memory: Memory { total_mib: u64::try_from(memory_mib).unwrap_or(0) },
        init,
        machine_id,
    }
}

/// What the Host's status keeps, from an agent's facts. Numbers beyond the API's types, which no machine has, become
/// the greatest that fit.
pub fn brief_from_facts(facts: &Facts) -> FactsBrief {
    let Facts { os, kernel, kernelrelease, architecture, networking, processors, memory, init, machine_id } =
        facts.clone();
    let Os { id: os_id, name: os_name, family: os_family, release: os_release, codename: os_codename } = os;
    let Networking { hostname, fqdn, ip, interfaces } = networking;
    let Processors { count } = processors;
    let Memory { total_mib } = memory;
    FactsBrief {
        os_id,
        os_name,
        os_family,
        os_release,
        os_codename,
        kernel,
        kernel_release: kernelrelease,
        architecture,
        hostname,
        fqdn,
        ip,
        interfaces,
        processors: i32::try_from(count).unwrap_or(i32::MAX),
        memory_mib: i64::try_from(total_mib).unwrap_or(i64::MAX),
        init,
        machine_id,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn facts()(
            words in prop::collection::vec(".{0,12}", 13),
            interfaces in prop::collection::btree_map("[a-z0-9]{1,8}", prop::collection::vec("[0-9.]{1,15}", 0..3), 0..4),
            count in 0..=i32::MAX.unsigned_abs(),
            total_mib in 0..=i64::MAX.unsigned_abs(),
        ) -> Facts {
            let mut words = words.into_iter();
            let mut word = || words.next().unwrap();
            Facts {
                os: Os { id: word(), name: word(), family: word(), release: word(), codename: word() },
                kernel: word(),
                kernelrelease: word(),
                architecture: word(),
                networking: Networking { hostname: word(), fqdn: word(), ip: word(), interfaces },
                processors: Processors { count },
                memory: Memory { total_mib },
                init: word(),
                machine_id: word(),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_on_the_way_there_and_back(facts in facts()) {
            let brief = brief_from_facts(&facts);
            prop_assert_eq!(&facts_from_brief(&brief), &facts);
            prop_assert_eq!(brief_from_facts(&facts_from_brief(&brief)), brief);
        }
    }

    #[test]
    fn impossible_numbers_stay_within_their_types() {
        let facts = Facts {
            processors: Processors { count: u32::MAX },
            memory: Memory { total_mib: u64::MAX },
            networking: Networking { interfaces: BTreeMap::new(), ..Networking::default() },
            ..Facts::default()
        };
        let brief = brief_from_facts(&facts);
        assert_eq!((brief.processors, brief.memory_mib), (i32::MAX, i64::MAX));
        let brief = FactsBrief { processors: -1, memory_mib: -1, ..FactsBrief::default() };
        assert_eq!(facts_from_brief(&brief), Facts::default());
    }
}
