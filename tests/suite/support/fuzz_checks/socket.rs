//! The properties that hold for any bytes from a socket: requests on each socket, the query string of a request, the
//! hosts that a request may name, and a command's handling of an answer. The daemon's side runs completely, on a
//! connection within the process, with a real engine on a small lake; its clock advances whenever nothing else
//! happens, so that a wait without a limit is detected.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use distilld::cli::render;
use distilld::cli::render::status::TerminalSize;
use distilld::config::Settings;
use distilld::daemon::event_loop::catch_up;
use distilld::daemon::inbox::Inbox;
use distilld::daemon::requests::{EngineRequest, Snapshot};
use distilld::engine::Engine;
use distilld::engine::Lag;
use distilld::engine::metrics::Metrics;
use distilld::http::{Client, Endpoint, QueryContext, StatusCache, connection};
use distilld::lake::path::export_path;
use distilld::lake::path::{PairPath, Stream};
use distilld::pair::verdict::LineTotals;
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::platform::escape::printable_bytes;
use distilld::platform::root_lock::Holder;
use distilld::platform::storage::OsStorage;
use distilld::query::control::ControlError;
use distilld::query::dead_letters::{
    DeadLetterFilter, DeadLetterPage, RetryReport, RetryStart, bytes_of, letters, stream_named,
};
use distilld::query::engine_setup::engine_setup;
use distilld::query::explain::Explanation;
use distilld::query::offline::{InquireError, LONG, of_daemon};
use distilld::query::plan::Plan;
use distilld::query::status::{RuntimeStatus, Status, UnreadPairs};
use distilld::query::wait::WaitReport;
use form_urlencoded::byte_serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// Maximum duration of a connection: the minute of its life, and the time that a client has to read its last answer.
const LIFE_MAX: Duration = Duration::from_secs(76);
/// Bytes in transit; fewer than an answer has if the client does not read.
const PIPE_BYTES: usize = 512;
/// Longer queries do not fit the head of a request when all of them is escaped.
const QUESTION_LEN_MAX: usize = 4_096;
/// The local address of the TCP socket.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// The pairs of the lake, all with the same lines.
const PAIRS: [&str; 2] = ["2026/05/01/audits.jsonl", "2026/05/02/a b&\u{fc}.jsonl"];
/// Its runs: id, category, and the text of the evidence if there is any.
const RUNS: [(&str, &str, Option<&str>); 8] = [
    ("r1", "accepted", Some("said")),
    ("r2", "rejected", Some("said")),
    ("r3", "odd", None),
    ("r4", "accepted", None),
    ("r5", "partially_accepted", Some(" ")),
    ("a b&c=\u{fc}%41+", "accepted", Some("\u{1b}[31m")),
    ("\u{fffd}", "accepted", Some("said")),
    ("", "accepted", None),
];
/// Headers of every answer.
const HARDENING: [&str; 7] = [
    "content-security-policy: default-src 'none'; ",
    "x-content-type-options: nosniff",
    "x-frame-options: deny",
    "referrer-policy: no-referrer",
    "cache-control: no-store",
    "cross-origin-resource-policy: same-origin",
    "cross-origin-opener-policy: same-origin",
];

/// Checks that any input from a socket gets its answer or none in bounded time, changes nothing except through the
/// socket for that, and is parsed as by a second parser. The first byte selects the kind of the rest.
pub fn socket(bytes: &[u8]) {
    thread_local!(static LAKE: RefCell<Lake> = RefCell::new(Lake::new()));
    LAKE.with_borrow_mut(|lake| match bytes {
        [b'r', manner, sent @ ..] => lake.any_request(Manner::of(*manner), sent),
        [b'q', which, query @ ..] => lake.question(*which, query),
        [b'h', names @ ..] => lake.hosts(names),
        [b'a', which, answer @ ..] => lake.answer(*which, answer),
        _ => {}
    });
}

