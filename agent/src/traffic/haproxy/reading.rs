//! What HAProxy says of itself and of the servers of one backend (management guide, part 9: `show info`,
//! `show servers state` and `show stat`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// One look at one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The process that answered.
    pub pid: u32,
    /// The backend's number, once it has servers.
    pub id: Option<u64>,
    /// Requests (connections in `mode tcp`) of the backend since the process started.
    pub requests: u64,
    /// Of those, failed: no connection to a server, or no whole answer from it.
    pub failed: u64,
    /// By name.
    pub servers: BTreeMap<String, Server>,
    /// The servers' states as HAProxy reads them at its start.
    pub state: String,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is; `None` while a resolver has not found it.
    pub address: Option<SocketAddr>,
    /// What it may take.
    pub admin: Admin,
    /// It takes requests: it is up, or nobody checks it.
    pub up: bool,
    /// Requests in flight, and those that wait for it.
    pub in_flight: u64,
    /// Sessions since the process started: rises with each request that is sent to it.
    pub sessions: u64,
    /// Connections that are kept open for later.
    pub idle: u64,
}

/// What a server may take, by the operator's will or ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admin {
    /// Everything.
    Ready,
    /// Only requests that its cookie or a stick table binds to it.
    Drain,
    /// Nothing.
    Maint,
}

/// An answer that is not as the management guide says, or says that the backend is not there.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// There is no such backend.
    #[error("HAProxy has no backend `{backend}`; add it to its configuration, or name another one")]
    NoBackend { backend: String },
    /// The socket may not be asked that.
    #[error("the socket may not change anything: `stats socket PATH level admin` is needed")]
    NotAdmin,
    /// Not understood.
    #[error("HAProxy's answer has no {missing}: {answer:?}")]
    Odd { missing: &'static str, answer: String },
}

/// `srv_admin_state`: set by an operator, by a tracked server, or because a resolver found nothing.
const MAINT_BITS: u32 = 0x01 | 0x02 | 0x20;
/// The same for drain.
const DRAIN_BITS: u32 = 0x08 | 0x10;
/// `srv_op_state` of a server that takes requests (2), and of one that comes up slowly (1).
const UP_STATES: [u32; 2] = [1, 2];

/// The question that [`read`] understands the answer to. A frontend may be called like the backend, so statistics are
/// asked for by number; without one, for those of all backends.
pub fn question(backend: &str, id: Option<u64>) -> String {
    let id = id.map_or("-1".to_owned(), |id| id.to_string());
    format!("show info;show servers state {backend};show stat {id} 6 -1")
}

/// Understands an answer to [`question`].
pub fn read(backend: &str, answer: &str) -> Result<Reading, ReadError> {
    if answer.contains("Can't find backend.") || answer.contains("No such proxy.") {
        return Err(ReadError::NoBackend { backend: backend.to_owned() });
    }
    if answer.contains("Permission denied") {
        return Err(ReadError::NotAdmin);
    }
    let odd = |missing| ReadError::Odd { missing, answer: answer.chars().take(200).collect() };
    let pid = answer.lines().find_map(|line| line.strip_prefix("Pid: ")?.trim().parse().ok());
    let pid = pid.ok_or_else(|| odd("Pid"))?;
    let mut states = table(answer, "# be_id ", ' ').ok_or_else(|| odd("servers' state"))?;
    let mut stats = table(answer, "# pxname,", ',').ok_or_else(|| odd("statistics"))?;
    stats.retain(|row| row.get("pxname") == Some(&backend));
    states.retain(|row| row.get("be_name") == Some(&backend));
    let state = state_of(answer).ok_or_else(|| odd("servers' state"))?;
    let mut reading = Reading { pid, state, ..Reading::default() };
    let counts: BTreeMap<&str, &Row<'_>> =
        stats.iter().filter_map(|row| Some((*row.get("svname")?, row))).collect();
    for state in &states {
        let name = *state.get("srv_name").ok_or_else(|| odd("srv_name"))?;
        let Some(count) = counts.get(name) else { continue }; // it came between the two answers
        reading.servers.insert(name.to_owned(), server(state, count));
    }
    let all = counts.get("BACKEND").ok_or_else(|| odd("statistics of the backend"))?;
    let http = all.get("mode") == Some(&"http");
    reading.requests = number(all, if http { "req_tot" } else { "stot" });
    reading.failed = number(all, "econ") + number(all, "eresp");
    reading.id = states.first().map(|row| number(row, "be_id"));
    Ok(reading)
}

