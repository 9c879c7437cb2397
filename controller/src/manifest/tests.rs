//! Manifests that are accepted, and what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use rota_rollout::names::{EnvName, Span};
use rota_rollout::strategy::{
    Amount, Deadline, Mode, Offline, OnFailure, OnNodeFailure, StartOrder, Strategy, Tolerance,
};

use super::*;

/// The smallest manifest that there is.
const MINIMAL: &str = "app = \"shop\"\nartifact.path = \"dist\"\nrun.command = [\"./shop\"]\n";

/// Every key, as the contract shows them.
const EXAMPLE: &str = include_str!("example.toml");

const DOCS: &str = include_str!("../../../docs/manifest.md");

fn parse(text: &str) -> Manifest {
    Manifest::parse(text, "rota.toml").unwrap_or_else(|bad| panic!("{}", bad.render(false)))
}

fn resolve(text: &str, env: &str) -> Resolved {
    parse(text).resolve(&env.parse().unwrap())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn percent(text: &str) -> Amount {
    text.parse().unwrap()
}

fn number(number: i64) -> Amount {
    Amount::try_from(number).unwrap()
}

#[test]
fn every_default() {
    let expected = Resolved {
        app: "shop".parse().unwrap(),
        artifact: Artifact::Path("dist".to_owned()),
        run: Run {
            driver: None,
            command: words(&["./shop"]),
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: Port::None,
            stop_signal: Signal::Term,
            stop_timeout: Span::seconds(10),
            notify: false,
            socket: false,
            limits: Limits::default(),
        },
        health: Health {
            check: Check::Alive,
            interval: Span(100),
            timeout: Span::seconds(1),
            healthy_for: Span::ZERO,
            deadline: Span::seconds(60),
        },
        traffic: Traffic {
            via: Via::None,
            drain_timeout: Span::seconds(30),
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Needed::All,
        },
        smoke: Vec::new(),
        hooks: Hooks::default(),
        once: None,
        strategy: Strategy {
            mode: Mode::Batches,
            batch: vec![percent("25%")],
            order: StartOrder::StopFirst,
            max_unavailable: None,
            delay: Span::ZERO,
            monitor: Span::seconds(5),
            max_failures: Tolerance::Number(0),
            on_failure: OnFailure::Pause,
            on_node_failure: OnNodeFailure::Restore,
            offline: Offline::Skip,
            approve_after: Vec::new(),
            spread_by: None,
            deadline: Deadline::None,
            rehearse_rollback: false,
            catch_up: false,
        },
        target: Target { roles: BTreeSet::new(), labels: BTreeMap::new() },
        compatibility: Compatibility::default(),
    };
    assert_eq!(resolve(MINIMAL, "prod"), expected);
}

#[test]
fn defaults_of_tables_that_are_there() {
    let resolved = resolve(
        "app = \"shop\"\nartifact.path = \"dist\"\nrun.command = [\"./shop\"]\nrun.port = 1\n\
         once.command = [\"./m\"]\ntraffic.pool = \"shop\"\n\
         [[smoke]]\nhttp = \"/x\"\n[[smoke]]\ncommand = [\"./s\", \"-a\"]\n",
        "prod",
    );
    let via = Via::Edge("shop".to_owned());
    assert_eq!(resolved.traffic.via, via);
    let once = Once { command: words(&["./m"]), timeout: Span::seconds(600) };
    assert_eq!(resolved.once, Some(once));
    let test = SmokeTest::Http { path: "/x".to_owned(), status: 200, body: Body::Any };
    let http = Smoke { name: "GET /x".to_owned(), test, timeout: Span::seconds(5), retries: 0 };
    let test = SmokeTest::Command(words(&["./s", "-a"]));
    let command = Smoke { name: "./s -a".to_owned(), test, ..http.clone() };
    assert_eq!(resolved.smoke, [http, command]);
}

#[test]
fn the_contract_as_documented() {
    let manifest = parse(EXAMPLE);
    let strategy = Strategy {
        mode: Mode::Batches,
        batch: vec![percent("25%")],
        order: StartOrder::StopFirst,
        max_unavailable: Some(percent("25%")),
        ..Strategy::default()
    };
    let test = SmokeTest::Http {
        path: "/".to_owned(),
        status: 200,
        body: Body::Contains("v{version}".to_owned()),
    };
    let expected = Resolved {
        compatibility: Compatibility { schema: Some(7), rollback_to: Some(Fence::Schema(6)) },
        app: "shop".parse().unwrap(),
        artifact: Artifact::Path("dist".to_owned()),
        run: Run {
            driver: Some(Driver::Exec),
            command: words(&["./shop", "--port", "{port}"]),
            user: Some("shop".to_owned()),
            env: map(&[("LOG", "info")]),
            env_file: Some(EnvFile { path: "/etc/shop.env".to_owned(), optional: false }),
            port: Port::Fixed(9000),
            stop_signal: Signal::Term,
            stop_timeout: Span::seconds(10),
            notify: false,
            socket: false,
            limits: Limits {
                memory: Some(512 << 20),
                cpu: Some(150),
                tasks: Some(500),
                open_files: Some(65536),
            },
        },
        health: Health {
            check: Check::Http("/healthz".to_owned()),
            interval: Span(100),
            timeout: Span::seconds(1),
            healthy_for: Span::ZERO,
            deadline: Span::seconds(60),
        },
        traffic: Traffic {
            via: Via::Edge("shop".to_owned()),
            drain_timeout: Span::seconds(30),
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Needed::All,
        },
        smoke: vec![Smoke {
            name: "home page".to_owned(),
            test,
            timeout: Span::seconds(5),
            retries: 0,
        }],
        hooks: Hooks::default(),
        once: Some(Once { command: words(&["./migrate", "up"]), timeout: Span::seconds(600) }),
        strategy: strategy.clone(),
        target: Target {
            roles: BTreeSet::from(["web".to_owned()]),
            labels: map(&[("tier", "front")]),
        },
    };
    assert_eq!(manifest.resolve(&"test".parse().unwrap()), expected);
    let prod = Resolved {
        strategy: Strategy { batch: vec![number(1), percent("10%")], ..strategy },
        ..expected
    };
    assert_eq!(manifest.resolve(&"prod".parse().unwrap()), prod);
    let environments: Vec<&str> = manifest.environments().map(EnvName::as_str).collect();
    assert_eq!(environments, ["prod"]);
}

#[test]
fn overrides_change_single_keys() {
    let manifest = parse(
        r#"
        app = "shop"
        artifact.path = "dist"
        [run]
        command = ["./shop"]
        port = 9000
        env = { LOG = "info", A = "1" }
        [health]
        http = "/healthz"
        timeout = "2s"
        [[smoke]]
        http = "/"
        [target]
        labels = { tier = "front" }

        [env.prod]
        run.env.LOG = "warn"
        health.tcp = true
        smoke = []
        [env.prod.target.labels]
        zone = "a"
        [env.test.artifact]
        image = "shop:{version}"
        [env.test.run]
        driver = "docker"
        port = "auto"
        env = { B = "2" }
        "#,
    );
    let prod = manifest.resolve(&"prod".parse().unwrap());
    assert_eq!(prod.run.env, map(&[("LOG", "warn"), ("A", "1")]));
    assert_eq!((prod.health.check, prod.health.timeout), (Check::Tcp, Span::seconds(2)));
    assert_eq!(prod.smoke, []);
    assert_eq!(prod.target.labels, map(&[("tier", "front"), ("zone", "a")]));
    let test = manifest.resolve(&"test".parse().unwrap());
    assert_eq!(test.run.port, Port::Auto);
    assert_eq!(test.artifact, Artifact::Image("shop:{version}".to_owned()));
    assert_eq!(test.run.env, map(&[("LOG", "info"), ("A", "1"), ("B", "2")]));
    assert_eq!(manifest.resolve(&"other".parse().unwrap()), *manifest.base());
}

/// A strategy in TOML, and what it means.
#[test]
fn strategies() {
    let default = Strategy::default;
    let numbers = |list: &[u32]| list.iter().map(|n| NonZeroU32::new(*n).unwrap()).collect();
    for (text, expected) in [
        ("batch = 3", Strategy { batch: vec![number(3)], ..default() }),
        (
            "batch = [1, \"10%\", \"50%\"]",
            Strategy { batch: vec![number(1), percent("10%"), percent("50%")], ..default() },
        ),
        ("mode = \"window\"", Strategy { mode: Mode::Window, ..default() }),
        ("max_unavailable = 2", Strategy { max_unavailable: Some(number(2)), ..default() }),
        ("max_failures = 2", Strategy { max_failures: Tolerance::Number(2), ..default() }),
        ("max_failures = \"10%\"", Strategy { max_failures: "10%".parse().unwrap(), ..default() }),
        (
            "delay = \"1m\"\nmonitor = \"0s\"",
            Strategy { delay: Span::seconds(60), monitor: Span::ZERO, ..default() },
        ),
        ("approve_after = [3, 1, 3]", Strategy { approve_after: numbers(&[1, 3]), ..default() }),
        ("spread_by = \"zone\"", Strategy { spread_by: Some("zone".to_owned()), ..default() }),
        ("spread_by = \"\"\ndeadline = \"0s\"", default()),
        (
            "deadline = \"1h\"",
            Strategy { deadline: Deadline::After(Span::seconds(3600)), ..default() },
        ),
        (
            "on_failure = \"rollback\"\non_node_failure = \"leave\"\noffline = \"fail\"",
            Strategy {
                on_failure: OnFailure::Rollback,
                on_node_failure: OnNodeFailure::Leave,
                offline: Offline::Fail,
                ..default()
            },
        ),
    ] {
        let manifest = format!("{MINIMAL}[strategy]\n{text}\n");
        assert_eq!(resolve(&manifest, "prod").strategy, expected, "{text}");
    }
}

#[test]
fn hooks_are_one_command_or_several() {
    for (text, expected) in [
        ("[]", vec![]),
        ("[\"./x\", \"y\"]", vec![words(&["./x", "y"])]),
        ("[[\"./x\"], [\"./y\", \"\"]]", vec![words(&["./x"]), words(&["./y", ""])]),
    ] {
        let manifest = format!("{MINIMAL}[hooks]\nbefore_start = {text}\n");
        assert_eq!(resolve(&manifest, "prod").hooks.before_start, expected, "{text}");
    }
}

#[test]
fn signals_with_and_without_sig() {
    for (text, number) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("INT", 2),
        ("QUIT", 3),
        ("SIGHUP", 1),
        ("USR1", 10),
        ("USR2", 12),
        ("SIGKILL", 9),
    ] {
        let manifest = format!("{MINIMAL}run.stop_signal = \"{text}\"\n");
        let signal = resolve(&manifest, "prod").run.stop_signal;
        assert_eq!((signal.number(), signal.name()), (number, text.trim_start_matches("SIG")));
    }
}

