//! The page in a real browser: it shows changes, at every width, with sufficient contrast, usable by keyboard, and
//! without errors in the console.

use serde_json::Value;

use crate::http::{full_disk_command, make_room};
use crate::support::browser::Browser;
use crate::support::http::get;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence_with, scored, scored_as};

const PAIR: &str = "2026/05/01/audits.jsonl";
/// A day-file whose name would be markup if it were not escaped.
const MARKUP: &str = "2026/05/01/<img src=x onerror=document.title='hit'>.jsonl";
const TAB: &str = "\u{e004}";
const LEFT: &str = "\u{e012}";
/// Selects the figure of a tile by its label.
const ROWS: &str = "#tiles div:has(dt) dd";

fn rows_shown(browser: &Browser) -> String {
    let shown = browser.run(
        "const tile = [...document.querySelectorAll('#tiles div')].find((tile) => tile.textContent.startsWith('Rows in total'));
         return tile ? tile.querySelector('dd').textContent : '';",
    );
    shown.as_str().unwrap_or_default().to_owned()
}

/// Returns the figure and the note of the tile of retracted rows.
fn retracted_shown(browser: &Browser) -> String {
    let shown = browser.run(
        "const tile = [...document.querySelectorAll('#tiles div')].find((tile) => tile.querySelector('dt').textContent === 'Retracted');
         return tile ? [...tile.querySelectorAll('dd')].map((part) => part.textContent).join(', ') : '';",
    );
    shown.as_str().unwrap_or_default().to_owned()
}

/// Returns the rows of the table whose verdicts do not add up to their lines, and tiles that differ from the table or the
/// plot.
const SUMS: &str = r"
    const number = (text) => Number(String(text).replace(/[^0-9]/g, ''));
    const heads = [...document.querySelectorAll('#classes tr:first-child th')].map((head) => head.textContent);
    const wrong = [], all = {};
    for (const row of [...document.querySelectorAll('#classes tr')].slice(1)) {
        const cells = [...row.children].map((cell) => cell.textContent);
        const figures = Object.fromEntries(heads.map((head, n) => [head, number(cells[n])]));
        const verdicts = heads.filter((head) => !['source class', 'lines', 'malformed evidence'].includes(head));
        const sum = verdicts.reduce((sum, head) => sum + figures[head], 0);
        if (sum !== figures.lines) wrong.push(`${cells[0]}: ${sum} of ${figures.lines} lines`);
        if (row.className === 'sum') Object.assign(all, figures, { refused: sum - figures.exported - figures.waiting - figures.malformed });
    }
    const tile = (label) => [...document.querySelectorAll('#tiles div')].find((tile) => tile.textContent.startsWith(label)).querySelector('dd').textContent;
    const expected = { 'Rows today': all.exported, 'Rows in total': all.exported, Waiting: all.waiting, Refused: all.refused, 'Dead letters': all.malformed + all['malformed evidence'] };
    for (const [label, figure] of Object.entries(expected)) {
        if (number(tile(label)) !== figure) wrong.push(`tile ${label}: ${tile(label)}, not ${figure}`);
    }
    const plotted = `${tile('Rows today')} rows, ${tile('Refused')} refused`;
    const readout = document.getElementById('day-readout').textContent;
    if (readout !== plotted) wrong.push(`${readout}, not ${plotted}`);
    return wrong;";

