//! The rules that are lists: words, places, layers. A new row needs a reason that a reader accepts.

/// Where a word is forbidden.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Everywhere,
    OutsideTests,
}

/// Words that are not ours, and what to write instead.
pub const WORDS: &[(Where, &str, &str)] = &[
    (Where::OutsideTests, ".unwrap()", "handle it; or `expect` and say why it cannot fail"),
    (Where::Everywhere, "dbg!", "remove it"),
];

/// Tests that `cargo test` leaves out.
pub const IGNORED: &[(&str, &str)] = &[
    ("tests/runtimes/main.rs", "is started as a process of its own by other tests"),
    ("agent/tests/node/processes.rs", "an agent to be killed: another test starts it"),
    ("controller/tests/cli.rs", "shows the live screen to people; proves nothing"),
];

/// What decides, and so must not look for itself.
pub struct Pure {
    /// A file or folder.
    pub place: &'static str,
    /// Words that it never says outside tests.
    pub never: &'static [&'static str],
}

/// Whatever brings in the time, chance, an order that differs from run to run, or the world.
const IMPURE: &[&str] = &[
    "async",
    "await",
    "tokio",
    "std::time",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand",
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync",
    "println",
    "eprintln",
    "print",
    "eprint",
    "tracing",
];

pub const PURE: &[Pure] = &[
    Pure { place: "controller/rollout/src/", never: IMPURE },
    Pure { place: "agent/src/update.rs", never: IMPURE },
    Pure { place: "agent/src/update/", never: IMPURE },
    Pure { place: "agent/src/traffic/endpoint/polls.rs", never: IMPURE },
];

/// Who may name the wire's types outside tests, and why. A file of its own each: folders grow in silence.
pub const WIRE: &[(&str, &str)] = &[
    ("controller/src/wire.rs", "the border"),
    ("controller/src/wire/", "the border"),
    ("controller/src/serve/", "the services are traits made of the wire's types"),
    ("controller/src/access/join.rs", "enrols the controller"),
    ("controller/src/artifact/peers/copy.rs", "makes the call for an artifact's bytes"),
    ("controller/src/artifact/peers/spread.rs", "asks others to keep an artifact"),
    ("controller/src/client.rs", "the calls are made of the wire's types"),
    ("controller/src/cli/controller.rs", "makes its request"),
    ("controller/src/cli/converge.rs", "makes its request"),
    ("controller/src/cli/deploy.rs", "makes its request"),
    ("controller/src/cli/desk.rs", "makes its request"),
    ("controller/src/cli/drain.rs", "makes its request"),
    ("controller/src/cli/env.rs", "makes its request"),
    ("controller/src/cli/login.rs", "enrols the operator"),
    ("controller/src/cli/renew.rs", "renews his certificate"),
    ("controller/src/cli/node.rs", "makes its request"),
    ("controller/src/cli/release.rs", "makes its request"),
    ("controller/src/cli/restart.rs", "makes its request"),
    ("controller/src/cli/rollout.rs", "makes its request"),
    ("controller/src/cli/starting.rs", "sends the requests that start rollouts"),
    ("controller/src/cli/run.rs", "makes its request"),
    ("controller/src/cli/steer.rs", "makes its request"),
    ("controller/src/cli/token.rs", "makes its request"),
    ("controller/src/cli/upload.rs", "makes its request"),
    ("controller/src/cli/window.rs", "makes its request"),
    ("controller/src/engine/mod.rs", "holds the sessions, whose messages are the wire's"),
    ("controller/src/engine/agents.rs", "takes what sessions say, and greets them"),
    ("controller/src/engine/batch.rs", "keeps what is to be sent until it is durable"),
    ("controller/src/engine/carry.rs", "makes orders of the core's orders"),
    ("controller/src/engine/evidence.rs", "sums up what edges counted"),
    ("controller/src/engine/state.rs", "keeps what edges said last; makes the directory"),
    ("controller/src/engine/turn.rs", "tells what sessions say apart"),
    ("controller/src/engine/nodes.rs", "tells a node what an operator wants of it"),
    ("controller/src/api/fleet.rs", "shows what edges said last"),
    ("controller/src/store/etcd.rs", "makes its calls to etcd"),
    ("controller/src/store/etcd/cluster.rs", "asks etcd for a token"),
    ("controller/src/store/etcd/nest.rs", "builds etcd's transactions"),
    ("controller/src/store/etcd/staged.rs", "builds etcd's transactions"),
    ("controller/src/store/etcd/watch.rs", "is the session with one member of etcd"),
    ("agent/src/wire/", "the border"),
    ("agent/src/agent.rs", "introduces itself"),
    ("agent/src/enrol.rs", "makes the calls of enrolment"),
    ("agent/src/link.rs", "keeps what a session begins with"),
    ("agent/src/link/fetch.rs", "makes the call for a release's bytes"),
    ("agent/src/link/renew.rs", "makes the call for a certificate"),
    ("agent/src/link/session.rs", "is the session with one controller"),
    ("agent/src/link/sender.rs", "is what goes out to one controller"),
    ("agent/src/traffic/edge.rs", "is the service of an edge"),
    ("agent/src/traffic/client/session.rs", "is the session with one edge"),
];

/// The modules of a crate from the ground up.
pub struct Layers {
    /// The folder of its sources.
    pub root: &'static str,
    /// Modules, and what they are together. Each may name those of its own row and of the rows before it.
    pub upwards: &'static [(&'static [&'static str], &'static str)],
}

pub const LAYERS: &[Layers] = &[
    Layers {
        root: "controller/src/",
        upwards: &[
            (
                &["calendar", "context", "manifest", "serve_args", "store", "view", "words"],
                "know nobody of ours",
            ),
            (&["members"], "who is in"),
            (&["artifact", "errors"], "what is packed; how everything is refused"),
            (&["backup"], "a state in a file"),
            (&["access", "client"], "who may; the way to a controller"),
            (&["api", "engine", "wire"], "the loop, what can be read of it, and its border"),
            (&["metrics"], "counts what the engine says"),
            (&["serve"], "lets agents, operators and browsers in"),
            (&["cli"], "the operator's hands"),
        ],
    },
    Layers {
        root: "agent/src/",
        upwards: &[
            (&["names", "spec", "template"], "words"),
            (&["backoff", "dial", "http", "journal", "logs", "own", "sockets"], "tools"),
            (&["cli"], "the command line, and nothing about what it means"),
            (&["update"], "the machine"),
            (&["order", "report"], "what controllers and machine say to each other"),
            (&["config"], "what the command line and the file come to"),
            (&["release", "runtime"], "releases on the disk; processes"),
            (&["health", "hooks", "smoke"], "one verb each, on a process"),
            (&["traffic", "wire"], "members and edges; the border"),
            (&["enrol", "link"], "the way to the controllers"),
            (&["local"], "who asks on this node"),
            (&["agent"], "all of the above, built"),
            (&["run"], "the loop"),
        ],
    },
];
