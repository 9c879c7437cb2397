//! Contexts: where an operator's commands go, and as whom. One file holds one of them
//! (`admin.toml`), or several by name, one of which is current (`~/.config/rota/context.toml`).
//! They hold private keys, so only their owner may read them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use rota_identity::{
    Credentials, Expect, FileError, Kind, TlsError, check_mode, client_config, tls, write_private,
};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No file.
    #[error(
        "there is no context at {}: `rota login HOST:PORT --token T` makes one, or name one with \
         --context",
        .0.display()
    )]
    NoFile(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Its folder cannot be made.
    #[error("cannot make the folder {}", .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It cannot be kept from others while it is changed.
    #[error("cannot lock the folder {}", .path.display())]
    Lock {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Exposed, or not written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or not ours.
    #[error("{} is not a context: {cause}", .path.display())]
    Parse { path: PathBuf, cause: Box<toml::de::Error> },
    /// It could not become TOML.
    #[error("cannot write a context as TOML")]
    Render(#[source] toml::ser::Error),
    /// No such name.
    #[error("there is no context `{name}` in {}: it has {known}", .path.display())]
    NoSuch { name: String, path: PathBuf, known: String },
    /// Several, and none was chosen.
    #[error("{} has no current context: choose one with --context ({known})", .path.display())]
    NoCurrent { path: PathBuf, known: String },
    /// Nowhere to go.
    #[error("the context {0} names no controller")]
    NoControllers(String),
}

/// One installation and one identity in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// What it is called.
    pub name: String,
    /// `HOST:PORT` each; any of them will do.
    pub controllers: Vec<String>,
    /// The trust roots, PEM.
    pub ca: String,
    /// The operator's certificate, then the CA, PEM.
    pub cert: String,
    /// His key, PEM.
    pub key: String,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} at {})", self.name, self.controllers.join(", "))
    }
}

impl Context {
    /// The context in a file: the only one, or the current one.
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        Contexts::load(path)?.into_current(path)
    }

    /// What `--context` or `ROTA_CONTEXT` means: nothing, the current one of the default file; a
    /// name in that file; or a file (anything with a `/` or ending in `.toml`).
    pub fn find(chosen: Option<&str>, default: &Path) -> Result<Self, ContextError> {
        match chosen {
            None => Self::load(default),
            Some(file) if is_file(file) => Self::load(Path::new(file)),
            Some(name) => Contexts::load(default)?.into_named(name, default),
        }
    }

    /// Writes a file with this context alone, 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), ContextError> {
        save(path, self)
    }

    /// The certificate and the key.
    pub fn credentials(&self) -> Result<Credentials, TlsError> {
        Credentials::from_pem(&self.cert, &self.key)
    }

    /// For `rota_identity::connect` with any of the controllers.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = tls::roots(&self.ca)?;
        client_config(&self.credentials()?, roots, Expect::Kind(Kind::Controller))
    }
}

/// Does it name a file, and not a context in the default one?
pub fn is_file(chosen: &str) -> bool {
    chosen.contains('/') || chosen.ends_with(".toml")
}

/// The file that [`Context::find`] reads.
pub fn file_of(chosen: Option<&str>, default: &Path) -> PathBuf {
    match chosen {
        Some(file) if is_file(file) => file.into(),
        Some(_) | None => default.to_owned(),
    }
}

/// Writes a context over the one of its name, and leaves the others and which one is current alone.
pub fn replace(path: &Path, context: &Context) -> Result<(), ContextError> {
    let _alone = lock(path)?;
    let text = fs::read_to_string(path)
        .map_err(|cause| ContextError::Read { path: path.to_owned(), cause })?;
    let alone = toml::from_str::<Context>(&text).is_ok();
    if alone {
        return context.save(path);
    }
    let mut contexts = Contexts::load(path)?;
    let current = contexts.current.clone();
    contexts.put(context.clone());
    contexts.current = current;
    contexts.save(path)
}

/// The addresses of a context once its controllers have said who they are: the first one stays, because it worked when
/// nobody had said anything yet, and may be a tunnel; the others are what is said now.
pub fn merged(known: &[String], said: &[String]) -> Vec<String> {
    let others = said.iter().filter(|address| known.first() != Some(*address));
    known.iter().take(1).chain(others).cloned().collect()
}

