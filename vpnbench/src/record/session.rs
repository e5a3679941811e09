//! One recording from set-up to the last frame: load, attach, run the command, follow what
//! changes, stop, close the books.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use vpnbench_common::catalog::{Group, ProbeId};
use vpnbench_common::settings::process;

use super::calls::{PACKET_CALLS, SOCKET_CALLS};
use super::clock::process_cpu_s;
use super::command::{Benchmark, find_program};
use super::drain::{Drain, Signals};
use super::ending::Ending;
use super::environment;
use super::follow::{self, Follow};
use super::interrupt;
use super::kallsyms::Kallsyms;
use super::observer::Observer;
use super::progress::Progress;
use super::silence;
use super::statistics::Statistics;
use super::tee::Onward;
use super::user_code::UserCode;
use crate::probe::attach::{self, AttachError, Options};
use crate::probe::discover::{self, Plan, Selector};
use crate::probe::filter::{Filter, choose_seed};
use crate::probe::netns::{KEPT_BY_DISCOVERY, keep_only};
use crate::trace::model::{CommandOutput, CommandStatus, Environment, Start};
use crate::trace::{Existing, Totals, TraceError, TraceFile, Writer};

/// What to record and where.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the user said about the tunnel, with the benchmark command.
    pub selector: Selector,
    /// Probes to attach; None for the usual ones.
    pub probes: Option<BTreeSet<ProbeId>>,
    /// Record system calls and scheduling.
    pub threads: bool,
    /// Sample stacks.
    pub stacks: bool,
    /// Ring buffer bytes.
    pub buffer_bytes: u64,
    /// Payload bytes to keep per packet.
    pub keep_payload: u32,
    /// Longest time to record.
    pub duration: Option<Duration>,
    /// Trace file, `-` for standard output.
    pub output: PathBuf,
    /// The command's standard output goes to standard error, because ours holds a document.
    pub stdout_is_ours: bool,
    /// The command's standard output is recorded and not shown.
    pub quiet: bool,
    /// Show a progress line on a terminal.
    pub progress: bool,
    /// A second Ctrl-C ends the process at once. Off where somebody has more to clean up.
    pub second_interrupt_ends: bool,
    /// Who looks on; the output is then a regular file.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Request {
    /// The output as messages name it.
    fn output_name(&self) -> String {
        if self.output == Path::new("/dev/stdout") {
            "standard output".to_owned()
        } else if self.output.starts_with("/proc/self/fd") {
            format!("a temporary file in {}", std::env::temp_dir().display())
        } else {
            self.output.display().to_string()
        }
    }
}

/// How a recording ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Why it ended.
    pub reason: Reason,
    /// How the benchmark ended, if there was one.
    pub command: Option<CommandStatus>,
    /// What the benchmark wrote to its standard output, if there was one.
    pub output: Option<CommandOutput>,
    /// What was written.
    pub totals: Totals,
    /// First error in writing the trace, which still reads back up to there.
    pub write_error: Option<String>,
}

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The benchmark command ended.
    Command,
    /// The time asked for was over.
    Duration,
    /// Ctrl-C or SIGTERM.
    Interrupt,
    /// All watched devices went and did not come back.
    Device,
    /// The trace could not be written any more.
    Disk,
    /// Whoever read the trace from a pipe went away.
    Reader,
}

