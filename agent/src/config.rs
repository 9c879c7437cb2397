//! What the agent was told: flags over environment over agent.toml, checked once.

mod balancers;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::{LogFormat, RunArgs, Volume};
use crate::names::{LABEL_RULE, is_label, is_label_key};

pub use balancers::{Haproxy, Nginx};
use balancers::{haproxy, nginx};
pub use file::FileError;

/// Where nodes reach an edge's `Traffic` service unless told otherwise (INTERFACE 5).
pub const TRAFFIC_LISTEN: &str = "0.0.0.0:7402";

/// The agent's settings; every value was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The folder of this agent.
    pub data: PathBuf,
    /// HOST:PORT of controllers to call first; at least one.
    pub controllers: Vec<String>,
    /// The invitation, when one was given.
    pub token: Option<String>,
    /// A DNS label.
    pub name: String,
    /// A DNS label.
    pub env: String,
    /// DNS labels; none only on edges.
    pub roles: Vec<String>,
    /// What strategies and targets select by.
    pub labels: BTreeMap<String, String>,
    /// The pools that this host serves; none on plain nodes.
    pub edges: Vec<EdgePool>,
    /// Where the `Traffic` service listens, on edges.
    pub traffic_listen: SocketAddr,
    /// Where load balancers ask for the readiness of this node's apps; `None`: nowhere.
    pub endpoint_listen: Option<SocketAddr>,
    /// Where this node's apps are reached; `None`: the address that others see.
    pub address: Option<String>,
}

/// A pool that this host serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePool {
    /// A DNS label.
    pub pool: String,
    /// With what.
    pub balancer: Balancer,
}

/// What serves a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balancer {
    /// The built-in proxy, which clients reach here.
    Proxy { listen: SocketAddr },
    /// HAProxy, through its admin sockets.
    Haproxy(Haproxy),
    /// nginx, through a file that it includes.
    Nginx(Nginx),
}

impl Balancer {
    /// What it is called on the command line and in lists.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Proxy { .. } => "proxy",
            Self::Haproxy(_) => "haproxy",
            Self::Nginx(_) => "nginx",
        }
    }
}

/// How and how much is logged; known before anything else is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logging {
    /// How lines look.
    pub format: LogFormat,
    /// How many there are.
    pub volume: Volume,
}

/// Why the agent cannot start as told.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing said.
    #[error("`--{flag}` is missing: {hint} (also ROTA_AGENT_{variable}, or `{key}` in agent.toml)")]
    Missing { flag: &'static str, hint: &'static str, variable: String, key: String },
    /// Said wrongly.
    #[error("`--{flag} {value}`: {rule}")]
    Invalid { flag: &'static str, value: String, rule: String },
}

impl ConfigError {
    fn missing(flag: &'static str, hint: &'static str) -> Self {
        let key = flag.replace('-', "_");
        Self::Missing { flag, hint, variable: key.to_uppercase(), key }
    }

    fn invalid(flag: &'static str, value: &str, rule: impl Into<String>) -> Self {
        Self::Invalid { flag, value: value.to_owned(), rule: rule.into() }
    }
}

/// Flags and environment, with the file below them where one is named.
pub fn layered(args: RunArgs) -> Result<RunArgs, ConfigError> {
    match &args.config {
        None => Ok(args),
        Some(path) => Ok(over(args.clone(), file::read(path)?)),
    }
}

/// What `upper` says, and `lower` where it says nothing.
fn over(upper: RunArgs, lower: RunArgs) -> RunArgs {
    fn list(upper: Vec<String>, lower: Vec<String>) -> Vec<String> {
        if upper.iter().all(String::is_empty) { lower } else { upper }
    }
    fn text(upper: Option<String>, lower: Option<String>) -> Option<String> {
        upper.filter(|text| !text.is_empty()).or(lower)
    }
    let said_volume = upper.volume.quiet || upper.volume.verbose > 0;
    RunArgs {
        config: upper.config,
        data: upper.data.filter(|path| !path.as_os_str().is_empty()).or(lower.data),
        controller: list(upper.controller, lower.controller),
        token: text(upper.token, lower.token),
        name: text(upper.name, lower.name),
        env: text(upper.env, lower.env),
        role: list(upper.role, lower.role),
        label: list(upper.label, lower.label),
        edge: list(upper.edge, lower.edge),
        traffic_listen: text(upper.traffic_listen, lower.traffic_listen),
        endpoint_listen: text(upper.endpoint_listen, lower.endpoint_listen),
        address: text(upper.address, lower.address),
        log_format: upper.log_format.or(lower.log_format),
        volume: if said_volume { upper.volume } else { lower.volume },
    }
}

