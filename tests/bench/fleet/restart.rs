//! The same crowd at one controller on SQLite and at two on etcd, of which one is killed in the middle of a rollout:
//! what that costs each of them, and what operators see meanwhile at the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::processes::Programs;

use super::super::table::{Samples, Table, number};
use super::IDLE;
use super::crowd::Tally;
use super::share::Shares;
use super::site::{Controller, Site};

/// Every tenth of the fleet, and no time to watch.
const STRATEGY: &str = "batch = \"10%\"\nmonitor = \"0s\"";

/// So long after everybody is back a node that was forgotten would have been taken for silent.
const CALM: Duration = Duration::from_secs(16);

/// How many of everything.
#[derive(Clone, Copy)]
pub struct Size {
    /// Nodes.
    pub agents: usize,
    /// Controllers.
    pub controllers: usize,
    /// Processes that play the nodes.
    pub processes: usize,
    /// Rollouts after the first one.
    pub runs: usize,
}

/// Does it all, and prints the table.
pub fn bench(programs: &Programs, size: Size, beside: bool) -> Result<(), Trouble> {
    let mut columns = Vec::new();
    for controllers in beside.then_some(1).into_iter().chain([size.controllers]) {
        let site = Site::start(programs.clone(), controllers)?;
        columns.push(Course::run(site, size)?);
    }
    let title = format!("{} agents at one controller, and at {}", size.agents, size.controllers);
    let mut table = Table::new(&title, &["", "", "SQLite: c1", "etcd: c1 / c2 / etcd"]);
    let several = columns.pop().unwrap_or_default();
    let alone = columns.pop().unwrap_or_default();
    for Row { what, unit, value } in &several {
        let same = alone.iter().find(|row| row.what == *what);
        table.row([what.as_str(), *unit, same.map_or("", |row| &row.value), value.as_str()]);
    }
    table.print();
    Ok(())
}

struct Row {
    what: String,
    unit: &'static str,
    value: String,
}

/// When the killed controller is started again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    AtOnce,
    AfterTheRollout,
}

/// What happened after the kill.
struct Seen {
    ordered: Duration,
    over: Duration,
    back: Duration,
}

/// What operators saw meanwhile.
#[derive(Default)]
struct Asked {
    nodes: Samples,
    status: Samples,
    away: usize,
}

/// One site, from the beginning to the end.
struct Course {
    site: Site,
    crowd: Shares,
    size: Size,
    rows: Vec<Row>,
}

impl Course {
    fn run(site: Site, size: Size) -> Result<Vec<Row>, Trouble> {
        let (agents, controllers) = (size.agents, site.controllers.len());
        let before = site.resident()?;
        let uses = agents.to_string();
        let token = site.token(&["--for", "agent", "--uses", &uses])?;
        let begun = Instant::now();
        let crowd = Shares::enrol((&site.address(0), &token), agents, size.processes)?;
        let mut course = Self { site, crowd, size, rows: Vec::new() };
        course.row(
            "all enrol, each with a key and certificate",
            "s",
            &[begun.elapsed().as_secs_f64()],
        );
        let (enrolled, used) = (course.site.resident()?, course.site.used()?);
        let begun = Instant::now();
        course.crowd.live()?;
        course.crowd.wait("all are connected", |tally| tally.up == agents * controllers)?;
        course.row("all connect to all controllers", "s", &[begun.elapsed().as_secs_f64()]);
        course.used("CPU of that", &used)?;
        let connected = course.site.resident()?;
        let each = |since: &[f64]| -> Vec<f64> {
            let pairs = connected.iter().zip(since).take(controllers);
            pairs.map(|(now, since)| (now - since) / agents as f64).collect()
        };
        course.row("memory for an agent, since all have enrolled", "KiB", &each(&enrolled));
        course.row("memory for an agent, enrolment included", "KiB", &each(&before));
        course.rest()?;
        course.roll()?;
        course.memory("resident after the rollouts")?;
        course.kill(Again::AtOnce)?;
        if controllers > 1 {
            course.kill(Again::AfterTheRollout)?;
        }
        course.memory("resident at the end")?;
        course.rest()?;
        let tally = course.crowd.tally();
        course.row("updates asked of a node for the second time", "", &[tally.twice as f64]);
        course.row("orders of an owner of yesterday, refused", "", &[tally.stale as f64]);
        for (error, count) in &tally.errors {
            println!("sessions that ended or did not begin: {count} with `{error}`");
        }
        Ok(course.rows)
    }