impl Reason {
    /// Name in the trace.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Duration => "duration",
            Self::Interrupt => "interrupt",
            Self::Device => "device",
            Self::Disk => "disk",
            Self::Reader => "reader",
        }
    }
}

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The tunnel was not found, or not exactly one.
    #[error(transparent)]
    Discover(#[from] discover::Error),
    /// The kernel or the user's privileges do not allow it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The kernel-side filter could not be set.
    #[error(transparent)]
    Filter(#[from] crate::probe::filter::FilterError),
    /// The trace cannot be created or written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The benchmark cannot be started.
    #[error("cannot run {program}: {source}")]
    Command {
        /// Program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something the system did not give us.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> RecordError {
    move |source| RecordError::System { what, source }
}

/// The probes of a request.
fn wanted(request: &Request, plan: &Plan) -> BTreeSet<ProbeId> {
    if let Some(probes) = &request.probes {
        return probes.clone();
    }
    let mut groups = vec![Group::Packets, Group::Drops, Group::Tcp];
    let has_processes = !plan.processes.is_empty() || !request.selector.command.is_empty();
    if has_processes {
        groups.push(Group::Daemon);
    }
    if has_processes && request.threads {
        groups.extend([Group::Syscalls, Group::Threads]);
    }
    if request.stacks {
        groups.push(Group::Stacks);
    }
    attach::select(&groups)
}

/// Finds the tunnel, attaches, records until the command, the time or the user ends it.
/// `command` is what to run, usually [`command_of`] the selector; `say` gets plain sentences for
/// the user.
///
/// # Errors
/// See [`RecordError`]. Once recording has begun nothing fails: what went wrong is in the outcome
/// and in the trace.
pub fn record(
    request: &Request,
    command: Option<Command>,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome, RecordError> {
    // Before anything is touched: the output may be an older trace.
    if let Some(command) = &command {
        let program = command.get_program();
        find_program(program, command.get_current_dir()).map_err(|source| {
            let program = program.to_string_lossy().into_owned();
            RecordError::Command { program, source }
        })?;
    }
    let plan = discover::discover(&request.selector)?;
    for note in &plan.notes {
        say(note);
    }
    let recording = Recording::prepare(request, plan, command.is_some())?;
    recording.run(request, command, say)
}

/// The command of a request as this process would start it; None if it has none.
#[must_use]
pub fn command_of(selector: &Selector) -> Option<Command> {
    let (program, arguments) = selector.command.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments);
    Some(command)
}

/// How long records wait to be written while somebody looks on: what an eye takes for at once.
const SEEN_AFTER: Duration = Duration::from_millis(200);

/// Processes and their role names for the environment snapshot.
pub(super) fn roles(plan: &Plan) -> Vec<(u32, &'static str)> {
    plan.processes
        .iter()
        .map(|(pid, role)| match *role {
            process::DAEMON => (*pid, "daemon"),
            process::BENCHMARK => (*pid, "benchmark"),
            process::KERNEL => (*pid, environment::KERNEL_THREAD),
            _ => (*pid, "other"),
        })
        .collect()
}

/// Everything that is set up before the command starts.
struct Recording {
    plan: Plan,
    filter: Filter,
    drain: Drain<TraceFile>,
    changes: mpsc::Sender<crate::trace::model::Change>,
    signals: Arc<Signals>,
    /// The trace once more, for whoever looks on.
    trace: Option<File>,
}

impl Recording {
    fn prepare(
        request: &Request,
        mut plan: Plan,
        before_command: bool,
    ) -> Result<Self, RecordError> {
        follow::add_kernel_threads(&mut plan);
        let seed = choose_seed(&plan.devices);
        let options = Options {
            probes: wanted(request, &plan),
            buffer_bytes: request.buffer_bytes,
            keep_payload: request.keep_payload,
            device_seed: seed,
        };
        let pids: Vec<u32> = plan.processes.iter().map(|(pid, _)| *pid).collect();
        let (tools, _) = environment::versions(&pids, &request.selector.command);
        let mut loaded = attach::load(&options)?;
        let buffer_bytes = loaded.buffer_bytes;
        let drop_reasons = loaded.drop_reasons.clone();
        let mut filter = loaded.filter(seed)?;
        let rings = loaded.rings()?;
        let file = TraceFile::create(&request.output, Existing::Replace)?;
        let symbols = Kallsyms::open();
        let user_code = UserCode::open(if request.stacks { &pids } else { &[] });
        // Attached with empty filters: nothing is recorded until the snapshot is taken, so that
        // the counters in it and the events begin together.
        let attached = loaded.attach()?;
        if before_command {
            silence::wait(&plan);
        }
        let start = Start {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            run_id: uuid::Uuid::new_v4().to_string(),
            clock: environment::clock(),
            host: environment::host(),
            command: request.selector.command.clone(),
            tunnels: plan.tunnels.clone(),
            devices: plan.devices.clone(),
            probes: attached.statuses.clone(),
            drop_reasons,
            buffer_bytes,
            keep_payload: request.keep_payload,
            environment: Environment {
                tools,
                ..environment::snapshot(&plan.netns, &roles(&plan))
            },
            ..Start::default()
        };
        let mut start = Start {
            started_at: environment::utc(&start.clock),
            ..start
        };
        open_filter(&mut filter, &plan)?;
        let readings = environment::link_counters(&plan.netns);
        environment::note_unsettled(&mut start.environment, &readings);
        let name = request.output_name();
        let mut writer = Writer::create_named(file, &name, &start)?;
        let mut trace = None;
        if request.observer.is_some() {
            writer.wait_at_most(SEEN_AFTER);
            let opened =
                File::open(&request.output).and_then(|file| match file.metadata()?.is_file() {
                    true => Ok(file),
                    false => Err(std::io::Error::other("it is no regular file")),
                });
            trace = Some(opened.map_err(system("cannot read the trace while it is written"))?);
        }
        let signals = Arc::new(Signals::default());
        let (changes, incoming) = mpsc::channel();
        let drain = Drain {
            rings,
            writer,
            attached,
            symbols,
            user_code,
            changes: incoming,
            signals: signals.clone(),
            socket_calls: SOCKET_CALLS.to_vec(),
        };
        Ok(Self {
            plan,
            filter,
            drain,
            changes,
            signals,
            trace,
        })
    }

    fn run(
        mut self,
        request: &Request,
        command: Option<Command>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Outcome, RecordError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("cannot start the event loop"))?;
        // The command is started before privileges go, and by a process that is watched, so that
        // it and its children are watched from their first instruction.
        let benchmark = {
            let _guard = runtime.enter();
            start_command(request, command, &mut self.filter).inspect_err(|_| {
                // A trace of nothing helps nobody; a pipe or device stays.
                if request.output.is_file() {
                    let _ = std::fs::remove_file(&request.output);
                }
            })?
        };
        let statistics = Statistics::start(&self.drain.attached).map_err(system(THREAD))?;
        // It stays with this thread and what it starts from here on: capabilities are per thread.
        let netns = self.plan.netns.clone();
        drop_privileges(&netns, say);
        let (events, _watches) = follow::watch_links(&self.plan);
        let (notes, heard) = mpsc::channel();
        let follow = Follow {
            plan: self.plan,
            filter: self.filter,
            changes: self.changes,
            signals: self.signals.clone(),
            notes,
        };
        let cpu_before_s = process_cpu_s();
        let drain = self.drain;
        let draining = spawn("vpnbench-drain", move || drain.run())?;
        let following = spawn("vpnbench-follow", move || follow.run(&events))?;
        let wait = Wait {
            request,
            signals: &self.signals,
            heard: &heard,
            trace: self.trace,
        };
        let (reason, command, output) = runtime.block_on(wait.until_end(benchmark, say));
        if request.second_interrupt_ends {
            interrupt::back_to_default();
        }
        let ending = Ending {
            cpu_before_s,
            signals: self.signals.clone(),
            draining,
            following,
            statistics,
            reason,
            command,
            output,
        };
        ending.close(say)
    }
}

const THREAD: &str = "cannot start a thread";

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RecordError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(system(THREAD))
}

