//! What the operator says about etcd: one URL, checked once. The password is never part of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where keys are kept when nothing else is said.
const PREFIX: &str = "/rota";

/// The variable that holds the password of `user=` where no file does.
pub const PASSWORD_VARIABLE: &str = "ROTA_ETCD_PASSWORD";

/// How it is written.
const SHAPE: &str = "etcd://HOST:PORT[,HOST:PORT...]";

/// The options that a URL may have.
const OPTIONS: &str = "prefix, ca, cert, key, user and password-file";

/// An etcd cluster and the way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `HOST:PORT` of its members: one or more of them.
    pub endpoints: Vec<String>,
    /// All keys are below it: `/rota`.
    pub prefix: String,
    /// Whether and whom we trust.
    pub trust: Trust,
    /// The files of our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The user, where etcd asks for one.
    pub user: Option<String>,
    /// The file with the user's password; else [`PASSWORD_VARIABLE`].
    pub password_file: Option<PathBuf>,
}

/// Who may say that it is etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Anybody: no TLS.
    Plain,
    /// Whom this machine trusts.
    System,
    /// Whom the CA in this file vouches for.
    File(PathBuf),
}

impl fmt::Display for EtcdConfig {
    /// For logs and messages: the members and the prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}?prefix={}", self.endpoints.join(","), self.prefix)
    }
}

impl FromStr for EtcdConfig {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("etcd://").ok_or_else(|| format!("write {SHAPE}"))?;
        let (members, options) = rest.split_once('?').unwrap_or((rest, ""));
        let endpoints = endpoints(members)?;
        let mut read = Options::default();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            read.take(option)?;
        }
        read.config(endpoints)
    }
}

fn endpoints(members: &str) -> Result<Vec<String>, String> {
    if members.contains('@') {
        return Err(format!(
            "write no user and no password before the members: `?user=NAME` names the user, and \
             `&password-file=FILE` or {PASSWORD_VARIABLE} has the password"
        ));
    }
    let members = members.strip_suffix('/').unwrap_or(members);
    if members.is_empty() {
        return Err("name at least one member, for example etcd://h1:2379".to_owned());
    }
    let mut endpoints = Vec::new();
    for member in members.split(',') {
        let found = split(member).ok_or_else(|| {
            format!("`{member}` is not HOST:PORT, for example h1:2379 or [::1]:2379")
        })?;
        if endpoints.contains(&member.to_owned()) {
            return Err(format!("the member {} port {} is named twice", found.0, found.1));
        }
        endpoints.push(member.to_owned());
    }
    Ok(endpoints)
}

/// Host (an IPv6 address without its brackets) and port of a member.
pub(super) fn split(member: &str) -> Option<(&str, u16)> {
    let (host, port) = member.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#[]@".contains(c);
    (!host.is_empty() && !host.contains(odd)).then_some((host, port))
}

/// The options as they are read.
#[derive(Default)]
struct Options {
    prefix: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    user: Option<String>,
    password_file: Option<String>,
}

impl Options {
    fn take(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("`{option}` has no value: `{option}=…`"))?;
        let place = match name {
            "prefix" => &mut self.prefix,
            "ca" => &mut self.ca,
            "cert" => &mut self.cert,
            "key" => &mut self.key,
            "user" => &mut self.user,
            "password-file" => &mut self.password_file,
            "password" => {
                return Err(format!(
                    "a password in a URL shows in `ps` and in logs: write it into a file of mode \
                     600 and `password-file=FILE`, or into {PASSWORD_VARIABLE}"
                ));
            }
            _ => return Err(format!("`{name}` is no option; there are {OPTIONS}")),
        };
        if value.is_empty() {
            return Err(format!("`{name}=` has no value"));
        }
        match place.replace(unescaped(value)?) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is given twice")),
        }
    }

    fn config(self, endpoints: Vec<String>) -> Result<EtcdConfig, String> {
        let certificate = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            (None, None) => None,
            (Some(_), None) => return Err("`cert` needs its `key=FILE`".to_owned()),
            (None, Some(_)) => return Err("`key` needs its `cert=FILE`".to_owned()),
        };
        let trust = match self.ca.as_deref() {
            Some("system") => Trust::System,
            Some(file) => Trust::File(PathBuf::from(file)),
            None if certificate.is_some() => {
                return Err("`cert` needs `ca=FILE`, the CA of the members, or `ca=system`".into());
            }
            None => Trust::Plain,
        };
        if self.password_file.is_some() && self.user.is_none() {
            return Err("`password-file` needs `user=NAME`".to_owned());
        }
        let prefix = match self.prefix {
            None => PREFIX.to_owned(),
            Some(prefix) => checked_prefix(prefix)?,
        };
        let password_file = self.password_file.map(PathBuf::from);
        Ok(EtcdConfig { endpoints, prefix, trust, certificate, user: self.user, password_file })
    }
}

