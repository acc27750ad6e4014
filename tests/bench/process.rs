//! A system under measurement as the kernel sees it: a child process and its figures in `/proc`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Length of a clock tick in `/proc/PID/stat`: USER_HZ is 100 on every Linux of today.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// A child process; killed and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// What a process used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time of all its threads, ended ones included.
    pub(crate) cpu: Duration,
    /// Most memory that was ever resident (VmHWM).
    pub(crate) memory_peak_kib: u64,
    /// Memory resident now (VmRSS).
    pub(crate) memory_kib: u64,
    /// Context switches of the threads that live: given up, and taken away.
    pub(crate) switches: u64,
}

impl Process {
    /// Starts a command whose output goes to `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> io::Result<Self> {
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| {
                let program = command.get_program().display();
                io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
            })?;
        Ok(Self { child, log })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it used so far.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        usage_of(self.id())
    }

    /// Fails when the process has ended, with the end of its log.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!(
                "it ended ({status}); its last lines: {}",
                last_lines(&self.log)
            ))),
        }
    }

    /// Asks it to end, as Ctrl-C would, and waits for it.
    pub(crate) fn interrupt(&mut self) -> io::Result<()> {
        Command::new("kill")
            .args(["-INT", &self.id().to_string()])
            .status()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the benchmark itself used: its devices and its sink.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    Ok(usage_of(std::process::id())?.cpu)
}

/// What a process used so far.
pub(crate) fn usage_of(process: u32) -> io::Result<Usage> {
    let folder = Path::new("/proc").join(process.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let mut switches = 0;
    for task in fs::read_dir(folder.join("task"))? {
        // A thread may end between the listing and the reading.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        switches += field(&status, "voluntary_ctxt_switches:")
            + field(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(Usage {
        cpu: cpu_time(&fs::read_to_string(folder.join("stat"))?),
        memory_peak_kib: field(&status, "VmHWM:"),
        memory_kib: field(&status, "VmRSS:"),
        switches,
    })
}

/// utime and stime: fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_time(stat: &str) -> Duration {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u32 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    CLOCK_TICK * ticks
}

fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// Counts system calls of a process with `perf stat`. Counting slows the process a little, so it is
/// done in runs whose time is not used.
pub(crate) struct SyscallCounter {
    perf: Process,
    output: PathBuf,
}

impl SyscallCounter {
    /// Starts to count; `None` where perf is missing or not allowed.
    pub(crate) fn attach(process: u32, folder: &Path) -> Option<Self> {
        let output = folder.join("syscalls.csv");
        let mut command = Command::new("perf");
        command
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o"])
            .arg(&output)
            .args(["-p", &process.to_string()]);
        let mut perf = Process::start(command, folder.join("perf.log")).ok()?;
        // Perf says nothing when it is ready; it is within some milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        perf.check_alive().ok()?;
        Some(Self { perf, output })
    }

    /// Stops, and says how many there were.
    pub(crate) fn finish(mut self) -> Option<u64> {
        self.perf.interrupt().ok()?;
        let text = fs::read_to_string(&self.output).ok()?;
        let line = text.lines().find(|line| line.contains("sys_enter"))?;
        line.split(',').next()?.parse().ok()
    }
}
