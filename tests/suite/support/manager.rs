//! The service manager's end of a real notify socket, and real hangs: one stopped thread, a frozen file system.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::process::LONG;

/// A manager that receives the messages of a process.
#[derive(Debug)]
pub struct Manager {
    home: tempfile::TempDir,
    socket: UnixDatagram,
    /// Lines of received messages that were not returned yet.
    coming: RefCell<VecDeque<String>>,
    lines: RefCell<Vec<String>>,
    messages: RefCell<Vec<String>>,
}

impl Manager {
    /// Creates a manager without messages.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // A daemon of another user sends to it too.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self {
            home,
            socket,
            coming: RefCell::default(),
            lines: RefCell::default(),
            messages: RefCell::default(),
        }
    }

    /// Connects a command to it.
    pub fn manage<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("NOTIFY_SOCKET", self.home.path().join("notify"))
    }

    /// Connects a command to it, with a watchdog time-out.
    pub fn watch<'a>(&self, command: &'a mut Command, patience: Duration) -> &'a mut Command {
        self.manage(command)
            .env("WATCHDOG_USEC", patience.as_micros().to_string())
    }

    /// Returns the next line, with its end; `None` if none arrives in time. The other lines of its message follow.
    pub fn next(&self, patience: Duration) -> Option<String> {
        if self.coming.borrow().is_empty() {
            let message = self.receive(patience)?;
            let lines = message.split_inclusive('\n').map(str::to_owned);
            self.coming.borrow_mut().extend(lines);
            self.messages.borrow_mut().push(message);
        }
        let line = self.coming.borrow_mut().pop_front()?;
        self.lines.borrow_mut().push(line.clone());
        Some(line)
    }

    fn receive(&self, patience: Duration) -> Option<String> {
        let patience = patience.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(len) => Some(String::from_utf8(bytes[..len].to_vec()).unwrap()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            // After the host was frozen.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.receive(patience),
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a line that contains these words.
    pub fn wait_for(&self, words: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Some(line) if line.contains(words) => return line,
                Some(_) => {}
                None => panic!("no {words:?} in {:#?}", self.lines_so_far()),
            }
        }
    }

    /// Returns the complete messages so far.
    pub fn messages(&self) -> Vec<String> {
        self.messages.borrow().clone()
    }

    /// Receives the pending messages, and returns all lines since the start.
    pub fn drain(&self) -> String {
        while self.next(Duration::ZERO).is_some() {}
        self.lines_so_far().concat()
    }

    /// Returns the lines that were returned so far.
    pub fn lines_so_far(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits until the process has sent no keep-alive for `patience`.
    pub fn lose_patience(&self, patience: Duration) {
        let deadline = Instant::now() + LONG;
        let mut alive_at = Instant::now();
        while alive_at.elapsed() < patience {
            assert!(
                Instant::now() < deadline,
                "the keep-alive messages continue"
            );
            if let Some(message) = self.next(patience.saturating_sub(alive_at.elapsed()))
                && message.contains("WATCHDOG=1")
            {
                alive_at = Instant::now();
            }
        }
    }
}

/// One stopped thread of a process, like a hang, while all others run. It resumes on drop.
#[derive(Debug)]
pub struct StoppedThread(Pid);

impl StoppedThread {
    /// Stops the thread whose name has this prefix.
    pub fn stop(process_id: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process_id}/task")).unwrap();
        let task = tasks
            .map(|task| task.unwrap().path())
            .find(|task| {
                fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name))
            })
            .unwrap_or_else(|| panic!("no thread {name}"));
        let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let thread = Pid::from_raw(id);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // It fails only if the process has already ended.
        let _ = ptrace::detach(self.0, None);
    }
}

/// An ext4 of its own, on which every write can be made to hang. Unmounted on drop; drop it before the process that
/// hangs on it, which cannot be killed until then.
#[derive(Debug)]
pub struct Freezable {
    dir: PathBuf,
    frozen: bool,
}

impl Freezable {
    /// Mounts one at `dir`. Returns `None` where this host does not permit it, with the reason on stderr; in CI that
    /// is a failure.
    pub fn mount(image: &Path, dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let output = Command::new(program).args(arguments).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let (quiet, options) = (Path::new("-q"), Path::new("-oloop"));
        let mounted = run("mkfs.ext4", &[quiet, image])
            .and_then(|()| run("fsfreeze", &[Path::new("--version")]))
            .and_then(|()| run("mount", &[options, image, dir]));
        if let Err(why) = mounted {
            let why = format!("needs root, mkfs.ext4, fsfreeze and a loop device: {why}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        Some(Self {
            dir: dir.to_owned(),
            frozen: false,
        })
    }

    /// Blocks all writes from now on.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.call("fsfreeze", "-f");
    }

    /// Unblocks them.
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            self.call("fsfreeze", "-u");
        }
    }

    fn call(&self, program: &str, flag: &str) {
        let status = Command::new(program).arg(flag).arg(&self.dir).status();
        assert!(status.unwrap().success(), "{program} {flag}");
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        self.thaw();
        // Lazily: the daemon may still have open files there.
        self.call("umount", "-l");
    }
}
