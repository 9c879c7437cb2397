//! Transcripts: each line is a step and, after `=>`, what it must lead to.

use super::*;

/// A pool whose connections are numbers, and a clock that the transcript moves.
struct World {
    pool: Pool<u32>,
    now: Instant,
    stays: BTreeMap<String, (MemberId, Stay)>,
    tickets: BTreeMap<String, Arc<Ticket>>,
    /// Connections that the members have closed.
    closed: Vec<u32>,
}

impl World {
    fn new() -> Self {
        Self {
            pool: Pool::default(),
            now: Instant::now(),
            stays: BTreeMap::new(),
            tickets: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words[..] {
            ["in", name] => self.want(name, Want::In, 1, false),
            ["in", name, "at", port] => self.want(name, Want::In, port.parse().unwrap(), false),
            ["out", name] => self.want(name, Want::Out, 1, false),
            ["cut", name] => self.want(name, Want::Out, 1, true),
            ["gone", name] => self.want(name, Want::Gone, 1, false),
            ["check", name, ticket] => self.begin_check(name, ticket),
            ["passed", ticket] => self.checked(ticket, Ok(())),
            ["failed", ticket] => self.checked(ticket, Err("status 503".to_owned())),
            ["abandoned", ticket] => {
                let ticket = self.tickets.remove(ticket).unwrap();
                format!("{:?}", self.pool.abandon_check(&ticket))
            }
            ["get", ticket] => self.get(ticket, &[]),
            ["get", ticket, "not", other] => {
                let tried = [self.tickets[other].member];
                self.get(ticket, &tried)
            }
            ["end", ticket] => self.end(ticket, None),
            ["end", ticket, "keep", link] => self.end(ticket, Some(link.parse().unwrap())),
            ["refused", ticket] => {
                let ticket = &self.tickets[ticket];
                self.pool.failed(ticket, "refused".to_owned(), self.now);
                String::new()
            }
            ["closed", link] => {
                self.closed.push(link.parse().unwrap());
                String::new()
            }
            ["after", ms] => {
                self.now += Duration::from_millis(ms.parse().unwrap());
                String::new()
            }
            ["sweep"] => {
                let closed = self.closed.clone();
                self.pool.sweep(self.now, |link| !closed.contains(link));
                format!("{} idle", self.pool.idle())
            }
            ["state", name] => self.pool.state(&Key::new(name, "")).map(show).unwrap_or_default(),
            ["total"] => format!("{} in flight, {} cut", self.pool.in_flight(), self.pool.cut()),
            ["edition"] => self.pool.edition().to_string(),
            _ => panic!("no such step: {step}"),
        }
    }

    fn want(&mut self, name: &str, want: Want, port: u16, cut: bool) -> String {
        let intent = Intent {
            key: Key::new(name, ""),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            want,
            cut,
            health_path: String::new(),
            version: String::new(),
        };
        match self.pool.apply(&intent, self.now) {
            Ok(applied) => {
                let check = if applied.check.is_some() { ", check" } else { "" };
                if let Some(stay) = applied.check {
                    self.stays.insert(name.to_owned(), stay);
                }
                format!("{}{check}; {:?}", show(applied.state), applied.change)
            }
            Err(refused) => refused.to_string(),
        }
    }

    fn begin_check(&mut self, name: &str, ticket: &str) -> String {
        let (id, stay) = self.stays[name];
        match self.pool.begin_check(id, stay) {
            Some(probe) => {
                self.tickets.insert(ticket.to_owned(), probe.ticket);
                "go".to_owned()
            }
            None => "ended".to_owned(),
        }
    }

    fn checked(&mut self, ticket: &str, result: Result<(), String>) -> String {
        let ticket = self.tickets.remove(ticket).unwrap();
        let (change, next) = self.pool.checked(&ticket, result, self.now);
        let next = next.map_or("never".to_owned(), |next| format!("{next:?}"));
        format!("{change:?}; next {next}")
    }

    fn get(&mut self, name: &str, tried: &[MemberId]) -> String {
        let closed = self.closed.clone();
        let given = self.pool.assign(tried, self.now, |link| !closed.contains(link));
        let Some(Assigned { ticket, link, .. }) = given else { return "none".to_owned() };
        let member = self.pool.slots[&ticket.member].key.to_string();
        self.tickets.insert(name.to_owned(), ticket);
        link.map_or(member.clone(), |link| format!("{member} by {link}"))
    }

    fn end(&mut self, ticket: &str, link: Option<u32>) -> String {
        let ticket = self.tickets[ticket].clone();
        format!("{:?}", self.pool.release(&ticket, link, self.now))
    }
}

fn show(state: MemberState) -> String {
    let cut = if state.cut > 0 { format!(", {} cut", state.cut) } else { String::new() };
    format!("{:?}, {} in flight{cut}", state.observed, state.in_flight)
}

#[track_caller]
fn check(transcript: &str) {
    let mut world = World::new();
    for (number, line) in transcript.lines().map(str::trim).enumerate() {
        if line.is_empty() {
            continue;
        }
        let (step, expected) = line.split_once("=>").unwrap_or((line, ""));
        let seen = world.step(step);
        if line.contains("=>") {
            assert_eq!(seen, expected.trim(), "line {}: {step}", number + 1);
        }
        let listed: usize = world.pool.slots.values().map(|slot| slot.in_flight.len()).sum();
        assert_eq!(world.pool.in_flight(), listed as u64, "line {}: {step}", number + 1);
    }
}

/// Members a and b are in.
const TWO_IN: &str = "in a \n check a c \n passed c \n in b \n check b c \n passed c \n";

#[test]
fn a_member_serves_after_its_first_passed_check() {
    check(
        "in a      => Joining, 0 in flight, check; State
         get 1     => none
         check a c => go
         failed c  => None; next 20ms
         check a c => go
         passed c  => State; next 1s
         get 1     => a
         in a      => In, 1 in flight; None",
    );
}

#[test]
fn a_member_that_is_long_down_is_asked_less_often() {
    check(
        "in a
         after 29999
         check a c
         failed c  => None; next 20ms
         after 1
         check a c
         failed c  => None; next 250ms
         check a c
         passed c  => State; next 1s",
    );
}

#[test]
fn two_failures_in_a_row_take_a_member_out() {
    check(
        "in a
         check a c
         passed c  => State; next 1s
         check a c
         failed c  => None; next 1s
         check a c
         passed c  => None; next 1s
         check a c
         failed c  => None; next 1s
         state a   => In, 0 in flight
         check a c
         failed c  => State; next 20ms
         state a   => Joining, 0 in flight
         get 1     => none
         check a c
         passed c  => State; next 1s
         get 1     => a",
    );
}

#[test]
fn the_least_loaded_member_is_chosen_and_ties_take_turns() {
    check(&format!(
        "{TWO_IN}
         get 1 => a
         get 2 => b
         get 3 => a
         get 4 => b
         end 1 => None
         get 5 => a
         end 2 => None
         end 4 => None
         get 6 => b
         get 7 => b
         total => 4 in flight, 0 cut"
    ));
}

#[test]
fn a_drain_stops_assignments_at_once_and_ends_with_the_last_exchange() {
    check(&format!(
        "{TWO_IN}
         get 1 => a
         get 2 => b
         get 3 => a
         out a => Draining, 2 in flight; State
         out a => Draining, 2 in flight; None
         get 4 => b
         get 5 => b
         end 1 => InFlight
         end 1 => None
         end 3 => State
         state a => Out, 0 in flight
         out b
         get 6 => none"
    ));
}

#[test]
fn a_check_under_way_keeps_a_member_from_being_out() {
    check(
        "in a
         check a c
         out a       => Draining, 0 in flight; State
         abandoned c => State
         state a     => Out, 0 in flight
         check a d   => ended
         in a        => Joining, 0 in flight, check; State
         check a d   => go
         out a
         in a        => Joining, 0 in flight, check; State
         check a e   => go
         passed d    => None; next never
         state a     => Joining, 0 in flight
         passed e    => State; next 1s",
    );
}

#[test]
fn idle_connections_are_used_newest_first_and_only_while_they_are_good() {
    check(
        "in a
         check a c
         passed c
         get 1
         get 2
         get 3
         end 1 keep 11
         end 2 keep 12
         end 3 keep 13
         closed 13
         get 4 => a by 12
         end 4 keep 12
         after 3999
         get 4 => a by 12
         after 1
         get 5 => a
         end 4 keep 12
         end 5 keep 15
         sweep => 2 idle
         closed 15
         sweep => 1 idle
         out a
         sweep => 0 idle
         in a
         check a c
         passed c
         get 6 => a",
    );
}

#[test]
fn a_connection_of_an_earlier_stay_is_not_kept() {
    check(
        "in a
         check a c
         passed c
         get 1
         out a => Draining, 1 in flight; State
         in a  => Joining, 1 in flight, check; State
         check a c
         passed c
         end 1 keep 7 => None
         get 2 => a
         in a at 2 => Joining, 1 in flight, check; State
         end 2 keep 8
         check a c
         passed c
         get 3 => a",
    );
}

#[test]
fn a_member_that_refused_is_passed_over_while_another_can_serve() {
    check(&format!(
        "{TWO_IN}
         get 1 => a
         refused 1
         end 1
         get 2 => b
         get 3 => b
         out b
         get 4 => a
         end 4
         get 5 not 4 => none
         check b c => ended
         in b
         check b c
         passed c
         get 6 not 4 => b
         after 1000
         end 6
         get 7 => a"
    ));
}

#[test]
fn a_passed_check_ends_the_ejection() {
    check(&format!(
        "{TWO_IN}
         get 1 => a
         refused 1
         end 1
         check a c
         passed c
         get 2 => b
         get 3 => a"
    ));
}

#[test]
fn what_is_cut_is_counted_once() {
    check(
        "in a
         check a c
         passed c
         get 1
         get 2
         cut a => Draining, 2 in flight, 2 cut; State
         cut a => Draining, 2 in flight, 2 cut; None
         end 1 => InFlight
         end 2 => State
         state a => Out, 0 in flight, 2 cut
         in a => Joining, 0 in flight, check; State
         total => 0 in flight, 2 cut",
    );
}

#[test]
fn a_gone_member_is_forgotten_and_what_it_had_is_cut() {
    check(
        "in a
         check a c
         passed c
         get 1
         gone a => Absent, 0 in flight, 1 cut; State
         gone a => Absent, 0 in flight; None
         end 1  => None
         total  => 0 in flight, 1 cut
         state a =>
         in a => Joining, 0 in flight, check; State",
    );
}

#[test]
fn only_what_the_state_file_says_makes_a_new_edition() {
    check(
        "edition => 0
         in a
         edition => 1
         check a c
         passed c
         in a
         get 1
         end 1
         edition => 1
         out a
         edition => 2
         cut a
         edition => 2
         out b
         edition => 3
         gone b
         edition => 4
         gone b
         edition => 4",
    );
}

#[test]
fn impossible_intents_are_refused() {
    let good = Intent {
        key: Key::new("web-01", ""),
        address: SocketAddr::from(([127, 0, 0, 1], 9000)),
        want: Want::In,
        cut: false,
        health_path: "/healthz?deep=1".to_owned(),
        version: "1.0".to_owned(),
    };
    assert_eq!(good.check(), Ok(()));
    let path = |path: &str| Intent { health_path: path.to_owned(), ..good.clone() };
    let rows = [
        (Intent { key: Key::new("", ""), ..good.clone() }, "a member needs the name"),
        (path("healthz"), "health path \"healthz\" is not"),
        (path("/a b"), "health path \"/a b\" is not"),
        (path("/\r\nX: y"), "health path"),
        (Intent { address: ([127, 0, 0, 1], 0).into(), ..good.clone() }, "address 127.0.0.1:0"),
        (Intent { address: ([0, 0, 0, 0], 1).into(), ..good.clone() }, "address 0.0.0.0:1"),
        (Intent { cut: true, ..good.clone() }, "cut goes with want out"),
    ];
    for (intent, expected) in rows {
        let mut pool = Pool::<u32>::default();
        let refused = pool.apply(&intent, Instant::now()).unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{refused}");
        assert!(pool.list().is_empty());
    }
}
