//! What a load balancer asks and how it is answered: HTTP (`GET /ready/APP`) or HAProxy's agent check (a line `APP`,
//! which `agent-send` writes), told apart by the first line.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::names::is_label;
use crate::update::Ready;

/// The longest question, with all its headers.
const QUESTION_MAX: usize = 4096;

/// Of a question, what tells one poller from another at the same address.
const TEXT_MAX: usize = 100;

/// Where the pages are.
const PAGES: &str = "/ready/";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Is this app ready? The text, as it was asked, tells one poller from another at the same address.
    Ready { app: String, style: Style, text: String },
    /// HTTP for something else.
    Page { target: String },
    /// HTTP, and not to look.
    Method { method: String },
    /// No HTTP, and not the name of an app.
    Line { line: String },
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As HTTP; `body`: not to HEAD.
    Http { body: bool },
    /// In the words of HAProxy's agent check.
    AgentCheck,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// New requests may come.
    Ready,
    /// It leaves traffic, or is out of it.
    Out,
    /// Nothing answers there.
    Down,
    /// There is no such app.
    NotHere,
    /// Too many poll.
    TooMany,
}

impl Answer {
    pub fn of(ready: Option<Ready>) -> Self {
        match ready {
            Some(Ready::In) => Self::Ready,
            Some(Ready::Out) => Self::Out,
            Some(Ready::Down) => Self::Down,
            None => Self::NotHere,
        }
    }

    /// In a list.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Out => "out",
            Self::Down => "down",
            Self::NotHere => "not here",
            Self::TooMany => "too many poll",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Out => "not ready: it leaves traffic, or is out of it",
            Self::Down => "not ready: it does not run, or is not healthy",
            Self::NotHere => "not ready: this node does not run such an app",
            Self::TooMany => "not ready: more poll this app than can be load balancers",
        }
    }
}

impl Style {
    /// The whole answer.
    pub fn write(self, answer: Answer) -> String {
        match self {
            Self::Http { body } => {
                let status = match answer {
                    Answer::Ready => "200 OK",
                    Answer::Out | Answer::Down | Answer::NotHere | Answer::TooMany => {
                        "503 Service Unavailable"
                    }
                };
                http(status, answer.sentence(), body)
            }
            Self::AgentCheck => match answer {
                Answer::Ready => "up ready\n",
                // `drain` lets sessions finish; `down` would end their stickiness at once.
                Answer::Out | Answer::NotHere | Answer::TooMany => "drain\n",
                Answer::Down => "drain down#not_running\n",
            }
            .to_owned(),
        }
    }
}

fn http(status: &str, sentence: &str, body: bool) -> String {
    let length = sentence.len() + 1;
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n"
    );
    if body { format!("{head}{sentence}\n") } else { head }
}

impl Question {
    /// What somebody hears who asks for something else. A line of no app is not answered: any word would be an order.
    pub fn refusal(&self) -> String {
        match self {
            Self::Page { .. } => http("404 Not Found", "ask for /ready/APP", true),
            Self::Method { .. } => http("405 Method Not Allowed", "ask with GET", true),
            Self::Line { .. } | Self::Ready { .. } => String::new(),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { text, .. } => f.write_str(text),
            Self::Page { target } => write!(f, "the page {target:?}, and there is only /ready/APP"),
            Self::Method { method } => write!(f, "{method:?}: ask with GET, HEAD or OPTIONS"),
            Self::Line { line } => {
                write!(f, "{line:?}: an agent check must name the app (`agent-send \"APP\\n\"`)")
            }
        }
    }
}

/// Reads one question, with all that belongs to it.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Question> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
            let is_http = line.ends_with(" HTTP/1.0") || line.ends_with(" HTTP/1.1");
            let whole = |end: &[u8]| bytes.windows(end.len()).any(|window| window == end);
            if !is_http || whole(b"\r\n\r\n") || whole(b"\n\n") {
                return Ok(question(&line, is_http));
            }
        }
        if bytes.len() >= QUESTION_MAX || stream.read_buf(&mut bytes).await? == 0 {
            let line = String::from_utf8_lossy(&bytes).chars().take(TEXT_MAX).collect();
            return Ok(Question::Line { line });
        }
    }
}

fn question(line: &str, is_http: bool) -> Question {
    let text: String = line.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default().to_owned();
    if !is_http {
        let style = Style::AgentCheck;
        return match is_label(&first) {
            true => Question::Ready { app: first, style, text: format!("agent check {text}") },
            false => Question::Line { line: text },
        };
    }
    let target = words.next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let app = path.strip_prefix(PAGES).filter(|app| is_label(app));
    match (first.as_str(), app) {
        ("GET" | "HEAD" | "OPTIONS", Some(app)) => {
            let style = Style::Http { body: first != "HEAD" };
            let text = target.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
            Question::Ready { app: app.to_owned(), style, text }
        }
        ("GET" | "HEAD" | "OPTIONS", None) => {
            Question::Page { target: target.chars().take(TEXT_MAX).collect() }
        }
        _ => Question::Method { method: first.chars().take(TEXT_MAX).collect() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(asked: &str, answer: Answer, expected: &str) {
        let question = read(&mut asked.as_bytes()).await.unwrap();
        let got = match &question {
            Question::Ready { app, style, text } => {
                let written = style.write(answer);
                let head = written.lines().next().unwrap_or_default();
                format!("{app} [{text}] {head}")
            }
            other => {
                let refusal = other.refusal();
                format!("{other} | {}", refusal.lines().next().unwrap_or_default())
            }
        };
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn questions_and_answers() {
        let http = "GET /ready/shop HTTP/1.1\r\nhost: web-01\r\n\r\n";
        check(http, Answer::Ready, "shop [/ready/shop] HTTP/1.1 200 OK").await;
        check(http, Answer::Out, "shop [/ready/shop] HTTP/1.1 503 Service Unavailable").await;
        let named = "OPTIONS /ready/shop?lb=2 HTTP/1.0\r\n\r\n";
        check(named, Answer::Ready, "shop [/ready/shop?lb=2] HTTP/1.1 200 OK").await;
        check("shop\n", Answer::Ready, "shop [agent check shop] up ready").await;
        check("shop lb-2\n", Answer::Out, "shop [agent check shop lb-2] drain").await;
        check("shop\r\n", Answer::Down, "shop [agent check shop] drain down#not_running").await;
        let wrong = "the page \"/\", and there is only /ready/APP | HTTP/1.1 404 Not Found";
        check("GET / HTTP/1.1\r\n\r\n", Answer::Ready, wrong).await;
        let wrong = "\"POST\": ask with GET, HEAD or OPTIONS | HTTP/1.1 405 Method Not Allowed";
        check("POST /ready/shop HTTP/1.1\r\n\r\n", Answer::Ready, wrong).await;
        let wrong = "\"\": an agent check must name the app (`agent-send \"APP\\n\"`) | ";
        check("", Answer::Ready, wrong).await;
        let wrong = "\"NOT AN APP\": an agent check must name the app (`agent-send \"APP\\n\"`) | ";
        check("NOT AN APP\n", Answer::Ready, wrong).await;
    }

    #[tokio::test]
    async fn a_question_ends_somewhere() {
        let long = "GET /ready/shop HTTP/1.1\r\n".to_owned() + &"x: y\r\n".repeat(1000);
        assert!(matches!(read(&mut long.as_bytes()).await.unwrap(), Question::Line { .. }));
        assert!(!Style::Http { body: false }.write(Answer::Ready).ends_with("ready\n"));
    }
}