/// Keeps what the controllers of a context have said of who they are.
pub fn learn(path: &Path, name: &str, said: &[String]) -> Result<(), ContextError> {
    let mut context = match Contexts::load(path)? {
        all if all.names().any(|known| known == name) => all.into_named(name, path)?,
        all => all.into_current(path)?,
    };
    context.controllers = merged(&context.controllers, said);
    replace(path, &context)
}

/// Adds a context to a file beside those that are there by then, and makes it current.
pub fn add(path: &Path, context: Context) -> Result<(), ContextError> {
    let _alone = lock(path)?;
    let mut contexts = Contexts::load_or_empty(path)?;
    contexts.put(context);
    contexts.save(path)
}

/// Nobody else changes the file until this is dropped: of two commands that each read it, add to it and write it, the
/// later would undo the earlier one. The folder is locked, because the file itself is replaced.
fn lock(path: &Path) -> Result<File, ContextError> {
    let folder = folder_of(path)?;
    let locked = File::open(folder).and_then(|folder| {
        rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(folder)
    });
    locked.map_err(|cause| ContextError::Lock { path: folder.to_owned(), cause })
}

/// The folder of a file, made where it is not there.
fn folder_of(path: &Path) -> Result<&Path, ContextError> {
    let named = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = named.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .map_err(|cause| ContextError::Folder { path: folder.to_owned(), cause })?;
    Ok(folder)
}

/// Where contexts lie when nobody says: `$XDG_CONFIG_HOME/rota/context.toml`, else
/// `~/.config/rota/context.toml`.
pub fn default_path(config_home: Option<&Path>, home: &Path) -> PathBuf {
    let base = config_home.map_or_else(|| home.join(".config"), Path::to_owned);
    base.join("rota/context.toml")
}

/// Several contexts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The name of the one that is used when none is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Unnamed>,
}

/// A context whose name is its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unnamed {
    controllers: Vec<String>,
    ca: String,
    cert: String,
    key: String,
}

impl fmt::Debug for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unnamed(at {})", self.controllers.join(", "))
    }
}

impl Contexts {
    /// All contexts of a file of either sort.
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        let text = fs::read_to_string(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => ContextError::NoFile(path.to_owned()),
            _ => ContextError::Read { path: path.to_owned(), cause },
        })?;
        check_mode(path)?;
        let bad = |cause| ContextError::Parse { path: path.to_owned(), cause: Box::new(cause) };
        let table: toml::Table = toml::from_str(&text).map_err(bad)?;
        if !table.contains_key("controllers") {
            return toml::from_str(&text).map_err(bad);
        }
        let alone: Context = toml::from_str(&text).map_err(bad)?;
        let mut contexts = Self::default();
        contexts.put(alone);
        Ok(contexts)
    }

    /// As [`Contexts::load`], but a missing file has no contexts.
    pub fn load_or_empty(path: &Path) -> Result<Self, ContextError> {
        match Self::load(path) {
            Err(ContextError::NoFile(_)) => Ok(Self::default()),
            other => other,
        }
    }

    /// Adds a context, in place of one of the same name, and makes it current.
    pub fn put(&mut self, context: Context) {
        let Context { name, controllers, ca, cert, key } = context;
        self.current = Some(name.clone());
        self.context.insert(name, Unnamed { controllers, ca, cert, key });
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.context.keys().map(String::as_str)
    }

    /// Writes all of them, 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), ContextError> {
        save(path, self)
    }

    fn into_current(self, path: &Path) -> Result<Context, ContextError> {
        let only = if self.context.len() == 1 { self.names().next() } else { None };
        match self.current.as_deref().or(only).map(str::to_owned) {
            Some(name) => self.into_named(&name, path),
            None => Err(ContextError::NoCurrent { path: path.to_owned(), known: self.known() }),
        }
    }

    fn into_named(mut self, name: &str, path: &Path) -> Result<Context, ContextError> {
        let Some(found) = self.context.remove(name) else {
            let (name, path) = (name.to_owned(), path.to_owned());
            return Err(ContextError::NoSuch { name, path, known: self.known() });
        };
        let Unnamed { controllers, ca, cert, key } = found;
        if controllers.is_empty() {
            return Err(ContextError::NoControllers(name.to_owned()));
        }
        Ok(Context { name: name.to_owned(), controllers, ca, cert, key })
    }

    fn known(&self) -> String {
        let names: Vec<_> = self.names().collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

fn save(path: &Path, what: &impl Serialize) -> Result<(), ContextError> {
    let text = toml::to_string(what).map_err(ContextError::Render)?;
    folder_of(path)?;
    Ok(write_private(path, text.as_bytes())?)
}

/// An address of no host (RFC 5737), to ask the kernel which way it would go.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The address at which a listener can be reached from its own host: `0.0.0.0` is not one to call.
pub fn dialable(listens: SocketAddr) -> String {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listens.port()).to_string()
}