/// The behavior of a client, its socket, and the condition of the daemon.
#[derive(Debug, Clone, Copy)]
struct Manner {
    door: Endpoint,
    piece_len: usize,
    end: End,
    daemon: Daemon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Reads until the end of the stream.
    Reads,
    /// Sends everything and disconnects.
    Goes,
    /// Reads nothing and stays connected.
    Stays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Follows,
    Recovers,
    /// Has an engine that never answers.
    Hangs,
}

impl Manner {
    const PLAIN: Self = Self {
        door: Endpoint::Control(Client::Owner),
        piece_len: usize::MAX,
        end: End::Reads,
        daemon: Daemon::Follows,
    };

    fn of(byte: u8) -> Self {
        let digit = |place: u8| usize::from(byte / place % 3);
        Self {
            door: [
                Endpoint::Tcp(OWN),
                Endpoint::Unix,
                Endpoint::Control(Client::Owner),
            ][digit(1)],
            end: [End::Reads, End::Goes, End::Stays][digit(3)],
            daemon: [Daemon::Follows, Daemon::Recovers, Daemon::Hangs][digit(9)],
            piece_len: [usize::MAX, 9, 1][digit(27)],
        }
    }
}

/// A small lake, completely read, and the server that answers queries about it.
struct Lake {
    settings: Settings,
    root: PathBuf,
    engine: Engine,
    wake: Arc<Inbox>,
    metrics: Arc<Metrics>,
    answering: Arc<QueryContext>,
    runtime: Rc<Runtime>,
    totals: LineTotals,
    export: Vec<u8>,
    /// Day-files that the current request queued for a reread.
    retried: Vec<(PairPath, Stream)>,
    /// The daemon's answers to the next commands.
    answers_to_send: mpsc::Sender<Vec<u8>>,
    _dir: tempfile::TempDir,
}

