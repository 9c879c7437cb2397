//! Following a rollout until it ends or stops: the stream with its reconnects, the screen, Ctrl-C.

use std::time::Duration;

use rota_rollout::names::{Span, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::desk::Desk;
use super::ending;
use super::live::{self, Frame, Painter};
use super::outcome::{Exit, Failure};
use super::story::{Since, Story};
use super::table::Ink;
use super::talk::{self, Format, Talk};
use super::watch::{self, Watch};
use crate::client::{self, Client, ClientError};
use crate::view::RolloutView;

/// Between two drawings of the live block: clocks move, and a key press is still answered at once.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Before the first try to dial again; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Another controller takes over within 10 s: asking every 2 s finds it soon enough.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Without any controller for this long, following ends; the rollout itself does not need us.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Documents that wait to be drawn; drawing is fast, so a few are enough.
const DOCUMENTS_QUEUED_MAX: usize = 4;

/// What a followed stream delivers.
#[derive(Debug)]
pub enum Feed {
    /// The next document.
    Document(String),
    /// The connection broke; dialling goes on.
    Lost(String),
    /// It cannot go on.
    Over(Failure),
}

/// Follows a path in a task of its own, over every reconnect, until the receiver is dropped.
/// For event logs, `after` is the last event seen, and `seen` reads its successor in a document.
pub fn feed(
    client: Client,
    path: String,
    after: u64,
    seen: fn(&str) -> u64,
) -> mpsc::Receiver<Feed> {
    let (sender, receiver) = mpsc::channel(DOCUMENTS_QUEUED_MAX);
    tokio::spawn(async move {
        let mut source = Source { client, path, after, seen, heard: false };
        let mut pause = PAUSE_MIN;
        let mut lost_since: Option<Instant> = None;
        while !sender.is_closed() {
            let cause = match source.run(&sender, &mut lost_since).await {
                Ok(cause) => cause,
                Err(failure) => return drop(sender.send(Feed::Over(failure)).await),
            };
            if lost_since.is_none() {
                pause = PAUSE_MIN;
            }
            let since = *lost_since.get_or_insert_with(Instant::now);
            if since.elapsed() > LOST_MAX {
                return drop(sender.send(Feed::Over(lost_for_good(&cause))).await);
            }
            if sender.send(Feed::Lost(cause)).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    });
    receiver
}

struct Source {
    client: Client,
    path: String,
    after: u64,
    seen: fn(&str) -> u64,
    /// Was there ever a document?
    heard: bool,
}

impl Source {
    /// Delivers documents until the stream breaks: the cause; or until it cannot go on.
    async fn run(
        &mut self,
        sender: &mpsc::Sender<Feed>,
        lost_since: &mut Option<Instant>,
    ) -> Result<String, Failure> {
        let mut stream = match self.client.follow(&self.path, self.after).await {
            Ok(stream) => stream,
            Err(error @ ClientError::Answered(_)) => return Err(error.into()),
            // The very first dial failing is an answer; later it is a reason to try again.
            Err(error) if !self.heard => return Err(error.into()),
            Err(error) => return Ok(Failure::from(error).message),
        };
        loop {
            match stream.message().await {
                Ok(Some(document)) => {
                    *lost_since = None;
                    self.heard = true;
                    self.after = self.after.max((self.seen)(&document.json));
                    if sender.send(Feed::Document(document.json)).await.is_err() {
                        return Ok("nobody is watching any more".to_owned());
                    }
                }
                Ok(None) => {
                    self.client.turn_to_next();
                    return Ok("the controller ended the stream".to_owned());
                }
                Err(status) => {
                    if let Some(error) = client::answered(&status) {
                        return Err(error.into());
                    }
                    self.client.turn_to_next();
                    return Ok(client::broken(&status));
                }
            }
        }
    }
}

fn lost_for_good(cause: &str) -> Failure {
    let message = format!("no controller answered for {} s: {cause}", LOST_MAX.as_secs());
    Failure::new("unreachable", message)
        .stands(["agents finish the updates under way by themselves".to_owned()])
        .hint("follow again when a controller is back: `rota status`")
}

/// Ctrl-C, from now on: also when it is pressed while something is drawn.
pub fn ctrl_c() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt())
        .map_err(|error| Failure::internal("cannot wait for Ctrl-C", &error))
}

