//! What the command line accepts.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::compare::CompareArgs;
use super::lab::LabArgs;
use super::study::StudyArgs;
use super::values::{
    self, Buffer, Destination, OuterSelector, ProbeChoice, parse_buffer, parse_duration,
    parse_finding, parse_keep_payload,
};
use crate::import::Source;
use crate::import::plan::{File, parse_beside, parse_local};
use crate::probe::netns::NetnsSpec;

/// Explains VPN benchmark results packet by packet.
///
/// Attaches eBPF programs to the tunnel device, the TCP stack, the daemon's outer socket and the
/// scheduler while a benchmark runs, and says what the kernel saw.
#[derive(Debug, Parser)]
#[command(
    name = "vpnbench",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// When to write colours; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorMode,
    /// Print errors only on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more on stderr; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// When to write colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorMode {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this kernel and user may do, and what to do about what is missing
    Doctor(DoctorArgs),
    /// Attach, run a command or wait, then print the report
    Attach(AttachArgs),
    /// Attach, run a command or wait, and only write the trace
    Record(RecordArgs),
    /// Analyse a recorded trace
    Report(ReportArgs),
    /// Analyse captures (pcap, pcapng, also packed) of one or more points by the same rules
    Analyze(AnalyzeArgs),
    /// Write a trace in other tools' formats
    Export(ExportArgs),
    /// Say what differs between runs, whether it is real, and what it consists of
    Compare(CompareArgs),
    /// Say what a finding means, how it is judged and what to do about it
    Explain {
        /// Finding; without one all of them are listed
        id: Option<String>,
    },
    /// Show which thread does what, what it costs and which is the limit: of a trace, or recorded now
    Threads(ThreadsArgs),
    /// Reproduce: topologies, impairment, daemons and benchmarks on this machine
    Lab(LabArgs),
    /// Audit a folder of benchmark results before believing it
    Study(StudyArgs),
    /// Print shell completions
    Completions {
        /// Shell
        shell: Shell,
    },
    /// Print the manual page of vpnbench or of one command
    Man {
        /// Command
        command: Option<String>,
    },
    /// Print the JSON Schema of the report
    Schema,
}

/// `vpnbench doctor`
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Form of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Form of a run's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// Lines of JSON: one object for each part
    Jsonl,
    /// A summary for issues and pull requests
    Markdown,
    /// One self-contained page with plots
    Html,
}

/// What to watch and how to record it.
#[derive(Debug, Clone, Args)]
pub struct CaptureArgs {
    /// Tunnel device; found from the command's destination if not given
    #[arg(long, value_name = "IFACE", value_parser = values::parse_interface)]
    pub tun: Vec<String>,
    /// Device that carries outer packets, or the daemon's outer address and port
    #[arg(long, value_name = "IFACE|ADDR:PORT")]
    pub outer: Option<OuterSelector>,
    /// Process id of the daemon
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Name of the daemon's process
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Network namespace: a name, a path or pid:PID; repeat to see both ends on one machine
    #[arg(long, value_name = "NAME|PATH|pid:PID")]
    pub netns: Vec<NetnsSpec>,
    /// Address of the other end outside the tunnel, where it cannot be found
    #[arg(long, value_name = "ADDR")]
    pub peer: Option<IpAddr>,
    /// How long to record, e.g. 500ms, 30s, 2m; without a command and a duration until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Probes and groups of probes to attach instead of the usual ones (docs/probes.md)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub probes: Vec<ProbeChoice>,
    /// Leave out system calls and scheduling
    #[arg(long)]
    pub no_threads: bool,
    /// Sample kernel and user stacks of watched threads
    #[arg(long)]
    pub stacks: bool,
    /// Memory for events on their way to the trace; rings are mapped twice, so half of it holds
    /// events
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = parse_buffer)]
    pub buffer: Buffer,
    /// Payload bytes to keep per packet
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_keep_payload)]
    pub keep_payload: u32,
    /// Command to run while recording; its end ends the recording
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `vpnbench attach`
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// What to watch and how to record it.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Keep the trace in this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub report: ReportFormat,
    /// Show throughput, stages, losses, threads and findings on the whole terminal while recording; ? lists
    /// the keys
    #[arg(long)]
    pub tui: bool,
    /// Write the report to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub report_file: Option<Destination>,
    /// Exit with status 5 if one of these findings is supported
    #[arg(long, value_name = "FINDING", value_delimiter = ',', value_parser = parse_finding)]
    pub fail_on: Vec<String>,
}

/// Form of `vpnbench threads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ThreadsFormat {
    /// For people
    Text,
    /// One JSON object, at the end
    Json,
    /// A line of JSON for each second; of a trace, one for the whole
    Jsonl,
}

