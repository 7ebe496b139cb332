//! The numbering of calls, and the outcome of each: done, failed, done in part, or the process is dead. Read-only
//! calls have numbers of their own. The effect on files and names is implemented by the tree.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use distilld::platform::storage::FileKind;
use fastrand::Rng;

use super::SimFile;
use super::content::to_index;
use super::fault::{EINTR, ENOSPC, Fault, NameOrder, Partly};
use super::tree::{NodeId, Tree};

/// One mutating call, for messages.
#[derive(Debug, Clone)]
pub struct Call {
    pub verb: &'static str,
    pub path: Arc<Path>,
    pub to: Option<Arc<Path>>,
    pub range: Option<(u64, u64)>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.path.display())?;
        if let Some(to) = &self.to {
            write!(f, " -> {}", to.display())?;
        }
        match self.range {
            Some((offset, len_bytes)) => write!(f, " {offset}+{len_bytes}"),
            None => Ok(()),
        }
    }
}

impl Call {
    pub fn on(verb: &'static str, path: impl Into<Arc<Path>>) -> Self {
        Self {
            verb,
            path: path.into(),
            to: None,
            range: None,
        }
    }
}

/// The outcome of a call: how many of a write's bytes are written, then the result for the caller.
struct Ruling {
    written: usize,
    outcome: io::Result<()>,
}

