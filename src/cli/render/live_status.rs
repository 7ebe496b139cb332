//! The live status: the status page and a chart of the last hour's rows, redrawn until a key ends it. The terminal is
//! restored on every exit.

use crate::cli::render::status::{TerminalSize, page};
use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, queue, terminal};
use hyper::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Environment, Settings};
use crate::console::terminal::Terminal;
use crate::pair::history::Recent;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::escape::styled;
use crate::platform::root_lock::last_holder;
use crate::query::offline;
use crate::query::offline::InquireError;
use crate::query::status::{Status, status};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);
/// A daemon that takes longer is shown as not answering.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bars of one line, lowest first.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The most bars of a line: the minutes of an hour, or looks.
const BARS_MAX: usize = 60;

/// Why the status cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Standard output is not a terminal.
    #[error("`status --watch` needs a terminal; `distilld status --json` is for programs")]
    NoTerminal,
    /// The terminal refused.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows the status as it changes, until `q`, Escape or Ctrl-C.
///
/// # Errors
/// See [`WatchError`]. A daemon that is not there is shown, and waited for.
pub fn watch(settings: &Settings) -> Result<(), WatchError> {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(WatchError::NoTerminal);
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let _borrowed = Borrowed::take()?;
    let mut live = Live::default();
    while !ended.load(Ordering::SeqCst) {
        live.refresh(settings);
        live.draw()?;
        if ended_within(LOOK_EVERY, &mut live)? {
            break;
        }
    }
    Ok(())
}

/// The terminal as a screen without line editing; given back when this is dropped, by a panic too.
struct Borrowed;

impl Borrowed {
    fn take() -> io::Result<Self> {
        let said_by_a_panic = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            said_by_a_panic(panic);
        }));
        terminal::enable_raw_mode()?;
        let borrowed = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(borrowed)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        give_back();
    }
}

/// Restores the terminal; each step is tried, and repeating it changes nothing.
fn give_back() {
    let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}

/// The content of the screen.
#[derive(Default)]
struct Live {
    shown: Option<Result<Status, InquireError>>,
    recent: Option<Recent>,
    /// Lag at each refresh, seconds.
    lags: VecDeque<u64>,
    /// The first line on the screen, from 0.
    first_line: usize,
    /// The lines of the page at the last drawing, and how many of them the screen shows.
    lines: usize,
    lines_shown: usize,
}

impl Live {
    fn refresh(&mut self, settings: &Settings) {
        let found = status(settings, HostClock::new().wall_ms());
        self.recent = None;
        if let Ok(status) = &found {
            if status.running {
                self.recent = recent(settings);
            }
            if self.lags.len() == BARS_MAX {
                self.lags.pop_front();
            }
            let lag = status
                .lag
                .map_or(0, |lag| lag.age_ms / 1_000 + u64::from(lag.bytes > 0));
            self.lags.push_back(lag);
        }
        self.shown = Some(found);
    }