#[test]
fn other_things_that_are_right() {
    for text in [
        "run.env_file = \"-/etc/{app}.env\"",
        "run.env.EMPTY = \"\"",
        "run.driver = \"systemd\"",
        "health.command = [\"./check\", \"{node}\", \"{label.zone}\"]",
        "traffic.via = \"none\"",
        "run.port = 1\n[traffic]\npool = \"a\"\nedges = \"reachable\"",
        "[traffic]\nvia = \"endpoint\"\nsettle = 1",
        "[traffic]\nvia = \"command\"\nleave = [\"./lb\", \"out\"]\njoin = [\"./lb\", \"in\"]",
        "run.port = 1\n[[smoke]]\nhttp = \"/?a={version}\"\nmatches = '^v{version} \\d{3}$'",
        "run.port = \"auto\"\nstrategy.order = \"start-first\"",
        "[env.prod]",
        "smoke = []",
    ] {
        parse(&format!("{MINIMAL}{text}\n"));
    }
    parse("app = \"a\"\r\nartifact.image = \"r/a:{version}\"\r\nrun.driver = \"docker\"\r\n");
    parse(&format!("\u{feff}{MINIMAL}"));
}

#[test]
fn what_a_release_knows_is_filled_in() {
    let (app, version) = ("shop".parse().unwrap(), "1.1.0".parse().unwrap());
    for (text, expected) in [("{app}-{version}.tar.gz", "shop-1.1.0.tar.gz"), ("{{x}}", "{x}")] {
        let artifact = Artifact::Path(text.to_owned()).filled(&app, &version);
        assert_eq!(artifact, Artifact::Path(expected.to_owned()));
    }
}

