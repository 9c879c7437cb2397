//! Wiring only: read the command line, build, run.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use rota_agent::agent::{Agent, StartError};
use rota_agent::cli::{
    Cli, Command, KnownShell, LocalArgs, LogFormat, Output, ProxyArgs, RunArgs, wants_json,
};
use rota_agent::config::{self, Logging};
use rota_agent::local::{self, Question};
use rota_agent::run;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};

/// Usage, or settings that cannot be.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before there is any thread: this process may have to become an app.
    if let Some(code) = rota_agent::runtime::shim::run_if_asked() {
        return code;
    }
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = match rota_agent::cli::read(&line) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json(&line) => {
            let (message, hint) = rota_agent::cli::told(&error);
            let complaint = Complaint { kind: "usage", message: &message, hint: &hint };
            return complain(Output::Json, &complaint, USAGE);
        }
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Run(args) => agent(*args),
        Command::Status(args) => ask(&args, &Question::Status),
        Command::Apps(args) => ask(&args, &Question::Apps),
        Command::Rollback(args) => ask(&args.local, &Question::Rollback(args.app)),
        Command::Release(args) => ask(&args.local, &Question::Release(args.app)),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir } => man(dir.as_deref()),
        Command::Proxy(args) => proxy(args),
    }
}

/// One message with all its causes, once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

/// An error as `-o` wants it.
struct Complaint<'a> {
    kind: &'a str,
    message: &'a str,
    hint: &'a str,
}

fn complain(output: Output, complaint: &Complaint<'_>, code: u8) -> ExitCode {
    let Complaint { kind, message, hint } = complaint;
    match output {
        Output::Json => {
            let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (message, hint) = (one_line(message), one_line(hint));
            let error = serde_json::json!({ "kind": kind, "message": message, "hint": hint });
            eprintln!("{}", serde_json::json!({ "error": error }));
        }
        Output::Table if hint.is_empty() => eprintln!("error: {message}"),
        Output::Table => eprintln!("error: {message}\nhint: {hint}"),
    }
    ExitCode::from(code)
}

fn log(logging: Logging) {
    let level = match (logging.volume.quiet, logging.volume.verbose) {
        (true, _) => LevelFilter::WARN,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr);
    match logging.format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// One thread: an agent waits, and must be small.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn agent(args: RunArgs) -> ExitCode {
    let args = match config::layered(args) {
        Ok(args) => args,
        Err(error) => return fail(&chain(&error), USAGE),
    };
    let logging = Logging::of(&args);
    let config = match config::check(args) {
        Ok(config) => config,
        Err(error) => return fail(&chain(&error), USAGE),
    };
    log(logging);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 1),
    };
    let ended = runtime.block_on(async {
        let stop = stop_on_signals()?;
        let mut stopping = stop.subscribe();
        let agent = tokio::select! {
            agent = Box::pin(Agent::start(config)) => agent?,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        info!("{}", agent.ready_line());
        notify(sd_notify::NotifyState::Ready);
        let link = agent.link.clone();
        let ran = Box::pin(run::run(agent, stop.subscribe())).await;
        notify(sd_notify::NotifyState::Stopping);
        link.stop();
        info!("stopped; apps and proxies go on");
        ran
    });
    // Not waiting for blocking work: the journal makes it safe to stop anywhere.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let start = error.downcast_ref::<StartError>();
            let code = if start.is_some_and(StartError::is_mistake) { USAGE } else { 1 };
            fail(&chain(&*error), code)
        }
    }
}

fn stop_on_signals() -> std::io::Result<watch::Sender<bool>> {
    let stop = watch::Sender::new(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, stop) = (signal(kind)?, stop.clone());
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                stop.send_replace(true);
            }
        });
    }
    Ok(stop)
}

/// Without a notify socket this does nothing.
fn notify(state: sd_notify::NotifyState) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        warn!("cannot tell the service manager: {error}");
    }
}

fn ask(args: &LocalArgs, question: &Question) -> ExitCode {
    let answer = match runtime() {
        Ok(runtime) => runtime.block_on(local::ask(&args.data, question)),
        Err(error) => {
            let message = format!("cannot start: {error}");
            let complaint = Complaint { kind: "internal", message: &message, hint: "" };
            return complain(args.output, &complaint, 1);
        }
    };
    match answer {
        Ok(answer) => print(local::print(question, &answer, args.output).as_bytes()),
        Err(error) => {
            let (kind, message, hint) = (error.kind(), chain(&error), error.hint());
            complain(args.output, &Complaint { kind, message: &message, hint }, 1)
        }
    }
}

/// A reader that stops reading (`| head`) is no mistake of ours, but nothing more is printed.
fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn completions(shell: KnownShell) -> ExitCode {
    let shell = match shell {
        KnownShell::Bash => clap_complete::Shell::Bash,
        KnownShell::Zsh => clap_complete::Shell::Zsh,
        KnownShell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rota-agent", &mut text);
    print(&text)
}

fn man(dir: Option<&Path>) -> ExitCode {
    let mut text = Vec::new();
    let written = match dir {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir)),
        None => clap_mangen::Man::new(Cli::command()).render(&mut text),
    };
    match (written, dir) {
        (Ok(()), None) => print(&text),
        (Ok(()), Some(dir)) => {
            eprintln!("manual pages are in {}", dir.display());
            ExitCode::SUCCESS
        }
        (Err(error), _) => fail(&format!("cannot write the manual pages: {error}"), 1),
    }
}

fn proxy(args: ProxyArgs) -> ExitCode {
    // A session of its own: what ends the agent's (a terminal, a service) does not end this. It
    // only fails for the leader of one, which needs no other.
    if rustix::process::setsid().is_err() && std::io::stdin().is_terminal() {
        eprintln!("the proxy stays in this terminal's session");
    }
    log(Logging::default());
    let listen = match args.listen.parse() {
        Ok(listen) => listen,
        Err(_) => return fail(&format!("`--listen {}`: write IP:PORT", args.listen), USAGE),
    };
    let config = rota_proxy::Config { listen, control: args.control, state: args.state };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 1),
    };
    match runtime.block_on(rota_proxy::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&chain(&error), 1),
    }
}
