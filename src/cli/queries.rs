//! The commands that query: `status`, `explain`, `dead-letters`, `plan`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::args::{
    DeadLettersAction, DeadLettersArguments, ExplainArguments, PlanArguments, QueryCommand,
    RetryArguments, ShowArguments, StatusArguments, stream,
};
use crate::cli::hints::UserError;
use crate::cli::render;
use crate::cli::render::status::TerminalSize;
use crate::cli::{AnyError, FAILED};
use crate::config::{Environment, Settings};
use crate::console::output::{self, note};
use crate::console::table::{plain_table, thousands, trim_table};
use crate::console::terminal::Terminal;
use crate::lake::chunk::LineLimits;
use crate::lake::path::Stream;
use crate::lake::path::{export_path, ledger_path};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::escape::{Printable, printable_bytes, shell_word};
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::control::day_file_parameter;
use crate::query::dead_letters;
use crate::query::dead_letters::{DeadLetterFilter, DeadLetterInfo, DeadLetterPage};
use crate::query::explain;
use crate::query::explain::{ExplainContext, Explanation};
use crate::query::health::Health;
use crate::query::offline::{InquireError, OfflineState, inquire, inquire_with};
use crate::query::plan;
use crate::query::plan::{Plan, PlanContext};
use crate::query::status::{self, RUN_ID_SHOWN_MAX};
use crate::store::snapshot::stream_name;
use crate::store::state::error::StateError;

/// The maximum number of bytes of a dead letter that are printed without `--raw`.
const SHOWN_BYTES_MAX: u64 = 64 << 10;

