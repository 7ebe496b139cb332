//! Owns what must hold for any bytes that come from a socket: what a client sends by each door, what the questions behind
//! a path are read as, which hosts a request may name, and what a command makes of an answer. The daemon's side runs
//! whole, on a connection within the process, before a real engine on a small lake; its clock runs as fast as nothing
//! happens, so that whoever waits too long is seen to.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
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
use distilld::engine::Lag;
use distilld::engine::metrics::Metrics;
use distilld::engine::{Engine, Setup};
use distilld::http::{Endpoint, QueryContext, StatusCache, connection};
use distilld::lake::path::export_path;
use distilld::lake::path::{PairPath, Stream};
use distilld::pair::verdict::LineTotals;
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::platform::root_lock::Holder;
use distilld::platform::storage::OsStorage;
use distilld::query::control::ControlError;
use distilld::query::dead_letters::{
    DeadLetterFilter, DeadLetterPage, RetryReport, bytes_of, escaped, letters, stream_named,
};
use distilld::query::explain::Explanation;
use distilld::query::offline::{InquireError, LONG, of_daemon};
use distilld::query::plan::Plan;
use distilld::query::status::{RuntimeStatus, Status, UnreadPairs};
use form_urlencoded::Serializer;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// No connection lasts longer: the minute of its life, and the time that a client has to read its last answer.
const LIFE_MAX: Duration = Duration::from_secs(76);
/// Bytes on their way; fewer than an answer has where nobody reads.
const PIPE_BYTES: usize = 512;
/// Longer questions do not fit the head of a request when all of them is escaped.
const QUESTION_LEN_MAX: usize = 4_096;
/// The address of ours by which the door of TCP is entered.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// The pairs of the lake, all with the same lines.
const PAIRS: [&str; 2] = ["2026/05/01/audits.jsonl", "2026/05/02/a b&\u{fc}.jsonl"];
/// Its runs: id, category, the text of the evidence if there is any.
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
/// What every answer carries.
const HARDENING: [&str; 7] = [
    "content-security-policy: default-src 'none'; ",
    "x-content-type-options: nosniff",
    "x-frame-options: deny",
    "referrer-policy: no-referrer",
    "cache-control: no-store",
    "cross-origin-resource-policy: same-origin",
    "cross-origin-opener-policy: same-origin",
];

/// Whatever comes from a socket gets its answer or none in bounded time, changes nothing but by the door for that, and is
/// read as a second reading reads it. The first byte says what the others are.
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

/// How a client behaves, by which door it came, and how the daemon is.
#[derive(Debug, Clone, Copy)]
struct Manner {
    door: Endpoint,
    piece_len: usize,
    end: End,
    daemon: Daemon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It reads until nothing more comes.
    Reads,
    /// It has sent all and goes.
    Goes,
    /// It reads nothing, and stays.
    Stays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Follows,
    Recovers,
    /// Its engine never answers.
    Hangs,
}

impl Manner {
    const PLAIN: Self = Self {
        door: Endpoint::Control,
        piece_len: usize::MAX,
        end: End::Reads,
        daemon: Daemon::Follows,
    };

    fn of(byte: u8) -> Self {
        let digit = |place: u8| usize::from(byte / place % 3);
        Self {
            door: [Endpoint::Tcp(OWN), Endpoint::Unix, Endpoint::Control][digit(1)],
            end: [End::Reads, End::Goes, End::Stays][digit(3)],
            daemon: [Daemon::Follows, Daemon::Recovers, Daemon::Hangs][digit(9)],
            piece_len: [usize::MAX, 9, 1][digit(27)],
        }
    }
}

