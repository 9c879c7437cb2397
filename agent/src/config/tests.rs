//! Which layer wins, and what is refused with which words.

use std::path::PathBuf;

use super::*;

fn right() -> RunArgs {
    RunArgs {
        data: Some("/var/lib/rota-agent".into()),
        controller: vec!["c1:7400".into()],
        name: Some("web-01".into()),
        env: Some("prod".into()),
        role: vec!["web".into()],
        ..RunArgs::default()
    }
}

#[test]
fn the_upper_layer_wins_where_it_says_something() {
    let some = |text: &str| Some(text.to_owned());
    for (upper, lower, wins) in [
        (some("flag"), some("file"), some("flag")),
        (some("flag"), None, some("flag")),
        (None, some("file"), some("file")),
        (some(""), some("file"), some("file")),
        (None, None, None),
    ] {
        let args = |text: &Option<String>| RunArgs {
            name: text.clone(),
            role: text.clone().into_iter().collect(),
            ..RunArgs::default()
        };
        let both = over(args(&upper), args(&lower));
        assert_eq!(both.name, wins, "{upper:?} over {lower:?}");
        assert_eq!(both.role.first(), wins.as_ref(), "{upper:?} over {lower:?}");
    }
}

#[test]
fn a_file_is_read_as_flags_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(
        &path,
        r#"
            data = "/d"
            controller = "c1:7400,c2:7400"
            name = "lb-01"
            env = "prod"
            role = ["web", "api"]
            label = { zone = "a", rack = "7" }
            edge = ["shop=proxy@127.0.0.1:0"]
            traffic-listen = "127.0.0.1:0"
            log_format = "json"
            verbose = 2
        "#,
    )
    .unwrap();
    let args = RunArgs { config: Some(path), env: Some("test".into()), ..RunArgs::default() };
    let args = layered(args).unwrap();
    assert_eq!((args.log_format, args.volume.verbose), (Some(LogFormat::Json), 2));
    let config = check(args).unwrap();
    assert_eq!(config.data, PathBuf::from("/d"));
    assert_eq!(config.controllers, ["c1:7400", "c2:7400"]);
    assert_eq!(config.env, "test", "the flag wins");
    assert_eq!(config.roles, ["web", "api"]);
    assert_eq!(config.labels["zone"], "a");
    let listen = "127.0.0.1:0".parse().unwrap();
    assert_eq!(config.edges[0].balancer, Balancer::Proxy { listen });
    assert_eq!(config.traffic_listen, listen);
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    for (text, right) in [
        ("name = \"a\"\ncontoller = \"c1:7400\"", ":2: unknown key `contoller`, did you mean `con"),
        ("\n\nzebra = 1", ":3: unknown key `zebra`; known are data, controller"),
        ("name = 7", ":1: `name`: invalid type: integer `7`, expected a string"),
        ("name = \"a\"\nname = \"b\"", ":2: duplicate key"),
        ("name = ", ":1: "),
        ("role = 3", ":1: `role`: expected a text or a list of texts"),
        ("log_format = \"xml\"", ":1: `log_format`: unknown variant `xml`, expected `text` or"),
        ("env = \"a\"\nverbose = \"x\"", ":2: `verbose`: invalid type: string \"x\", expected a n"),
    ] {
        std::fs::write(&path, text).unwrap();
        let args = RunArgs { config: Some(path.clone()), ..RunArgs::default() };
        let error = layered(args).expect_err(text).to_string();
        let right = format!("{}{right}", path.display());
        assert!(error.starts_with(&right), "{text}: {error}");
    }
    let args = RunArgs { config: Some(folder.path().join("none")), ..RunArgs::default() };
    let error = layered(args).unwrap_err().to_string();
    assert_eq!(error, format!("cannot read {}", folder.path().join("none").display()));
}

/// One change to right settings.
type Spoil = fn(&mut RunArgs);

#[test]
fn what_is_wrong_is_named_with_its_flag() {
    let rows: &[(Spoil, &str)] = &[
        (|a| a.data = None, "`--data` is missing: the folder of this agent"),
        (|a| a.controller.clear(), "`--controller` is missing: HOST:PORT of at least one"),
        (|a| a.name = None, "`--name` is missing"),
        (|a| a.env = Some(String::new()), "`--env` is missing"),
        (|a| a.role.clear(), "`--role` is missing: what this node is for"),
        (|a| a.name = Some("Web_1".into()), "`--name Web_1`: use 1 to 63 of a-z"),
        (|a| a.env = Some("..".into()), "`--env ..`: use 1 to 63"),
        (|a| a.role = vec!["a b".into()], "`--role a b`: use 1 to 63"),
        (|a| a.controller = vec!["c1".into()], "`--controller c1`: write HOST:PORT"),
        (|a| a.controller = vec!["http://c1:1".into()], "`--controller http://c1:1`: write"),
        (|a| a.controller = vec!["::1:7400".into()], "`--controller ::1:7400`: write"),
        (|a| a.controller = vec!["c1:0".into()], "`--controller c1:0`: write HOST:PORT"),
        (|a| a.label = vec!["zone".into()], "`--label zone`: write KEY=VALUE"),
        (|a| a.label = vec!["z=a".into(), "z=b".into()], "`--label z=b`: the label `z` is given"),
        (|a| a.address = Some("a:80".into()), "`--address a:80`: write an IP address or"),
        (|a| a.traffic_listen = Some("7402".into()), "`--traffic-listen 7402`: `7402` is not"),
        (|a| a.endpoint_listen = Some("7403".into()), "`--endpoint-listen 7403`: `7403` is"),
        (|a| a.edge = vec!["shop".into()], "`--edge shop`: write POOL=proxy@HOST:PORT"),
        (|a| a.edge = vec!["S=proxy@1.1.1.1:1".into()], "`--edge S=proxy@1.1.1.1:1`: `S` is not"),
        (|a| a.edge = vec!["s=proxy@x".into()], "`--edge s=proxy@x`: `x` is not an IP address"),
        (|a| a.edge = vec!["s=envoy@x".into()], "`--edge s=envoy@x`: `envoy` is no load balancer"),
        (
            |a| a.edge = vec!["shop=haproxy@admin.sock#be".into()],
            "`--edge shop=haproxy@admin.sock#be`: `admin.sock` is not the path of an admin socket",
        ),
        (
            |a| a.edge = vec!["shop=haproxy@/run/a.sock#b c".into()],
            "`--edge shop=haproxy@/run/a.sock#b c`: `b c` is not the name of a backend",
        ),
        (
            |a| a.edge = vec!["shop=nginx@shop.upstream".into()],
            "`--edge shop=nginx@shop.upstream`: write the whole path of a file",
        ),
        (
            |a| a.edge = vec!["s=proxy@[::]:1".into(), "s=proxy@[::]:2".into()],
            "`--edge s=…`: the pool `s` is given twice",
        ),
    ];
    for (spoil, words) in rows {
        let mut args = right();
        spoil(&mut args);
        let error = check(args).expect_err(words).to_string();
        assert!(error.starts_with(words), "{words}: {error}");
    }
    check(right()).unwrap();
    let edge = vec!["shop=proxy@0.0.0.0:8080".into()];
    check(RunArgs { role: Vec::new(), edge, ..right() }).unwrap();
}
