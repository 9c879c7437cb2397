//! Rows: what a client sent, and what the member gets.

use hyper::Request;

use super::*;

/// Lines of a head, the first one `METHOD TARGET VERSION`.
fn request(head: &str) -> Parts {
    let mut lines = head.lines().map(str::trim);
    let first: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let version = match first[2] {
        "1.0" => Version::HTTP_10,
        "1.1" => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    let mut request = Request::builder().method(first[0]).uri(first[1]).version(version);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn shown(parts: &Parts) -> String {
    let mut lines: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.insert(0, format!("{} {}", parts.method, parts.uri));
    lines.join("\n")
}

#[track_caller]
fn check(head: &str, expected: &str) {
    let mut parts = request(head);
    let seen = match to_member(&mut parts, &HeaderValue::from_static("10.1.1.1")) {
        Ok(upgrades) => format!("{}{}", shown(&parts), if upgrades { "\nupgrades" } else { "" }),
        Err(unfit) => unfit.to_string(),
    };
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(seen, expected.join("\n"), "for {head}");
}

#[test]
fn what_a_member_gets() {
    check(
        "GET /a?b=1 1.1
         host: shop.example
         accept: */*",
        "GET /a?b=1
         accept: */*
         host: shop.example
         x-forwarded-for: 10.1.1.1
         x-forwarded-host: shop.example
         x-forwarded-proto: http",
    );
    check(
        "POST / 1.1
         host: shop.example
         connection: keep-alive, X-Private
         x-private: 1
         keep-alive: timeout=5
         te: trailers
         transfer-encoding: chunked
         proxy-connection: keep-alive
         expect: 100-continue
         upgrade: websocket
         x-forwarded-for: 192.0.2.7
         x-forwarded-for: 192.0.2.8
         x-forwarded-proto: https
         x-forwarded-host: www.example",
        "POST /
         host: shop.example
         x-forwarded-for: 192.0.2.7, 192.0.2.8, 10.1.1.1
         x-forwarded-host: www.example
         x-forwarded-proto: https",
    );
    check(
        "GET http://real.example:81/x 1.1
         host: other.example",
        "GET /x
         host: real.example:81
         x-forwarded-for: 10.1.1.1
         x-forwarded-host: real.example:81
         x-forwarded-proto: http",
    );
    check(
        "GET http://shop.example/ 2
         cookie: a=1
         cookie: b=2",
        "GET /
         cookie: a=1; b=2
         host: shop.example
         x-forwarded-for: 10.1.1.1
         x-forwarded-host: shop.example
         x-forwarded-proto: http",
    );
}

#[test]
fn upgrades_are_for_http_1_1_clients_that_ask_twice() {
    check(
        "GET /chat 1.1
         host: h
         connection: keep-alive, Upgrade
         upgrade: websocket",
        "GET /chat
         connection: upgrade
         host: h
         upgrade: websocket
         x-forwarded-for: 10.1.1.1
         x-forwarded-host: h
         x-forwarded-proto: http
         upgrades",
    );
    check(
        "GET / 1.1
         host: h
         connection: upgrade, http2-settings
         http2-settings: AAMAAABkAAQAAP__
         upgrade: h2c",
        "GET /
         host: h
         x-forwarded-for: 10.1.1.1
         x-forwarded-host: h
         x-forwarded-proto: http",
    );
}

#[test]
fn unfit_requests() {
    check("GET / 1.1", "the request must name exactly one host");
    check("GET / 1.1\nhost: a\nhost: b", "the request must name exactly one host");
    check("CONNECT a:1 1.1\nhost: a:1", "CONNECT is not served here");
}

#[test]
fn responses_keep_what_is_for_the_client() {
    let rows = [
        (
            "connection: close, x-hop\nx-hop: 1\ntransfer-encoding: chunked\netag: e",
            false,
            "etag: e",
        ),
        (
            "connection: Upgrade\nupgrade: websocket\nsec-websocket-accept: k",
            true,
            "sec-websocket-accept: k\nconnection: upgrade\nupgrade: websocket",
        ),
        ("upgrade: h2c\netag: e", false, "etag: e"),
    ];
    for (sent, upgraded, expected) in rows {
        let mut headers = request(&format!("GET / 1.1\n{sent}")).headers;
        to_client(&mut headers, upgraded);
        assert_eq!(headers, request(&format!("GET / 1.1\n{expected}")).headers);
    }
}
