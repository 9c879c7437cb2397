//! Fetches an artifact from where its manifest says it is: over HTTP or HTTPS, through a few redirects, within limits.
//!
//! Nothing that comes from there is believed before its digest was compared with the manifest's.

mod dial;
mod place;
mod registry;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use rota_rollout::names::Digest;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::pack::{Format, Hashed, UNPACKED_BYTES_MAX};
use place::Place;

pub use place::shown;
pub use registry::{ImageName, resolve};

/// An archive that is larger than what agents unpack is of no use.
const BYTES_MAX: u64 = UNPACKED_BYTES_MAX;

/// Redirects that are followed: a release page takes one or two, a loop would take all.
const REDIRECTS_MAX: usize = 5;

/// For the head of an answer; a server that makes the archive first needs some time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two pieces of an archive: a connection that is silent for longer is dead.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an artifact cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It cannot be asked for.
    #[error("{url} cannot be fetched: {why}")]
    Url { url: String, why: String },
    /// Its name does not say what it is.
    #[error("{0} names no archive: its path must end in .tar, .tar.gz, .tgz or .tar.zst")]
    Ending(String),
    /// Nobody is there, or nobody whom this machine trusts.
    #[error("cannot reach {host}")]
    Reach {
        host: String,
        #[source]
        cause: io::Error,
    },
    /// It says nothing.
    #[error("{host} did not answer within {} s", after.as_secs())]
    Silent { host: String, after: Duration },
    /// Roots of trust.
    #[error("this machine has no list of certificates that it trusts{0}")]
    NoRoots(String),
    /// The connection broke.
    #[error("the answer for {url} broke off")]
    BrokeOff {
        url: String,
        #[source]
        cause: hyper::Error,
    },
    /// There is no such thing.
    #[error("{url} does not exist: the server answered {status}")]
    NotFound { url: String, status: StatusCode },
    /// It is not given out.
    #[error("{url} is not given out: the server answered {status}")]
    Status { url: String, status: StatusCode },
    /// It is always elsewhere.
    #[error("{0} leads through more than {REDIRECTS_MAX} redirects")]
    Redirects(String),
    /// It is too much.
    #[error("{url} is larger than {} GiB, the most that an agent unpacks", BYTES_MAX >> 30)]
    TooLarge { url: String },
    /// It cannot be kept.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl DownloadError {
    fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Write { path: path.clone(), cause }
    }
}

/// How far a download is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Moved {
    /// Bytes that came.
    pub have: AtomicU64,
    /// Bytes that there are; 0: the server does not say.
    pub size: AtomicU64,
}

/// How the archive behind a URL is packed, by its name.
pub fn format_of(url: &str) -> Result<Format, DownloadError> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    Format::of_name(path).ok_or_else(|| DownloadError::Ending(path.to_owned()))
}

/// Fetches it into a new file, and answers its digest.
pub async fn download(url: &str, to: &Path, moved: &Moved) -> Result<Digest, DownloadError> {
    let mut place = Place::of(url)?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = ask(&place).await?;
        let status = answer.status();
        if status == StatusCode::OK {
            return save(&place, answer, to, moved).await;
        }
        let next = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        place = match (status.is_redirection(), next) {
            (true, Some(next)) => place.redirected(next)?,
            (_, _) => return Err(refused(&place, status)),
        };
    }
    Err(DownloadError::Redirects(place::shown(url)))
}

fn refused(place: &Place, status: StatusCode) -> DownloadError {
    let url = place.shown();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => DownloadError::NotFound { url, status },
        _ => DownloadError::Status { url, status },
    }
}

/// One question, and the head of its answer.
async fn ask(place: &Place) -> Result<Response<Incoming>, DownloadError> {
    let mut sender = dial::connect(place).await?;
    let request = Request::get(place.path())
        .header(HOST, place.authority())
        .header(USER_AGENT, concat!("rota/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .body(Empty::<Bytes>::new())
        .map_err(|error| DownloadError::Url { url: place.shown(), why: error.to_string() })?;
    match timeout(ANSWER_TIMEOUT, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|cause| DownloadError::BrokeOff { url: place.shown(), cause }),
        Err(_) => Err(silent(place, ANSWER_TIMEOUT)),
    }
}

fn silent(place: &Place, after: Duration) -> DownloadError {
    DownloadError::Silent { host: place.authority().to_owned(), after }
}

/// Writes the answer down as it comes.
async fn save(
    place: &Place,
    answer: Response<Incoming>,
    to: &Path,
    moved: &Moved,
) -> Result<Digest, DownloadError> {
    let too_large = || DownloadError::TooLarge { url: place.shown() };
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let size: u64 = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    if size > BYTES_MAX {
        return Err(too_large());
    }
    moved.size.store(size, Ordering::Relaxed);
    let mut file = File::create_new(to).await.map_err(DownloadError::write(to))?;
    let mut hashed = Hashed::new(io::sink());
    let mut body = answer.into_body();
    loop {
        let piece = timeout(PIECE_TIMEOUT, body.frame()).await;
        let Some(piece) = piece.map_err(|_| silent(place, PIECE_TIMEOUT))? else { break };
        let broke_off = |cause| DownloadError::BrokeOff { url: place.shown(), cause };
        let Ok(data) = piece.map_err(broke_off)?.into_data() else { continue };
        file.write_all(&data).await.map_err(DownloadError::write(to))?;
        io::Write::write_all(&mut hashed, &data).map_err(DownloadError::write(to))?;
        let have = moved.have.fetch_add(data.len() as u64, Ordering::Relaxed);
        if have + data.len() as u64 > BYTES_MAX {
            return Err(too_large());
        }
    }
    file.flush().await.map_err(DownloadError::write(to))?;
    hashed.finish().map(|(digest, _)| digest).map_err(DownloadError::write(to))
}
