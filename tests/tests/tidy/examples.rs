//! What each rule sees and what it lets pass, on small files; a rule that sees nothing would keep the tree in peace.

use super::source::Tree;
use super::{RULES, arms, dependencies};

/// Every rule on a tree of this one file: `LINE: what is wrong`.
#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let tree = Tree::new(vec![(path.to_owned(), text.to_owned())], Vec::new());
    let broken = RULES.iter().flat_map(|(_, rule)| rule(&tree));
    let mut told: Vec<String> = broken.map(|b| format!("{}: {}", b.line, b.wrong)).collect();
    told.sort();
    assert_eq!(told, expected, "in {path}:\n{text}");
}

/// A file in the core, in an adapter of the controller, and in its engine.
const CORE: &str = "controller/rollout/src/gate.rs";
const STORE: &str = "controller/src/store/sqlite.rs";
const ENGINE: &str = "controller/src/engine/mod.rs";

#[test]
fn what_a_file_is() {
    check(CORE, "//! Decides.\n", &[]);
    check(CORE, "use std::fmt;\n", &["1: no reason"]);
    let long = |lines: usize| format!("//! Long.\n{}", "fn f() {}\n".repeat(lines - 1));
    let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n";
    check(CORE, &long(400), &[]);
    check(CORE, &(long(400) + tests), &[]);
    check(CORE, &(long(401) + tests), &["401: 401 lines without tests, and the limit is 400"]);
    check("agent/tests/traffic.rs", &long(401), &[]);
}

#[test]
fn what_a_line_is() {
    let wide = |width: usize| format!("//! A.\nconst A: &str = \"{}\";\n", "ä".repeat(width - 19));
    check(CORE, &wide(100), &[]);
    check(CORE, &wide(101), &["2: 101 columns, and the limit is 100"]);
    let comment = |width: usize| format!("//! A.\n// {}\n", "a".repeat(width - 3));
    check(CORE, &comment(120), &[]);
    check(CORE, &comment(121), &["2: 121 columns, and the limit is 120"]);
    check(CORE, &format!("//! A.\nfn f() {{}} // {}\n", "a".repeat(100)), &[]);
}

#[test]
fn words_are_told_from_what_is_said_about_them() {
    check(CORE, "//! No unwrap().\nconst A: &str = \".unwrap() dbg! TODO\";\n", &[]);
    check(CORE, "//! A.\nfn f() { g().unwrap(); }\n", &["2: `.unwrap()`"]);
    check(CORE, "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n", &[]);
    check(
        CORE,
        "//! A.\nconst A: &str = r#\"\n\" .unwrap()\"#;\nfn f() { dbg!('\"'); }\n",
        &["4: `dbg!`"],
    );
    check(
        CORE,
        "//! A.\n/* a /* b */ .unwrap() */\nfn f<'a>(a: &'a u8) { a.unwrap() }\n",
        &["3: `.unwrap()`"],
    );
    check(CORE, "//! A.\n// TODO: more\n", &["2: `TODO`"]);
    check(CORE, "//! A.\n// TODO(#12): more\n", &[]);
    check(CORE, "//! A.\nfn f() { todo!() }\n", &["2: `todo!`"]);
}

#[test]
fn tests_neither_sleep_nor_are_skipped() {
    let test = "agent/tests/traffic.rs";
    check(test, "//! A.\nfn f() { std::thread::sleep(A); }\n", &["2: a test sleeps"]);
    check(test, "//! A.\nfn f() { sleep(A).await; } // the load's pace\n", &[]);
    check(test, "//! A.\nfn f() {\n    // the load's pace\n    sleep(A).await;\n}\n", &[]);
    check(STORE, "//! A.\nfn f() { sleep(A).await; }\n", &[]);
    check(test, "//! A.\n#[ignore = \"slow\"]\nfn f() {}\n", &["2: a test that nobody runs"]);
}

