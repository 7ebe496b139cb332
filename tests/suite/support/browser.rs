//! A headless Chromium for one test: the page, user input, and console errors. Uses WebDriver with chromedriver, which
//! is JSON over HTTP; a client crate would be larger than needed.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::http::{connect, exchange};
use super::kill_harness::wait_until;
use super::process::LONG;

/// A browser with one page. It ends with its driver.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser; returns `None`, with the reason on stderr, where it is neither installed nor required.
    pub fn start() -> Option<Self> {
        let spawned = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut driver = match spawned {
            Ok(driver) => driver,
            Err(error)
                if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() =>
            {
                eprintln!("skipped: no chromedriver here; Debian has it in chromium-driver");
                return None;
            }
            Err(error) => panic!("chromedriver: {error}"),
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let address =
            SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver names its port")));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
            _profile: profile,
        };
        let session = browser.command("POST", "/session", &browser.capabilities());
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    fn capabilities(&self) -> Value {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}})
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(connect(self.address), &request).unwrap();
        let mut body = answer.json();
        assert_eq!(answer.status, 200, "{method} {path}: {body}");
        body["value"].take()
    }

    fn in_session(&self, path: &str, body: &Value) -> Value {
        self.command("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.in_session("/url", &json!({ "url": url }));
    }

    /// Returns the result of a function body that runs in the page.
    pub fn run(&self, body: &str) -> Value {
        self.in_session("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// Returns the text of the first element of a selector.
    pub fn text(&self, selector: &str) -> String {
        let found = self.run(&format!(
            "const found = document.querySelector({}); return found ? found.textContent : null;",
            json!(selector)
        ));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of an element satisfies `will_do`.
    pub fn wait_text(&self, selector: &str, what: &str, will_do: impl Fn(&str) -> bool) {
        let shown = wait_until(LONG, || Ok(will_do(&self.text(selector))));
        assert!(
            shown.unwrap(),
            "not within {LONG:?}: {what}; {selector} shows {:?}",
            self.text(selector)
        );
    }

    /// Presses and releases a key, given by its WebDriver code or its letter.
    pub fn press(&self, key: &str) {
        let strokes = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.in_session(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]}),
        );
    }

    /// Calls a command of the developer tools.
    pub fn tools(&self, command: &str, parameters: &Value) -> Value {
        self.in_session(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// Keeps a picture of the whole page, for people, as `page/NAME.png` in the directory of the tests' files.
    pub fn picture(&self, name: &str) {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&dir).unwrap();
        let whole = json!({"captureBeyondViewport": true});
        let taken = self.tools("Page.captureScreenshot", &whole);
        let mut decoder = Command::new("base64")
            .arg("--decode")
            .stdin(Stdio::piped())
            .stdout(File::create(dir.join(format!("{name}.png"))).unwrap())
            .spawn()
            .unwrap();
        let mut encoded = decoder.stdin.take().unwrap();
        encoded
            .write_all(taken["data"].as_str().unwrap().as_bytes())
            .unwrap();
        drop(encoded);
        assert!(decoder.wait().unwrap().success());
    }

    /// Sets the width of the window and the light or dark scheme.
    pub fn set_appearance(&self, width: u32, scheme: &str) {
        self.tools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
        );
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.tools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Returns the console messages since the last call.
    pub fn console(&self) -> Vec<String> {
        let log = self.in_session("/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().unwrap().iter();
        lines.map(|line| line["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.command(
                "DELETE",
                &format!("/session/{}", self.session),
                &Value::Null,
            );
        }
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
