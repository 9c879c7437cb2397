//! Hosts with an address of their own each, on this machine: network namespaces behind a bridge. They need root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Trouble;

/// A bridge, and so many hosts behind it; gone with this value, once nothing runs in them any more.
pub struct Hosts {
    name: String,
    network: String,
    count: usize,
}

impl Hosts {
    /// Makes them. An error is a machine that does not allow it.
    pub fn make(count: usize) -> Result<Self, Trouble> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (pid, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let bridge = format!("rt{pid}-{made}");
        ip(&format!("link add {bridge} type bridge"))?;
        let network = format!("10.{}.{}", 64 + (pid + made) / 250 % 128, (pid + made) % 250);
        let mut hosts = Self { name: bridge.clone(), network, count: 0 };
        let gateway = hosts.gateway();
        ip(&format!("addr add {gateway}/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for number in 1..=count {
            let (host, address) = (hosts.host(number), hosts.address(number));
            ip(&format!("netns add {host}"))?;
            hosts.count = number;
            ip(&format!("link add {host} type veth peer name eth0 netns {host}"))?;
            ip(&format!("link set {host} master {bridge} up"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {host} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(hosts)
    }

    /// This machine, as the hosts reach it.
    pub fn gateway(&self) -> String {
        format!("{}.1", self.network)
    }

    /// The address of a host, counted from 1.
    pub fn address(&self, number: usize) -> String {
        format!("{}.{}", self.network, 10 + number)
    }

    /// A command that runs a program on a host.
    pub fn on(&self, number: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(number)]).arg(program);
        command
    }

    fn host(&self, number: usize) -> String {
        format!("{}.{number}", self.name)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for number in 1..=self.count {
            let host = self.host(number);
            if ip(&format!("netns del {host}")).is_err() {
                eprintln!("the host {host} could not be removed");
            }
        }
        if ip(&format!("link del {}", self.name)).is_err() {
            eprintln!("the bridge {} could not be removed", self.name);
        }
    }
}

fn ip(args: &str) -> Result<(), Trouble> {
    let output = Command::new("ip").args(args.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