impl Lake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        write_lake(&root);
        let settings = Settings {
            settle: Duration::from_millis(1),
            ..Settings::with_defaults(&root)
        };
        let clock = Arc::new(HostClock::new());
        let (mut engine, _) =
            Engine::open(engine_setup(&settings, &root, Arc::clone(&clock) as _)).unwrap();
        catch_up(
            &mut engine,
            &root,
            &*clock,
            &Inbox::new(),
            &mut |_, _, _| {},
        )
        .unwrap();
        let metrics = Arc::new(Metrics::new());
        engine.measure_with(Arc::clone(&metrics));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            totals: *engine.totals(),
            export: fs::read(export_path(&root)).unwrap(),
            engine,
            wake: Arc::new(Inbox::new()),
            metrics,
            answering: Arc::new(QueryContext::new(root.clone(), settings.max_line_bytes)),
            runtime: Rc::new(runtime.enable_time().start_paused(true).build().unwrap()),
            retried: Vec::new(),
            answers_to_send: scripted_daemon(&settings.state_dir),
            settings,
            root,
            _dir: dir,
        }
    }

    /// Checks any bytes: the answer is HTTP, in time, and nothing has changed afterwards.
    fn any_request(&mut self, manner: Manner, sent: &[u8]) {
        let desk = self.desk(manner.daemon);
        let received = self.exchange_at(&desk, manner, sent);
        let whole = manner.end == End::Reads && !announces_a_body(sent);
        for answer in Answer::all(&received, whole) {
            answer.check(manner);
            if matches!(manner.door, Endpoint::Tcp(_)) && answer.status == 200 {
                let sent = String::from_utf8_lossy(sent).to_lowercase();
                let named = ["localhost", "127.", "]", "192.0.2.7"];
                let named = named.iter().any(|name| sent.contains(name));
                assert!(named, "an answer to a foreign name: {answer:?}");
            }
        }
        if !manner.door.is_control() {
            assert_eq!(self.retried, [], "a stranger had it done");
        }
        self.check_answer_unaffected(&desk, manner.daemon);
        self.check_unchanged();
    }

    /// Checks that the answer to the next client is independent of earlier requests.
    fn check_answer_unaffected(&mut self, desk: &Arc<StatusCache>, daemon: Daemon) {
        let manner = Manner {
            door: Endpoint::Unix,
            daemon,
            ..Manner::PLAIN
        };
        let request = b"GET /recent.json HTTP/1.1\r\nConnection: close\r\n\r\n";
        let received = self.exchange_at(desk, manner, request);
        let answers = Answer::all(&received, true);
        answers.iter().for_each(|answer| answer.check(manner));
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let expected = if daemon == Daemon::Hangs { 503 } else { 200 };
        assert_eq!(statuses, [expected], "{answers:?}");
    }

    /// Checks that a query is parsed as by a second parser, and equally when it is encoded as a command does.
    fn question(&mut self, which: u8, query: &[u8]) {
        let in_a_target = |byte: &u8| matches!(byte, b'!'..=b'~') && *byte != b'#';
        if query.len() > QUESTION_LEN_MAX || !query.iter().all(in_a_target) {
            return;
        }
        let (method, path) = [
            ("GET", "/explain.json"),
            ("GET", "/dead-letters.json"),
            ("POST", "/dead-letters/retry"),
        ][usize::from(which % 3)];
        let pairs = pairs_of(query);
        let request = |query: &[u8]| {
            let head = format!("{method} {path}?").into_bytes();
            [&head, query, b" HTTP/1.1\r\nConnection: close\r\n\r\n"].concat()
        };
        let received = self.exchange(Manner::PLAIN, &request(query));
        let retried = std::mem::take(&mut self.retried);
        let answers = Answer::all(&received, true);
        let [answer] = &answers[..] else {
            panic!("one question, {received:?}");
        };
        answer.check(Manner::PLAIN);
        if answer.is_from_hyper() {
            return;
        }
        match which % 3 {
            0 => self.check_explained(answer, &pairs),
            1 => self.check_letters(answer, &pairs),
            _ => check_retried(answer, &pairs, &retried),
        }
        let encoded = |bytes: &[u8]| byte_serialize(bytes).collect::<String>();
        let written = pairs
            .iter()
            .map(|(name, value)| encoded(name) + "=" + &encoded(value));
        let written = written.collect::<Vec<_>>().join("&");
        let again = self.exchange(Manner::PLAIN, &request(written.as_bytes()));
        assert_eq!(body_of(&again), body_of(&received), "{written}");
        assert_eq!(std::mem::take(&mut self.retried), retried, "{written}");
        self.check_unchanged();
    }

    fn check_explained(&self, answer: &Answer, pairs: &Pairs) {
        let Some(run_id) = first_text(pairs, "run_id") else {
            return assert_eq!(answer.status, 400, "{answer:?}");
        };
        let explanation: Explanation = answer.json();
        assert_eq!(explanation.run_id, run_id);
        let all: Vec<&str> = RUNS.iter().map(|(run_id, ..)| *run_id).collect();
        assert_eq!(
            explanation.known,
            all.contains(&&*run_id),
            "{explanation:?}"
        );
    }

    fn check_letters(&self, answer: &Answer, pairs: &Pairs) {
        let day_file = first(pairs, "day_file").map(path_of);
        if day_file == Some(None) {
            return assert_eq!(answer.status, 400, "{answer:?}");
        }
        let number = |name| first_text(pairs, name).and_then(|number| number.parse().ok());
        let wanted = DeadLetterFilter {
            day_file: day_file.flatten(),
            stream: first_text(pairs, "stream").and_then(|name| stream_named(&name)),
            skip: number("skip").unwrap_or(0),
            limit: number("limit").unwrap_or(100).min(10_000),
        };
        let found = letters(
            &self.engine.state_snapshot(),
            &OsStorage,
            &self.root,
            &wanted,
        )
        .unwrap();
        assert_eq!(answer.json::<DeadLetterPage>(), found, "{wanted:?}");
    }

    /// Checks that a browser with a foreign host name gets nothing, and that a local name is accepted.
    fn hosts(&mut self, names: &[u8]) {
        let is_header_byte = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
        if names.len() > QUESTION_LEN_MAX || !names.iter().all(is_header_byte) {
            return;
        }
        let names = std::str::from_utf8(names).unwrap();
        let (target, hosts) = names.split_once('\n').unwrap_or((names, ""));
        if target.is_empty() || target.contains(' ') {
            return;
        }
        let hosts: Vec<&str> = hosts.split('\n').map(str::trim).collect();
        let mut request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n");
        hosts
            .iter()
            .for_each(|host| request += &format!("Host: {host}\r\n"));
        request += "\r\n";
        let manner = Manner {
            door: Endpoint::Tcp(OWN),
            ..Manner::PLAIN
        };
        let received = self.exchange(manner, request.as_bytes());
        let answers = Answer::all(&received, true);
        let [answer] = &answers[..] else {
            panic!("one request, {received:?}");
        };
        answer.check(manner);
        let mut named = hosts.iter().copied().chain(name_in(target));
        let foreign = named.find(|name| !is_own_host(name));
        match foreign {
            // 431: more headers than the library accepts.
            Some(name) => {
                assert!(
                    [400, 421, 431].contains(&answer.status),
                    "{name:?}: {answer:?}"
                );
            }
            None => assert_ne!(answer.status, 421, "{names:?}"),
        }
        self.check_unchanged();
    }

    /// Checks that a command turns an answer of any bytes into an error of its own or a page, and never waits for
    /// more.
    fn answer(&mut self, which: u8, answer: &[u8]) {
        let body_alone = which & 8 != 0;
        let head = match body_alone {
            true => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            ),
            false => String::new(),
        };
        self.answers_to_send
            .send([head.as_bytes(), answer].concat())
            .unwrap();
        match which % 8 {
            0 => self.check_page(|status: Status| {
                let widths = [40, 80, 200];
                let page = |width| {
                    render::status::page(
                        &status,
                        TerminalSize {
                            width,
                            colour: false,
                        },
                    )
                };
                widths.map(page).concat()
            }),
            1 => self.check_page(|explanation: Explanation| render::explain::page(&explanation)),
            2 => self.check_page(|plan: Plan| render::plan::page(&plan)),
            3 => self.check_page(|retried: RetryReport| format!("{retried:?}")),
            _ => {
                let root = self.root.clone();
                self.check_page(|letters: DeadLetterPage| shown(&root, &letters))
            }
        }
    }

    fn check_page<T: DeserializeOwned + Debug>(&self, page: impl FnOnce(T) -> String) {
        let holder = Holder {
            ends_soon: false,
            pid: 7,
            root: self.root.clone(),
            state_dir: self.settings.state_dir.clone(),
        };
        // A fuzzer that is stopped for a while does not count as a daemon that hangs.
        match of_daemon(&holder, hyper::Method::GET, "/told.json", LONG) {
            Ok(answer) => _ = page(answer),
            Err(InquireError::Unresponsive {
                source: ControlError::Late(_),
                ..
            }) => panic!("it waits for more than comes"),
            Err(error) => assert!(error.to_string().contains("process 7"), "{error}"),
        }
    }

    /// Returns a cache without any requests so far.
    fn desk(&self, daemon: Daemon) -> Arc<StatusCache> {
        let (metrics, answering) = (Arc::clone(&self.metrics), Arc::clone(&self.answering));
        let desk = Arc::new(StatusCache::new(Arc::clone(&self.wake), metrics, answering));
        if daemon != Daemon::Recovers {
            desk.recovered();
        }
        desk
    }

    fn exchange(&mut self, manner: Manner, sent: &[u8]) -> Vec<u8> {
        let desk = self.desk(manner.daemon);
        self.exchange_at(&desk, manner, sent)
    }

    /// Sends the bytes, and returns what the daemon answered until it closed the connection.
    fn exchange_at(&mut self, desk: &Arc<StatusCache>, manner: Manner, sent: &[u8]) -> Vec<u8> {
        let desk = Arc::clone(desk);
        self.retried.clear();
        let runtime = Rc::clone(&self.runtime);
        runtime.block_on(async {
            let (client, server) = tokio::io::duplex(PIPE_BYTES);
            let mut unanswered = Vec::new();
            let mut served = pin!(connection(server, manner.door, desk));
            let served = poll_fn(|cx| {
                let polled = served.as_mut().poll(cx);
                self.answer_questions(manner, &mut unanswered);
                polled
            });
            let served = async {
                let ended = timeout(LIFE_MAX, served).await;
                assert!(ended.is_ok(), "a connection that does not end: {manner:?}");
            };
            tokio::join!(served, client_of(client, manner, sent)).1
        })
    }

    fn answer_questions(&mut self, manner: Manner, unanswered: &mut Vec<EngineRequest>) {
        for question in self.wake.take_requests() {
            if let EngineRequest::Retry { path, stream, .. } = &question {
                self.retried.push((path.clone(), *stream));
            }
            match manner.daemon {
                Daemon::Hangs => unanswered.push(question),
                _ => self.answer_question(question),
            }
        }
    }

    /// Answers like the engine's thread between two passes.
    fn answer_question(&mut self, question: EngineRequest) {
        // The client may have disconnected meanwhile.
        match question {
            EngineRequest::Snapshot(reply) => drop(reply.send(self.snapshot())),
            EngineRequest::Recent(reply) => drop(reply.send(self.engine.recent())),
            EngineRequest::ReopenState => self.engine.reopen_state_if_failed().unwrap(),
            EngineRequest::Wait { reply, .. } => drop(reply.send(WaitReport::pending())),
            EngineRequest::Order(request, reply) => {
                let result = self.engine.order(&request);
                drop(reply.send(result.map_err(|error| error.to_string())));
            }
            EngineRequest::Retry {
                path,
                stream,
                reply,
            } => match self.engine.begin_retry(&path, stream).unwrap() {
                RetryStart::Refused(why) => drop(reply.send(Err(why))),
                RetryStart::Begun(before) => {
                    while self.engine.is_unread(&path) {
                        self.engine.pass().unwrap();
                    }
                    let retried = self.engine.end_retry(&path, stream, before).unwrap();
                    assert_eq!(retried.before, retried.after, "the line was not repaired");
                    drop(reply.send(Ok(retried)));
                }
            },
        }
    }

    fn snapshot(&self) -> Snapshot {
        let now_ms = HostClock::new().wall_ms();
        let (engine, settings, root) = (&self.engine, &self.settings, &self.root);
        let live = RuntimeStatus {
            lag: Lag {
                caught_up: true,
                ..Lag::default()
            },
            ..RuntimeStatus::default()
        };
        Snapshot {
            status: Status::of_daemon(engine, settings, root, live, now_ms),
            state: engine.state_snapshot(),
            unread: UnreadPairs {
                is_complete: true,
                ..UnreadPairs::default()
            },
        }
    }

    fn check_unchanged(&self) {
        assert_eq!(self.engine.totals(), &self.totals);
        let export = fs::read(export_path(&self.root)).unwrap();
        assert!(export == self.export, "the export is another one");
    }
}

