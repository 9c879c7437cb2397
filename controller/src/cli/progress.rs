//! How far an artifact is on its way: a line that grows on a terminal, one line elsewhere.

use std::time::{Duration, Instant};

use super::desk::Desk;
use super::table::fit;
use super::{talk, words};

/// Between two drawings.
pub const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// One artifact on its way.
pub struct Progress {
    deed: &'static str,
    live: bool,
    offset: u64,
    began: Instant,
}

impl Progress {
    /// It begins at `offset`. A `size` of 0 is not known.
    pub fn new(desk: &Desk, deed: &'static str, size: u64, offset: u64) -> Self {
        let live = desk.talk.live();
        if !live {
            let what = if size > 0 { words::bytes(size) } else { "the artifact".to_owned() };
            let from = match offset {
                0 => String::new(),
                offset => format!(", going on at {}", words::bytes(offset)),
            };
            desk.talk.say(&format!("{deed} {what}{from}"));
        }
        Self { deed, live, offset, began: Instant::now() }
    }

    /// So much of `size` is there.
    pub fn draw(&self, have: u64, size: u64) {
        if !self.live {
            return;
        }
        let moved = have.saturating_sub(self.offset);
        let line = in_words(self.deed, have, size, (moved, self.began.elapsed()));
        let line = fit(&line, talk::terminal_size().0.saturating_sub(1));
        talk::write_side(&format!("\r{line}\x1b[K"));
    }

    /// It is there, or will not be.
    pub fn end(&self) {
        if self.live {
            talk::write_side("\r\x1b[K");
        }
    }
}

/// `uploading  45.1 MiB of 100.0 MiB  45 %  12.3 MiB/s`.
fn in_words(deed: &str, have: u64, size: u64, (moved, took): (u64, Duration)) -> String {
    let of = match (have * 100).checked_div(size) {
        Some(percent) => format!(" of {}  {percent} %", words::bytes(size)),
        None => String::new(),
    };
    let pace = u128::from(moved) * 1000 / took.as_millis().max(1);
    // The first moments say nothing about the pace.
    let pace = if took < Duration::from_millis(300) {
        String::new()
    } else {
        format!("  {}/s", words::bytes(u64::try_from(pace).unwrap_or(u64::MAX)))
    };
    format!("{deed}  {}{of}{pace}", words::bytes(have))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        for (have, size, moved, ms, words) in [
            (0, 1024, 0, 0, "uploading  0 B of 1.0 KiB  0 %"),
            (512, 1024, 512, 1000, "uploading  512 B of 1.0 KiB  50 %  512 B/s"),
            (1024, 1024, 512, 500, "uploading  1.0 KiB of 1.0 KiB  100 %  1.0 KiB/s"),
            (0, 0, 0, 0, "uploading  0 B"),
            (2048, 0, 2048, 1000, "uploading  2.0 KiB  2.0 KiB/s"),
        ] {
            let moved = (moved, Duration::from_millis(ms));
            assert_eq!(in_words("uploading", have, size, moved), words);
        }
    }
}