/// The address at which others can reach a listener: when it listens everywhere, the one that this host calls others
/// from. Nothing is sent to find that out.
pub fn reachable(listens: SocketAddr) -> String {
    if !listens.ip().is_unspecified() {
        return listens.to_string();
    }
    let outward = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SOMEWHERE)?;
        socket.local_addr()
    };
    match outward() {
        Ok(own) => SocketAddr::new(own.ip(), listens.port()).to_string(),
        Err(_) => dialable(listens), // a host without a network
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str) -> Context {
        let text = |what| format!("-----BEGIN {what}-----\nline\n-----END {what}-----\n");
        Context {
            name: name.into(),
            controllers: vec!["127.0.0.1:7400".into()],
            ca: text("CA"),
            cert: text("CERT"),
            key: text("KEY"),
        }
    }

    #[test]
    fn one_context_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.toml");
        context("admin").save(&path).unwrap();
        assert_eq!(Context::load(&path).unwrap(), context("admin"));
        let file = path.to_str().unwrap();
        let nowhere = dir.path().join("none");
        assert_eq!(Context::find(Some(file), &nowhere).unwrap(), context("admin"));
        let error = Context::find(None, &nowhere).unwrap_err().to_string();
        assert!(error.contains("rota login"), "{error}");
    }

    #[test]
    fn several_contexts_in_the_default_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = default_path(None, dir.path());
        assert_eq!(path, dir.path().join(".config/rota/context.toml"));
        let mut contexts = Contexts::load_or_empty(&path).unwrap();
        contexts.put(context("prod"));
        contexts.put(context("test"));
        contexts.save(&path).unwrap();
        for (chosen, right) in [
            (None, Ok("test")),
            (Some("prod"), Ok("prod")),
            (Some("dev"), Err("there is no context `dev`")),
            (Some("dev.toml"), Err("there is no context at dev.toml")),
        ] {
            match (Context::find(chosen, &path), right) {
                (Ok(got), Ok(name)) => assert_eq!(got, context(name)),
                (Err(got), Err(right)) => assert!(got.to_string().contains(right), "{got}"),
                (got, right) => panic!("{chosen:?}: {got:?} instead of {right:?}"),
            }
        }
        let mut contexts = Contexts::load(&path).unwrap();
        contexts.current = None;
        contexts.save(&path).unwrap();
        let error = Context::load(&path).unwrap_err().to_string();
        assert!(error.contains("choose one with --context (prod, test)"), "{error}");
    }

    #[test]
    fn commands_at_the_same_moment_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = default_path(None, dir.path());
        let names: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
        let begin = std::sync::Barrier::new(names.len());
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| {
                    begin.wait();
                    add(&path, context(name)).unwrap();
                    replace(&path, &context(name)).unwrap();
                });
            }
        });
        assert_eq!(Contexts::load(&path).unwrap().names().collect::<Vec<_>>(), names);
    }

    #[test]
    fn files_that_cannot_be_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let good = toml::to_string(&context("a")).unwrap();
        for (text, mode, right) in [
            (good.clone(), 0o644, "chmod 600"),
            (format!("{good}color = 1\n"), 0o600, "unknown field `color`"),
            ("name = ".into(), 0o600, "is not a context"),
            (String::new(), 0o600, "no current context"),
            (good.replace("\"127.0.0.1:7400\"", ""), 0o600, "names no controller"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Context::load(&path).unwrap_err().to_string();
            assert!(error.contains(right), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_to_call() {
        for (listens, right) in [
            ("0.0.0.0:7400", "127.0.0.1:7400"),
            ("10.1.2.3:7400", "10.1.2.3:7400"),
            ("[::]:7400", "[::1]:7400"),
            ("[fe80::1]:1", "[fe80::1]:1"),
        ] {
            assert_eq!(dialable(listens.parse().unwrap()), right);
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let mut contexts = Contexts::default();
        contexts.put(context("a"));
        let text = format!("{:?} {contexts:?}", context("a"));
        assert!(!text.contains("KEY"), "{text}");
    }
}
