//! The page in a real browser: each state, with its changes, explanations and remedies, at every width, with sufficient
//! contrast, usable by keyboard, and without errors in the console.

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
    const number = (text) => Number(String(text ?? 0).replace(/[^0-9]/g, ''));
    const heads = [...document.querySelectorAll('#classes thead th')].map((head) => head.textContent);
    const wrong = [], all = {};
    for (const row of [...document.querySelectorAll('#classes tr')].slice(1)) {
        const cells = [...row.children].map((cell) => cell.textContent);
        const figures = Object.fromEntries(heads.map((head, n) => [head, number(cells[n])]));
        const verdicts = heads.filter((head) => !['source class', 'lines', 'malformed evidence'].includes(head));
        const sum = verdicts.reduce((sum, head) => sum + figures[head], 0);
        if (sum !== figures.lines) wrong.push(`${cells[0]}: ${sum} of ${figures.lines} lines`);
        if (row.className === 'sum') Object.assign(all, figures, { refused: sum - figures.exported - number(figures.waiting) - number(figures.malformed) });
    }
    const tile = (label) => [...document.querySelectorAll('#tiles div')].find((tile) => tile.textContent.startsWith(label)).querySelector('dd').textContent;
    const expected = { 'Rows today': all.exported, 'Rows in total': all.exported, Waiting: number(all.waiting), Refused: all.refused, Malformed: number(all.malformed) + all['malformed evidence'] };
    for (const [label, figure] of Object.entries(expected)) {
        if (number(tile(label)) !== figure) wrong.push(`tile ${label}: ${tile(label)}, not ${figure}`);
    }
    const plotted = `${tile('Rows today')} rows, ${tile('Refused')} refused`;
    const readout = document.getElementById('day-readout').textContent;
    if (readout !== plotted) wrong.push(`${readout}, not ${plotted}`);
    return wrong;";

/// Returns the parts of the page that an empty lake and one with lines do not have in common, as far as they are shown.
const SHOWN: &str = "return ['first', 'fresh', 'rates', 'by-class'].filter((id) => !document.getElementById(id).hidden)";