#[test]
fn arms_over_our_enums() {
    let wild = "`_ =>` over an enum of ours";
    let in_match = |arms: &str| {
        format!("//! A.\nenum Phase {{ A, B }}\nfn f() {{ match p {{\n{arms}\n}} }}\n")
    };
    let two = |first: &str| in_match(&format!("{first}\n_ => 2,"));
    check(STORE, &in_match("Phase::A => 1,\nPhase::B => 2,"), &[]);
    check(STORE, &two("Phase::A => 1,"), &[&format!("5: {wild}")]);
    check(STORE, &two("Some(Phase::A { .. }) => { g(a, b) }"), &[&format!("5: {wild}")]);
    check(STORE, &two("Self::A => g(|a, b| c, d),"), &[&format!("5: {wild}")]);
    check(STORE, &two("1 => Phase::A,"), &[]);
    check(STORE, &two("n if n == Phase::A => 1,"), &[]);
    check(STORE, &two("Some(_) => match q { Phase::A | Phase::B => 1 },"), &[]);
    check(STORE, &two("io::ErrorKind::NotFound => 1,"), &[]);
    check(STORE, &in_match("(Phase::A, _) => 1,\n(Phase::B, _) => 2,"), &[]);
    let imported = |from: &str| {
        format!("//! A.\nuse {from};\nfn f() {{ match p {{ Phase::A => 1, _ => 2 }} }}\n")
    };
    let tree = |from: &str| {
        let other = (CORE.to_owned(), "//! A.\npub enum Phase { A, B }\n".to_owned());
        let tree = Tree::new(vec![other, (STORE.to_owned(), imported(from))], Vec::new());
        arms::wildcards(&tree).len()
    };
    assert_eq!(tree("rota_rollout::node::{Node, Phase}"), 1);
    assert_eq!(tree("rota_rollout::{self as core, node::Phase}"), 1);
    assert_eq!(tree("rota_proto::agent::Phase"), 0);
    assert_eq!(tree("jiff::Phase"), 0);
}

#[test]
fn what_decides_and_what_stands_above_what() {
    check(
        CORE,
        "//! A.\nuse std::collections::HashMap;\n",
        &["2: `HashMap` where things are decided"],
    );
    check(
        "agent/src/update/rest.rs",
        "//! A.\nfn f() { Instant::now(); }\n",
        &["2: `Instant` where things are decided"],
    );
    check(CORE, "//! A.\nuse std::collections::BTreeMap;\n", &[]);
    check(STORE, "//! A.\nuse rota_proto::agent::Report;\n", &["2: names types of the wire"]);
    check(ENGINE, "//! A.\nuse crate::store::Store;\n", &[]);
    check(
        ENGINE,
        "//! A.\nuse crate::{\n    store,\n    serve::{a, cli},\n};\n",
        &["4: engine names serve, which stands above it"],
    );
    check(
        STORE,
        "//! A.\nfn f() { crate::engine::f(); }\n",
        &["2: store names engine, which stands above it"],
    );
    check(
        STORE,
        "//! A.\nuse super::super::cli;\nuse super::engine;\n",
        &["2: store names cli, which stands above it"],
    );
    check(
        "agent/src/traffic/edge.rs",
        "//! A.\nuse crate::run;\n",
        &["2: traffic names run, which stands above it"],
    );
    check("agent/src/utils.rs", "//! A.\n", &["1: module utils has no layer"]);
}

#[test]
fn what_depends_says_why() {
    let check = |list: &str, expected: &[usize]| {
        let manifest = format!("[package]\nname = \"a\"\n[dependencies]\n{list}");
        let tree = Tree::new(Vec::new(), vec![("Cargo.toml".to_owned(), manifest)]);
        let lines: Vec<usize> = dependencies(&tree).iter().map(|breach| breach.line).collect();
        assert_eq!(lines, expected, "{list}");
    };
    check("a = \"1\"\n", &[4]);
    check("a = \"1\" # why\n", &[]);
    check("# why\na = \"1\"\nb = \"1\"\n\nc = \"1\"\n", &[8]);
    check("a.workspace = true\n", &[]);
}
