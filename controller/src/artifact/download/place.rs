//! Where an artifact is: a URL as far as a download needs it, and where a redirect leads from there.

use hyper::Uri;

use super::DownloadError;

/// A URL with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Over TLS.
    pub secure: bool,
    /// The host without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
    authority: String,
    path: String,
}

/// A URL for people: what stands behind the `?` may be a secret that gives access.
pub fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

impl Place {
    pub fn of(url: &str) -> Result<Self, DownloadError> {
        let bad = |why: &str| DownloadError::Url { url: shown(url), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(bad("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            let hidden = "https://…".to_owned();
            let why = "user names and passwords do not belong into a manifest".to_owned();
            return Err(DownloadError::Url { url: hidden, why });
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host, port, authority: authority.to_string(), path })
    }

    /// As the `Host` of a request.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// For people.
    pub fn shown(&self) -> String {
        shown(&self.url_of(&self.path))
    }

    fn url_of(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.authority)
    }

    /// Where a redirect leads; never from TLS to what anybody could have written.
    pub fn redirected(&self, to: &str) -> Result<Self, DownloadError> {
        let scheme = if self.secure { "https:" } else { "http:" };
        let next = if to.contains("://") {
            Self::of(to)?
        } else if to.starts_with("//") {
            Self::of(&format!("{scheme}{to}"))?
        } else if to.starts_with('/') {
            Self::of(&self.url_of(to))?
        } else {
            let path = self.path.split('?').next().unwrap_or("/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::of(&self.url_of(&format!("{folder}/{to}")))?
        };
        if self.secure && !next.secure {
            let why = format!("it leads from https to {}", next.shown());
            return Err(DownloadError::Url { url: self.shown(), why });
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (url, found) in [
            ("http://h/a.tar", Some(("h", 80, "/a.tar"))),
            ("https://h.example:8443/a/b.tar?sig=x#y", Some(("h.example", 8443, "/a/b.tar?sig=x"))),
            ("https://[::1]/", Some(("::1", 443, "/"))),
            ("https://h", Some(("h", 443, "/"))),
            ("ftp://h/a.tar", None),
            ("/a.tar", None),
            ("https://bob:secret@h/a.tar", None),
        ] {
            let place = Place::of(url).ok();
            let parts = place.as_ref().map(|p| (p.host.as_str(), p.port, p.path()));
            assert_eq!(parts, found, "{url}");
        }
        let told = Place::of("https://bob:secret@h/a.tar").unwrap_err().to_string();
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn redirects() {
        for (from, to, found) in [
            ("https://h/a/b.tar?x", "https://other:1/c", Some("https://other:1/c")),
            ("https://h/a/b.tar?x", "//other/c", Some("https://other/c")),
            ("http://h/a/b.tar", "/c?sig=1", Some("http://h/c?sig=1")),
            ("http://h:8/a/b.tar?x", "c.tar", Some("http://h:8/a/c.tar")),
            ("http://h/a.tar", "https://h/a.tar", Some("https://h/a.tar")),
            ("https://h/a.tar", "http://h/a.tar", None),
            ("https://h/a.tar", "ftp://h/a.tar", None),
        ] {
            let next = Place::of(from).unwrap().redirected(to).ok();
            let url = next.map(|next| next.url_of(next.path()));
            assert_eq!(url.as_deref(), found, "{from} to {to}");
        }
    }
}
