//! Which digest does the tag of an image stand for now? Asked once, when a release is made, so that every node runs
//! the same image.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use rota_rollout::names::Digest;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::place::Place;
use super::{ANSWER_TIMEOUT, DownloadError, dial, refused, silent};

/// The forms in which registries describe an image, or one for each architecture.
const FORMS: &str = "application/vnd.oci.image.index.v1+json, \
                     application/vnd.docker.distribution.manifest.list.v2+json, \
                     application/vnd.oci.image.manifest.v1+json, \
                     application/vnd.docker.distribution.manifest.v2+json";

/// Such a description has a few kilobytes.
const BYTES_MAX: usize = 4 << 20;

/// The registry of names that say none.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The name of an image, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: String,
    digest: Option<Digest>,
    /// As it was written, without tag and digest.
    plain: String,
}

impl ImageName {
    /// As `docker pull` reads it.
    pub fn of(text: &str) -> Self {
        let (name, digest) = match text.split_once("@sha256:") {
            Some((name, digest)) => (name, digest.parse().ok()),
            None => (text, None),
        };
        let (plain, tag) = match name.rsplit_once(':') {
            Some((plain, tag)) if !tag.contains('/') => (plain, tag),
            Some(_) | None => (name, "latest"),
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match plain.split_once('/') {
            Some((host, rest)) if is_host(host) => (host.to_owned(), rest.to_owned()),
            Some(_) => (HUB.0.to_owned(), plain.to_owned()),
            None => (HUB.0.to_owned(), format!("library/{plain}")),
        };
        let (tag, plain) = (tag.to_owned(), plain.to_owned());
        Self { registry, repository, tag, digest, plain }
    }

    /// The same image for ever.
    pub fn pinned(&self, digest: &Digest) -> String {
        format!("{}@sha256:{digest}", self.plain)
    }

    fn url(&self) -> String {
        let host = if self.registry == HUB.0 { HUB.1 } else { &self.registry };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // As dockerd does: what is on this machine needs no TLS.
        let scheme = if ["localhost", "127.0.0.1"].contains(&name) { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}/manifests/{}", self.repository, self.tag)
    }
}

/// The digest that is written, or that the registry has for the tag.
pub async fn resolve(image: &ImageName) -> Result<Digest, DownloadError> {
    if let Some(digest) = &image.digest {
        return Ok(digest.clone());
    }
    let place = Place::of(&image.url())?;
    let mut answer = ask(&place, None).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        let asked = answer.headers().get(WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
        let Some(realm) = asked.and_then(token_url) else {
            return Err(refused(&place, answer.status()));
        };
        let token = token(&Place::of(&realm)?).await?;
        answer = ask(&place, Some(&token)).await?;
    }
    match answer.status() {
        StatusCode::OK => {
            let digest = Sha256::digest(body(&place, answer).await?);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let no_digest = |_| DownloadError::Url {
                url: place.shown(),
                why: "what came has no digest".to_owned(),
            };
            hex.parse().map_err(no_digest)
        }
        status => Err(refused(&place, status)),
    }
}

/// Where a registry says that its tokens are: `Bearer realm="…",service="…",scope="…"`.
fn token_url(header: &str) -> Option<String> {
    let rest = header.strip_prefix("Bearer ")?;
    let part = |name: &str| {
        let (_, rest) = rest.split_once(&format!("{name}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    };
    let realm = part("realm")?;
    let query: Vec<String> = ["service", "scope"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", part(name)?.replace(' ', "%20"))))
        .collect();
    let sign = if realm.contains('?') { '&' } else { '?' };
    Some(format!("{realm}{sign}{}", query.join("&")))
}

async fn token(place: &Place) -> Result<String, DownloadError> {
    let answer = ask(place, None).await?;
    if answer.status() != StatusCode::OK {
        return Err(refused(place, answer.status()));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&body(place, answer).await?).unwrap_or_default();
    let token = json["token"].as_str().or_else(|| json["access_token"].as_str());
    token.map(str::to_owned).ok_or_else(|| DownloadError::Url {
        url: place.shown(),
        why: "the answer has no token".to_owned(),
    })
}

async fn ask(place: &Place, token: Option<&str>) -> Result<Response<Incoming>, DownloadError> {
    let mut sender = dial::connect(place).await?;
    let mut request = Request::get(place.path())
        .header(HOST, place.authority())
        .header(USER_AGENT, concat!("rota/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, FORMS);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| DownloadError::Url { url: place.shown(), why: error.to_string() })?;
    match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|cause| DownloadError::BrokeOff { url: place.shown(), cause }),
        Err(_) => Err(silent(place, ANSWER_TIMEOUT)),
    }
}

async fn body(place: &Place, answer: Response<Incoming>) -> Result<Bytes, DownloadError> {
    let read = timeout(ANSWER_TIMEOUT, Limited::new(answer.into_body(), BYTES_MAX).collect());
    let read = read.await.map_err(|_| silent(place, ANSWER_TIMEOUT))?;
    let why = |error: Box<dyn std::error::Error + Send + Sync>| DownloadError::Url {
        url: place.shown(),
        why: error.to_string(),
    };
    Ok(read.map_err(why)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let hub = "https://registry-1.docker.io/v2";
        let rows = [
            ("debian", format!("{hub}/library/debian/manifests/latest"), "debian"),
            ("repo/shop:1.0", format!("{hub}/repo/shop/manifests/1.0"), "repo/shop"),
            ("r.example/a/b:1", "https://r.example/v2/a/b/manifests/1".into(), "r.example/a/b"),
            ("r:5000/a", "https://r:5000/v2/a/manifests/latest".into(), "r:5000/a"),
            (
                "127.0.0.1:5000/a:x",
                "http://127.0.0.1:5000/v2/a/manifests/x".into(),
                "127.0.0.1:5000/a",
            ),
        ];
        for (text, url, plain) in rows {
            let name = ImageName::of(text);
            assert_eq!((name.url(), name.plain.as_str()), (url, plain), "{text}");
        }
        let digest: Digest = "ab".repeat(32).parse().unwrap();
        let name = ImageName::of(&format!("r.example/a:1@sha256:{digest}"));
        assert_eq!(name.digest, Some(digest.clone()));
        assert_eq!(name.pinned(&digest), format!("r.example/a@sha256:{digest}"));
    }

    #[test]
    fn where_tokens_are() {
        let rows = [
            (
                "Bearer realm=\"https://a.example/token\",service=\"r\",scope=\"repo:a:pull\"",
                Some("https://a.example/token?service=r&scope=repo:a:pull"),
            ),
            ("Basic realm=\"x\"", None),
        ];
        for (header, expected) in rows {
            assert_eq!(token_url(header).as_deref(), expected, "{header}");
        }
    }
}