pub fn assert_quiet(browser: &Browser) {
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
    // An empty lake shows what to do first, and no plots of nothing.
    let steps = browser.text("#first-steps");
    let root = bench.root().canonicalize().unwrap();
    for part in ["data/scored-runs/2", "data/evidence/2", " check"] {
        let path = format!("{}/{part}", root.display());
        assert!(steps.contains(part), "{steps}");
        assert!(part == " check" || steps.contains(&path), "{steps}");
    }
    assert_eq!(browser.run(SHOWN), serde_json::json!(["first"]));

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
    assert_eq!(
        browser.run(SHOWN),
        serde_json::json!(["fresh", "rates", "by-class"])
    );
    browser.wait_text("#fresh-readout", "the freshness is shown", |text| {
        text.starts_with("p50 ") && text.ends_with(" batches")
    });
    assert_eq!(browser.text("#classes tr.sum td:nth-child(4)"), "1");
    if get(address, "/status.json").json()["classes"].is_array() {
        browser.wait_text("#classes", "the classes are shown", |text| {
            text.contains("<img src=x")
        });
        let bars = "#hour svg path.series";
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
    browser.wait_text("#faults .active", "the fault and its remedy show", |text| {
        text.contains("File too large") && text.contains("Raise the limit of file sizes")
    });
    browser.wait_text("#state-fix", "the verdict has the remedy", |text| {
        text.contains("raise the limit of file sizes")
    });
    make_room(&daemon);
    browser.wait_text("#state-word", "it is over", |text| text == "Fresh");
    bench.wait_for(&mut daemon, "the page shows the row", || {
        rows_shown(&browser) == "3"
    });
    assert_eq!(
        browser.run("return document.querySelectorAll('#faults .active').length"),
        0
    );
    assert_quiet(&browser);

    bench.stop(daemon);
    browser.wait_text("#state-word", "the daemon's end shows", |text| {
        text == "No response"
    });
}

/// Returns every text whose contrast is below that of WCAG 2 level AA, as `contrast text`.
pub const LOW_CONTRAST: &str = r"
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
pub fn reached_by_tab(browser: &Browser) -> Vec<String> {
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0);");
    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press(TAB);
        let at = browser.run(
            "const at = document.activeElement;
             if (at === document.body) return null;
             const ring = getComputedStyle(at);
             if (ring.outlineStyle === 'none' || parseFloat(ring.outlineWidth) < 2) return 'unseen ' + at.id;
             return at.id || at.getAttribute('href') || at.textContent;",
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
                ground.contains("16, 19, 22"),
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
    for wanted in [
        "pause",
        "freshness",
        "hour",
        "day",
        "classes-scroll",
        "/metrics",
        "/status.json",
    ] {
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

/// Opens the first entry of a list, and waits until its explanation has these words.
fn explanation(browser: &Browser, list: &str, words: &[&str]) {
    browser.wait_text(&format!("{list} summary"), "an entry", |text| {
        !text.is_empty()
    });
    browser.run(&format!(
        "const entry = document.querySelector('{list} > details'); if (!entry.open) entry.querySelector('summary').click();"
    ));
    browser.wait_text(&format!("{list} .body"), "the explanation", |text| {
        words.iter().all(|word| text.contains(word))
    });
}

#[test]
fn what_waits_is_malformed_or_retracted_explains_itself() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    let hostile = "-<b>it's\u{202e}</b>";
    bench.append(Stream::Scored, PAIR, scored(hostile));
    bench.append_run(PAIR, "gone");
    bench.append(Stream::Scored, PAIR, scored_as("gone", "rejected"));
    bench.append(Stream::Evidence, PAIR, "{\"run_id\":7}\n");
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    let root = bench.root().canonicalize().unwrap();
    let command = |rest: &str| format!("distilld --root {} {rest}", root.display());
    let typed = command("explain -- '-<b>it'\\''s\u{202e}</b>'");
    let line = "the paired day-file has no evidence with its run id yet";
    explanation(&browser, "#waiting", &[hostile, line, &typed]);
    explanation(&browser, "#malformed", &["evidence, line 2", "wrong-type"]);
    let show = command(&format!("dead-letters show --evidence {PAIR} "));
    let wrong = "field run_id is not a string";
    explanation(&browser, "#malformed .inner", &[wrong, &show]);
    explanation(&browser, "#retracted", &["gone", "rejected"]);
    let cause = "A later line of the run is rejected.";
    explanation(
        &browser,
        "#retracted .inner",
        &[cause, &command("explain gone")],
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('main b, main img').length"),
        0
    );
    // A refresh keeps what is open.
    let as_of = browser.text("#waiting .note:last-child");
    browser.wait_text("#waiting .note:last-child", "a refresh", |text| {
        text != as_of
    });
    assert_eq!(
        browser.run("return document.querySelectorAll('main details[open]').length"),
        5
    );
    assert_quiet(&browser);
    bench.stop(daemon);
}

#[test]
fn every_verdict_shows_with_its_reason_and_remedy_in_sufficient_contrast() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    bench.append_run(PAIR, "r1");
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#state-word", "it is fresh", |text| text == "Fresh");
    // Most of these last too briefly to be seen: the answer of the daemon gets another verdict.
    browser.run(
        "const answered = window.fetch;
         window.fetch = async (path, options) => {
             const answer = await answered(path, options);
             if (path !== '/status.json' || !window.verdict) return answer;
             const status = await answer.json();
             Object.assign(status.health, { verdict: window.verdict, reason: 'a reason', fix: 'run `a command`' });
             return new Response(JSON.stringify(status), { headers: { 'content-type': 'application/json' } });
         };",
    );
    for verdict in distilld::query::health::Health::ALL {
        browser.run(&format!("window.verdict = '{}'", verdict.code()));
        let title = verdict.title();
        browser.wait_text("#state-word", "the verdict shows", |text| {
            text.to_lowercase() == title
        });
        let fix = "What to do: run a command.";
        browser.wait_text("#state-fix", "its remedy shows", |text| text == fix);
        assert!(browser.text("#state-why").starts_with("A reason"));
        let kind = browser.run("return document.getElementById('state').className");
        assert_eq!(kind == "state good", verdict.is_ready(), "{title}: {kind}");
        assert_eq!(
            kind == "state warn",
            verdict.is_temporary(),
            "{title}: {kind}"
        );
        for scheme in ["light", "dark"] {
            browser.set_appearance(1200, scheme);
            assert_eq!(
                browser.run(LOW_CONTRAST),
                serde_json::json!([]),
                "{title}, {scheme}"
            );
        }
    }
    assert_quiet(&browser);
    bench.stop(daemon);
}

#[test]
fn the_head_names_host_instance_version_and_uptime() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    let (daemon, address) = bench.listening();
    let process = get(address, "/status.json").json()["process"].clone();
    let host = process["host"].as_str().unwrap();
    assert!(!host.is_empty(), "{process}");
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#process", "version and uptime show", |text| {
        text.contains(env!("CARGO_PKG_VERSION")) && text.contains("up ")
    });
    assert!(browser.text("#name").contains(host), "{process}");
    let title = browser.run("return document.title").to_string();
    assert!(
        title.contains(host) && title.contains("No sources"),
        "{title}"
    );
    assert!(
        browser
            .text("#root")
            .ends_with(bench.root().file_name().unwrap().to_str().unwrap())
    );
    assert_quiet(&browser);
    bench.stop(daemon);
}