/// `vpnbench threads`
#[derive(Debug, Clone, Args)]
pub struct ThreadsArgs {
    /// Recorded trace; - is stdin. Without one the threads are watched now
    #[arg(value_name = "TRACE", conflicts_with_all = ["tun", "outer", "pid", "comm", "netns", "peer", "duration", "command"])]
    pub trace: Option<PathBuf>,
    /// What to watch and how to record it.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Form of the output; live, text is a table a second and jsonl a line of JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ThreadsFormat,
    /// Show it on the whole terminal; ? lists the keys
    #[arg(long, conflicts_with = "format")]
    pub tui: bool,
    /// Write the stack samples (--stacks) folded, a line per stack, to this file
    #[arg(long, value_name = "FILE")]
    pub folded: Option<PathBuf>,
    /// Write the stack samples as a flame graph (SVG) to this file
    #[arg(long, value_name = "FILE")]
    pub flame_graph: Option<PathBuf>,
    /// Write where threads slept and waited for a core, folded in ms, to this file; SVG if it ends in .svg
    #[arg(long, value_name = "FILE")]
    pub off_cpu: Option<PathBuf>,
    /// Rules for groups of functions, put in front of the built-in ones (docs/threads.md)
    #[arg(long, value_name = "FILE")]
    pub groups: Option<PathBuf>,
}

/// `vpnbench record`
#[derive(Debug, Clone, Args)]
pub struct RecordArgs {
    /// What to watch and how to record it.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Trace to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `vpnbench export`
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Recorded trace
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// Format
    #[arg(long, value_name = "FORMAT")]
    pub to: ExportFormat,
    /// File, or for parquet the directory; - is stdout
    #[arg(short, long, value_name = "FILE|DIR", default_value = "-")]
    pub output: Destination,
}

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Packets with their headers, for Wireshark: one interface for each tap
    Pcapng,
    /// One table for each kind of event, for DuckDB, Polars, Spark and ClickHouse
    Parquet,
    /// Threads, taps, stages and TCP senders on one timeline, for Perfetto
    Perfetto,
    /// Stack samples, for flame graphs
    Folded,
    /// One line of JSON for each event
    Jsonl,
}

/// `vpnbench analyze`
#[derive(Debug, Clone, Args)]
pub struct AnalyzeArgs {
    /// Captures of one host; inner and outer devices are told from the packets. `-` is stdin
    #[arg(value_name = "CAPTURE", required_unless_present_any = ["inner", "outer", "at"])]
    pub captures: Vec<PathBuf>,
    /// Capture of the tunnel device of the same host
    #[arg(long, value_name = "FILE")]
    pub inner: Vec<PathBuf>,
    /// Capture of the device that carries the tunnel's packets, of the same host
    #[arg(long, value_name = "FILE")]
    pub outer: Vec<PathBuf>,
    /// Capture of a host by name; TAP is tun, outer, any, or one of tun.tx, tun.write, outer.tx, outer.rx
    #[arg(long, value_name = "HOST:TAP=FILE")]
    pub at: Vec<Source>,
    /// Address of the host a capture was taken on, where the packets do not show it
    #[arg(long, value_name = "[HOST=]ADDR", value_parser = parse_local)]
    pub local: Vec<(String, IpAddr)>,
    /// What another tool said about the run: iperf3's JSON, `nstat -asz` or `ethtool -S` from before and from after, in
    /// this order, `ss -ti`, `perf script`; the kind is told from the content
    #[arg(long = "with", value_name = "[HOST=]FILE", value_parser = parse_beside)]
    pub beside: Vec<File>,
    /// Use only packets that match, in the language of tcpdump
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Where the report goes
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: Destination,
    /// Exit with status 5 if one of these findings is supported
    #[arg(long, value_name = "FINDING", value_delimiter = ',', value_parser = parse_finding)]
    pub fail_on: Vec<String>,
}

/// `vpnbench report`
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Recorded trace; - is stdin. Several, also captures (pcap, pcapng), are joined by their packets
    #[arg(value_name = "TRACE", required_unless_present = "at")]
    pub traces: Vec<PathBuf>,
    /// Capture of another host of the run; TAP as in `analyze`
    #[arg(long, value_name = "HOST:TAP=FILE")]
    pub at: Vec<Source>,
    /// Form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Write the report to this file; - is stdout
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: Destination,
    /// Exit with status 5 if one of these findings is supported
    #[arg(long, value_name = "FINDING", value_delimiter = ',', value_parser = parse_finding)]
    pub fail_on: Vec<String>,
}