fn open_filter(filter: &mut Filter, plan: &Plan) -> Result<(), RecordError> {
    filter.watch_syscalls(PACKET_CALLS)?;
    filter.watch_syscalls(SOCKET_CALLS)?;
    for port in &plan.ports {
        filter.watch_port(*port)?;
    }
    for (pid, role) in &plan.processes {
        filter.watch_process(*pid, *role)?;
    }
    for netns in &plan.netns {
        filter.watch_namespace(netns.inum())?;
    }
    for device in &plan.devices {
        filter.watch_device(device)?;
    }
    Ok(())
}

/// Starts the benchmark, if there is one, as the child of a watched process: ours, for a moment.
fn start_command(
    request: &Request,
    command: Option<Command>,
    filter: &mut Filter,
) -> Result<Option<Benchmark>, RecordError> {
    let Some(command) = command else {
        return Ok(None);
    };
    let program = command.get_program().to_string_lossy().into_owned();
    let own = std::process::id();
    filter.watch_process(own, process::BENCHMARK)?;
    let onward = match (request.quiet, request.stdout_is_ours) {
        (true, _) => Onward::Nowhere,
        (false, true) => Onward::Stderr,
        (false, false) => Onward::Stdout,
    };
    let started = Benchmark::start(command, onward);
    filter.forget_process(own);
    started
        .map(Some)
        .map_err(|source| RecordError::Command { program, source })
}

