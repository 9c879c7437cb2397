//! Wiring only: reads the command line, builds a runtime, and runs.

use std::io::IsTerminal;
use std::process::ExitCode;

use rota::cli::outcome::{Exit, Failure};
use rota::cli::{self, Command, Global};
use rota::serve::ServeError;
use rota::serve_args::{LogFormat, ServeArgs};
use rota::view::ErrorView;
use tokio::runtime::Builder;
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let mut builder = if matches!(cli.command, Command::Serve(_)) {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::internal("cannot start the runtime", &error);
            cli::complain(&cli.global, &failure);
            return Exit::Refused.into();
        }
    };
    let exit = match cli.command {
        Command::Serve(args) => match runtime.block_on(serve(&cli.global, args)) {
            Ok(()) => Exit::Done,
            Err(error) => {
                let failure = match error {
                    ServeError::Usage { message, hint } => Failure::usage(message).hint(hint),
                    ServeError::Entry(error) => ErrorView::from(error).into(),
                    error => Failure::internal("the controller cannot go on", &error),
                };
                cli::complain(&cli.global, &failure);
                failure.exit
            }
        },
        Command::Complete(args) => {
            cli::complete::run(runtime, &cli.global, args);
            Exit::Done
        }
        command => runtime.block_on(cli::run(cli.global, command)),
    };
    exit.into()
}

/// The controller talks through its log: to stderr, one line per event.
async fn serve(global: &Global, args: ServeArgs) -> Result<(), ServeError> {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::WARN,
        (false, false) => LevelFilter::INFO,
        (false, true) => LevelFilter::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal() && !global.no_color)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    rota::serve::run(args).await
}