/// The settings, if all of them are right.
pub fn check(args: RunArgs) -> Result<Config, ConfigError> {
    let present = |text: Option<String>, flag, hint| {
        text.filter(|text| !text.is_empty()).ok_or_else(|| ConfigError::missing(flag, hint))
    };
    let data = args.data.filter(|path| !path.as_os_str().is_empty());
    let data = data.ok_or_else(|| {
        ConfigError::missing("data", "the folder of this agent, such as /var/lib/rota-agent")
    })?;
    let controllers = said(args.controller);
    if controllers.is_empty() {
        let hint = "HOST:PORT of at least one controller";
        return Err(ConfigError::missing("controller", hint));
    }
    for address in &controllers {
        dialable("controller", address)?;
    }
    let name = label("name", present(args.name, "name", "what this node is called")?)?;
    let env = label("env", present(args.env, "env", "the environment that it belongs to")?)?;
    let edges = said(args.edge);
    let edges: Vec<EdgePool> =
        edges.iter().map(|text| edge(text)).collect::<Result<_, ConfigError>>()?;
    refuse_doubles(&edges)?;
    let roles: Vec<String> = said(args.role)
        .into_iter()
        .map(|role| label("role", role))
        .collect::<Result<_, ConfigError>>()?;
    if roles.is_empty() && edges.is_empty() {
        let hint = "what this node is for, such as `web`; only edges can do without";
        return Err(ConfigError::missing("role", hint));
    }
    let listen = args.traffic_listen.filter(|text| !text.is_empty());
    let listen = listen.as_deref().unwrap_or(TRAFFIC_LISTEN);
    let endpoint = args.endpoint_listen.filter(|text| !text.is_empty());
    let endpoint = endpoint.map(|text| listening("endpoint-listen", &text, &text)).transpose()?;
    Ok(Config {
        data,
        controllers,
        token: args.token.filter(|token| !token.trim().is_empty()),
        name,
        env,
        roles,
        labels: labels(said(args.label))?,
        edges,
        traffic_listen: listening("traffic-listen", listen, listen)?,
        endpoint_listen: endpoint,
        address: args.address.filter(|text| !text.is_empty()).map(host).transpose()?,
    })
}

/// An empty variable says nothing.
fn said(list: Vec<String>) -> Vec<String> {
    list.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn label(flag: &'static str, text: String) -> Result<String, ConfigError> {
    if is_label(&text) { Ok(text) } else { Err(ConfigError::invalid(flag, &text, LABEL_RULE)) }
}

fn labels(list: Vec<String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut labels = BTreeMap::new();
    for text in list {
        let pair = text.split_once('=').filter(|(key, value)| {
            is_label_key(key) && !value.is_empty() && !value.contains(char::is_control)
        });
        let Some((key, value)) = pair else {
            let rule = "write KEY=VALUE, for example zone=a";
            return Err(ConfigError::invalid("label", &text, rule));
        };
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            let rule = format!("the label `{key}` is given twice");
            return Err(ConfigError::invalid("label", &text, rule));
        }
    }
    Ok(labels)
}

fn dialable(flag: &'static str, text: &str) -> Result<(), ConfigError> {
    let parts = text.rsplit_once(':').filter(|(host, _)| {
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !host.contains(['/', '@', ' ']) && !bare_v6
    });
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(port)) if port > 0 => Ok(()),
        Some(Ok(_) | Err(_)) | None => {
            let rule = "write HOST:PORT, for example c1.example:7400";
            Err(ConfigError::invalid(flag, text, rule))
        }
    }
}

fn listening(flag: &'static str, whole: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        let rule = format!("`{text}` is not an IP address and a port, such as 0.0.0.0:8080");
        ConfigError::invalid(flag, whole, rule)
    })
}

fn host(text: String) -> Result<String, ConfigError> {
    let is_ip = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    if is_ip || is_name {
        return Ok(text);
    }
    let rule = "write an IP address or a host's name, without a port";
    Err(ConfigError::invalid("address", &text, rule))
}

fn edge(text: &str) -> Result<EdgePool, ConfigError> {
    let parts = text.split_once('=').and_then(|(pool, rest)| {
        let (driver, place) = rest.split_once('@')?;
        Some((pool, driver, place))
    });
    let Some((pool, driver, place)) = parts else {
        let rule = "write POOL=proxy@HOST:PORT (for example shop=proxy@0.0.0.0:8080), \
                    POOL=haproxy@SOCKET#BACKEND or POOL=nginx@FILE";
        return Err(ConfigError::invalid("edge", text, rule));
    };
    if !is_label(pool) {
        let rule = format!("`{pool}` is not the name of a pool: {LABEL_RULE}");
        return Err(ConfigError::invalid("edge", text, rule));
    }
    match driver {
        "proxy" => {
            let listen = listening("edge", text, place)?;
            Ok(EdgePool { pool: pool.to_owned(), balancer: Balancer::Proxy { listen } })
        }
        "haproxy" => {
            let balancer = Balancer::Haproxy(haproxy(text, pool, place)?);
            Ok(EdgePool { pool: pool.to_owned(), balancer })
        }
        "nginx" => {
            let balancer = Balancer::Nginx(nginx(text, place)?);
            Ok(EdgePool { pool: pool.to_owned(), balancer })
        }
        other => {
            let rule =
                format!("`{other}` is no load balancer that Rota knows: proxy, haproxy or nginx");
            Err(ConfigError::invalid("edge", text, rule))
        }
    }
}

fn refuse_doubles(edges: &[EdgePool]) -> Result<(), ConfigError> {
    for (number, edge) in edges.iter().enumerate() {
        if edges[..number].iter().any(|earlier| earlier.pool == edge.pool) {
            let rule = format!("the pool `{}` is given twice", edge.pool);
            return Err(ConfigError::invalid("edge", &format!("{}=…", edge.pool), rule));
        }
    }
    Ok(())
}

impl Logging {
    /// As the layers say.
    pub fn of(args: &RunArgs) -> Self {
        Self { format: args.log_format.unwrap_or_default(), volume: args.volume }
    }
}
