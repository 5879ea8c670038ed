//! Processes that run now, and how they end: SIGTERM first, SIGKILL after a grace period, both for all that a program
//! started. A signal to this process ends them before it ends this process.
#![allow(clippy::disallowed_methods, reason = "half of the runner")]

use std::os::unix::process::CommandExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, process, thread};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process, test_kill_process_group,
    waitpid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

/// Time between SIGTERM and SIGKILL, in which a program cleans up.
pub const GRACE: Duration = Duration::from_secs(10);

/// Time that the kernel gets to end a killed process.
const KILLED: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(20);

static RUNNING: Mutex<Running> = Mutex::new(Running { programs: Vec::new(), interrupted: false });

struct Running {
    programs: Vec<Group>,
    /// A signal ends this process: nothing starts any more.
    interrupted: bool,
}

/// The processes of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    leader: Pid,
    /// False for a program in the group of this process, which alone may use the terminal.
    own: bool,
}

impl Group {
    fn signal(self, signal: Signal) {
        let sent = match self.own {
            true => kill_process_group(self.leader, signal),
            false => kill_process(self.leader, signal),
        };
        // sudo started it: only root may signal it.
        if sent == Err(Errno::PERM) {
            let target = format!("{}{}", if self.own { "-" } else { "" }, self.leader.as_raw_nonzero());
            let number = signal.as_raw().to_string();
            let kill = duct::cmd("sudo", ["--non-interactive", "kill", "-s", &number, "--", &target]);
            let _ = kill.stdin_null().stdout_null().stderr_null().unchecked().run();
        }
    }

    fn exists(self) -> bool {
        // A leader that has ended counts until it is waited for. Its status is of no interest any more.
        let _ = waitpid(Some(self.leader), WaitOptions::NOHANG);
        let asked =
            if self.own { test_kill_process_group(self.leader) } else { test_kill_process(self.leader) };
        asked != Err(Errno::SRCH)
    }
}

/// Ends programs and everything that they started: waits while `patience` lasts, then kills what is left.
fn end(groups: &[Group], mut patience: impl FnMut() -> bool) {
    let is_left = || groups.iter().any(|group| group.exists());
    groups.iter().for_each(|group| group.signal(Signal::TERM));
    while is_left() && patience() {
        thread::sleep(POLL);
    }
    groups.iter().filter(|group| group.exists()).for_each(|group| group.signal(Signal::KILL));
    let killed = Instant::now();
    while is_left() && killed.elapsed() < KILLED {
        thread::sleep(POLL);
    }
}

/// A program that runs.
pub struct Child {
    handle: duct::Handle,
    group: Group,
}

impl Child {
    /// Starts a program in a process group of its own, unless it may have to ask at the terminal.
    pub fn start(expression: &duct::Expression, own_group: bool) -> io::Result<Self> {
        let expression = expression.unchecked().before_spawn(move |command| {
            if own_group {
                command.process_group(0);
            }
            Ok(())
        });
        // Under the lock, so that no signal comes between the start and the entry in the list.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if running.interrupted {
            drop(running);
            wait_for_exit();
        }
        let handle = expression.start()?;
        let id = handle.pids().first().and_then(|id| Pid::from_raw(i32::try_from(*id).ok()?));
        let leader = id.ok_or_else(|| io::Error::other("the program has no process id"))?;
        let group = Group { leader, own: own_group };
        running.programs.push(group);
        Ok(Self { handle, group })
    }

    /// Its exit status, if it ends within the time.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        Ok(self.handle.wait_timeout(limit)?.map(|output| output.status))
    }

    /// Ends it and everything that it started.
    pub fn end(&self) {
        let limit = Instant::now() + GRACE;
        end(&[self.group], || Instant::now() < limit);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.interrupted {
            running.programs.retain(|group| *group != self.group);
            return;
        }
        // The program ended by the signal that ends this process: its failure is not to be reported or repeated.
        drop(running);
        wait_for_exit();
    }
}

fn wait_for_exit() -> ! {
    loop {
        thread::park();
    }
}

/// Ends every program that runs. Nothing starts afterwards, and a caller that waits for a program waits until this process
/// exits.
fn end_all(patience: impl FnMut() -> bool) {
    let groups = {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.interrupted = true;
        running.programs.clone()
    };
    end(&groups, patience);
}

/// Ends every program and exits with that code.
pub fn exit(code: i32) -> ! {
    let limit = Instant::now() + GRACE;
    end_all(|| Instant::now() < limit);
    output::end_live();
    process::exit(code)
}

/// From now on SIGINT, SIGTERM and SIGHUP end every program that runs, then this process, with the exit code that a
/// shell reports for the signal. A second signal skips the grace period.
pub fn end_on_signals() -> io::Result<()> {
    let mut ending = vec![SIGINT, SIGTERM];
    if !is_hangup_ignored() {
        ending.push(SIGHUP);
    }
    let mut signals = Signals::new(ending)?;
    thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let limit = Instant::now() + GRACE;
        end_all(|| Instant::now() < limit && signals.pending().next().is_none());
        output::end_live();
        process::exit(128 + signal)
    });
    Ok(())
}

/// True under nohup(1), and where the kernel does not say.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 << (SIGHUP - 1) != 0)
}
