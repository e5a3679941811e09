//! The end of a recording: stop the threads, close the books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clock::process_cpu_s;
use super::drain::{Drained, Signals};
use super::environment;
use super::follow;
use super::session::{Outcome, Reason, RecordError, roles};
use super::silence;
use super::statistics::{Sampled, Statistics};
use crate::probe::discover::Plan;
use crate::probe::filter::Filter;
use crate::trace::model::{CommandOutput, CommandStatus, End, ProbeCount, UnrecordedCount};
use crate::trace::{TraceError, TraceFile};

/// How long the last events may take to be written before the user hears why nothing happens.
const PATIENCE: Duration = Duration::from_secs(1);

/// The end of a recording: stop the threads, close the books.
pub(super) struct Ending {
    pub(super) signals: Arc<Signals>,
    /// CPU seconds of the process before it began to record: loading is not watching.
    pub(super) cpu_before_s: f64,
    pub(super) draining: JoinHandle<Drained<TraceFile>>,
    pub(super) following: JoinHandle<(Filter, Plan)>,
    pub(super) statistics: Statistics,
    pub(super) reason: Reason,
    pub(super) command: Option<CommandStatus>,
    /// What the command wrote.
    pub(super) output: Option<CommandOutput>,
}

impl Ending {
    pub(super) fn close(self, say: &mut dyn FnMut(&str)) -> Result<Outcome, RecordError> {
        self.signals.stop.store(true, Ordering::Release);
        let (mut filter, mut plan) = join(self.following);
        if matches!(self.reason, Reason::Command) {
            silence::wait(&plan);
        }
        // Those of the kernel that began meanwhile have counters to compare, too.
        follow::add_kernel_threads(&mut plan);
        let readings = environment::link_counters(&plan.netns);
        // Watching ends before the counters are read, as it began after.
        filter.close();
        let sampled = self.statistics.finish();
        let mut environment = environment::snapshot(&plan.netns, &roles(&plan));
        environment::note_unsettled(&mut environment, &readings);
        let clock = environment::clock();
        self.signals.finish.store(true, Ordering::Release);
        wait_for_reader(&self.draining, say);
        let drained = join(self.draining);
        let end = End {
            clock,
            reason: self.reason.name().to_owned(),
            command_status: self.command.clone(),
            command_output: self.output.clone(),
            counts: counts(&drained, sampled.as_ref()),
            unrecorded: unrecorded(&drained, &filter),
            tool_cpu_s: process_cpu_s() - self.cpu_before_s,
            bpf_statistics: Some(sampled.is_some()),
            bpf_windows: sampled.map(|sampled| sampled.windows),
            softirq_s: drained.attached.softirq_s(),
            environment,
        };
        let reader_gone = drained
            .error
            .as_ref()
            .is_some_and(TraceError::is_closed_pipe);
        let mut write_error = drained.error.map(|error| error.to_string());
        let totals = drained.writer.totals().clone();
        let totals = match drained.writer.finish(&end) {
            Ok((file, totals)) => {
                if let Err(error) = file.sync() {
                    write_error.get_or_insert(error.to_string());
                }
                totals
            }
            Err(error) => {
                write_error.get_or_insert(error.to_string());
                totals
            }
        };
        drop(drained.attached);
        if reader_gone {
            // As anywhere else, a closed pipe is not an error.
            write_error = None;
            say("the reader of the trace went away, which ended the recording");
        }
        if let Some(error) = &write_error {
            say(error);
        }
        Ok(Outcome {
            reason: self.reason,
            command: self.command,
            output: self.output,
            totals,
            write_error,
        })
    }
}

/// Says why nothing happens when whoever reads the trace from a pipe has stopped.
fn wait_for_reader<T>(draining: &JoinHandle<T>, say: &mut dyn FnMut(&str)) {
    let deadline = Instant::now() + PATIENCE;
    while !draining.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !draining.is_finished() {
        say("waiting for the trace to be written: its disk or reader is slow; Ctrl-C gives up");
    }
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Events of each probe, and what its program took.
fn counts(drained: &Drained<TraceFile>, sampled: Option<&Sampled>) -> Vec<ProbeCount> {
    let totals = drained.writer.totals();
    let mut counters = drained.attached.counters();
    let statuses = drained.attached.statuses.iter();
    let attached = statuses.filter(|status| status.attached);
    attached
        .map(|status| {
            let id = status.id;
            let mut counters = counters.iter_mut();
            let now = counters
                .find(|one| one.probe == id)
                .and_then(|one| one.read());
            let stats = sampled.and_then(|sampled| sampled.programs.get(&id));
            let stats = stats.filter(|stats| stats.ns > 0);
            ProbeCount {
                id,
                events: totals.events_by_probe[usize::from(id)],
                lost: totals.lost_by_probe[usize::from(id)],
                skipped: now.map_or(0, |now| now.misses),
                ns_per_run: stats.map(|stats| stats.ns as f64 / stats.runs.max(1) as f64),
                runs: stats.map(|stats| stats.runs),
            }
        })
        .collect()
}

fn unrecorded(drained: &Drained<TraceFile>, filter: &Filter) -> Vec<UnrecordedCount> {
    let by_slot: BTreeMap<_, _> = drained.attached.unrecorded();
    by_slot
        .into_iter()
        .filter_map(|((index, tap), counts)| {
            let device = filter.device(index)?;
            Some(UnrecordedCount {
                device: device.name.clone(),
                netns: device.netns,
                tap,
                filtered_units: counts.filtered_units,
                filtered_bytes: counts.filtered_bytes,
                lost_units: counts.lost_units,
                lost_bytes: counts.lost_bytes,
            })
        })
        .collect()
}
