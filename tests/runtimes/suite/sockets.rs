//! Socket activation: the listening socket outlives the app, so a restart refuses nobody.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rota_agent::runtime::{Runtime, StartSpec};
use rota_agent::spec::{Driver, Port};

use crate::bench::{Bench, LONG};

const TERM: i32 = 15;

/// Restarts under load.
const RESTARTS: usize = 10;

fn server(bench: &Bench, port: u16) -> StartSpec {
    let mut start = bench.shell("listens", "");
    std::fs::copy(&bench.app, start.folder.join("sample-app")).expect("is copied");
    let words = ["./sample-app", "--polite", "--port", "{port}"];
    start.spec.run.command = words.map(str::to_owned).to_vec();
    start.spec.run.socket = true;
    start.spec.run.port = Port::Fixed(port);
    start.port = Some(port);
    start
}

pub async fn a_restart_refuses_no_connection(bench: &Bench) {
    if bench.driver == Driver::Docker {
        return; // a container cannot be given a socket; its check says so
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
    let address = free.expect("a free port");
    let start = server(bench, address.port());
    let mut running = bench.start(&start).await;
    bench.wrote(&running, "was given its socket\n").await;
    let load = Load::start(address);
    for round in 0..RESTARTS {
        load.answered(20).await;
        // Every other time another agent does it, which has the socket from the app that runs.
        let next = (round % 2 == 1).then(|| bench.next_agent());
        let agent = next.as_ref().unwrap_or(&bench.runtime);
        let found = agent.find("listens", "").await.expect("is looked for").expect("runs");
        let stopped = agent.stop(&found, TERM, LONG).await.expect("stops");
        assert!(!stopped.killed);
        running = agent.start(&start).await.expect("starts");
    }
    load.answered(20).await;
    let (answered, failed) = load.end();
    eprintln!("{RESTARTS} restarts: {answered} connections answered, {failed} failed");
    assert_eq!(failed, 0);
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
    let mut plain = server(bench, address.port());
    plain.spec.run.socket = false;
    let running = bench.start(&plain).await;
    bench.wrote(&running, "made its socket itself\n").await;
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
}

/// Threads that connect, ask and connect again.
struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = || {
            let (end, answered) = (Arc::clone(&end), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut failed = 0;
                while !end.load(Ordering::Relaxed) {
                    match ask(address) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            eprintln!("a connection failed: {error}");
                            failed += 1;
                        }
                    }
                }
                failed
            })
        };
        let threads = (0..4).map(|_| one()).collect();
        Load { end, answered, threads }
    }

    /// Waits for so many more answers.
    async fn answered(&self, more: u64) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < wanted {
            // The pace of looking at a counter.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn end(self) -> (u64, u64) {
        self.end.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().map(|it| it.join().expect("ends")).sum();
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.ends_with("v1.2.0\n") {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("answered {answer:?}"))),
    }
}