/// Begins with a slash and does not end with one: what is below it is then nobody else's.
fn checked_prefix(prefix: String) -> Result<String, String> {
    let right = prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains("//");
    if right && prefix.len() <= 256 && !prefix.contains(char::is_control) {
        return Ok(prefix);
    }
    Err(format!("`prefix={prefix}`: write a path that begins with `/` and does not end with it"))
}

/// `%26` is `&`: a file's name may have one.
fn unescaped(value: &str) -> Result<String, String> {
    let bad = || format!("`{value}`: a `%` is written `%25`");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits =
                after.get(..2).and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(bad)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_it_all() {
        let plain: EtcdConfig = "etcd://h1:2379".parse().unwrap();
        assert_eq!(plain.endpoints, ["h1:2379"]);
        assert_eq!((plain.prefix.as_str(), plain.trust), ("/rota", Trust::Plain));
        let url = "etcd://h1:2379,[::1]:12379/?prefix=/a/b&ca=/c%26a.pem&cert=c.pem&key=k.pem\
                   &user=rota&password-file=/p";
        let full: EtcdConfig = url.parse().unwrap();
        let shown = full.to_string();
        assert_eq!(shown, "etcd://h1:2379,[::1]:12379?prefix=/a/b");
        assert_eq!(
            full,
            EtcdConfig {
                endpoints: vec!["h1:2379".to_owned(), "[::1]:12379".to_owned()],
                prefix: "/a/b".to_owned(),
                trust: Trust::File("/c&a.pem".into()),
                certificate: Some(("c.pem".into(), "k.pem".into())),
                user: Some("rota".to_owned()),
                password_file: Some("/p".into()),
            }
        );
        let system: EtcdConfig = "etcd://h1:2379?ca=system".parse().unwrap();
        assert_eq!(system.trust, Trust::System);
    }

    #[test]
    fn each_mistake_has_its_message() {
        for (url, right) in [
            ("http://h1:2379", "write etcd://HOST:PORT"),
            ("etcd://", "at least one member"),
            ("etcd:///", "at least one member"),
            ("etcd://h1", "`h1` is not HOST:PORT"),
            ("etcd://h1:2379,", "`` is not HOST:PORT"),
            ("etcd://h1:0", "is not HOST:PORT"),
            ("etcd://::1:2379", "is not HOST:PORT"),
            ("etcd://h1:2379,h1:2379", "named twice"),
            ("etcd://u:p@h1:2379", "ROTA_ETCD_PASSWORD"),
            ("etcd://h1:2379?password=x", "shows in `ps`"),
            ("etcd://h1:2379?prefx=/rota", "`prefx` is no option; there are prefix, ca"),
            ("etcd://h1:2379?prefix", "`prefix` has no value"),
            ("etcd://h1:2379?prefix=", "has no value"),
            ("etcd://h1:2379?prefix=rota", "begins with `/`"),
            ("etcd://h1:2379?prefix=/", "does not end with it"),
            ("etcd://h1:2379?prefix=/a&prefix=/b", "given twice"),
            ("etcd://h1:2379?cert=c&ca=a", "needs its `key=FILE`"),
            ("etcd://h1:2379?key=k&ca=a", "needs its `cert=FILE`"),
            ("etcd://h1:2379?cert=c&key=k", "`cert` needs `ca=FILE`"),
            ("etcd://h1:2379?password-file=p", "needs `user=NAME`"),
            ("etcd://h1:2379?ca=a%2", "written `%25`"),
        ] {
            let told = url.parse::<EtcdConfig>().unwrap_err();
            assert!(told.contains(right), "{url}: {told}");
        }
    }
}
