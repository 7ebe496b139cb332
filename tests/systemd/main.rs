//! The units and the Debian package under a real systemd: a Debian is booted in a container, the package is installed
//! in it, and each check asks systemctl, journalctl and the export.
//!
//! As root, with debootstrap, systemd-container, lintian and cargo-deb installed:
//!
//! ```text
//! cargo test --test systemd
//! ```
//!
//! `DISTILLD_TEST_DEBIAN=trixie` selects another Debian than the oldest. A name after `--` selects the checks whose
//! names contain it. The Debian is created once and kept below the target directory; each run boots a copy of it. All
//! checks share one system and run one after the other, each with an empty lake and an empty state.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the checks and helpers of this harness"
)]

/// The Debian that is booted, created once.
mod base;
/// The booted copy.
mod container;
/// The operations of a check: systemctl, the journal, the lake.
mod host;
/// The installed packages, created by cargo-deb.
mod package;
/// Runs a program to completion.
mod process;

/// Starts that must fail: each error names the problem and the remedy.
mod bad_input;
/// Install, upgrade, removal, purge.
mod install;
/// Fields and levels of the journal.
mod journal;
/// Start, READY, status line, crash, stop.
mod life;
/// The procedures of the operator's manual, as they are written there.
mod procedures;
/// The package of the publisher, next to that of the daemon.
mod publisher;
/// Reload, with a valid and an invalid configuration.
mod reload;
/// The permissions and restrictions of the daemon inside its unit.
mod sandbox;
/// Conditions that trigger the watchdog and conditions that do not.
mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use host::Host;

/// A check's name and the check.
type Check = (&'static str, fn(&Host));

/// A table of checks, named after their functions.
macro_rules! checks {
    ($($module:ident::$check:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($check)), $module::$check)),*]
    };
}

/// All checks, in the order in which they run: those that change the package are the last.
const CHECKS: &[Check] = checks![
    install::the_package_is_installed_completely_and_the_service_runs,
    install::lintian_finds_nothing,
    life::ready_precedes_the_end_of_the_backlog,
    life::the_status_line_shows_the_current_figures,
    life::a_killed_daemon_restarts_after_a_pause_and_loses_nothing,
    life::the_page_is_served_on_a_passed_socket_that_lives_with_the_service,
    life::a_unix_socket_can_replace_the_tcp_socket,
    life::a_stop_during_a_backfill_is_clean_and_quick,
    sandbox::systemd_reports_a_low_exposure,
    sandbox::the_complete_work_is_done_by_events,
    sandbox::nothing_else_can_be_written_read_or_reached,
    sandbox::check_finds_what_the_unit_does_not_permit_and_its_lines_permit_it,
    sandbox::check_has_the_groups_of_the_unit,
    reload::a_reload_applies_changeable_keys_and_names_the_others,
    reload::an_invalid_configuration_is_rejected_with_the_reason,
    reload::a_signal_writes_the_status_to_the_journal,
    reload::the_drop_in_extends_reload_and_time_outs_on_a_newer_systemd,
    journal::events_are_found_by_fields_and_levels,
    watchdog::a_hung_engine_is_killed_and_restarted,
    watchdog::a_hung_watcher_is_killed_and_restarted,
    watchdog::a_long_backfill_is_not_killed,
    bad_input::an_invalid_key_is_reported_without_retries,
    bad_input::a_missing_configuration_is_reported_without_retries,
    bad_input::a_missing_root_is_retried_until_it_exists,
    bad_input::a_root_that_cannot_be_mounted_keeps_the_service_down,
    bad_input::an_unreadable_root_is_reported,
    bad_input::a_wrong_owner_is_reported,
    bad_input::a_root_outside_the_units_paths_is_reported,
    procedures::a_command_without_flags_finds_the_packaged_lake,
    procedures::a_backup_is_proved_and_a_lost_disk_is_restored_from_it,
    procedures::an_upgrade_and_a_downgrade_keep_every_row,
    procedures::a_moved_lake_keeps_its_rows,
    procedures::the_sources_of_another_user_are_read,
    procedures::a_failure_alerts_and_a_heartbeat_ends_with_the_service,
    procedures::each_instance_has_a_page_and_is_listed,
    procedures::the_page_of_an_instance_lists_the_others_from_inside_its_sandbox,
    publisher::its_package_publishes_the_rows_of_the_daemon_and_leaves_nothing,
    install::an_instance_keeps_its_own_lake,
    install::an_upgrade_keeps_the_state_and_the_configuration,
    install::a_purge_removes_the_state_and_keeps_the_export,
    install::the_steps_for_other_distributions_work,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let host = match missing() {
        None => Host::boot(),
        Some(what) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("skipped: {what}");
            return ExitCode::SUCCESS;
        }
        Some(what) => Err(what),
    };
    let host = match host {
        Ok(host) => Arc::new(host),
        Err(what) => {
            eprintln!("no system to test on: {what}");
            return ExitCode::FAILURE;
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&host)));
    host.stop();
    conclusion.exit_code()
}

/// Returns the tools that this machine lacks for the tests.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a container can be booted by root only".to_owned());
    }
    let tools = [
        ("systemd-nspawn", "systemd-container"),
        ("debootstrap", "debootstrap"),
        ("lintian", "lintian"),
        ("cargo-deb", "it by `cargo install cargo-deb --locked`"),
    ];
    let missing = tools.iter().find(|(tool, _)| !process::is_on_path(tool));
    missing.map(|(tool, package)| format!("no {tool}; install {package}"))
}

fn trials(host: Option<&Arc<Host>>) -> Vec<Trial> {
    let trial = |(name, check): &Check| {
        let (host, check) = (host.cloned(), *check);
        Trial::test(*name, move || {
            host.map_or(Ok(()), |host| run_check(&host, check))
        })
    };
    CHECKS.iter().map(trial).collect()
}

/// Runs one check on a new lake. A failure carries the panic message and systemd's diagnostics.
fn run_check(host: &Host, check: fn(&Host)) -> Result<(), Failed> {
    let run = || {
        host.freshen();
        check(host);
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Failed::from(host.account()))
}