/// Writes two day-files of each stream, with a line of most kinds.
fn write_lake(root: &Path) {
    for pair in PAIRS {
        let (mut scored, mut evidence) = (String::from("{\n"), String::from("[\n"));
        for (run_id, category, text) in RUNS {
            scored += &json!({"evidence_run_id": run_id, "category": category}).to_string();
            scored += "\n";
            if let Some(text) = text {
                let record = json!({"run_id": run_id, "model_role": "executor", "text": text});
                evidence += &record.to_string();
                evidence += "\n";
            }
        }
        for (stream, lines) in [(Stream::Scored, scored), (Stream::Evidence, evidence)] {
            let path = stream.base(root).join(pair);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, lines).unwrap();
        }
    }
}

/// Listens in place of the daemon; sends the given answers to one command after the other.
fn scripted_daemon(state_dir: &Path) -> mpsc::Sender<Vec<u8>> {
    let listener = UnixListener::bind(state_dir.join("control.sock")).unwrap();
    let (answers_to_send, to_send) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for answer in to_send {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut some) = (Vec::new(), [0; 512]);
            while !request.ends_with(b"\r\n\r\n") {
                let len = stream.read(&mut some).unwrap();
                request.extend_from_slice(&some[..len]);
            }
            // The client may close the connection early.
            _ = stream.write_all(&answer);
        }
    });
    answers_to_send
}

