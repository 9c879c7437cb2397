//! What to tell one process of HAProxy, from what is wanted and what it said. Nothing is remembered of what it was
//! told before: whatever a reload, a restart or an operator changed is put right by the next look.
//!
//! A server is first set to `drain`, which lets requests in flight finish whatever the configuration says. That leaves
//! requests which a cookie or a stick table binds to it. So when nothing is in flight, or when new requests still
//! come, it is set to `maint`, and only that counts as out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::reading::{Admin, Reading, Server};
use crate::traffic::book::{Name, Wanted};
use crate::traffic::{Key, Observed, Want};

/// The names of servers that an operator set aside for us: `server-template rota 1-32 …` makes `rota1` to `rota32`.
const SLOT: &str = "rota";

/// One thing to tell HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What the server may take from now on.
    Set(String, Admin),
    /// Where it is from now on.
    Move(String, SocketAddr),
    /// A new server.
    Add(String, SocketAddr),
    /// A server that we added goes.
    Delete(String),
}

impl Command {
    /// As it is written, and what to write instead if that is refused: HAProxy 2.4 knows no checks of added servers.
    pub fn lines(&self, backend: &str) -> Vec<String> {
        match self {
            Self::Set(server, admin) => {
                let state = match admin {
                    Admin::Ready => "ready",
                    Admin::Drain => "drain",
                    Admin::Maint => "maint",
                };
                vec![format!("set server {backend}/{server} state {state}")]
            }
            Self::Move(server, to) => {
                vec![format!("set server {backend}/{server} addr {} port {}", to.ip(), to.port())]
            }
            Self::Add(server, address) => {
                let add = format!("experimental-mode on;add server {backend}/{server} {address}");
                vec![format!("{add} check inter 1s;enable health {backend}/{server}"), add]
            }
            Self::Delete(server) => {
                vec![format!("experimental-mode on;del server {backend}/{server}")]
            }
        }
    }
}

/// How many sessions a server had had when it was first seen to drain, by its name.
pub type Drains = BTreeMap<String, u64>;

/// What to tell the process behind this socket now. Notes in `members` which server is whose.
pub fn plan(
    socket: &str,
    members: &mut BTreeMap<Key, Wanted>,
    reading: &Reading,
    drains: &mut Drains,
) -> Vec<(Key, Command)> {
    drains.retain(|name, _| reading.servers.get(name).is_some_and(|it| it.admin == Admin::Drain));
    let mut all = Vec::new();
    let keys: Vec<Key> = members.keys().cloned().collect();
    for key in keys {
        let known = claim(socket, &key, members, reading);
        let Some(wanted) = members.get_mut(&key) else { continue };
        let mut commands = Vec::new();
        if let Some(known) = &known {
            wanted.servers.insert(socket.to_owned(), known.clone());
        }
        let server = known.as_ref().and_then(|it| Some((it, reading.servers.get(&it.name)?)));
        match (wanted.want, server) {
            (Want::In, None) => {
                let name = name_of(&key);
                let address = wanted.address;
                wanted.servers.insert(socket.to_owned(), Name { name: name.clone(), added: true });
                commands.push(Command::Add(name, address));
            }
            (Want::In, Some((Name { name, .. }, server))) => {
                if server.address != Some(wanted.address) {
                    if server.admin == Admin::Ready {
                        commands.push(Command::Set(name.clone(), Admin::Maint));
                    }
                    commands.push(Command::Move(name.clone(), wanted.address));
                    commands.push(Command::Set(name.clone(), Admin::Ready));
                } else if server.admin != Admin::Ready {
                    commands.push(Command::Set(name.clone(), Admin::Ready));
                }
            }
            (Want::Out | Want::Gone, None) => {
                wanted.servers.remove(socket);
            }
            (want @ (Want::Out | Want::Gone), Some((Name { name, added }, server))) => {
                let next = leave(name, server, drains);
                if next.is_none() && want == Want::Gone {
                    if *added {
                        commands.push(Command::Delete(name.clone()));
                    } else {
                        wanted.servers.remove(socket);
                    }
                }
                commands.extend(next.map(|admin| Command::Set(name.clone(), admin)));
            }
        }
        all.extend(commands.into_iter().map(|command| (key.clone(), command)));
    }
    all
}

/// The next state on the way out; `None`: it is there.
fn leave(name: &str, server: &Server, drains: &mut Drains) -> Option<Admin> {
    match server.admin {
        Admin::Ready => Some(Admin::Drain),
        Admin::Drain => {
            let before = *drains.entry(name.to_owned()).or_insert(server.sessions);
            (server.in_flight == 0 || server.sessions > before).then_some(Admin::Maint)
        }
        Admin::Maint => None,
    }
}

/// Which server a member is: the one it was, one of its name, one at its address, or a free one that was set aside. One
/// set aside that is at its address and takes requests is it, too: the agent lost its book, or was installed anew.
fn claim(
    socket: &str,
    key: &Key,
    members: &BTreeMap<Key, Wanted>,
    reading: &Reading,
) -> Option<Name> {
    let wanted = members.get(key)?;
    if let Some(known) = wanted.servers.get(socket)
        && reading.servers.contains_key(&known.name)
    {
        return Some(known.clone());
    }
    if wanted.want == Want::Gone {
        return None;
    }
    let others = members.iter().filter(|(other, _)| *other != key);
    let taken: Vec<&str> =
        others.filter_map(|(_, it)| Some(it.servers.get(socket)?.name.as_str())).collect();
    let free = |name: &&String| !taken.contains(&name.as_str());
    let own = name_of(key);
    let named = reading.servers.keys().find(|name| **name == own).filter(free);
    let at = |(name, server): (&'_ String, &Server)| {
        let is = !is_slot(name) || server.admin != Admin::Maint;
        (server.address == Some(wanted.address) && is).then(|| name.clone())
    };
    let there = || reading.servers.iter().filter(|(name, _)| free(name)).find_map(at);
    let slot = || {
        let aside = |(name, server): &(&String, &Server)| {
            is_slot(name) && free(name) && server.admin == Admin::Maint
        };
        let wants_one = wanted.want == Want::In;
        reading.servers.iter().find(aside).filter(|_| wants_one).map(|(name, _)| name.clone())
    };
    let name = named.cloned().or_else(there).or_else(slot)?;
    Some(Name { name, added: false })
}

fn is_slot(name: &str) -> bool {
    name.strip_prefix(SLOT)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit()))
}

/// The name of a server that we add. Nodes' names are DNS labels, so the dot keeps two members apart.
fn name_of(key: &Key) -> String {
    let Key { node, instance } = key;
    if instance.is_empty() { node.clone() } else { format!("{node}.{instance}") }
}

/// How a member stands in one process.
pub fn observed(wanted: &Wanted, server: Option<&Server>) -> Observed {
    match (wanted.want, server) {
        (Want::In, Some(server))
            if server.admin == Admin::Ready
                && server.up
                && server.address == Some(wanted.address) =>
        {
            Observed::In
        }
        (Want::In, _) => Observed::Joining,
        (Want::Out | Want::Gone, Some(server)) => match server.admin {
            Admin::Ready => Observed::In,
            Admin::Drain => Observed::Draining,
            Admin::Maint if server.in_flight > 0 => Observed::Draining,
            Admin::Maint => Observed::Out,
        },
        (Want::Out | Want::Gone, None) => Observed::Out,
    }
}