#[test]
fn what_makes_another_release() {
    for (change, expected) in [
        ("", Ok(())),
        ("strategy.batch = 3", Ok(())),
        ("target.roles = [\"web\"]", Ok(())),
        ("env.prod.strategy.batch = 3", Ok(())),
        ("env.prod.target.roles = [\"web\"]", Ok(())),
        ("env.prod.run.stop_timeout = \"10s\"", Ok(())),
        ("run.stop_timeout = \"11s\"", Err("[run] differs")),
        ("health.timeout = \"2s\"", Err("[health] differs")),
        ("traffic.via = \"endpoint\"", Err("[traffic] differs")),
        ("smoke = [{ command = [\"./s\"] }]", Err("[smoke] differs")),
        ("hooks.after_join = [\"./s\"]", Err("[hooks] differs")),
        ("once.command = [\"./s\"]", Err("[once] differs")),
        ("env.prod.run.user = \"shop\"", Err("[run] differs in environment `prod`")),
    ] {
        let (one, two) = (parse(MINIMAL), parse(&format!("{MINIMAL}{change}\n")));
        let expected = expected.map_err(str::to_owned);
        assert_eq!(one.same_release(&two), expected, "{change}");
        assert_eq!(two.same_release(&one), expected, "{change}, the other way");
    }
}