/// Follows one rollout: draws it, and says how it ended.
pub async fn rollout(desk: &Desk, id: &str, since: Since, max_hold: Span) -> Result<Exit, Failure> {
    let mut pressed = ctrl_c()?;
    let mut story = Story::begin(desk, id, since).await;
    let mut feed = feed(desk.client()?, format!("rollouts/{id}"), 0, |_| 0);
    let mut screen = Screen::new(&desk.talk);
    let mut watch = Watch::new(max_hold);
    let mut newest = String::new();
    let mut clock = interval(REDRAW_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit = loop {
        tokio::select! {
            _ = pressed.recv() => return detach(desk, &screen, &watch, (id, &newest)),
            fed = feed.recv() => match fed {
                Some(Feed::Document(json)) => {
                    screen.notice.clear();
                    screen.news(&news(&mut watch, &mut story, talk::parse(&json)?));
                    newest = json;
                }
                Some(Feed::Lost(cause)) => screen.lost(&cause),
                Some(Feed::Over(failure)) => {
                    screen.draw(&watch);
                    return Err(failure);
                }
                None => return Err(Failure::new("internal", "the stream's task ended early")),
            },
            lines = Story::next(&mut story, watch.view()) => screen.news(&lines),
            _ = clock.tick() => {}
        }
        screen.draw(&watch);
        if let Some(exit) = watch.verdict(talk::now()) {
            break exit;
        }
    };
    if screen.live {
        talk::write_side("\n");
    }
    let Some(view) = watch.view() else {
        return Err(Failure::new("internal", "a verdict without a view"));
    };
    if let Some(story) = story {
        screen.news(&story.rest(desk, view).await);
    }
    finish(desk, view, &newest, exit)
}

/// What a document has to tell beside the events: how it stood at the first look, and who has it since.
fn news(watch: &mut Watch, story: &mut Option<Story>, view: RolloutView) -> Vec<String> {
    let Some(story) = story else { return watch.see(talk::now(), view) };
    let owner = watch.view().map(|last| last.controller.clone());
    let mut lines = watch.see(talk::now(), view);
    match (owner, watch.view()) {
        (None, Some(view)) => {
            let before = story.opening(view);
            if before.is_empty() {
                // What the first look shows is not told once more by its event.
                story.has_seen(view);
            } else {
                lines.truncate(1);
                lines.extend(before);
            }
            lines
        }
        (Some(owner), Some(view)) => watch::takeover(&owner, view).into_iter().collect(),
        (_, None) => lines,
    }
}

/// Prints the outcome: words, or the document with `-o json`.
pub fn finish(desk: &Desk, view: &RolloutView, json: &str, exit: Exit) -> Result<Exit, Failure> {
    let ending = ending::ending(view, exit, talk::now());
    if desk.talk.format == Format::Json {
        desk.talk.data(&talk::pretty(json)?)?;
    }
    match ending {
        Ok(words) if desk.talk.format == Format::Table => desk.talk.data(&words)?,
        Ok(_) => {}
        Err(failure) => return Err(*failure),
    }
    Ok(exit)
}

/// Ctrl-C: the rollout goes on, and we say how to come back.
fn detach(
    desk: &Desk,
    screen: &Screen<'_>,
    watch: &Watch,
    (id, newest): (&str, &str),
) -> Result<Exit, Failure> {
    if screen.live {
        // The terminal has echoed ^C at the start of this line.
        talk::write_side("\r\x1b[K");
    }
    let id = watch.view().map_or(id, |view| view.id.as_str());
    desk.talk.answer(&format!("detached: rollout {id} goes on without you"));
    desk.talk.answer(&format!("hint: `rota rollout status {id} -w` comes back to it"));
    if desk.talk.format == Format::Json && !newest.is_empty() {
        desk.talk.data(&talk::pretty(newest)?)?;
    }
    Ok(Exit::Detached)
}

/// Where the progress is shown: a live block, or a line for each piece of news.
struct Screen<'a> {
    talk: &'a Talk,
    live: bool,
    ink: Ink,
    painter: Painter,
    began: Timestamp,
    notice: String,
}

impl<'a> Screen<'a> {
    fn new(talk: &'a Talk) -> Self {
        Self {
            talk,
            live: talk.live(),
            ink: talk.side_page().ink,
            painter: Painter::default(),
            began: talk::now(),
            notice: String::new(),
        }
    }

    fn news(&self, lines: &[String]) {
        if !self.live {
            lines.iter().for_each(|line| self.talk.say(line));
        }
    }

    /// The connection is gone: said once, until it is back.
    fn lost(&mut self, cause: &str) {
        if !self.live && self.notice.is_empty() {
            self.talk
                .say(&format!("connection lost: {cause}; the rollout goes on, dialling again"));
        }
        self.notice = format!("connection lost: {cause}");
    }

    fn draw(&mut self, watch: &Watch) {
        if !self.live {
            return;
        }
        let size = talk::terminal_size();
        let frame = Frame {
            size,
            ink: self.ink,
            at: talk::now(),
            began: watch.view().and_then(started).unwrap_or(self.began),
            notice: &self.notice,
        };
        let lines = live::block(watch, frame);
        talk::write_side(&self.painter.paint(&lines, size.0));
    }
}

/// When the rollout started, unless the controller's clock is ahead of ours.
fn started(view: &RolloutView) -> Option<Timestamp> {
    super::words::moment(&view.started_at).filter(|started| *started <= talk::now())
}
