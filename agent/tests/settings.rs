//! The settings as a user gives them: which layer wins, and how a mistake ends.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::process::Command;

/// What the agent says, and its exit code. None of these gets as far as to do anything.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_rota-agent"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = if output.stderr.is_empty() { output.stdout } else { output.stderr };
    (String::from_utf8(text).unwrap(), output.status.code())
}

#[test]
fn flags_win_over_environment_and_environment_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(
        &file,
        "data = \"/nowhere\"\ncontroller = \"c1:7400\"\nenv = \"test\"\nname = \"FILE\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (flag, variable) = (["--name", "FLAG"], ("ROTA_AGENT_NAME", "ENVIRONMENT"));
    for (flags, variables, shown) in [
        (&flag[..], vec![variable], "FLAG"),
        (&flag[..], vec![], "FLAG"),
        (&[][..], vec![variable], "ENVIRONMENT"),
        (&[][..], vec![], "FILE"),
        (&[][..], vec![("ROTA_AGENT_NAME", "")], "FILE"),
    ] {
        let arguments = [&["run", "--config", file], flags].concat();
        let (text, code) = run(&arguments, &variables);
        let words = format!("error: `--name {shown}`: use 1 to 63 of a-z");
        assert!(text.starts_with(&words), "{flags:?} {variables:?}: {text}");
        assert_eq!(code, Some(2));
    }
    let (text, _) = run(&["run"], &[("ROTA_AGENT_CONFIG", file)]);
    assert!(text.contains("`--name FILE`"), "{text}");
}

#[test]
fn every_flag_is_a_variable_too() {
    let variables = [
        ("ROTA_AGENT_DATA", "/nowhere"),
        ("ROTA_AGENT_CONTROLLER", "c1:7400,c2:7400"),
        ("ROTA_AGENT_NAME", "web-01"),
        ("ROTA_AGENT_ENV", "test"),
        ("ROTA_AGENT_ROLE", "web,api"),
        ("ROTA_AGENT_LABEL", "zone=a,rack=7"),
        ("ROTA_AGENT_ADDRESS", "10.0.0.1"),
        ("ROTA_AGENT_TRAFFIC_LISTEN", "127.0.0.1:0"),
        ("ROTA_AGENT_LOG_FORMAT", "json"),
        ("ROTA_AGENT_EDGE", "shop=haproxy@admin.sock"),
    ];
    let (text, code) = run(&["run"], &variables);
    assert!(text.contains("`admin.sock` is not the path of an admin socket"), "{text}");
    assert_eq!(code, Some(2));
}

#[test]
fn empty_variables_say_nothing() {
    let names = ["CONFIG", "DATA", "CONTROLLER", "TOKEN", "NAME", "ENV", "ROLE", "LABEL", "EDGE"];
    let names = names.into_iter().chain(["TRAFFIC_LISTEN", "ADDRESS", "LOG_FORMAT"]);
    let names: Vec<String> = names.map(|name| format!("ROTA_AGENT_{name}")).collect();
    let variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let (text, code) = run(&["run"], &variables);
    assert!(text.starts_with("error: `--data` is missing"), "{text}");
    assert_eq!(code, Some(2));
    let (text, code) = run(&["status"], &variables);
    assert!(text.contains("no agent answers on /var/lib/rota-agent"), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn mistakes_end_with_two_and_one_message() {
    for (arguments, words) in [
        (&["run", "--nmae", "x"][..], "unexpected argument '--nmae'"),
        (&["walk"][..], "unrecognized subcommand 'walk'"),
        (
            &["run", "--config", "/nowhere/agent.toml"][..],
            "cannot read /nowhere/agent.toml: No such",
        ),
        (&["run"][..], "`--data` is missing"),
        (&["run", "-v", "-q"][..], "cannot be used with"),
    ] {
        let (text, code) = run(arguments, &[]);
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert_eq!(code, Some(2), "{arguments:?}");
    }
    let (text, code) = run(&["status", "--data", "/nowhere"], &[]);
    assert!(text.contains("no agent answers on /nowhere/agent.sock"), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn errors_for_programs() {
    for (arguments, kind, message, code) in [
        (&["status", "--data", "/nowhere"][..], "unreachable", "no agent answers on /nowhere", 1),
        (&["apps", "--data", "/nowhere"][..], "unreachable", "No such file", 1),
        (&["rollback"][..], "usage", "required arguments were not provided: <APP>", 2),
        (&["walk"][..], "usage", "unrecognized subcommand 'walk'", 2),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let (text, exit) = run(&arguments, &[]);
        let error: serde_json::Value = serde_json::from_str(&text).unwrap();
        let error = &error["error"];
        assert_eq!((error["kind"].as_str(), exit), (Some(kind), Some(code)), "{text}");
        assert!(error["message"].as_str().unwrap().contains(message), "{text}");
        assert!(error["hint"].is_string(), "{text}");
    }
}

#[test]
fn every_command_has_examples_and_a_manual_page() {
    let (page, _) = run(&["man"], &[]);
    for name in ["run", "status", "apps", "rollback", "release", "completions", "man"] {
        let (text, code) = run(&[name, "--help"], &[]);
        assert!(text.contains(&format!("  rota-agent {name}")), "{name}: {text}");
        assert_eq!(code, Some(0), "{name}");
        assert!(page.contains(name), "{name} is not in the manual");
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, code) = run(&["man", "--dir", dir.path().to_str().unwrap()], &[]);
    assert_eq!(code, Some(0));
    assert!(dir.path().join("rota-agent-rollback.1").exists());
}

#[test]
fn help_shows_examples_and_completions_are_there() {
    let (text, code) = run(&["run", "--help"], &[]);
    assert!(text.contains("Examples:") && text.contains("--traffic-listen"), "{text}");
    assert_eq!(code, Some(0));
    let (text, code) = run(&["completions", "bash"], &[]);
    assert!(text.contains("complete -F"), "{text}");
    assert_eq!(code, Some(0));
    assert_eq!(run(&["--version"], &[]).0, "rota-agent 0.1.0\n");
}
