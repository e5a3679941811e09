//! The few of Perfetto's messages and fields that are written, with the numbers of its protocol buffers
//! (protos/perfetto/trace/trace_packet.proto, track_event/*.proto, clock_snapshot.proto). The test
//! decodes what is written with the descriptors that its own Python package ships.

/// `Trace`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Trace {
    #[prost(message, repeated, tag = "1")]
    pub(super) packet: Vec<TracePacket>,
}

/// `TracePacket`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    pub(super) timestamp: Option<u64>,
    #[prost(oneof = "Sequence", tags = "10")]
    pub(super) sequence: Option<Sequence>,
    #[prost(uint32, optional, tag = "13")]
    pub(super) sequence_flags: Option<u32>,
    #[prost(oneof = "Data", tags = "6, 11, 60")]
    pub(super) data: Option<Data>,
}

/// `TracePacket.optional_trusted_packet_sequence_id`
#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub(super) enum Sequence {
    #[prost(uint32, tag = "10")]
    Id(u32),
}

/// `TracePacket.data`
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Data {
    #[prost(message, tag = "6")]
    Clocks(ClockSnapshot),
    #[prost(message, tag = "11")]
    Event(TrackEvent),
    #[prost(message, tag = "60")]
    Track(Track),
}

/// `ClockSnapshot`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClockSnapshot {
    #[prost(message, repeated, tag = "1")]
    pub(super) clocks: Vec<Clock>,
}

/// `ClockSnapshot.Clock`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Clock {
    #[prost(uint32, optional, tag = "1")]
    pub(super) id: Option<u32>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) timestamp: Option<u64>,
}

/// `TrackDescriptor`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Track {
    #[prost(uint64, optional, tag = "1")]
    pub(super) uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(super) process: Option<Process>,
    #[prost(message, optional, tag = "4")]
    pub(super) thread: Option<Thread>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) parent: Option<u64>,
    #[prost(message, optional, tag = "8")]
    pub(super) counter: Option<Counter>,
}

/// `ProcessDescriptor`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Process {
    #[prost(int32, optional, tag = "1")]
    pub(super) pid: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub(super) name: Option<String>,
}

/// `ThreadDescriptor`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Thread {
    #[prost(int32, optional, tag = "1")]
    pub(super) pid: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    pub(super) tid: Option<i32>,
    #[prost(string, optional, tag = "5")]
    pub(super) name: Option<String>,
}

/// `CounterDescriptor`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Counter {
    #[prost(string, optional, tag = "6")]
    pub(super) unit_name: Option<String>,
}

/// `TrackEvent.Type`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SliceBegin = 1,
    SliceEnd = 2,
    Instant = 3,
    Counter = 4,
}

/// `TrackEvent`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    pub(super) annotations: Vec<Annotation>,
    #[prost(int32, optional, tag = "9")]
    pub(super) kind: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    pub(super) track: Option<u64>,
    #[prost(string, optional, tag = "23")]
    pub(super) name: Option<String>,
    #[prost(int64, optional, tag = "30")]
    pub(super) value: Option<i64>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub(super) flows: Vec<u64>,
}

/// `DebugAnnotation`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Annotation {
    #[prost(string, optional, tag = "10")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "3")]
    count: Option<u64>,
    #[prost(int64, optional, tag = "4")]
    result: Option<i64>,
}

impl Annotation {
    /// A count of something.
    pub(super) fn of_count(name: &str, count: u64) -> Annotation {
        Annotation {
            name: Some(name.to_owned()),
            count: Some(count),
            result: None,
        }
    }

    /// What a system call returned.
    pub(super) fn of_result(result: i64) -> Annotation {
        Annotation {
            name: Some("result".to_owned()),
            count: None,
            result: Some(result),
        }
    }
}