/// What others do before a call of the engine.
#[derive(Clone)]
pub struct Hook(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[derive(Debug, Clone)]
pub struct World {
    pub tree: Tree,
    pub calls: u64,
    pub log: Vec<Call>,
    pub dead: bool,
    pub crash_at: Option<u64>,
    pub fault: Option<(u64, Fault)>,
    pub read_calls: u64,
    pub read_call_fault: Option<(u64, Fault)>,
    pub read_call_failed: Option<Call>,
    /// The calls that failed by an injected fault.
    pub failed: Vec<Call>,
    pub capacity_bytes: Option<u64>,
    pub name_order: NameOrder,
    pub doom_outlives_kill: bool,
    pub knows_holes: bool,
    pub refuses_links: bool,
    /// Interrupts every other call, and shortens reads and writes.
    pub signals: Option<Rng>,
    pub hook: Option<Hook>,
}

impl World {
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            calls: 0,
            log: Vec::new(),
            dead: false,
            crash_at: None,
            fault: None,
            read_calls: 0,
            read_call_fault: None,
            read_call_failed: None,
            failed: Vec::new(),
            capacity_bytes: None,
            name_order: NameOrder::Prefix,
            doom_outlives_kill: false,
            knows_holes: true,
            refuses_links: false,
            signals: None,
            hook: None,
        }
    }

    pub fn alive(&self) -> io::Result<()> {
        if self.dead {
            Err(io::Error::other("crashed"))
        } else {
            Ok(())
        }
    }

    fn interrupted(&mut self) -> io::Result<()> {
        match self.signals.as_mut().map(Rng::bool) {
            Some(true) => Err(io::Error::from_raw_os_error(EINTR)),
            _ => Ok(()),
        }
    }

    /// Returns the number of requested bytes that a read or write transfers before a signal arrives.
    pub fn before_a_signal(&mut self, len: usize) -> usize {
        match &mut self.signals {
            Some(rng) if len > 0 => rng.usize(1..=len),
            _ => len,
        }
    }

    /// Counts a read-only call and decides its outcome.
    pub fn read_call(&mut self, verb: &'static str, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.interrupted()?;
        let number = self.read_calls;
        self.read_calls += 1;
        match self.read_call_fault {
            Some((at, fault)) if number >= at => {
                if !fault.persistent {
                    self.read_call_fault = None;
                }
                self.read_call_failed = Some(Call::on(verb, path));
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(()),
        }
    }

    /// Counts a mutating call and decides its outcome; `len` is that of a write, 0 otherwise.
    fn rule(&mut self, call: Call, len: usize) -> Ruling {
        if let Err(dead) = self.alive() {
            return Ruling {
                written: 0,
                outcome: Err(dead),
            };
        }
        if let Err(interrupted) = self.interrupted() {
            return Ruling {
                written: 0,
                outcome: Err(interrupted),
            };
        }
        self.log.push(call);
        let number = self.calls;
        self.calls += 1;
        let some = Rng::with_seed(number).usize(0..=len);
        if self.crash_at == Some(number) {
            self.dead = true;
            return Ruling {
                written: some,
                outcome: self.alive(),
            };
        }
        match self.fault {
            Some((at, fault)) if number >= at => {
                self.rule_fault(fault, some.min(len.saturating_sub(1)))
            }
            _ => Ruling {
                written: self.before_a_signal(len),
                outcome: Ok(()),
            },
        }
    }

    fn rule_fault(&mut self, fault: Fault, some: usize) -> Ruling {
        if fault.partly == Partly::Short && some > 0 {
            self.fault = Some((
                self.calls,
                Fault {
                    partly: Partly::Nothing,
                    ..fault
                },
            ));
            return Ruling {
                written: some,
                outcome: Ok(()),
            };
        }
        if !fault.persistent {
            self.fault = None;
        }
        self.failed.extend(self.log.last().cloned());
        let written = if fault.partly == Partly::Torn {
            some
        } else {
            0
        };
        let outcome = Err(io::Error::from_raw_os_error(fault.errno));
        Ruling { written, outcome }
    }

    /// Decides the outcome of a call, and carries it out.
    pub fn act<T>(
        &mut self,
        call: Call,
        act: impl FnOnce(&mut Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        self.rule(call, 0).outcome?;
        act(&mut self.tree)
    }

    pub fn write(&mut self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let range = Some((offset, bytes.len() as u64));
        let ruling = self.rule(
            Call {
                range,
                ..Call::on("write", file.path.clone())
            },
            bytes.len(),
        );
        let room = self.room_for(file.node, offset + ruling.written as u64)?;
        let written = ruling.written.min(to_index(room.saturating_sub(offset)));
        if written > 0 {
            self.tree.write(file.node, offset, &bytes[..written])?;
        }
        ruling.outcome?;
        if written == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(written)
    }

    /// Returns the maximum length, up to `len_bytes`, of the file in the remaining space of the disk.
    fn room_for(&self, node: NodeId, len_bytes: u64) -> io::Result<u64> {
        let Some(capacity_bytes) = self.capacity_bytes else {
            return Ok(len_bytes);
        };
        let free_bytes = capacity_bytes.saturating_sub(self.tree.used_bytes);
        Ok(len_bytes.min(self.tree.stat(node)?.len_bytes + free_bytes))
    }

    pub fn set_len(&mut self, file: &SimFile, len_bytes: u64) -> io::Result<()> {
        let range = Some((0, len_bytes));
        self.rule(
            Call {
                range,
                ..Call::on("set_len", file.path.clone())
            },
            0,
        )
        .outcome?;
        if self.room_for(file.node, len_bytes)? < len_bytes {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.tree.set_len(file.node, len_bytes)
    }

    pub fn sync_data(&mut self, file: &SimFile) -> io::Result<()> {
        let outcome = self
            .rule(Call::on("sync_data", file.path.clone()), 0)
            .outcome;
        // An interrupted sync leaves its pages to the next one.
        let failed = (outcome.as_ref().err()).is_some_and(|e| e.raw_os_error() != Some(EINTR));
        if failed && !self.dead {
            self.tree.doom(file.node)?;
        }
        outcome?;
        self.tree.sync(file.node)
    }

    /// Creates directories like the host's disk: each missing level is a `mkdir` and a sync of its parent.
    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        if let Ok(found) = self.tree.find(path) {
            let is_dir = self.tree.stat(found)?.kind == FileKind::Directory;
            return if is_dir {
                Ok(())
            } else {
                Err(io::ErrorKind::AlreadyExists.into())
            };
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.create_dir_all(parent)?;
        self.act(Call::on("mkdir", path), |tree| tree.create_directory(path))?;
        self.sync_dir(parent)
    }

    pub fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.act(Call::on("sync_dir", dir), |tree| {
            tree.find(dir).and_then(|dir| tree.sync_names(dir))
        })
    }
}