/// Returns the bytes that a client receives.
async fn client_of(client: DuplexStream, manner: Manner, sent: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(client);
    let sending = async {
        for piece in sent.chunks(manner.piece_len) {
            if writing.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if manner.end == End::Goes {
            _ = writing.shutdown().await;
        }
    };
    let receiving = async {
        let mut received = Vec::new();
        match manner.end {
            End::Stays => sleep(LIFE_MAX).await,
            _ => _ = reading.read_to_end(&mut received).await,
        }
        received
    };
    tokio::select! {
        ((), received) = async { tokio::join!(sending, receiving) } => received,
        () = sleep(2 * LIFE_MAX) => panic!("it never hangs up: {manner:?}"),
    }
}

/// Returns whether the request announces a body: if that does not arrive completely, the answer may be incomplete.
fn announces_a_body(sent: &[u8]) -> bool {
    let sent = sent.to_ascii_lowercase();
    let has_header = |header: &[u8]| memchr::memmem::find(&sent, header).is_some();
    has_header(b"content-length") || has_header(b"transfer-encoding")
}

/// Returns the bytes of the dead letters at the positions that an answer names.
fn shown(root: &Path, letters: &DeadLetterPage) -> String {
    let pair = PairPath::from_relative(Path::new(PAIRS[0])).unwrap();
    let mut shown = String::new();
    for letter in letters.letters.iter().take(20) {
        // A missing day-file is reported as such.
        _ = bytes_of(&OsStorage, root, &pair, letter, |bytes| {
            shown += &printable_bytes(bytes);
            Ok(())
        });
    }
    shown
}

fn check_retried(answer: &Answer, pairs: &Pairs, retried: &[(PairPath, Stream)]) {
    let path = first(pairs, "day_file").and_then(path_of);
    let stream = first_text(pairs, "stream").and_then(|name| stream_named(&name));
    let (Some(path), Some(stream)) = (path, stream) else {
        assert_eq!(answer.status, 400, "{answer:?}");
        return assert_eq!(retried, []);
    };
    assert_eq!(retried, [(path.clone(), stream)]);
    if PAIRS.contains(&&*path.to_string()) {
        assert_eq!(answer.json::<RetryReport>().day_file, path.to_string());
    } else {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}

/// The decoded pairs of a query string. The name of a day-file may be no UTF-8.
type Pairs = [(Vec<u8>, Vec<u8>)];

fn pairs_of(query: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = query.split(|byte| *byte == b'&');
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = pair.split_at(end.unwrap_or(pair.len()));
        (decoded(key), decoded(value.get(1..).unwrap_or_default()))
    });
    pairs.collect()
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        (rest, _) = match (byte, escaped) {
            (b'%', Some(escaped)) => (&tail[2..], bytes.push(escaped)),
            (b'+', _) => (tail, bytes.push(b' ')),
            _ => (tail, bytes.push(*byte)),
        };
    }
    bytes
}