    fn row(&mut self, what: &str, unit: &'static str, values: &[f64]) {
        let shown: Vec<String> = values.iter().copied().map(number).collect();
        self.text(what, unit, shown.join(" / "));
    }

    fn text(&mut self, what: &str, unit: &'static str, value: String) {
        eprintln!("bench: {what}: {value} {unit}");
        self.rows.push(Row { what: what.to_owned(), unit, value });
    }

    /// CPU seconds of every process since then.
    fn used(&mut self, what: &str, since: &[f64]) -> Result<(), Trouble> {
        let used = self.site.used()?;
        let used: Vec<f64> = used.iter().zip(since).map(|(now, then)| now - then).collect();
        self.row(what, "s", &used);
        Ok(())
    }

    fn memory(&mut self, what: &str) -> Result<(), Trouble> {
        let mib: Vec<f64> = self.site.resident()?.iter().map(|kib| kib / 1024.0).collect();
        self.row(what, "MiB", &mib);
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Trouble> {
        let before = self.site.used()?;
        thread::sleep(IDLE); // the time over which is measured
        let now = self.site.used()?;
        let percent = |(now, before): (&f64, &f64)| 100.0 * (now - before) / IDLE.as_secs_f64();
        let busy: Vec<f64> = now.iter().zip(&before).map(percent).collect();
        self.row("at rest, heartbeats only", "% of a core", &busy);
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Trouble> {
        let mut times = Samples::default();
        for run in 0..=self.size.runs {
            let (begun, used) = (Instant::now(), self.site.used()?);
            let id = self.site.roll(STRATEGY)?;
            let agents = self.size.agents;
            self.crowd.wait("all are updated", |tally| all_updated(tally, &id, agents))?;
            self.site.completed(0)?;
            let took = begun.elapsed().as_secs_f64();
            if run == 0 {
                self.row("first rollout, 10 % batches, durable", "s", &[took]);
                self.used("CPU of the first", &used)?;
            } else {
                times.add(took);
            }
            if run > 0 && run == self.size.runs {
                self.text("the others: least, median, most", "s", times.shown().join(", "));
                self.used("CPU of the last", &used)?;
            }
        }
        Ok(())
    }

    /// Kills the owner when half of the nodes are updated.
    fn kill(&mut self, again: Again) -> Result<(), Trouble> {
        let how = match again {
            Again::AtOnce => "started at once",
            Again::AfterTheRollout => "started later",
        };
        let agents = self.size.agents;
        let calm = self.crowd.tally();
        let id = self.site.roll(STRATEGY)?;
        let half = |tally: &Tally| tally.updated.get(&id).is_some_and(|it| *it >= agents / 2);
        self.crowd.wait("half of the nodes are updated", half)?;
        let before = self.crowd.tally();
        let orders = |tally: &Tally, name: &str| tally.ordered_by.get(name).copied().unwrap_or(0);
        let all = self.site.controllers.iter();
        let owner = all.map(|it| &it.name).position(|it| orders(&before, it) > orders(&calm, it));
        let owner = owner.ok_or("nobody orders")?;
        let other = (owner + 1) % self.site.controllers.len();
        let logged: Vec<usize> =
            (0..self.site.controllers.len()).map(|at| self.site.log(at).len()).collect();
        let wall = jiff::Timestamp::now();
        let killed = self.site.kill(owner)?;
        let half = Half { id: &id, agents, owner, other, again, killed, before: &before };
        let (seen, asked, ready) = half.watch(&self.site, &self.crowd)?;
        let (controller, ready) = ready;
        self.site.controllers[owner] = controller;
        let said = |at: usize| self.site.log(at).get(logged[at]..).unwrap_or("").to_owned();
        let claimed =
            said(other).lines().find(|line| line.contains(" claimed rollout=")).and_then(|line| {
                let at: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
                Some(at.duration_since(wall).as_secs_f64())
            });
        thread::sleep(CALM); // the time in which somebody could fall silent
        let logs: Vec<String> = (0..self.site.controllers.len()).map(said).collect();
        let events = |text: &str| logs.iter().map(|log| log.matches(text).count()).sum::<usize>();
        let (silent, again) = (events("went silent"), events("is here again"));
        let seconds = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), number);
        let secs = |time: Duration| number(time.as_secs_f64());
        self.text(&format!("{how}: ready again"), "s", secs(ready));
        self.text(&format!("{how}: the other claims the rollout"), "s", seconds(claimed));
        self.text(&format!("{how}: the next order"), "s", secs(seen.ordered));
        self.text(&format!("{how}: the rollout is over"), "s", secs(seen.over));
        self.text(&format!("{how}: all its sessions are back"), "s", secs(seen.back));
        for (what, samples) in [("node ls", asked.nodes), ("rollout status", asked.status)] {
            let what = format!("{how}: `{what}`: median, 99th, worst of so many");
            let [median, late, worst] = samples.tail();
            self.text(&what, "ms", format!("{median}, {late}, {worst} of {}", samples.len()));
        }
        let most = format!("{how}: most nodes not ready in `node ls`");
        self.row(&most, "", &[asked.away as f64]);
        let flaps = format!("{how}: \"went silent\", \"is here again\"");
        self.row(&flaps, "events", &[silent as f64, again as f64]);
        Ok(())
    }
}

