//! What `rota serve` is told on its command line, checked once; how it serves is written elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use rota_rollout::names::ControllerName;

use crate::store::etcd::EtcdConfig;

/// The shown examples; a test parses every one.
const EXAMPLES: &str = "\
Examples:
  rota serve --data /var/lib/rota
  rota serve --data /var/lib/rota --name c1 --advertise c1.example.net:7400
  rota serve --data /tmp/rota --listen 127.0.0.1:0 --http 127.0.0.1:0
  rota serve --data /var/lib/rota --name c2 --store etcd://h1:2379,h2:2379 \
--join c1.example.net:7400 --token rota-controller-...

The first start without --join makes the CA and writes DIR/admin.toml, a context for `--context`.
Port 0 picks a free port; the line with `ready` names it.";

/// Run a controller
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Where state, artifacts and keys live
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// This controller's name
    #[arg(long, default_value = "c1")]
    pub name: ControllerName,

    /// Where agents and operators connect (gRPC)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7400", value_parser = listening)]
    pub listen: SocketAddr,

    /// Where the dashboard, /api, /metrics, /healthz and /readyz answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7401", value_parser = listening)]
    pub http: SocketAddr,

    /// How others reach this controller; default: what --listen says
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise: Option<String>,

    /// Where state is kept: `sqlite`, or `etcd://h1:2379,h2:2379[?prefix=/rota&ca=F&cert=F&key=F]`,
    /// with `user=NAME&password-file=F` (or ROTA_ETCD_PASSWORD) where etcd asks for it
    #[arg(long, default_value = "sqlite")]
    pub store: StoreArg,

    /// Releases that are kept of each app, the newest; what something runs or may return to is kept beside them
    #[arg(long, value_name = "N", default_value = "10", value_parser = kept)]
    pub keep_releases: usize,

    /// Rollouts that are kept in full of each app in each environment; of older ones a line of the history
    #[arg(long, value_name = "N", default_value = "50", value_parser = kept)]
    pub keep_rollouts: usize,

    /// With etcd: rollouts that this controller runs at once; more are left to others
    #[arg(long, value_name = "N", default_value = "100", value_parser = kept)]
    pub max_rollouts: usize,

    /// A running controller to join
    #[arg(long, value_name = "HOST:PORT", requires = "token", value_parser = host_port)]
    pub join: Option<String>,

    /// The token for --join, from `rota token create --for controller`
    // Not `requires`: ROTA_TOKEN may be there for `rota login`. See `cli::parse`.
    #[arg(long, env = "ROTA_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// How the lines of the log look
    #[arg(long, value_enum, default_value = "text", env = "ROTA_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How the lines of the log look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object a line
    Json,
}

/// Which store keeps the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreArg {
    /// One file in the data directory, for one controller.
    Sqlite,
    /// An etcd cluster, for several.
    Etcd(EtcdConfig),
}

impl FromStr for StoreArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            url if url.starts_with("etcd:") => url.parse().map(Self::Etcd),
            _ => Err("write `sqlite`, or `etcd://HOST:PORT[,HOST:PORT...]`".to_owned()),
        }
    }
}

/// 0 would mean "none" here and "all" elsewhere.
fn kept(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err("write a number of at least 1".to_owned()),
    }
}

/// An address of this host. Names are not looked up: they may mean several, or another one after the next start.
fn listening(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let local = local.unwrap_or_else(|| "127.0.0.1:7400".to_owned());
        format!(
            "write the IP address and the port to listen at: 0.0.0.0:7400 is every address of this \
             host, {local} is this host alone"
        )
    })
}

/// Checks `HOST:PORT`; an IPv6 host stands in brackets.
pub fn host_port(text: &str) -> Result<String, String> {
    const RULE: &str = "write HOST:PORT, for example c1.example.net:7400 or [::1]:7400";
    let (host, port) = text.rsplit_once(':').ok_or(RULE)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let port: u16 = port.parse().map_err(|_| "the port is a number from 1 to 65535")?;
    if host.is_empty() || host.contains('/') || bare_v6 || port == 0 {
        return Err(RULE.to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, right) in [
            ("c1:7400", true),
            ("10.0.0.1:7400", true),
            ("[::1]:7400", true),
            ("::1:7400", false),
            ("c1", false),
            (":7400", false),
            ("c1:0", false),
            ("c1:70000", false),
            ("https://c1:7400", false),
        ] {
            assert_eq!(host_port(text).is_ok(), right, "{text}");
        }
    }

    #[test]
    fn where_to_listen() {
        for (text, right) in [
            ("0.0.0.0:7400", Ok("0.0.0.0:7400")),
            ("[::1]:0", Ok("[::1]:0")),
            ("localhost:7401", Err("127.0.0.1:7401 is this host alone")),
            ("nonsense", Err("127.0.0.1:7400 is this host alone")),
            (":7400", Err("0.0.0.0:7400 is every address")),
        ] {
            match (listening(text), right) {
                (Ok(got), Ok(right)) => assert_eq!(got.to_string(), right),
                (Err(got), Err(right)) => assert!(got.contains(right), "{text}: {got}"),
                (got, right) => panic!("{text}: {got:?} instead of {right:?}"),
            }
        }
    }

    #[test]
    fn stores() {
        for (text, store) in [
            ("sqlite", Some(StoreArg::Sqlite)),
            ("etcd://h1:2379", "etcd://h1:2379".parse().ok().map(StoreArg::Etcd)),
            ("etcd://", None),
            ("postgres://x", None),
        ] {
            assert_eq!(text.parse::<StoreArg>().ok(), store, "{text}");
        }
    }
}