#[test]
fn the_documents_show_what_works() {
    let blocks: Vec<&str> =
        DOCS.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert!(blocks.contains(&EXAMPLE), "docs/manifest.md shows another full example");
    let whole: Vec<&&str> = blocks.iter().filter(|block| block.starts_with("app = ")).collect();
    assert!(whole.len() >= 2, "a minimal example and a full one");
    for block in &blocks {
        let text = match block.starts_with("app = ") {
            true => (*block).to_owned(),
            false => format!("app = \"shop\"\nartifact.path = \"dist\"\n{block}"),
        };
        parse(&text);
    }
}

/// The documents name every key.
#[test]
fn the_documents_are_complete() {
    for key in keys::all() {
        assert!(DOCS.contains(&format!("| `{key}` |")), "docs/manifest.md has no row for `{key}`");
    }
}

#[test]
fn limits() {
    let large = format!("{MINIMAL}# {}", "x".repeat(MANIFEST_BYTES_MAX));
    let many: String = (0..=ENVIRONMENTS_MAX).map(|n| format!("[env.e{n}]\n")).collect();
    let wrong: String = (0..60).map(|n| format!("k{n} = 1\n")).collect();
    for (text, expected) in [
        (large, "the file has 262207 bytes, and a manifest at most 262144"),
        (format!("{MINIMAL}{many}"), "101 environments, and the limit is 100"),
        (format!("{wrong}{MINIMAL}"), "and at least 10 more problems"),
    ] {
        let shown = Manifest::parse(&text, "rota.toml").unwrap_err().render(false);
        assert!(shown.contains(expected), "{shown}");
    }
}

/// Cut off anywhere, or with any byte replaced, a manifest is refused or accepted: never a panic.
#[test]
fn broken_files_never_panic() {
    for end in 0..EXAMPLE.len() {
        let head = &EXAMPLE[..end];
        for text in [head.to_owned(), format!("{head}\u{e4}"), format!("{head}\"{{[")] {
            if let Err(problems) = Manifest::parse(&text, "rota.toml") {
                assert!(!problems.list().is_empty());
                problems.render(true);
            }
        }
    }
}

/// A file that is wrong everywhere is refused about as fast as it is read.
#[test]
fn wrong_everywhere() {
    let keys: String = (0..9000).map(|n| format!("K{n} = 1\n")).collect();
    let variables: String = (0..9000).map(|n| format!("K-{n} = 1\n")).collect();
    let envs: String =
        (0..ENVIRONMENTS_MAX).map(|n| format!("[env.e{n}.run]\nport = 0\n")).collect();
    for text in [
        format!("{keys}{keys}"),
        format!("{keys}{MINIMAL}{envs}"),
        format!("{MINIMAL}[run.env]\n{variables}\n{envs}"),
        format!("{MINIMAL}{}", "x = [".repeat(20_000)),
    ] {
        let problems = Manifest::parse(&text, "rota.toml").unwrap_err();
        assert!((1..=PROBLEMS_SHOWN_MAX).contains(&problems.list().len()));
        problems.render(false);
    }
}
