//! Samples and tables: what every bench prints.

use std::time::Duration;

use rota_tests::Trouble;

/// Several measurements of one thing.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One more.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// One more, in milliseconds.
    pub fn add_ms(&mut self, took: Duration) {
        self.add(took.as_secs_f64() * 1000.0);
    }

    /// The one in the middle; not a number without any.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// The one below which so many of a hundred lie; not a number without any.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    /// For times to answer: median, the 99th of a hundred, and the worst.
    pub fn tail(&self) -> [String; 3] {
        [self.percentile(50), self.percentile(99), self.percentile(100)].map(number)
    }

    /// The three numbers that a row shows.
    pub fn shown(&self) -> [String; 3] {
        let least = self.0.iter().copied().fold(f64::NAN, f64::min);
        let most = self.0.iter().copied().fold(f64::NAN, f64::max);
        [least, self.median(), most].map(number)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Three figures, or as many as it has before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        not if not.is_nan() => "-".to_owned(),
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Rows under a title.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(title: &str, head: &[&str]) -> Self {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        Self { title: title.to_owned(), rows: vec![head] }
    }

    /// One more row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Writes it to stdout, as Markdown that is also straight on a screen.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, at: usize| row.get(at).cloned().unwrap_or_default();
        let width = |at: usize| self.rows.iter().map(|row| cell(row, at).chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        println!("\n{}\n", self.title);
        for (number, row) in self.rows.iter().enumerate() {
            let cells = widths.iter().enumerate().map(|(at, width)| match at {
                0 => format!("{:<width$}", cell(row, at)),
                _ => format!("{:>width$}", cell(row, at)),
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if number == 0 {
                let rules = widths.iter().enumerate().map(|(at, width)| match at {
                    0 => "-".repeat(*width),
                    _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
                });
                println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
            }
        }
    }
}

/// One line about the machine, as far as it matters.
pub fn machine() -> Result<String, Trouble> {
    let cores = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(format!("{cores} cores, Linux {}, load {load} before, {build} build", kernel.trim()))
}