/// Gives up every privilege that following the daemon does not need.
fn drop_privileges(netns: &[crate::probe::netns::Netns], say: &mut dyn FnMut(&str)) {
    let outcome = netns
        .iter()
        .try_for_each(crate::probe::netns::Netns::drop_privileges)
        .and_then(|()| keep_only(KEPT_BY_DISCOVERY));
    if let Err(error) = outcome {
        say(&format!("privileges could not be dropped: {error}"));
    }
}

/// Waits for the end of a recording.
struct Wait<'a> {
    request: &'a Request,
    signals: &'a Signals,
    heard: &'a mpsc::Receiver<String>,
    trace: Option<File>,
}

impl Wait<'_> {
    async fn until_end(
        mut self,
        mut benchmark: Option<Benchmark>,
        say: &mut dyn FnMut(&str),
    ) -> (Reason, Option<CommandStatus>, Option<CommandOutput>) {
        let reason = self.first_end(&mut benchmark, say).await;
        if let Some(observer) = &self.request.observer {
            observer.ending();
        }
        let (reason, status) = match reason {
            Ended::Command(status) => (Reason::Command, status),
            Ended::Because(reason) => (reason, None),
        };
        match (status, benchmark) {
            (Some(status), Some(mut ended)) => (reason, Some(status), ended.take_output()),
            (None, Some(mut running)) => {
                let stopped = tokio::select! {
                    status = running.stop() => status.ok(),
                    () = second_interrupt(), if reason == Reason::Interrupt => None,
                };
                let output = running.take_output();
                if stopped.is_none() && reason == Reason::Interrupt {
                    // Kills the command; the trace written so far stays.
                    drop(running);
                    if self.request.second_interrupt_ends {
                        interrupt::end_now();
                    }
                }
                (reason, stopped, output)
            }
            (status, None) => (reason, status, None),
        }
    }

    async fn first_end(
        &mut self,
        benchmark: &mut Option<Benchmark>,
        say: &mut dyn FnMut(&str),
    ) -> Ended {
        let deadline = self
            .request
            .duration
            .map(|time| tokio::time::Instant::now() + time);
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return Ended::Because(Reason::Interrupt);
        };
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        // Said when signals are caught and everything is watched.
        log::info!("recording to {}", self.request.output_name());
        let progress = Progress::start(self.request.progress);
        let observer = self.request.observer.as_ref();
        if let (Some(observer), Some(trace)) = (observer, self.trace.take()) {
            observer.started(trace);
        }
        loop {
            tokio::select! {
                status = wait_for(benchmark) => return Ended::Command(status),
                _ = interrupt.recv() => return Ended::Because(Reason::Interrupt),
                _ = terminate.recv() => return Ended::Because(Reason::Interrupt),
                () = sleep_until(deadline) => return Ended::Because(Reason::Duration),
                _ = tick.tick() => {
                    while let Ok(sentence) = self.heard.try_recv() {
                        progress.suspend(|| say(&sentence));
                    }
                    progress.update(self.signals);
                    if observer.is_some_and(|one| one.wants_end()) {
                        return Ended::Because(Reason::Interrupt);
                    }
                    if self.signals.reader_gone.load(Ordering::Acquire) {
                        return Ended::Because(Reason::Reader);
                    }
                    if self.signals.failed.load(Ordering::Acquire) {
                        return Ended::Because(Reason::Disk);
                    }
                    if self.signals.devices_gone.load(Ordering::Acquire) && benchmark.is_none() {
                        return Ended::Because(Reason::Device);
                    }
                }
            }
        }
    }
}

enum Ended {
    Command(Option<CommandStatus>),
    Because(Reason),
}

async fn wait_for(benchmark: &mut Option<Benchmark>) -> Option<CommandStatus> {
    match benchmark {
        Some(running) => running.wait().await.ok(),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn second_interrupt() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
