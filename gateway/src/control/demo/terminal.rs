//! Where the story is shown: a screen that is redrawn in place, lines where there is no terminal, or
//! nothing. In come figures, out go bytes; a terminal is left as it was found. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "reads NO_COLOR (no-color.org), once"
)]

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::termios::tcgetwinsize;

use super::figures::Figures;
use super::screen::{COLUMNS_MIN, LINES_MIN, Line, Tone, announcement, line, screen};

/// The other screen of the terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The terminal is too small for the screen.
#[derive(Debug, PartialEq, Eq)]
pub struct TooSmall {
    columns: u16,
    lines: u16,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { columns, lines } = self;
        write!(
            f,
            "the terminal has {columns} columns and {lines} lines, and the demo's screen needs \
             {COLUMNS_MIN} and {LINES_MIN}: make it larger, or have lines instead: tidegate demo | cat"
        )
    }
}

/// Where it is shown.
#[derive(Debug)]
pub enum View {
    /// A terminal.
    Screen(Terminal),
    /// Anything else.
    Lines(Lines),
    /// Nobody looks.
    Nothing,
}

impl View {
    /// What standard output is good for.
    ///
    /// # Errors
    /// It is a terminal, and too small.
    pub fn of_stdout() -> Result<Self, TooSmall> {
        if !io::stdout().is_terminal() {
            return Ok(Self::Lines(Lines::default()));
        }
        let (columns, lines) = size();
        if usize::from(columns) < COLUMNS_MIN || usize::from(lines) < LINES_MIN {
            return Err(TooSmall { columns, lines });
        }
        Ok(Self::Screen(Terminal::enter()))
    }

    /// Shows how it goes. Somebody who has gone away misses nothing that matters: the story's exit
    /// code says the same.
    pub fn show(&mut self, figures: &Figures) {
        match self {
            Self::Screen(terminal) => terminal.draw(figures),
            Self::Lines(lines) => lines.tell(figures),
            Self::Nothing => {}
        }
    }
}

/// A terminal in our hands.
#[derive(Debug)]
pub struct Terminal {
    has_tones: bool,
}

impl Terminal {
    fn enter() -> Self {
        put(ENTER);
        Self {
            has_tones: std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        }
    }

    fn draw(&self, figures: &Figures) {
        let (columns, lines) = size();
        let mut bytes = String::from("\x1b[H");
        let drawn = screen(figures, usize::from(columns), usize::from(lines));
        for (index, line) in drawn.iter().enumerate() {
            if index > 0 {
                bytes.push_str("\r\n");
            }
            bytes.push_str(&self.dressed(line));
            bytes.push_str("\x1b[K");
        }
        bytes.push_str("\x1b[J");
        put(&bytes);
    }

    fn dressed(&self, line: &Line) -> String {
        let code = match line.tone {
            Tone::Plain => return line.text.clone(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Warm => "33",
            Tone::Bad => "1;31",
            Tone::Good => "32",
        };
        match self.has_tones {
            true => format!("\x1b[{code}m{}\x1b[0m", line.text),
            false => line.text.clone(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        put(LEAVE);
    }
}

/// One line for each second, and what an act is about when it begins.
#[derive(Debug, Default)]
pub struct Lines {
    act: Option<usize>,
    next: Duration,
}

impl Lines {
    fn tell(&mut self, figures: &Figures) {
        if self.act != Some(figures.act) {
            self.act = Some(figures.act);
            put(&format!("\n{}\n", announcement(figures.act)));
        }
        if figures.since_start >= self.next {
            self.next = figures.since_start + LINE_EVERY;
            put(&format!("{}\n", line(figures)));
        }
    }
}

fn size() -> (u16, u16) {
    tcgetwinsize(io::stdout()).map_or((0, 0), |size| (size.ws_col, size.ws_row))
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
