//! What the kernel says of a process: its memory and its CPU time.

use std::fs;
use std::time::Duration;

use rota_tests::Trouble;

/// Ticks of `/proc/PID/stat` in a second, on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in KiB, and of that what belongs to this process alone (its heap and stacks).
pub fn resident(pid: u32) -> Result<(u64, u64), Trouble> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let kib = |key: &str| -> Result<u64, Trouble> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        value.ok_or_else(|| format!("{path} has no {key}").into())
    };
    Ok((kib("VmRSS")?, kib("RssAnon")?))
}

/// The CPU time that it has used, user and system.
pub fn cpu(pid: u32) -> Result<Duration, Trouble> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // Fields are counted behind the name, which may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<f64>());
    let (Some(Ok(user)), Some(Ok(system))) = (fields.next(), fields.next()) else {
        return Err(format!("{path} is not as expected").into());
    };
    Ok(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

/// How much of one core it uses, in percent, over so long.
pub fn load(pid: u32, over: Duration) -> Result<f64, Trouble> {
    let before = cpu(pid)?;
    std::thread::sleep(over); // the time over which is measured
    let used = cpu(pid)?.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / over.as_secs_f64())
}