type Row<'a> = BTreeMap<&'a str, &'a str>;

/// The rows below the header that begins so, up to the next empty line.
fn table<'a>(answer: &'a str, header: &str, separator: char) -> Option<Vec<Row<'a>>> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with(header));
    let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(separator).collect();
    let rows = lines.take_while(|line| !line.trim().is_empty());
    Some(rows.map(|row| names.iter().copied().zip(row.split(separator)).collect()).collect())
}

/// The version line, the header and the rows.
fn state_of(answer: &str) -> Option<String> {
    let header = answer.find("# be_id ")?;
    let version = answer[..header].trim_end().lines().last()?;
    let rows = answer[header..].lines().take_while(|line| !line.trim().is_empty());
    Some(format!("{version}\n{}\n", rows.collect::<Vec<_>>().join("\n")))
}

fn server(state: &Row<'_>, count: &Row<'_>) -> Server {
    let admin = u32::try_from(number(state, "srv_admin_state")).unwrap_or(MAINT_BITS);
    let ip = state.get("srv_addr").and_then(|it| it.parse::<IpAddr>().ok());
    let port = u16::try_from(number(state, "srv_port")).ok();
    let op = u32::try_from(number(state, "srv_op_state")).unwrap_or(0);
    Server {
        address: ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)),
        admin: match admin {
            bits if bits & MAINT_BITS != 0 => Admin::Maint,
            bits if bits & DRAIN_BITS != 0 => Admin::Drain,
            _ => Admin::Ready,
        },
        up: UP_STATES.contains(&op),
        in_flight: number(count, "scur") + number(count, "qcur"),
        sessions: number(count, "stot"),
        idle: number(count, "srv_icur"),
    }
}

/// An empty or absent field counts as 0.
fn number(row: &Row<'_>, name: &str) -> u64 {
    row.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy 2.6 answers, shortened.
    const ANSWER: &str = "\
Name: HAProxy
Version: 2.6.12-1+deb12u4
Pid: 11451

1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port
3 shop 1 web-01 10.0.0.1 2 0 1 9000
3 shop 2 web-02 10.0.0.2 2 8 1 9000
3 shop 3 rota1 127.0.0.1 0 5 1 1
3 shop 4 web-03 10.0.0.3 0 4 1 9000

# pxname,svname,qcur,scur,stot,econ,eresp,req_tot,mode,srv_icur
shop,web-01,1,2,30,0,0,30,http,4
shop,web-02,0,0,20,0,0,20,http,0
shop,rota1,0,0,0,0,0,0,http,0
shop,web-03,0,0,0,0,0,0,http,0
shop,BACKEND,0,2,50,1,2,49,http,
other,BACKEND,0,2,70,7,7,77,http,
";

    #[test]
    fn an_answer_is_understood() {
        let reading = read("shop", ANSWER).expect("as HAProxy answers");
        assert_eq!((reading.pid, reading.id), (11451, Some(3)));
        assert_eq!((reading.requests, reading.failed), (49, 3));
        assert!(reading.state.starts_with("1\n# be_id ") && reading.state.ends_with(" 9000\n"));
        for (name, address, admin, up, in_flight, sessions, idle) in [
            ("web-01", "10.0.0.1:9000", Admin::Ready, true, 3, 30, 4),
            ("web-02", "10.0.0.2:9000", Admin::Drain, true, 0, 20, 0),
            ("rota1", "127.0.0.1:1", Admin::Maint, false, 0, 0, 0),
            ("web-03", "10.0.0.3:9000", Admin::Ready, false, 0, 0, 0),
        ] {
            let address = address.parse().ok();
            let server = Server { address, admin, up, in_flight, sessions, idle };
            assert_eq!(reading.servers.get(name), Some(&server), "{name}");
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        for (answer, why) in [
            ("Can't find backend.\n", "HAProxy has no backend `shop`; add it to"),
            ("Permission denied\n", "the socket may not change anything: `stats socket"),
            ("Pid: 1\n", "HAProxy's answer has no servers' state: \"Pid: 1\\n\""),
        ] {
            let error = read("shop", answer).expect_err(answer).to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
