//! The operator's own load balancers, as `--edge` names them.

use std::fmt;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Where HAProxy is, and which of its backends serves the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    /// The admin sockets, one for each process.
    pub sockets: Vec<PathBuf>,
    /// The backend's name.
    pub backend: String,
}

impl fmt::Display for Haproxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for socket in &self.sockets {
            write!(f, "{separator}{}", socket.display())?;
            separator = "+";
        }
        write!(f, "#{}", self.backend)
    }
}

/// Where nginx runs by default, as Debian and nginx.org build it.
pub const PID_FILE: &str = "/run/nginx.pid";

/// Which file is ours, and which nginx reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nginx {
    /// The file that an `upstream` includes.
    pub upstream: PathBuf,
    /// Where nginx's master notes its number.
    pub pid_file: PathBuf,
}

impl fmt::Display for Nginx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.upstream.display())?;
        if self.pid_file != Path::new(PID_FILE) {
            write!(f, "#{}", self.pid_file.display())?;
        }
        Ok(())
    }
}

/// `SOCKET[+SOCKET…][#BACKEND]`; the backend is called like the pool unless it says otherwise.
pub(super) fn haproxy(text: &str, pool: &str, place: &str) -> Result<Haproxy, ConfigError> {
    let (sockets, backend) = place.split_once('#').unwrap_or((place, pool));
    let sockets: Vec<PathBuf> = sockets.split('+').map(PathBuf::from).collect();
    if let Some(socket) = sockets.iter().find(|socket| !socket.is_absolute()) {
        let rule = format!(
            "`{}` is not the path of an admin socket, such as /run/haproxy/admin.sock",
            socket.display()
        );
        return Err(ConfigError::invalid("edge", text, rule));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if backend.is_empty() || !backend.chars().all(is_name) {
        let rule = format!("`{backend}` is not the name of a backend");
        return Err(ConfigError::invalid("edge", text, rule));
    }
    Ok(Haproxy { sockets, backend: backend.to_owned() })
}

/// `FILE[#PID_FILE]`.
pub(super) fn nginx(text: &str, place: &str) -> Result<Nginx, ConfigError> {
    let (upstream, pid_file) = place.split_once('#').unwrap_or((place, PID_FILE));
    let settings = Nginx { upstream: PathBuf::from(upstream), pid_file: PathBuf::from(pid_file) };
    if settings.upstream.is_absolute() && settings.pid_file.is_absolute() {
        return Ok(settings);
    }
    let rule = "write the whole path of a file that an `upstream` includes, such as \
                nginx@/etc/nginx/conf.d/shop.upstream";
    Err(ConfigError::invalid("edge", text, rule))
}
