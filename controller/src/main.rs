//! Wiring only: reads the command line, builds a runtime, and runs.

use std::process::ExitCode;

use rota::cli::outcome::{Exit, Failure};
use rota::cli::{self, Command};
use tokio::runtime::Builder;

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
        Command::Serve(args) => match runtime.block_on(rota::serve::run(args)) {
            Ok(()) => Exit::Done,
            Err(error) => {
                let failure = Failure::internal("the controller stopped", &error);
                cli::complain(&cli.global, &failure);
                Exit::Refused
            }
        },
        command => runtime.block_on(cli::run(cli.global, command)),
    };
    exit.into()
}