/// A small lake, all of it read, and what answers questions about it.
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
    /// Day-files that were to be read again, by the request in hand.
    retried: Vec<(PairPath, Stream)>,
    /// What the daemon says to the next command.
    eq_str: mpsc::Sender<Vec<u8>>,
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
            Engine::open(Setup::new(&settings, &root, Arc::clone(&clock) as _)).unwrap();
        catch_up(&mut engine, &root, &clock, &Inbox::new(), &mut |_, _, _| {}).unwrap();
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
            eq_str: daemon_that_says_so(&settings.state_dir),
            settings,
            root,
            _dir: dir,
        }
    }

    /// Any bytes: what is answered is HTTP, in time, and nothing is different afterwards.
    fn any_request(&mut self, manner: Manner, sent: &[u8]) {
        let desk = self.desk(manner.daemon);
        let heard = self.exchange_at(&desk, manner, sent);
        let whole = manner.end == End::Reads && !announces_a_body(sent);
        for answer in Answer::all(&heard, whole) {
            answer.check(manner);
            if matches!(manner.door, Endpoint::Tcp(_)) && answer.status == 200 {
                let sent = String::from_utf8_lossy(sent).to_lowercase();
                let named = ["localhost", "127.", "]", "192.0.2.7"];
                let named = named.iter().any(|name| sent.contains(name));
                assert!(named, "an answer to a foreign name: {answer:?}");
            }
        }
        if manner.door != Endpoint::Control {
            assert_eq!(self.retried, [], "a stranger had it done");
        }
        self.check_told_as_ever(&desk, manner.daemon);
        self.check_unchanged();
    }

    /// Whatever somebody asked, the next one is told what there is to tell.
    fn check_told_as_ever(&mut self, desk: &Arc<StatusCache>, daemon: Daemon) {
        let manner = Manner {
            door: Endpoint::Unix,
            daemon,
            ..Manner::PLAIN
        };
        let asked = b"GET /recent.json HTTP/1.1\r\nConnection: close\r\n\r\n";
        let heard = self.exchange_at(desk, manner, asked);
        let answers = Answer::all(&heard, true);
        answers.iter().for_each(|answer| answer.check(manner));
        let told: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let expected = if daemon == Daemon::Hangs { 503 } else { 200 };
        assert_eq!(told, [expected], "{answers:?}");
    }

    /// The query of a question is read as by a second reading, and as the same when it is written as a command does.
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
        let heard = self.exchange(Manner::PLAIN, &request(query));
        let retried = std::mem::take(&mut self.retried);
        let answers = Answer::all(&heard, true);
        let [answer] = &answers[..] else {
            panic!("one question, {heard:?}");
        };
        answer.check(Manner::PLAIN);
        if answer.is_hypers() {
            return;
        }
        match which % 3 {
            0 => self.check_explained(answer, &pairs),
            1 => self.check_letters(answer, &pairs),
            _ => check_retried(answer, &pairs, &retried),
        }
        let written = Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let again = self.exchange(Manner::PLAIN, &request(written.as_bytes()));
        assert_eq!(body_of(&again), body_of(&heard), "{written}");
        assert_eq!(std::mem::take(&mut self.retried), retried, "{written}");
        self.check_unchanged();
    }

    fn check_explained(&self, answer: &Answer, pairs: &Pairs) {
        let Some(run_id) = first(pairs, "run_id") else {
            return assert_eq!(answer.status, 400, "{answer:?}");
        };
        let explanation: Explanation = answer.json();
        assert_eq!(explanation.run_id, run_id);
        let all: Vec<&str> = RUNS.iter().map(|(run_id, ..)| *run_id).collect();
        assert_eq!(explanation.known, all.contains(&run_id), "{explanation:?}");
    }

    fn check_letters(&self, answer: &Answer, pairs: &Pairs) {
        let day_file =
            first(pairs, "day_file").map(|path| PairPath::from_relative(Path::new(path)));
        if day_file == Some(None) {
            return assert_eq!(answer.status, 400, "{answer:?}");
        }
        let number = |name| first(pairs, name).and_then(|number| number.parse().ok());
        let wanted = DeadLetterFilter {
            day_file: day_file.flatten(),
            stream: first(pairs, "stream").and_then(stream_named),
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

    /// A browser that was sent here under a foreign name gets nothing; whoever names us does.
    fn hosts(&mut self, names: &[u8]) {
        let may_stand = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
        if names.len() > QUESTION_LEN_MAX || !names.iter().all(may_stand) {
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
        let heard = self.exchange(manner, request.as_bytes());
        let answers = Answer::all(&heard, true);
        let [answer] = &answers[..] else {
            panic!("one request, {heard:?}");
        };
        answer.check(manner);
        let mut named = hosts.iter().copied().chain(name_in(target));
        let foreign = named.find(|name| !is_us(name));
        match foreign {
            // 431: more headers than the library takes.
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

    /// What a command makes of an answer of any bytes: its words for it, or a page; and it never waits for more.
    fn answer(&mut self, which: u8, answer: &[u8]) {
        let body_alone = which & 8 != 0;
        let head = match body_alone {
            true => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            ),
            false => String::new(),
        };
        self.eq_str
            .send([head.as_bytes(), answer].concat())
            .unwrap();
        match which % 8 {
            0 => self.told(|status: Status| {
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
            1 => self.told(|explanation: Explanation| render::explain::page(&explanation)),
            2 => self.told(|plan: Plan| render::plan::page(&plan)),
            3 => self.told(|retried: RetryReport| format!("{retried:?}")),
            _ => {
                let root = self.root.clone();
                self.told(|letters: DeadLetterPage| shown(&root, &letters))
            }
        }
    }

    fn told<T: DeserializeOwned + Debug>(&self, page: impl FnOnce(T) -> String) {
        let holder = Holder {
            pid: 7,
            root: self.root.clone(),
            state_dir: self.settings.state_dir.clone(),
            is_query: false,
        };
        // A fuzzer that is stopped for a while is no daemon that hangs.
        match of_daemon(&holder, hyper::Method::GET, "/told.json", LONG) {
            Ok(told) => _ = page(told),
            Err(InquireError::Unresponsive {
                source: ControlError::Late(_),
                ..
            }) => panic!("it waits for more than comes"),
            Err(error) => assert!(error.to_string().contains("process 7"), "{error}"),
        }
    }

    /// One at which nothing was asked yet.
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

    /// Sends it, and gives what the daemon answered until it hung up.
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

    /// As the engine's thread does between two passes.
    fn answer_question(&mut self, question: EngineRequest) {
        // Who asked may have gone away meanwhile.
        match question {
            EngineRequest::Snapshot(reply) => drop(reply.send(self.snapshot())),
            EngineRequest::Recent(reply) => drop(reply.send(self.engine.recent().clone())),
            EngineRequest::Retry {
                path,
                stream,
                reply,
            } => {
                if let Some(before) = self.engine.begin_retry(&path, stream).unwrap() {
                    while self.engine.is_unread(&path) {
                        self.engine.pass().unwrap();
                    }
                    let retried = self.engine.end_retry(&path, stream, before).unwrap();
                    assert_eq!(retried.before, retried.after, "nobody mended it");
                    drop(reply.send(retried));
                }
            }
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

/// Two day-files of each stream, with a line of most kinds.
fn write_lake(root: &Path) {
    for pair in PAIRS {
        let (mut scored, mut evidence) = (String::from("{\n"), String::from("[\n"));
        for (run_id, category, text) in RUNS {
            scored += &json!({"evidence_run_id": run_id, "category": category}).to_string();
            scored += "\n";
            if let Some(text) = text {
                let said = json!({"run_id": run_id, "model_role": "executor", "text": text});
                evidence += &said.to_string();
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

/// Listens where the daemon would; says to one command after the other what it was given for it.
fn daemon_that_says_so(state_dir: &Path) -> mpsc::Sender<Vec<u8>> {
    let listener = UnixListener::bind(state_dir.join("control.sock")).unwrap();
    let (eq_str, said) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for answer in said {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut asked, mut some) = (Vec::new(), [0; 512]);
            while !asked.ends_with(b"\r\n\r\n") {
                let len = stream.read(&mut some).unwrap();
                asked.extend_from_slice(&some[..len]);
            }
            // Who has heard enough hangs up.
            _ = stream.write_all(&answer);
        }
    });
    eq_str
}

/// What a client hears.
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
    let hearing = async {
        let mut heard = Vec::new();
        match manner.end {
            End::Stays => sleep(LIFE_MAX).await,
            _ => _ = reading.read_to_end(&mut heard).await,
        }
        heard
    };
    tokio::select! {
        ((), heard) = async { tokio::join!(sending, hearing) } => heard,
        () = sleep(2 * LIFE_MAX) => panic!("it never hangs up: {manner:?}"),
    }
}

/// Whether it says that more comes: where that does not come in whole, the answer may break off.
fn announces_a_body(sent: &[u8]) -> bool {
    let sent = sent.to_ascii_lowercase();
    let eq_str = |header: &[u8]| memchr::memmem::find(&sent, header).is_some();
    eq_str(b"content-length") || eq_str(b"transfer-encoding")
}

/// What a dead letter's bytes look like, wherever an answer says that they stand.
fn shown(root: &Path, letters: &DeadLetterPage) -> String {
    let pair = PairPath::from_relative(Path::new(PAIRS[0])).unwrap();
    let mut shown = String::new();
    for letter in letters.letters.iter().take(20) {
        // Where there is no such day-file it says so.
        _ = bytes_of(&OsStorage, root, &pair, letter, |bytes| {
            shown += &escaped(bytes);
            Ok(())
        });
    }
    shown
}

fn check_retried(answer: &Answer, pairs: &Pairs, retried: &[(PairPath, Stream)]) {
    let path = first(pairs, "day_file").and_then(|path| PairPath::from_relative(Path::new(path)));
    let stream = first(pairs, "stream").and_then(stream_named);
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

/// What stands behind a question mark, decoded.
type Pairs = [(String, String)];

fn pairs_of(query: &[u8]) -> Vec<(String, String)> {
    let pairs = query.split(|byte| *byte == b'&');
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=');
        let (key, value) = pair.split_at(end.unwrap_or(pair.len()));
        (decoded(key), decoded(value.get(1..).unwrap_or_default()))
    });
    pairs.collect()
}

fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        let digits = behind
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        (rest, _) = match (byte, escaped) {
            (b'%', Some(escaped)) => (&behind[2..], bytes.push(escaped)),
            (b'+', _) => (behind, bytes.push(b' ')),
            _ => (behind, bytes.push(*byte)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn first<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// The host that a target names by itself.
fn name_in(target: &str) -> Option<&str> {
    if target.starts_with('/') || target == "*" {
        return None;
    }
    let behind = target
        .split_once("://")
        .map_or(target, |(_, behind)| behind);
    behind.split(['/', '?', '#']).next()
}

fn is_us(name: &str) -> bool {
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

/// An answer as it was heard.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    content_len: usize,
    body: Vec<u8>,
}

impl Answer {
    /// All that was answered; `whole`: the last one, too, is not broken off.
    fn all(heard: &[u8], whole: bool) -> Vec<Self> {
        let mut answers = Vec::new();
        let mut rest = heard;
        while !rest.is_empty() {
            match Self::next(rest) {
                Some((answer, behind)) => {
                    rest = behind;
                    answers.extend((answer.status != 100).then_some(answer));
                }
                None => {
                    // What is no HTTP is refused and the connection given up at once, by the library: who reads slowly may
                    // miss the end of that.
                    const REFUSAL: &[u8] = b"HTTP/1.1 400 ";
                    let is_refusal = rest.starts_with(REFUSAL) || REFUSAL.starts_with(rest);
                    let heard = String::from_utf8_lossy(rest);
                    assert!(!whole || is_refusal, "broken off: {heard}");
                    break;
                }
            }
        }
        answers
    }

    fn next(heard: &[u8]) -> Option<(Self, &[u8])> {
        let end = memchr::memmem::find(heard, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&heard[..end])
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
        let mut rest = &heard[end + 4..];
        let content_len = len.unwrap_or(0);
        // Of an answer to HEAD there is no more.
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

    /// Whether the library gave it, to what is no request.
    fn is_hypers(&self) -> bool {
        self.content_len == 0
    }

    fn check(&self, manner: Manner) {
        let known: &[u16] = match self.is_hypers() {
            true => &[400, 414, 431],
            false => &[200, 400, 404, 405, 421, 503],
        };
        assert!(known.contains(&self.status), "{self:?}");
        assert!(
            self.status != 503 || manner.daemon != Daemon::Follows,
            "{self:?}"
        );
        if self.is_hypers() {
            return;
        }
        for line in HARDENING {
            assert!(self.head.contains(line), "no {line}: {self:?}");
        }
        if self.head.contains("content-type: application/json") && !self.body.is_empty() {
            let told: Value = self.json();
            let everyones = told.get("health").or(told.get("minute_s")).is_some();
            assert!(
                everyones || manner.door == Endpoint::Control,
                "told to a stranger: {told}"
            );
        }
    }

    fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What stands behind the head.
fn body_of(heard: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(heard, b"\r\n\r\n").unwrap_or(0);
    &heard[end..]
}
