//! The list of the host's instances at the start of the page, in a real browser. The daemon that is asked sees an `/etc`
//! of its own; the others run as they are.

use std::fs;

use serde_json::{Value, json};

use crate::managed::namespaces_work;
use crate::page::{LOW_CONTRAST, SIDEWAYS, assert_quiet, reached_by_tab};
use crate::support::browser::Browser;
use crate::support::http::get;
use crate::support::packaged_host::PackagedHost;
use crate::support::process::Bench;

const PAIR: &str = "2026/05/01/audits.jsonl";
const SHOWN: &str = "return !document.getElementById('instances').hidden";
/// The name and the verdict of each entry.
const VERDICTS: &str = "return [...document.querySelectorAll('#instances-list li')].map((item) => [item.querySelector('strong').textContent, item.querySelector('.verdict').textContent])";

/// Returns the text of the entry of an instance.
fn entry(browser: &Browser, name: &str) -> String {
    let text = browser.run(&format!(
        "const item = [...document.querySelectorAll('#instances-list li')].find((item) => item.querySelector('strong').textContent === {});
         return item ? item.textContent : '';",
        json!(name)
    ));
    text.as_str().unwrap_or_default().to_owned()
}

fn wait_verdicts(browser: &Browser, verdicts: &Value) {
    browser.wait_text("#instances-list", &verdicts.to_string(), |_| {
        browser.run(VERDICTS) == *verdicts
    });
}

#[test]
fn several_instances_are_listed_with_verdict_and_way_and_one_is_not() {
    let (Some(browser), true) = (Browser::start(), namespaces_work()) else {
        return;
    };
    let host = PackagedHost::new();
    let (own, tcp, unix, idle) = (Bench::new(), Bench::new(), Bench::new(), Bench::new());
    host.add("distilld", &own);
    own.append_run(PAIR, "r1");
    let (daemon, address) = own.listening_by(&mut host.daemon("distilld"));
    let alone = get(address, "/instances.json").json();
    assert_eq!(alone["instances"].as_array().unwrap().len(), 1, "{alone}");
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#state-word", "it is fresh", |text| text == "Fresh");
    assert_eq!(browser.run(SHOWN), json!(false));

    let (tcp_daemon, tcp_address) = tcp.listening();
    let socket = unix.sibling("page.sock");
    let listen = format!("unix:{}", socket.display());
    unix.append_run(PAIR, "r1");
    let unix_daemon = unix.catch_up(&mut unix.command(&["run", "--listen", &listen]));
    idle.stop(idle.start_caught_up());
    let long = "of-the-night-and-of-the-day-".repeat(4);
    host.add("lab", &tcp);
    host.add(&long, &unix);
    host.add("idle", &idle);
    host.configure("wrong", "roott = \"/srv/wrong\"\n");
    host.configure("away", "root = \"/srv/does not exist\"\n");
    fs::write(host.file("old.toml.dpkg-old"), "").unwrap();
    let verdicts = json!([
        ["away", "Unknown"],
        ["distilld", "Fresh"],
        ["idle", "Not running"],
        ["lab", "No sources"],
        [long, "Fresh"],
        ["wrong", "Unknown"],
    ]);
    wait_verdicts(&browser, &verdicts);
    assert_eq!(browser.run(SHOWN), json!(true));

    let port = tcp_address.port();
    let name = get(address, "/status.json").json()["process"]["host"].clone();
    let ssh = format!("ssh -L {port}:127.0.0.1:{port} {}", name.as_str().unwrap());
    for (instance, words) in [
        ("distilld", vec!["this page".to_owned()]),
        ("lab", vec![format!("localhost:{port}"), ssh]),
        (&long, vec![format!(":{} ", socket.display())]),
        ("idle", vec!["systemctl start distilld@idle".to_owned()]),
        (
            "wrong",
            vec![
                "roott".to_owned(),
                "distilld --instance wrong check".to_owned(),
            ],
        ),
        ("away", vec!["/srv/does not exist".to_owned()]),
    ] {
        let entry = entry(&browser, instance);
        for word in words {
            assert!(entry.contains(&word), "no {word} in {entry}");
        }
    }
    for scheme in ["light", "dark"] {
        for width in [400, 1200] {
            browser.set_appearance(width, scheme);
            browser.picture(&format!("instances-{scheme}-{width}"));
            assert_eq!(browser.run(SIDEWAYS), 0, "{width} px");
            assert_eq!(browser.run(LOW_CONTRAST), json!([]), "{scheme}, {width} px");
        }
    }
    let link = format!("http://localhost:{port}/");
    let reached = reached_by_tab(&browser);
    assert!(reached.contains(&link), "{link} is not among {reached:?}");
    assert!(
        !reached.iter().any(|at| at.starts_with("unseen")),
        "{reached:?}"
    );
    // The way leads to the page of that instance.
    let page = get(tcp_address, "/status.json").json();
    assert_eq!(
        page["root"],
        json!(tcp.root().canonicalize().unwrap()),
        "{page}"
    );

    // The list follows the host.
    unix.stop(unix_daemon);
    fs::remove_file(host.file("wrong.toml")).unwrap();
    fs::remove_file(host.file("away.toml")).unwrap();
    let verdicts = json!([
        ["distilld", "Fresh"],
        ["idle", "Not running"],
        ["lab", "No sources"],
        [long, "Not running"],
    ]);
    wait_verdicts(&browser, &verdicts);
    assert_quiet(&browser);
    tcp.stop(tcp_daemon);
    own.stop(daemon);
}