#[test]
fn seventy_two_classes_are_sorted_filtered_and_keep_their_colours() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    for class in 0..72 {
        for run in 0..=class % 9 {
            let pair = format!("2026/05/01/class_{class:02}_of_the_night.jsonl");
            bench.append_run(&pair, &format!("r{run}"));
        }
    }
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    let names = || {
        browser.run("return [...document.querySelectorAll('#classes tbody th')].map((name) => name.textContent)")
    };
    let count = || names().as_array().unwrap().len();
    // 64 and `other`.
    browser.wait_text("#classes", "the classes show", |text| {
        text.contains("other")
    });
    assert_eq!(count(), 65);
    let colours = "return Object.fromEntries([...document.querySelectorAll('#classes tbody tr')].map((row) => [row.cells[0].textContent, getComputedStyle(row.querySelector('rect')).fill]))";
    let by_name = browser.run(colours);
    let drawn = browser.run("return [...document.querySelectorAll('#hour path.series')].map((path) => [path.dataset.class, getComputedStyle(path).fill])");
    for drawn in drawn.as_array().unwrap() {
        let name = drawn[0].as_str().unwrap();
        assert_eq!(by_name[name], drawn[1], "{name}");
    }
    assert_eq!(drawn.as_array().unwrap().len(), 8);
    let press = |column: usize| {
        browser.run(&format!(
            "document.querySelectorAll('#classes .sort')[{column}].click()"
        ));
        browser.run("return [...document.querySelectorAll('#classes tbody td:nth-child(2)')].map((cell) => Number(cell.textContent))")
    };
    let figures = |shown: Value| -> Vec<u64> { serde_json::from_value(shown).unwrap() };
    let (down, up) = (figures(press(1)), figures(press(1)));
    assert!(down.is_sorted_by(|a, b| a >= b), "{down:?}");
    assert!(up.is_sorted(), "{up:?}");
    assert_eq!(
        browser.run("return [...document.querySelectorAll('[aria-sort]')].map((head) => head.textContent + head.getAttribute('aria-sort'))"),
        serde_json::json!(["linesascending"])
    );
    browser.run("const filter = document.getElementById('filter'); filter.value = 'CLASS_1'; filter.dispatchEvent(new Event('input'));");
    assert_eq!(count(), 10);
    assert_eq!(browser.text("#filtered"), "10 of 65");
    // The colour is that of the name, not of its place among the others.
    let filtered = browser.run(colours);
    for (name, colour) in filtered.as_object().unwrap() {
        assert_eq!(by_name[name], *colour, "{name}");
    }
    for width in [400, 1200] {
        browser.set_appearance(width, "light");
        assert_eq!(browser.run(SIDEWAYS), 0, "{width} px");
    }
    assert_quiet(&browser);
    bench.stop(daemon);
}

