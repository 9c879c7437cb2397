//! Slips of the pen: names that nobody knows, paths that lead nowhere, and logins that come at the same moment.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rota_tests::farm::{App, Farm};
use serde_json::Value;

use super::{deploy, run};

const SIMPLE: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// What is there and has nothing of the sort is an empty list; what is not there is told.
#[test]
fn names_that_nobody_knows() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", SIMPLE, 0);
    for (line, code, told) in [
        ("rollout ls --app shp", 1, "there is no app shp"),
        ("rollout history shp --env prod", 1, "there is no app shp"),
        ("release ls shp", 1, "there is no app shp"),
        ("events --app shp", 1, "there is no app shp"),
        ("node converge --app shp", 1, "there is no app shp"),
        ("rollout ls --env pord", 1, "there is no environment pord"),
        ("rollout history shop --env pord", 1, "there is no environment pord"),
        ("status --env pord", 1, "there is no environment pord"),
        ("node ls --env pord", 1, "there is no environment pord"),
        ("events --env pord", 1, "there is no environment pord"),
        ("node converge --env pord", 1, "there is no environment pord"),
        ("env window ls pord", 1, "there is no environment pord"),
        ("pool inspect shp", 1, "there is no pool shp"),
        // It may be frozen before its first node joins, and then it is there.
        ("env freeze test -m soon", 0, "no node is in it"),
        ("node ls --env test", 0, "there is no node in this environment"),
        ("rollout ls --env test", 0, "there is no rollout"),
        ("rollout history shop --env test", 0, "nothing was rolled out here yet"),
        ("node converge --env prod --app shop", 0, "they run what they should"),
        ("status --env prod", 0, "1.0.0"),
        ("env ls", 0, "test "),
        ("env unfreeze test", 0, "is not frozen any more"),
        ("env window add prod daily,00:00-24:00,UTC", 0, "it is always open"),
        ("env window rm prod 9", 1, "has 1 window, and `9` is none of them"),
        ("-o json nodee", 2, "a similar subcommand exists: 'node'; write `rota [OPTIONS]"),
    ] {
        let args: Vec<String> = line.split(' ').map(|word| word.replace(',', " ")).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = run(&farm, &args, code);
        assert!(said.contains(told), "{line}: {said}");
    }
    // Nothing is kept of an environment of which nothing is said.
    assert!(!run(&farm, &["env", "ls"], 0).contains("test"));
}

/// A capacity of nothing is told before it is used up.
#[test]
fn nothing_serves_for_a_while() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", SIMPLE, 0);
    let warning = "warning: no node serves during batch 1";
    let both = App { strategy: "batch = 2\nmonitor = \"0s\"", ..SIMPLE };
    assert!(deploy(&farm, "1.1.0", both, 0).contains(warning));
    assert!(!deploy(&farm, "1.2.0", SIMPLE, 0).contains("warning:"));
}

/// Eight jobs of a CI server log in on one machine: each keeps its context.
#[test]
fn logins_at_the_same_moment() {
    let farm = Farm::start(0).unwrap();
    let home = farm.path("home");
    let address = farm.controller.told("grpc").unwrap();
    let begin = |number: usize| {
        let args = ["token", "create", "--for", "operator", "--role", "viewer"];
        let token = String::from_utf8(farm.run(&args).unwrap().stdout).unwrap();
        let mut login = Command::new(&farm.programs.rota);
        login.args(["login", address, "--token", token.trim(), "--context"]);
        login.arg(format!("job-{number}")).stderr(Stdio::null());
        login.env_remove("ROTA_CONTEXT").env_remove("XDG_CONFIG_HOME").env("HOME", &home);
        login
    };
    let logins: Vec<Command> = (1..=8).map(begin).collect();
    let running: Vec<_> = logins.into_iter().map(|mut login| login.spawn().unwrap()).collect();
    for mut login in running {
        assert!(login.wait().unwrap().success());
    }
    for number in 1..=8 {
        let mut status = Command::new(&farm.programs.rota);
        status.args(["status", "--context", &format!("job-{number}")]);
        status.env_remove("XDG_CONFIG_HOME").env("HOME", &home);
        let status = status.output().unwrap();
        assert!(status.status.success(), "job-{number}: {}", super::text(&status));
    }
}

/// ROTA_TOKEN may be there for `rota login`, empty or not, and a controller starts all the same.
#[test]
fn a_token_in_the_environment_is_no_controllers() {
    let farm = Farm::start(0).unwrap();
    for token in ["", "rota-operator-x"] {
        let mut serve = Command::new(&farm.programs.rota);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]);
        serve.arg(farm.path("second")).args(["--log-format", "json"]).env("ROTA_TOKEN", token);
        let mut serve = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(serve.stderr.take().unwrap());
        let ready = loop {
            let mut line = String::new();
            if std::io::BufRead::read_line(&mut said, &mut line).unwrap() == 0 {
                break false;
            }
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"].as_str().unwrap_or_default().starts_with("ready") {
                break true;
            }
        };
        serve.kill().unwrap();
        serve.wait().unwrap();
        assert!(ready, "{token:?}");
    }
}

/// What one request is answered with: its code, and its document.
fn asked(farm: &Farm, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(farm.controller.told("http").unwrap()).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: c1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn paths_that_lead_nowhere() {
    let farm = Farm::start(0).unwrap();
    for (request, code, kind) in [
        ("GET /api/v1/nothing", 404, "not_found"),
        ("GET /api", 404, "not_found"),
        ("GET /nothing", 404, "not_found"),
        ("GET /api/v1/rollouts?app=shp", 404, "not_found"),
        ("GET /api/v1/nodes?env=pord", 404, "not_found"),
        ("GET /api/v1/nodes/web-99", 404, "not_found"),
        ("GET /api/v1/nodes/Web_1", 400, "usage"),
        ("GET /api/v1/tokens", 403, "not_permitted"),
        ("POST /api/v1", 405, "usage"),
        ("POST /api/v1/status", 405, "usage"),
        ("DELETE /healthz", 405, "usage"),
    ] {
        let (got, document) = asked(&farm, request);
        let error = &document["error"];
        assert_eq!((got, error["kind"].as_str()), (code, Some(kind)), "{request}: {document}");
        assert!(error["message"].is_string() && error["hint"].is_string(), "{request}: {document}");
    }
    for request in ["GET /api/v1", "GET /api/v1/"] {
        let (code, list) = asked(&farm, request);
        assert_eq!(code, 200, "{request}");
        let list = list.as_array().unwrap();
        assert!(list.len() > 20, "{request}: {list:?}");
        let plain = list.iter().filter_map(|document| document["path"].as_str());
        for path in plain.filter(|path| !path.contains(|c: char| c.is_ascii_uppercase())) {
            let (code, _) = asked(&farm, &format!("GET {path}"));
            let hidden = path.ends_with("/tokens") || path.ends_with("/audit");
            assert_eq!(code, if hidden { 403 } else { 200 }, "{path}");
        }
    }
}