fn first<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a [u8]> {
    let found = pairs.iter().find(|(key, _)| key == name.as_bytes());
    found.map(|(_, value)| value.as_slice())
}

fn first_text<'a>(pairs: &'a Pairs, name: &str) -> Option<Cow<'a, str>> {
    first(pairs, name).map(String::from_utf8_lossy)
}

fn path_of(bytes: &[u8]) -> Option<PairPath> {
    PairPath::from_relative(Path::new(OsStr::from_bytes(bytes)))
}

/// Returns the host in a request target.
fn name_in(target: &str) -> Option<&str> {
    if target.starts_with('/') || target == "*" {
        return None;
    }
    let tail = target.split_once("://").map_or(target, |(_, tail)| tail);
    tail.split(['/', '?', '#']).next()
}

fn is_own_host(name: &str) -> bool {
    let host = name.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next(),
        None => host.split(':').next(),
    };
    let host = host.unwrap_or_default().trim_end_matches('.');
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback() || address == OWN)
}

/// An answer as received.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    content_len: usize,
    body: Vec<u8>,
}

impl Answer {
    /// Parses all answers; `whole`: the last one, too, is complete.
    fn all(received: &[u8], whole: bool) -> Vec<Self> {
        let mut answers = Vec::new();
        let mut rest = received;
        while !rest.is_empty() {
            match Self::next(rest) {
                Some((answer, tail)) => {
                    rest = tail;
                    answers.extend((answer.status != 100).then_some(answer));
                }
                None => {
                    // The library refuses input that is not HTTP and closes the connection at once: a slow reader may
                    // miss the end of the answer.
                    const REFUSAL: &[u8] = b"HTTP/1.1 400 ";
                    let is_refusal = rest.starts_with(REFUSAL) || REFUSAL.starts_with(rest);
                    let received = String::from_utf8_lossy(rest);
                    assert!(!whole || is_refusal, "broken off: {received}");
                    break;
                }
            }
        }
        answers
    }

