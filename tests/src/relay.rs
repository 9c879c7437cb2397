//! A wire that can be cut: bytes go through it while it is whole; while it is cut nothing comes through and nobody is
//! told, as behind a switch that lost its power. Healed, it delivers what was on its way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::Trouble;

/// For a connection to the other end.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// One wire, with as many connections as come.
#[derive(Clone)]
pub struct Relay {
    /// Where it is reached.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    to: Option<SocketAddr>,
    cut: bool,
}

impl Relay {
    /// A wire on a free port; where it leads is told later.
    pub fn start() -> Result<Self, Trouble> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Mutex::new(State { to: None, cut: false });
        let shared = Arc::new(Shared { state, moved: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || pass(near, &shared));
            }
        });
        Ok(Self { address, shared })
    }

    /// Leads there from now on.
    pub fn leads_to(&self, to: SocketAddr) {
        self.shared.change(|state| state.to = Some(to));
    }

    /// Nothing comes through.
    pub fn cut(&self) {
        self.shared.change(|state| state.cut = true);
    }

    /// Everything comes through again.
    pub fn heal(&self) {
        self.shared.change(|state| state.cut = false);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
    }

    /// Waits until the wire is whole and leads somewhere.
    fn whole(&self) -> SocketAddr {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match state.to {
                Some(to) if !state.cut => return to,
                Some(_) | None => {
                    state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// One connection, until an end of it is gone.
fn pass(near: TcpStream, shared: &Arc<Shared>) {
    let Ok(far) = TcpStream::connect_timeout(&shared.whole(), CONNECT_MAX) else {
        return; // the near end sees it closed, as it would see it refused
    };
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
    for end in [&near, &far] {
        if end.set_nodelay(true).is_err() {
            return;
        }
    }
    let back = Arc::clone(shared);
    let returning = std::thread::spawn(move || copy(far_too, near_too, &back));
    copy(near, far, shared);
    if returning.join().is_err() {
        eprintln!("a relay's thread has panicked");
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer);
        shared.whole();
        match read {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).is_ok() => {}
            Ok(_) | Err(_) => break,
        }
    }
    for end in [&from, &to] {
        // It may be closed already, by the other direction.
        if end.shutdown(Shutdown::Both).is_err() {
            return;
        }
    }
}