fn all_updated(tally: &Tally, id: &str, agents: usize) -> bool {
    tally.updated.get(id).is_some_and(|it| *it >= agents)
}

/// A rollout whose owner was just killed.
struct Half<'a> {
    id: &'a str,
    agents: usize,
    owner: usize,
    other: usize,
    again: Again,
    killed: Instant,
    before: &'a Tally,
}

impl Half<'_> {
    /// What happens, what operators see, and the controller that was started again, with how long it took to be ready.
    fn watch(
        &self,
        site: &Site,
        crowd: &Shares,
    ) -> Result<(Seen, Asked, (Controller, Duration)), Trouble> {
        let calm = AtomicBool::new(false);
        thread::scope(|scope| {
            let starting = scope.spawn(|| {
                if self.again == Again::AfterTheRollout {
                    self.is_over(site, crowd)?;
                }
                let begun = Instant::now();
                let controller = site.start_again(self.owner)?;
                Ok::<_, Trouble>((controller, begun.elapsed()))
            });
            let asking = scope.spawn(|| self.ask(site, &calm));
            let seen = self.see(site, crowd);
            calm.store(true, Ordering::Relaxed);
            let asked = asking.join().map_err(|_| "the operators' thread has panicked")?;
            let ready = starting.join().map_err(|_| "the start's thread has panicked")?;
            Ok((seen?, asked?, ready?))
        })
    }

    fn see(&self, site: &Site, crowd: &Shares) -> Result<Seen, Trouble> {
        // By whomever: whoever owns it from now on does so in a higher term.
        let term = |tally: &Tally| tally.terms.get(self.id).copied().unwrap_or(0);
        crowd.wait("the next order", |tally| term(tally) > term(self.before))?;
        let ordered = self.killed.elapsed();
        let name = &site.controllers[self.owner].name;
        thread::scope(|scope| {
            let ending = scope.spawn(|| {
                self.is_over(site, crowd)?;
                Ok::<_, Trouble>(self.killed.elapsed())
            });
            crowd.wait("all are back", |tally| tally.up_at.get(name) == Some(&self.agents))?;
            let back = self.killed.elapsed();
            let over = ending.join().map_err(|_| "the end's thread has panicked")?;
            Ok(Seen { ordered, over: over?, back })
        })
    }

    /// Waits until the rollout is over.
    fn is_over(&self, site: &Site, crowd: &Shares) -> Result<(), Trouble> {
        crowd.wait("all nodes are updated", |tally| all_updated(tally, self.id, self.agents))?;
        site.completed(self.other)
    }

    /// Asks the other controller again and again; with one, asks it once it is ready.
    fn ask(&self, site: &Site, calm: &AtomicBool) -> Result<Asked, Trouble> {
        let mut asked = Asked::default();
        while !calm.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let listed = site.run(self.other, &["node", "ls"]);
            let took = begun.elapsed();
            match listed {
                Ok(listed) => {
                    asked.nodes.add_ms(took);
                    let text = String::from_utf8_lossy(&listed.stdout);
                    let nodes = text.lines().filter(|line| line.starts_with("sim-"));
                    let ready = nodes.filter(|line| line.contains(" ready")).count();
                    asked.away = asked.away.max(self.agents.saturating_sub(ready));
                }
                Err(_) if self.other == self.owner => continue, // it is dead
                Err(error) => return Err(error),
            }
            let begun = Instant::now();
            match site.run(self.other, &["rollout", "status", "shop/prod"]) {
                Ok(_) => asked.status.add_ms(begun.elapsed()),
                Err(_) if self.other == self.owner => {}
                Err(error) => return Err(error),
            }
        }
        Ok(asked)
    }
}
