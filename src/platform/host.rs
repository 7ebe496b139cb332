//! The names by which people know a process: its host, and the unit that runs it.

use std::fs;

/// The control groups of this process, one a line.
const CGROUPS: &str = "/proc/self/cgroup";

/// Returns the name of the host.
#[must_use]
pub fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

/// Returns the instance of the unit `distilld@INSTANCE.service` that runs this process; `None` outside of such a unit.
#[must_use]
pub fn unit_instance() -> Option<String> {
    let groups = fs::read_to_string(CGROUPS).ok()?;
    groups.lines().find_map(instance_of)
}

fn instance_of(group: &str) -> Option<String> {
    let units = group.rsplit(':').next()?.split('/').rev();
    let unit = |unit: &str| {
        let instance = unit.strip_prefix("distilld@")?.strip_suffix(".service")?;
        (!instance.is_empty()).then(|| instance.to_owned())
    };
    units.into_iter().find_map(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_that_of_the_unit() {
        for (group, instance) in [
            (
                "0::/system.slice/system-distilld.slice/distilld@lab.service",
                Some("lab"),
            ),
            ("0::/system.slice/distilld.service", None),
            ("0::/system.slice/distilld@.service", None),
            (
                "1:name=systemd:/a/distilld@night-runs.service/sub",
                Some("night-runs"),
            ),
            ("0::/", None),
        ] {
            assert_eq!(instance_of(group).as_deref(), instance, "{group}");
        }
        assert!(!host_name().is_empty());
    }
}