/// Prints the answer to a query and returns the exit code.
pub(super) fn answer(settings: &Settings, query: &QueryCommand) -> Result<ExitCode, AnyError> {
    match query {
        QueryCommand::Status(arguments) => return status(settings, arguments),
        QueryCommand::Explain(arguments) => return explain(settings, arguments),
        QueryCommand::DeadLetters(arguments) => dead_letters(settings, arguments)?,
        QueryCommand::Plan(arguments) => plan(settings, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of `status --check` while the verdict passes without an action of the operator.
const NOT_YET_HEALTHY: u8 = 3;

/// Prints the health verdict in one line, and what changes it to stderr.
pub(super) fn health(settings: &Settings) -> Result<ExitCode, AnyError> {
    let status = status::status(settings, HostClock::new().wall_ms())?;
    print(&format!("{}\n", Printable(&status.health.to_string())))?;
    if let Some(fix) = &status.health.fix {
        note(&format!("fix: {fix}"));
    }
    Ok(ExitCode::from(exit_code(status.health.verdict)))
}

/// Returns the exit code of `status --check`.
pub(super) fn exit_code(verdict: Health) -> u8 {
    match verdict {
        verdict if verdict.is_temporary() => NOT_YET_HEALTHY,
        verdict if !verdict.is_ready() => FAILED,
        _ => 0,
    }
}

fn status(settings: &Settings, arguments: &StatusArguments) -> Result<ExitCode, AnyError> {
    if arguments.watch {
        render::live_status::watch(settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = status::status(settings, HostClock::new().wall_ms())?;
    if arguments.json {
        print_json(&status)?;
    } else {
        let screen = screen();
        let page = render::status::page(&status, screen);
        print(&page)?;
        if is_longer_than_screen(&page) {
            print(&render::status::verdict(&status, screen))?;
        }
    }
    Ok(match arguments.check {
        true => ExitCode::from(exit_code(status.health.verdict)),
        false => ExitCode::SUCCESS,
    })
}

/// Returns whether a text scrolls out of the terminal at stdout, if that is one.
fn is_longer_than_screen(text: &str) -> bool {
    let terminal = Terminal::for_stdout(&Environment::from_env());
    let rows = crossterm::terminal::size().map(|(_, rows)| usize::from(rows));
    // The prompt has a line too.
    terminal.attended && rows.is_ok_and(|rows| rows > 0 && text.lines().count() >= rows)
}

/// Returns the terminal's width and whether it shows colours; 80 columns without colours if stdout is not a terminal.
fn screen() -> TerminalSize {
    let terminal = Terminal::for_stdout(&Environment::from_env());
    if !terminal.attended {
        return TerminalSize {
            width: 80,
            colour: false,
        };
    }
    let width = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
    TerminalSize {
        width: width.max(40),
        colour: terminal.colours,
    }
}

fn explain(settings: &Settings, arguments: &ExplainArguments) -> Result<ExitCode, AnyError> {
    let Some(run_id) = &arguments.run_id else {
        retracted(settings, arguments)?;
        return Ok(ExitCode::SUCCESS);
    };
    let page = arguments.page();
    let [skip, limit] = [page.skip, page.limit].map(|count| count.to_string());
    let paging = query(&[("skip", &skip), ("limit", &limit)]);
    // A head of a request has a limit.
    let (run, body) = match run_id.len() <= RUN_ID_SHOWN_MAX {
        true => (format!("&{}", query(&[("run_id", run_id)])), Vec::new()),
        false => (String::new(), run_id.as_bytes().to_vec()),
    };
    let path = format!("/explain.json?{paging}{run}");
    let explanation: Explanation =
        inquire_with::<_, InquireError>(settings, &path, body, |files| {
            with_explain_context(settings, files, |context| {
                explain::explain(run_id, page, context)
            })
        })?;
    if arguments.json {
        print_json(&explanation)?;
    } else {
        print(&render::explain::page(&explanation))?;
        if explanation.more {
            let shown = explanation.lines.len() + explanation.retracted.len();
            note_more(page.skip.saturating_add(shown));
        }
    }
    if !explanation.known && explanation.rows_unclaimed > 0 {
        note_unclaimed(settings, &explanation);
    }
    Ok(ExitCode::from(if explanation.known { 0 } else { FAILED }))
}

/// A row whose day-file was deleted before the state was lost is in no index.
fn note_unclaimed(settings: &Settings, explanation: &Explanation) {
    let run_id = serde_json::Value::from(explanation.run_id.as_str());
    let field = format!("\"source_run_id\":{run_id}");
    note(&format!(
        "rows of the export without a line in the sources: {}; `grep -F {} {}` finds those of this run",
        thousands(explanation.rows_unclaimed),
        shell_word(&field),
        shell_word(&export_path(&settings.root))
    ));
}

fn retracted(settings: &Settings, arguments: &ExplainArguments) -> Result<(), AnyError> {
    let page = arguments.page();
    let ledger = ledger_path(&export_path(&settings.root));
    let retracted = explain::retracted_rows(&OsStorage, &ledger, page)?;
    if arguments.json {
        return print_json(&retracted);
    }
    print(&render::explain::list(&retracted))?;
    if retracted.more {
        note_more(page.skip.saturating_add(retracted.rows.len()));
    }
    Ok(())
}

fn note_more(shown: usize) {
    note(&format!("more results: continue with --skip {shown}"));
}

/// Reads an answer from the files of a daemon that is not running.
pub(super) fn with_explain_context<T>(
    settings: &Settings,
    files: &OfflineState,
    read: impl FnOnce(&ExplainContext<'_>) -> Result<T, StateError>,
) -> Result<T, InquireError> {
    Ok(read(&ExplainContext {
        storage: &OsStorage,
        root: &files.root,
        export_path: &files.export_path(),
        line_bytes_max: settings.max_line_bytes,
        state: &files.state,
    })?)
}

fn plan(settings: &Settings, arguments: &PlanArguments) -> Result<(), AnyError> {
    let plan: Plan = inquire::<_, AnyError>(settings, "/plan.json", |files| {
        // A run would end with this error.
        files.check_export()?;
        Ok(plan::plan(&PlanContext {
            storage: &OsStorage,
            root: &files.root,
            export_path: &export_path(&files.root),
            limits: LineLimits {
                line_bytes_max: settings.max_line_bytes,
            },
            now_ms: HostClock::new().wall_ms(),
            state: &files.state,
            exclude: &settings.exclude,
        })?)
    })?;
    if arguments.json {
        return print_json(&plan);
    }
    print(&render::plan::page(&plan))
}

fn dead_letters(settings: &Settings, arguments: &DeadLettersArguments) -> Result<(), AnyError> {
    match &arguments.action {
        None => list(settings, arguments),
        Some(DeadLettersAction::Show(arguments)) => show(settings, arguments),
        Some(DeadLettersAction::Retry(arguments)) => retry(settings, arguments),
    }
}

fn list(settings: &Settings, arguments: &DeadLettersArguments) -> Result<(), AnyError> {
    let filter = DeadLetterFilter {
        day_file: arguments.day_file.clone(),
        stream: None,
        skip: arguments.skip,
        limit: arguments.limit,
    };
    let letters = letters(settings, &filter)?;
    if arguments.json {
        return print_json(&letters);
    }
    if letters.letters.is_empty() {
        return print("no dead letters\n");
    }
    let mut table = plain_table();
    table.set_header(["stream", "day-file", "line", "offset", "bytes", "reason"]);
    for letter in &letters.letters {
        table.add_row([
            letter.stream.clone(),
            letter.day_file.escape_debug().to_string(),
            letter
                .line
                .map_or_else(|| "?".to_owned(), |line| line.to_string()),
            letter.offset.to_string(),
            letter.len_bytes.to_string(),
            letter.fault(),
        ]);
    }
    print(&trim_table(&table))?;
    if letters.more {
        let shown = arguments.skip.saturating_add(letters.letters.len());
        note(&format!("more results: continue with --skip {shown}"));
    }
    Ok(())
}

fn letters(settings: &Settings, filter: &DeadLetterFilter) -> Result<DeadLetterPage, InquireError> {
    let (skip, limit) = (filter.skip.to_string(), filter.limit.to_string());
    let mut parameters = vec![("skip", skip.as_str()), ("limit", limit.as_str())];
    parameters.extend(filter.stream.map(|stream| ("stream", stream_name(stream))));
    let mut path = format!("/dead-letters.json?{}", query(&parameters));
    if let Some(day_file) = &filter.day_file {
        path = format!("{path}&{}", day_file_parameter(day_file));
    }
    inquire(settings, &path, |files| {
        let (state, root) = (&files.state, &files.root);
        Ok(dead_letters::letters(state, &OsStorage, root, filter)?)
    })
}

fn show(settings: &Settings, arguments: &ShowArguments) -> Result<(), AnyError> {
    let letter = find(settings, arguments)?;
    let root = OsStorage.canonicalize(&settings.root)?;
    let mut stdout = io::stdout().lock();
    let mut left = if arguments.raw {
        u64::MAX
    } else {
        SHOWN_BYTES_MAX
    };
    let mut held = Vec::new();
    dead_letters::bytes_of(&OsStorage, &root, &arguments.day_file, &letter, |bytes| {
        let shown = left.min(bytes.len() as u64);
        left -= shown;
        if arguments.raw {
            return stdout.write_all(&bytes[..shown as usize]);
        }
        held.extend_from_slice(&bytes[..shown as usize]);
        Ok(())
    })?;
    if !arguments.raw {
        drop(stdout);
        output::show(&(printable_bytes(&held) + "\n"))?;
        note(&letter.fault());
        if left == 0 {
            note(&format!(
                "showing the first {} of {} bytes; --raw prints all",
                thousands(SHOWN_BYTES_MAX),
                thousands(letter.len_bytes)
            ));
        }
    }
    Ok(())
}

/// Returns the dead letter at an offset; reads the pair's list page by page.
fn find(settings: &Settings, arguments: &ShowArguments) -> Result<DeadLetterInfo, AnyError> {
    let mut filter = DeadLetterFilter {
        day_file: Some(arguments.day_file.clone()),
        stream: Some(stream(arguments.evidence)),
        skip: 0,
        limit: 10_000,
    };
    loop {
        let page = letters(settings, &filter)?;
        let letter = page
            .letters
            .iter()
            .find(|letter| letter.offset == arguments.offset);
        if let Some(letter) = letter {
            return Ok(letter.clone());
        }
        // An empty page that announces more would be followed by none.
        if !page.more || page.letters.is_empty() {
            let what = format!(
                "no dead letter starts at byte {} of {} {}",
                arguments.offset,
                stream_name(stream(arguments.evidence)),
                arguments.day_file,
            );
            let fix = format!(
                "`distilld dead-letters --day-file {}` lists them",
                shell_word(arguments.day_file.as_path())
            );
            return Err(UserError { what, fix }.into());
        }
        filter.skip += page.letters.len();
    }
}

fn retry(settings: &Settings, arguments: &RetryArguments) -> Result<(), AnyError> {
    let stream: Stream = stream(arguments.evidence);
    let retried = dead_letters::retry(settings, &arguments.day_file, stream)?;
    print_json(&retried)
}

pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn print_json(value: &impl serde::Serialize) -> Result<(), AnyError> {
    Ok(output::show_json(value)?)
}

fn print(text: &str) -> Result<(), AnyError> {
    Ok(output::show(text)?)
}
