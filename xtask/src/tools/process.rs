//! This process and others of this machine, distinguished from later ones with the same id by proc(5) of
//! Linux. Other systems have no answer, and callers take that for none.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::promotion::Holder;

/// Start time in clock ticks since boot (field 22 of stat); `None` if there is no such live process.
pub fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|ticks| (*ticks).to_owned()))?
}

/// Processor seconds of a process and of its children that have ended (fields 14 to 17 of stat, in hundredths: the unit
/// that Linux shows to programs on all architectures that are built for); 0 if it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// This process, as a lease names it.
pub fn holder() -> Holder {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let pid = std::process::id();
    let boot = read("/proc/sys/kernel/random/boot_id");
    // Without /proc a process cannot be distinguished from a later one with its id, so none shares a realm: its lease is then
    // waited for, as for that of another machine.
    let realm = match boot.is_empty() {
        true => format!("{pid} {:?}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        false => format!("{boot} {}", namespace.display()),
    };
    Holder { host: hostname(), realm, pid, started: start_time(pid).unwrap_or_default() }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// True if that process of this machine still runs.
pub fn is_alive(holder: &Holder) -> bool {
    start_time(holder.pid).as_ref() == Some(&holder.started)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Memory that programs can have without swapping, in megabytes; `None` where the system does not say so.
pub fn available_megabytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}