    fn next(received: &[u8]) -> Option<(Self, &[u8])> {
        let end = memchr::memmem::find(received, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&received[..end])
            .expect("heads are text")
            .to_lowercase();
        let mut lines = head.split("\r\n");
        let line = lines
            .next()
            .and_then(|line| line.strip_prefix("http/1."))
            .expect("HTTP");
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        let len = lines.find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut rest = &received[end + 4..];
        let content_len = len.unwrap_or(0);
        // An answer to HEAD has no body.
        let body_len = match rest.starts_with(b"HTTP/1.") || rest.is_empty() {
            true => 0,
            false => content_len,
        };
        let body = rest.split_off(..body_len)?.to_vec();
        let answer = Self {
            status,
            head,
            content_len,
            body,
        };
        Some((answer, rest))
    }

    /// Returns whether the library sent it, for input that is not a request.
    fn is_from_hyper(&self) -> bool {
        self.content_len == 0
    }

    fn check(&self, manner: Manner) {
        let known: &[u16] = match self.is_from_hyper() {
            true => &[400, 414, 431],
            false => &[200, 400, 404, 405, 421, 503],
        };
        assert!(known.contains(&self.status), "{self:?}");
        assert!(
            self.status != 503 || manner.daemon != Daemon::Follows,
            "{self:?}"
        );
        if self.is_from_hyper() {
            return;
        }
        for line in HARDENING {
            assert!(self.head.contains(line), "no {line}: {self:?}");
        }
        if self.head.contains("content-type: application/json") && !self.body.is_empty() {
            let body: Value = self.json();
            let everyones = ["health", "minute_s", "waiting", "malformed", "retracted"]
                .iter()
                .any(|key| body.get(key).is_some());
            assert!(
                everyones || manner.door.is_control(),
                "sent to a foreign client: {body}"
            );
        }
    }

    fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Returns the bytes after the head.
fn body_of(received: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(received, b"\r\n\r\n").unwrap_or(0);
    &received[end..]
}