fn assert_quiet(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn rows_and_faults_appear_live_and_lake_content_is_escaped() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    let (mut daemon, address) = bench.listening_by(&mut full_disk_command(&bench));
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#state-word", "it waits", |text| text == "No sources");
    browser.wait_text(ROWS, "figures are there", |text| !text.is_empty());
    assert_eq!(rows_shown(&browser), "0");

    bench.append_run(PAIR, "r1");
    bench.append_run(MARKUP, "<script>document.title='hit'</script>");
    bench.append(Stream::Scored, PAIR, scored("<b>waits</b>"));
    bench.append(Stream::Scored, MARKUP, scored_as("refused", "rejected"));
    bench.append(Stream::Scored, PAIR, "[\n");
    bench.append(Stream::Evidence, MARKUP, "[\n{\n");
    bench.wait_for(&mut daemon, "the page shows two rows", || {
        rows_shown(&browser) == "2"
    });
    browser.wait_text("#waits-why", "the waiting runs are shown", |text| {
        text.starts_with("1 scored run")
    });
    assert_eq!(browser.text("#classes tr.sum td:nth-child(4)"), "1");
    if get(address, "/status.json").json()["classes"].is_array() {
        browser.wait_text("#classes", "the classes are shown", |text| {
            text.contains("<img src=x")
        });
        let bars = "#hour svg rect.c0";
        let drawn = || {
            browser.run(&format!(
                "return document.querySelectorAll('{bars}').length"
            )) != 0
        };
        bench.wait_for(&mut daemon, "rows are drawn", drawn);
        browser.wait_text("#day-readout", "the plot is current", |text| {
            text == "2 rows, 1 refused"
        });
        assert_eq!(browser.run(SUMS), serde_json::json!([]));
    }
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main script, main b').length"),
        0
    );
    assert!(
        !browser
            .run("return document.title")
            .to_string()
            .contains("hit")
    );

    assert_eq!(retracted_shown(&browser), "0, 2 effective");
    bench.append(Stream::Scored, PAIR, scored_as("r1", "rejected"));
    bench.wait_for(&mut daemon, "the page shows the retracted row", || {
        retracted_shown(&browser) == "1, 1 effective"
    });
    let order = ["retract", "--unseen", "r1", "r9", "--reason", "a test"];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    bench.wait_for(&mut daemon, "the page shows the orders", || {
        retracted_shown(&browser) == "1, 1 effective, 2 standing orders"
    });

    bench.append(
        Stream::Evidence,
        PAIR,
        evidence_with("r2", &"x".repeat(9 << 20)),
    );
    bench.append(Stream::Scored, PAIR, scored("r2"));
    browser.wait_text("#state-word", "the fault shows", |text| text == "Stopped");
    browser.wait_text("#faults .open", "the fault is shown", |text| {
        text.contains("File too large")
    });
    make_room(&daemon);
    browser.wait_text("#state-word", "it is over", |text| text == "Fresh");
    bench.wait_for(&mut daemon, "the page shows the row", || {
        rows_shown(&browser) == "3"
    });
    assert_eq!(
        browser.run("return document.querySelectorAll('#faults .open').length"),
        0
    );
    assert_quiet(&browser);

    bench.stop(daemon);
    browser.wait_text("#state-word", "the daemon's end shows", |text| {
        text == "No response"
    });
}

/// Returns every text whose contrast is below that of WCAG 2 level AA, as `contrast text`.
const LOW_CONTRAST: &str = r"
    const channels = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = channels(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const low = [];
    let texts = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility() || element.tagName === 'NOSCRIPT') continue;
        texts += 1;
        const style = getComputedStyle(element);
        const ink = channels(element instanceof SVGElement ? style.fill : style.color);
        const [dark, light] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < (large ? 3 : 4.5)) low.push(`${contrast.toFixed(2)} ${text}`);
    }
    if (texts < 20) low.push(`only ${texts} texts seen`);
    return low;";

/// Returns the elements that the Tab key reaches, in order, from the top of the page.
fn reached_by_tab(browser: &Browser) -> Vec<String> {
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0);");
    let mut reached = Vec::new();
    for _ in 0..20 {
        browser.press(TAB);
        let at = browser.run(
            "const at = document.activeElement;
             if (at === document.body) return null;
             const ring = getComputedStyle(at);
             if (ring.outlineStyle === 'none' || parseFloat(ring.outlineWidth) < 2) return 'unseen ' + at.id;
             return at.id || at.getAttribute('href');",
        );
        let Value::String(at) = at else { break };
        if reached.contains(&at) {
            break;
        }
        reached.push(at);
    }
    reached
}

#[test]
fn it_is_usable_when_narrow_by_keyboard_and_with_low_vision() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    bench.append_run(
        &format!("2026/05/01/{}.jsonl", "long_name_".repeat(12)),
        "r1",
    );
    bench.append(Stream::Scored, PAIR, scored("w".repeat(300).as_str()));
    bench.append(Stream::Scored, PAIR, "{\n");
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#state-word", "it is fresh", |text| text == "Fresh");
    for scheme in ["light", "dark"] {
        for width in [400, 1200] {
            browser.set_appearance(width, scheme);
            let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(wide, 0, "at {width} px the page scrolls sideways by {wide}");
            let ground = browser
                .run("return getComputedStyle(document.body).backgroundColor")
                .to_string();
            assert_eq!(
                ground.contains("18, 21, 24"),
                scheme == "dark",
                "{scheme}: {ground}"
            );
            assert_eq!(
                browser.run(LOW_CONTRAST),
                serde_json::json!([]),
                "{scheme}, {width} px"
            );
        }
    }
    let reached = reached_by_tab(&browser);
    for wanted in ["pause", "classes-scroll", "/metrics", "/status.json"] {
        assert!(
            reached.iter().any(|at| at == wanted),
            "{wanted} is not among {reached:?}"
        );
    }
    assert!(
        !reached.iter().any(|at| at.starts_with("unseen")),
        "{reached:?}"
    );
    // Enter or space on the button pauses the page.
    browser.run("document.getElementById('pause').focus()");
    browser.press(" ");
    assert_eq!(
        browser.run("return document.getElementById('pause').getAttribute('aria-pressed')"),
        "true"
    );
    if browser.run("return !document.querySelector('figure').hidden") == true {
        browser.run("document.getElementById('hour').focus()");
        browser.press(LEFT);
        assert!(
            browser.text("#hour-readout").contains(':'),
            "{}",
            browser.text("#hour-readout")
        );
    }
    assert_quiet(&browser);
    bench.stop(daemon);
}
