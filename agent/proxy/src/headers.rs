//! Headers on their way through: what is meant for one hop stays there, and the member learns
//! who asked.

use hyper::header::{
    CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri, Version};

/// Only ever meant for the next hop (RFC 9110, 7.6.1), beside what `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// This is no forward proxy.
    #[error("CONNECT is not served here")]
    Connect,
    /// Nobody can tell whom it is meant for.
    #[error("the request must name exactly one host")]
    Host,
    /// Nothing to ask for.
    #[error("the request has no path")]
    Path,
}

/// Makes a client's request one for a member. True: it asks for an upgrade of the connection.
pub fn to_member(parts: &mut Parts, peer: &HeaderValue) -> Result<bool, Unfit> {
    if parts.method == Method::CONNECT {
        return Err(Unfit::Connect);
    }
    let host = host(parts)?;
    let protocol = upgrade(parts);
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    strip(&mut parts.headers);
    // The proxy has answered "100 Continue" itself when it begins to read the body.
    parts.headers.remove(EXPECT);
    forwarded(&mut parts.headers, peer, &host);
    parts.headers.insert(HOST, host);
    let upgrades = protocol.is_some();
    if let Some(protocol) = protocol {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    if parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    if parts.uri.path().is_empty() {
        return Err(Unfit::Path);
    }
    parts.version = Version::HTTP_11;
    Ok(upgrades)
}

/// Takes from a member's response what was meant for the proxy; the upgrade stays if there is one.
pub fn to_client(headers: &mut HeaderMap, upgraded: bool) {
    let protocol = if upgraded { headers.remove(UPGRADE) } else { None };
    strip(headers);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// The one host that the request names: its target counts more than the header (RFC 9112, 3.2.2).
fn host(parts: &Parts) -> Result<HeaderValue, Unfit> {
    if let Some(authority) = parts.uri.authority() {
        return HeaderValue::from_str(authority.as_str()).map_err(|_| Unfit::Host);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.clone()),
        // HTTP/1.0 knows requests without a host.
        (None, _) if parts.version < Version::HTTP_11 => Ok(HeaderValue::from_static("")),
        (None, _) | (Some(_), Some(_)) => Err(Unfit::Host),
    }
}

/// The protocol that the client wants to change to; HTTP/1.1 only.
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || !parts.headers.contains_key(UPGRADE) {
        return None;
    }
    let asked = tokens(&parts.headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = parts.headers.get(UPGRADE)?;
    // "h2c" by upgrade is obsolete (RFC 9113, 3.1); members speak HTTP/1.1 with the proxy.
    let served = !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (asked && served).then(|| protocol.clone())
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers)
            .filter(|token| !["keep-alive", "close", "upgrade"].contains(token))
            .filter_map(|token| token.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// HTTP/2 clients may send a cookie header for each cookie; HTTP/1.1 has one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Says who asked. A proxy in front, that ends TLS for example, has said more and is kept.
fn forwarded(headers: &mut HeaderMap, peer: &HeaderValue, host: &HeaderValue) {
    let before: Vec<&[u8]> =
        headers.get_all(&FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let chain = if before.is_empty() {
        Ok(peer.clone())
    } else {
        HeaderValue::from_bytes(
            &[before.join(&b", "[..]).as_slice(), peer.as_bytes()].join(&b", "[..]),
        )
    };
    headers.insert(FORWARDED_FOR, chain.unwrap_or_else(|_| peer.clone()));
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(&FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, host.clone());
    }
}

#[cfg(test)]
mod tests;