pub const SIDEWAYS: &str =
    "return document.documentElement.scrollWidth - document.documentElement.clientWidth";

/// Draws the plots with large figures and an old minute, and returns the labels that leave their plot or cover each other.
const LABELS: &str = r"
    const plots = await import('/plot.js');
    const steps = 1440, minute_s = 1777000020 - 86400 + 60;
    const figures = (figure) => Array.from({ length: steps }, (_, step) => step % 7 ? 0 : figure);
    const wrong = [];
    for (const figure of [0, 1, 9999, 10000, 123456, 98765432, 5e11]) {
        const series = figure ? { a: { exported: figures(figure), refused: figures(figure / 10) } } : {};
        const percentiles = Array.from({ length: 60 }, () => figure);
        const freshness = { minute_s: 1777000020 - 3540, batches: percentiles, p50_ms: percentiles, p99_ms: percentiles, hour: { batches: figure, p50_ms: figure, p99_ms: figure } };
        const recent = { minute_s, step_s: 60, steps, series, freshness };
        plots.rows(recent);
        plots.freshness(recent, { objective_seconds: 60 });
        for (const id of ['freshness', 'hour', 'day']) {
            const box = document.getElementById(id), frame = box.getBoundingClientRect();
            const labels = [...box.querySelectorAll('text')];
            for (const label of labels) {
                const at = label.getBoundingClientRect();
                if (at.left < frame.left - 1 || at.right > frame.right + 1 || at.top < frame.top - 4 || at.bottom > frame.bottom + 4) wrong.push(`${figure} ${id}: ${label.textContent} is cut`);
                for (const other of labels) {
                    const to = other.getBoundingClientRect();
                    if (other !== label && at.left < to.right && to.left < at.right && at.top + 3 < to.bottom && to.top + 3 < at.bottom) wrong.push(`${figure} ${id}: ${label.textContent} covers ${other.textContent}`);
                }
            }
            for (const bar of box.querySelectorAll('rect, path')) {
                const at = bar.getBoundingClientRect();
                if (at.top < frame.top - 1 || at.bottom > frame.bottom + 1) wrong.push(`${figure} ${id}: a bar leaves the plot`);
            }
        }
        // The newest minute of an hour without rows is that of now, too.
        document.getElementById('hour').dispatchEvent(new KeyboardEvent('keydown', { key: 'End' }));
        const time = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' }).format(new Date(1777000020000));
        const readout = document.getElementById('hour-readout').textContent;
        if (!readout.startsWith(time)) wrong.push(`${figure}: ${readout}, not ${time}`);
    }
    return wrong;";

#[test]
fn figures_of_every_size_fit_and_an_empty_hour_ends_now() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    bench.append_run(PAIR, "r1");
    bench.stop(bench.start_caught_up());
    // The rows of the process before this one are in the export, their freshness is not.
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#hour-readout", "the plots are drawn", |text| {
        text == "1 row, 0 refused"
    });
    assert_eq!(browser.text("#fresh-readout"), "no rows since the start");
    // Its own figures would replace those of the test.
    browser.run("document.getElementById('pause').click()");
    for width in [400, 1200] {
        browser.set_appearance(width, "light");
        assert_eq!(browser.run(LABELS), serde_json::json!([]), "{width} px");
    }
    assert_quiet(&browser);
    bench.stop(daemon);
}
