//! The numbers that a commit leaves in the table: how much of the export it has, and of which export.

use crate::dataset::feed::{Feed, Point};
use crate::publish::error::PublishError;
use crate::publish::settings::Settings;
use crate::publish::table::TableVersion;
use crate::record::ledger::ExportId;

/// The names under which a commit leaves its numbers in the table.
struct Names {
    /// The export of the host, its identity as a number.
    host: String,
    /// The length of the export.
    export: String,
    /// The length of the ledger.
    ledger: String,
    /// The digest of the last row and the last event.
    tail: String,
}

impl Names {
    fn new(host: &str, export: ExportId) -> Names {
        let of_host = format!("distilld/{host}");
        let of_export = format!("{of_host}/{export}");
        Names {
            ledger: format!("{of_export}/ledger"),
            tail: format!("{of_export}/tail"),
            export: of_export,
            host: of_host,
        }
    }
}

/// Returns how much of the export a version of the table has, and checks that it is this export.
pub(super) fn point(
    settings: &Settings,
    feed: &Feed,
    version: &TableVersion<'_>,
) -> Result<Point, PublishError> {
    let names = Names::new(&settings.host, feed.export());
    let Some(export) = version.transaction(&names.host)? else {
        return Ok(Point::default());
    };
    let expected = ExportId(export.to_be_bytes());
    if expected != feed.export() {
        return Err(PublishError::OtherExport(format!(
            "{} is the export {}, and the rows of the host {} in the table {} are of the export {expected}",
            feed.export_path().display(),
            feed.export(),
            settings.host,
            settings.table
        )));
    }
    let number = |name: &str| -> Result<i64, PublishError> {
        version.transaction(name)?.ok_or_else(|| {
            PublishError::OtherContent(format!(
                "the table {} has no transaction {name}, which each commit of the host {} leaves in it",
                settings.table, settings.host
            ))
        })
    };
    let point = Point {
        export_len: number(&names.export)?.unsigned_abs(),
        ledger_len: number(&names.ledger)?.unsigned_abs(),
    };
    let tail = number(&names.tail)?;
    let head = feed.head()?;
    if head.export_len < point.export_len {
        Err(other_content(
            settings,
            feed,
            point,
            "is shorter than what was published",
        ))
    } else if head.ledger_len < point.ledger_len {
        let what = "has a ledger that is shorter than the published one";
        Err(other_content(settings, feed, point, what))
    } else if tail_at(feed, point)? != Some(tail) {
        let what = "has other lines there than those that were published";
        Err(other_content(settings, feed, point, what))
    } else {
        Ok(point)
    }
}

fn other_content(settings: &Settings, feed: &Feed, point: Point, what: &str) -> PublishError {
    PublishError::OtherContent(format!(
        "{} {what}: the table {} has the rows of this host up to byte {} of the export, as of byte {} of its ledger",
        feed.export_path().display(),
        settings.table,
        point.export_len,
        point.ledger_len
    ))
}

/// Returns the digest of the last lines before a point, as a number for the table.
fn tail_at(feed: &Feed, point: Point) -> Result<Option<i64>, PublishError> {
    let mut first = [0; 8];
    let digest = feed.digest_at(point)?;
    Ok(digest.map(|digest| {
        first.copy_from_slice(&digest[..8]);
        i64::from_be_bytes(first)
    }))
}

/// Returns the numbers of a point.
pub(super) fn numbers(
    settings: &Settings,
    feed: &Feed,
    point: Point,
) -> Result<Vec<(String, i64)>, PublishError> {
    let names = Names::new(&settings.host, feed.export());
    let tail = tail_at(feed, point)?;
    let tail =
        tail.ok_or_else(|| other_content(settings, feed, point, "was cut while it was read"))?;
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(vec![
        (names.host, i64::from_be_bytes(feed.export().0)),
        (names.export, number(point.export_len)),
        (names.ledger, number(point.ledger_len)),
        (names.tail, tail),
    ])
}