    fn draw(&mut self) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        let screen = TerminalSize {
            width: usize::from(columns).max(40),
            colour: Terminal::for_stdout(&Environment::from_env()).colours,
        };
        let text = self.text(screen);
        let mut stdout = io::stdout().lock();
        queue!(stdout, cursor::MoveTo(0, 0))?;
        // The last line of the screen has the keys.
        self.lines_shown = usize::from(rows.saturating_sub(2));
        let text = styled(&text);
        self.lines = text.lines().count();
        self.scroll_by(0);
        let lines = text.lines().skip(self.first_line).take(self.lines_shown);
        let keys = self.keys();
        for line in lines.chain([keys.as_str()]) {
            write!(stdout, "{line}")?;
            // Clear only the rest of each line, so that the screen does not flicker.
            let until_line_end = terminal::ClearType::UntilNewLine;
            queue!(stdout, terminal::Clear(until_line_end))?;
            write!(stdout, "\r\n")?;
        }
        let below = terminal::ClearType::FromCursorDown;
        queue!(stdout, terminal::Clear(below))?;
        stdout.flush()
    }

    fn text(&self, screen: TerminalSize) -> String {
        let mut text = match &self.shown {
            Some(Ok(status)) => page(status, screen),
            Some(Err(error)) => format!("no daemon: {error}\n"),
            None => String::new(),
        };
        if let Some(Ok(status)) = &self.shown
            && !status.running
        {
            text.insert_str(0, "no daemon; waiting for one\n\n");
        }
        text.push('\n');
        if let Some(recent) = &self.recent {
            let rows = recent.exported_newest(BARS_MAX);
            let all: u64 = rows.iter().sum();
            text.push_str(&format!("rows of the last hour  {}  {all}\n", bars(&rows)));
        }
        let lags: Vec<u64> = self.lags.iter().copied().collect();
        let newest = lags.last().copied().unwrap_or(0);
        text.push_str(&format!(
            "lag, seconds           {}  {newest}\n",
            bars(&lags)
        ));
        text.push('\n');
        text
    }

    /// Returns the line that names the keys, and where a page is that is longer than the screen.
    fn keys(&self) -> String {
        if self.lines <= self.lines_shown {
            return "q: leave".to_owned();
        }
        let last = (self.first_line + self.lines_shown).min(self.lines);
        format!(
            "q: leave, arrows and page keys: scroll; lines {} to {last} of {}",
            self.first_line + 1,
            self.lines
        )
    }

    /// Scrolls by a key, and returns whether it is one that scrolls.
    fn scroll(&mut self, key: KeyCode) -> bool {
        let page = isize::try_from(self.lines_shown.max(1)).unwrap_or(isize::MAX);
        match key {
            KeyCode::Up => self.scroll_by(-1),
            KeyCode::Down => self.scroll_by(1),
            KeyCode::PageUp => self.scroll_by(-page),
            KeyCode::PageDown => self.scroll_by(page),
            KeyCode::Home => self.first_line = 0,
            KeyCode::End => self.scroll_by(isize::MAX),
            _ => return false,
        }
        true
    }

    /// Scrolls within the page.
    fn scroll_by(&mut self, lines: isize) {
        let last = self.lines.saturating_sub(self.lines_shown);
        self.first_line = self.first_line.saturating_add_signed(lines).min(last);
    }
}

/// One bar a figure, the highest as high as the line.
fn bars(figures: &[u64]) -> String {
    let highest = figures.iter().copied().max().unwrap_or(0).max(1);
    let bar = |figure: &u64| {
        // A figure above zero has a visible bar.
        let height = (figure * (BARS.len() as u64 - 1)).div_ceil(highest);
        BARS[height as usize]
    };
    figures.iter().map(bar).collect()
}

fn recent(settings: &Settings) -> Option<Recent> {
    let holder = last_holder(&settings.root).ok()??;
    offline::of_daemon(&holder, Method::GET, "/recent.json", PATIENCE).ok()
}

/// Handles the input of `time`. Returns whether the display has to end: by a key, or because the terminal hung up.
fn ended_within(time: Duration, live: &mut Live) -> io::Result<bool> {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if hangs_up_within(left)? {
            return Ok(true);
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(true);
                    }
                    key if live.scroll(key) => live.draw()?,
                    _ => {}
                },
                Event::Resize(..) => live.draw()?,
                _ => {}
            }
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Waits for input, at most `time`. Returns whether the terminal hung up: crossterm would read its end of file repeatedly
/// without a pause.
fn hangs_up_within(time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&time)) {
        // A resize, or a signal that the caller checks.
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds[0]
        .revents()
        .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_scroll_within_the_page() {
        let mut live = Live {
            lines: 50,
            lines_shown: 20,
            ..Live::default()
        };
        let mut first_after = |key| {
            live.scroll(key);
            live.first_line
        };
        assert_eq!(first_after(KeyCode::Up), 0);
        assert_eq!(first_after(KeyCode::Down), 1);
        assert_eq!(first_after(KeyCode::PageDown), 21);
        assert_eq!(first_after(KeyCode::PageDown), 30);
        assert_eq!(first_after(KeyCode::Down), 30);
        assert_eq!(first_after(KeyCode::PageUp), 10);
        assert_eq!(first_after(KeyCode::End), 30);
        assert_eq!(first_after(KeyCode::Home), 0);
        assert_eq!(first_after(KeyCode::Char('x')), 0);
        assert!(live.keys().ends_with("lines 1 to 20 of 50"));
        // A page that becomes shorter than the screen is shown from its start.
        (live.first_line, live.lines) = (30, 10);
        live.scroll_by(0);
        assert_eq!((live.first_line, live.keys().as_str()), (0, "q: leave"));
    }

    #[test]
    fn bars_are_as_high_as_their_figures_and_what_is_not_nothing_is_seen() {
        assert_eq!(bars(&[0, 1, 400, 800]), " ▁▄█");
        assert_eq!(bars(&[0, 0]), "  ");
        assert_eq!(bars(&[]), "");
    }
}
