//! `[benchmark]` of a scenario: which benchmark, with which parameters.
//!
//! ```toml
//! [benchmark]
//! name = "tcp"
//! preset = "study"      # optional: the parameters of the study; keys beside it change them
//! duration = "10s"
//! ```

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::Bench;
use super::span::Span;

/// A benchmark and all its parameters. Written out, every parameter is there.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Spec {
    /// iperf3 over TCP.
    Tcp(Tcp),
    /// iperf3 over UDP.
    Udp(Udp),
    /// Several iperf3 tests at once: around the ring of three hosts, or both ways between two.
    Parallel(Parallel),
    /// ICMP echo.
    Ping(Ping),
    /// UDP probes before and during a TCP load.
    LoadLatency(LoadLatency),
    /// QUIC bulk download.
    Quic(Quic),
    /// A real-time stream with retransmission.
    Stream(Stream),
    /// Download of many objects over HTTP/1.1.
    Http(Http),
    /// From the start of the VPN's daemons to the first answer to an HTTP request.
    Connect(Connect),
    /// How long nothing gets through when the VPN's daemons are restarted.
    Reconnect(Reconnect),
}

/// Parameters with another set that the study used.
trait Parameters: Default + Serialize + DeserializeOwned {
    /// The study's.
    fn study() -> Self;
    /// What is impossible about them; names the key.
    fn check(&self) -> Result<(), String>;
}

/// Defines a parameter struct with its defaults and the study's.
macro_rules! parameters {
    ($(#[$meta:meta])* $name:ident {
        $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr, study $study:expr;)*
    } check($this:ident) $check:block) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, rename_all = "snake_case")]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl Parameters for $name {
            fn study() -> Self {
                $name { $($field: $study,)* }
            }

            fn check(&self) -> Result<(), String> {
                let $this = self;
                $check
            }
        }
    };
}

parameters! {
    /// Parameters of `tcp`.
    Tcp {
        /// How long it sends.
        duration: Span = Span::seconds(10), study Span::seconds(30);
        /// Both directions at once (iperf3 --bidir).
        bidir: bool = false, study true;
        /// The server sends (iperf3 --reverse).
        reverse: bool = false, study false;
        /// Parallel streams (iperf3 --parallel).
        streams: u32 = 1, study 1;
        /// Congestion control; empty: the system's default. The study's hosts had cubic, while some
        /// systems default to bbr, through a lossy tunnel another experiment altogether.
        congestion: String = "cubic".to_owned(), study "cubic".to_owned();
        /// sendfile instead of write (iperf3 --zerocopy).
        zerocopy: bool = false, study true;
        /// Target rate per stream, bit/s; 0: as fast as it goes.
        rate_bps: u64 = 0, study 0;
        /// Leave out this much at the beginning (iperf3 --omit), whole seconds.
        omit: Span = Span::seconds(0), study Span::seconds(0);
    } check(this) {
        at_least("duration", this.duration, Span::seconds(1))?;
        within("streams", this.streams.into(), 1, 128)?;
        match this.bidir && this.reverse {
            true => Err("bidir: it already has the reverse direction".to_owned()),
            false => Ok(()),
        }
    }
}

parameters! {
    /// Parameters of `udp`.
    Udp {
        /// How long it sends.
        duration: Span = Span::seconds(10), study Span::seconds(30);
        /// Payload rate, bit/s; 0: as fast as it goes (iperf3 --bitrate 0).
        rate_bps: u64 = 0, study 0;
        /// Payload of a datagram, bytes; 0: what fits the path (iperf3's default).
        length: u32 = 0, study 0;
        /// The server sends.
        reverse: bool = false, study false;
    } check(this) {
        at_least("duration", this.duration, Span::seconds(1))?;
        within("length", this.length.into(), 0, 65_507)
    }
}

parameters! {
    /// Parameters of `parallel`.
    Parallel {
        /// How long each sends.
        duration: Span = Span::seconds(10), study Span::seconds(60);
        /// Each test in both directions at once.
        bidir: bool = false, study true;
        /// Congestion control; empty: the system's default.
        congestion: String = "cubic".to_owned(), study "cubic".to_owned();
    } check(this) {
        at_least("duration", this.duration, Span::seconds(1))
    }
}

parameters! {
    /// Parameters of `ping`.
    Ping {
        /// Requests per run.
        count: u32 = 50, study 100;
        /// Time between two.
        interval: Span = Span::millis(200), study Span::millis(200);
        /// Runs, one after the other.
        runs: u32 = 1, study 3;
        /// Payload bytes.
        size: u32 = 56, study 56;
        /// How long the last reply may take.
        timeout: Span = Span::seconds(1), study Span::seconds(1);
    } check(this) {
        within("count", this.count.into(), 1, 1_000_000)?;
        within("runs", this.runs.into(), 1, 1000)?;
        within("size", this.size.into(), 0, 65_507)?;
        at_least("interval", this.interval, Span::millis(2))
    }
}

parameters! {
    /// Parameters of `load-latency`. Not in the study.
    LoadLatency {
        /// How long the idle path is probed first.
        idle: Span = Span::seconds(3), study Span::seconds(10);
        /// How long there is load.
        duration: Span = Span::seconds(10), study Span::seconds(30);
        /// Time between two probes.
        interval: Span = Span::millis(10), study Span::millis(10);
        /// TCP streams of the load.
        streams: u32 = 1, study 1;
        /// Congestion control of the load; empty: the system's default.
        congestion: String = "cubic".to_owned(), study "cubic".to_owned();
    } check(this) {
        at_least("idle", this.idle, Span::millis(200))?;
        at_least("duration", this.duration, Span::millis(200))?;
        at_least("interval", this.interval, Span::millis(1))?;
        within("streams", this.streams.into(), 1, 64)
    }
}

parameters! {
    /// Parameters of `quic`.
    Quic {
        /// How long the server sends.
        duration: Span = Span::seconds(10), study Span::seconds(30);
        /// Connections at once, each with its own sockets and threads (the study: one qperf for
        /// each of 8 hardware threads).
        connections: u32 = 1, study 8;
        /// First UDP port; each connection has its own.
        port: u16 = 18_000, study 18_000;
    } check(this) {
        at_least("duration", this.duration, Span::millis(200))?;
        within("connections", this.connections.into(), 1, 64)?;
        within("port", this.port.into(), 1024, 65_000)
    }
}

/// Who sends and receives a real-time stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamBackend {
    /// librist's tools where they are installed, else the embedded endpoints.
    #[default]
    Auto,
    /// Endpoints of the lab's own.
    Embedded,
    /// `ristsender` and `ristreceiver`.
    Librist,
}

parameters! {
    /// Parameters of `stream`.
    Stream {
        /// How long it sends.
        duration: Span = Span::seconds(10), study Span::seconds(30);
        /// Payload rate, bit/s: what the study's encoder really produced.
        rate_bps: u64 = 3_300_000, study 3_300_000;
        /// Payload of a packet, bytes: seven MPEG-TS packets.
        payload: u32 = 1316, study 1316;
        /// Time a packet may take, lost copies included.
        buffer: Span = Span::millis(400), study Span::millis(400);
        /// Who sends and receives.
        backend: StreamBackend = StreamBackend::Embedded, study StreamBackend::Auto;
        /// UDP port.
        port: u16 = 40_052, study 40_052;
    } check(this) {
        at_least("duration", this.duration, Span::millis(500))?;
        at_least("buffer", this.buffer, Span::millis(1))?;
        within("payload", this.payload.into(), 64, 9000)?;
        within("rate_bps", this.rate_bps, 10_000, 1_000_000_000)?;
        within("port", this.port.into(), 1024, 65_535)
    }
}

parameters! {
    /// Parameters of `http`. Sizes are log-normal, as those of the store paths of a closure roughly
    /// are: many small ones and a few that hold most bytes. Same seed, same sizes.
    Http {
        /// Objects to fetch.
        objects: u32 = 370, study 370;
        /// Downloads at a time, each over a connection of its own (Nix: `http-connections`, 25).
        parallel: u32 = 1, study 25;
        /// Times all of them are fetched and measured.
        repetitions: u32 = 1, study 2;
        /// Times all of them are fetched before, unmeasured.
        warm_up: u32 = 0, study 1;
        /// Seed of the sizes.
        seed: u64 = 1, study 1;
        /// Median size, bytes.
        median_bytes: u64 = 65_536, study 65_536;
        /// Standard deviation of the logarithm of the size.
        sigma: f64 = 2.0, study 2.0;
        /// Largest size, bytes.
        largest_bytes: u64 = 67_108_864, study 67_108_864;
        /// TCP port.
        port: u16 = 8080, study 8080;
    } check(this) {
        within("objects", this.objects.into(), 1, 100_000)?;
        within("parallel", this.parallel.into(), 1, 256)?;
        within("repetitions", this.repetitions.into(), 1, 1000)?;
        within("median_bytes", this.median_bytes, 1, this.largest_bytes)?;
        within("largest_bytes", this.largest_bytes, 1, 1 << 32)?;
        match (0.0..=5.0).contains(&this.sigma) {
            true => within("port", this.port.into(), 1, 65_535),
            false => Err(format!("sigma: {} is not within 0 and 5", this.sigma)),
        }
    }
}

parameters! {
    /// Parameters of `connect`.
    Connect {
        /// Time between two HTTP requests.
        interval: Span = Span::millis(50), study Span::seconds(1);
        /// How long one may take.
        timeout: Span = Span::seconds(1), study Span::seconds(1);
        /// Requests until it gives up.
        attempts: u32 = 1200, study 300;
    } check(this) {
        at_least("interval", this.interval, Span::millis(1))?;
        at_least("timeout", this.timeout, Span::millis(10))?;
        within("attempts", this.attempts.into(), 1, 1_000_000)
    }
}

parameters! {
    /// Parameters of `reconnect`. Not in the study.
    Reconnect {
        /// Time between two UDP probes.
        interval: Span = Span::millis(10), study Span::millis(10);
        /// How long to wait for the first answer after the restart.
        limit: Span = Span::seconds(60), study Span::seconds(60);
    } check(this) {
        at_least("interval", this.interval, Span::millis(1))?;
        at_least("limit", this.limit, Span::millis(100))
    }
}

fn at_least(key: &str, value: Span, least: Span) -> Result<(), String> {
    match value >= least {
        true => Ok(()),
        false => Err(format!("{key}: {value} is less than {least}")),
    }
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("{key}: {value} is not within {least} and {most}")),
    }
}

impl Default for Spec {
    fn default() -> Spec {
        Spec::Tcp(Tcp::default())
    }
}

impl From<Bench> for Spec {
    fn from(bench: Bench) -> Spec {
        match bench {
            Bench::Tcp => Spec::Tcp(Tcp::default()),
            Bench::Udp => Spec::Udp(Udp::default()),
            Bench::Parallel => Spec::Parallel(Parallel::default()),
            Bench::Ping => Spec::Ping(Ping::default()),
            Bench::LoadLatency => Spec::LoadLatency(LoadLatency::default()),
            Bench::Quic => Spec::Quic(Quic::default()),
            Bench::Stream => Spec::Stream(Stream::default()),
            Bench::Http => Spec::Http(Http::default()),
            Bench::Connect => Spec::Connect(Connect::default()),
            Bench::Reconnect => Spec::Reconnect(Reconnect::default()),
        }
    }
}

impl Spec {
    /// Which benchmark.
    #[must_use]
    pub fn bench(&self) -> Bench {
        match self {
            Spec::Tcp(_) => Bench::Tcp,
            Spec::Udp(_) => Bench::Udp,
            Spec::Parallel(_) => Bench::Parallel,
            Spec::Ping(_) => Bench::Ping,
            Spec::LoadLatency(_) => Bench::LoadLatency,
            Spec::Quic(_) => Bench::Quic,
            Spec::Stream(_) => Bench::Stream,
            Spec::Http(_) => Bench::Http,
            Spec::Connect(_) => Bench::Connect,
            Spec::Reconnect(_) => Bench::Reconnect,
        }
    }

    /// Sets how long it runs. Ping gets as many requests as fit; the benchmarks that end when
    /// their work is done (`http`, `connect`, `reconnect`) stay as they are.
    pub fn set_duration(&mut self, duration: std::time::Duration) {
        let span = Span(duration);
        match self {
            Spec::Tcp(one) => one.duration = span,
            Spec::Udp(one) => one.duration = span,
            Spec::Parallel(one) => one.duration = span,
            Spec::LoadLatency(one) => one.duration = span,
            Spec::Quic(one) => one.duration = span,
            Spec::Stream(one) => one.duration = span,
            Spec::Ping(one) => {
                let count = (span.as_s() / one.interval.as_s().max(1e-3)).ceil();
                one.count = (count as u32).max(1);
            }
            Spec::Http(_) | Spec::Connect(_) | Spec::Reconnect(_) => {}
        }
    }

    /// How long it runs if nothing holds it up; `None` where that depends on what it measures.
    #[must_use]
    pub fn duration(&self) -> Option<std::time::Duration> {
        Some(match self {
            Spec::Tcp(one) => one.duration.0 + one.omit.0,
            Spec::Udp(one) => one.duration.0,
            Spec::Parallel(one) => one.duration.0,
            Spec::Ping(one) => one.interval.0 * one.count * one.runs,
            Spec::LoadLatency(one) => one.idle.0 + one.duration.0,
            Spec::Quic(one) => one.duration.0,
            Spec::Stream(one) => one.duration.0 + one.buffer.0,
            Spec::Http(_) | Spec::Connect(_) | Spec::Reconnect(_) => return None,
        })
    }

    /// Reads keys and values; `name` is required, `preset` may be `study` or `default`.
    pub fn read(mut keys: Map<String, Value>) -> Result<Spec, String> {
        let mut text = |key: &str| match keys.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key}: {other} is not a text")),
        };
        let name = text("name")?.unwrap_or_else(|| Bench::Tcp.name().to_owned());
        let bench: Bench = name.parse().map_err(|error| format!("name: {error}"))?;
        let study = match text("preset")?.as_deref() {
            None | Some("default") => false,
            Some("study") => true,
            Some(other) => {
                return Err(format!(
                    "preset: no preset {other:?}; there are: default, study"
                ));
            }
        };
        Ok(match bench {
            Bench::Tcp => Spec::Tcp(overlay(study, keys)?),
            Bench::Udp => Spec::Udp(overlay(study, keys)?),
            Bench::Parallel => Spec::Parallel(overlay(study, keys)?),
            Bench::Ping => Spec::Ping(overlay(study, keys)?),
            Bench::LoadLatency => Spec::LoadLatency(overlay(study, keys)?),
            Bench::Quic => Spec::Quic(overlay(study, keys)?),
            Bench::Stream => Spec::Stream(overlay(study, keys)?),
            Bench::Http => Spec::Http(overlay(study, keys)?),
            Bench::Connect => Spec::Connect(overlay(study, keys)?),
            Bench::Reconnect => Spec::Reconnect(overlay(study, keys)?),
        })
    }
}

/// The preset's parameters with the given ones in their place.
fn overlay<T: Parameters>(study: bool, keys: Map<String, Value>) -> Result<T, String> {
    let base = if study { T::study() } else { T::default() };
    let Ok(Value::Object(mut all)) = serde_json::to_value(base) else {
        return Err("the preset cannot be written as keys and values".to_owned());
    };
    all.extend(keys);
    // One by one, so that an error names its key.
    for (key, value) in &all {
        let one = Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<T>(Value::Object(one))
            .map_err(|error| format!("{key}: {error}"))?;
    }
    let parameters: T =
        serde_json::from_value(Value::Object(all)).map_err(|error| error.to_string())?;
    parameters.check()?;
    Ok(parameters)
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Spec, D::Error> {
        let keys = Map::deserialize(deserializer)?;
        Spec::read(keys).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Spec, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_preset_is_changed_by_the_keys_beside_it() {
        let spec = toml("name = \"tcp\"\npreset = \"study\"\nduration = \"5s\"");
        let expected = Tcp {
            duration: Span::seconds(5),
            ..Tcp::study()
        };
        assert_eq!(spec, Ok(Spec::Tcp(expected)));
        assert_eq!(toml(""), Ok(Spec::default()));
        let Ok(Spec::Quic(quic)) = toml("name = \"quic\"\npreset = \"study\"") else {
            panic!("no quic")
        };
        assert_eq!((quic.connections, quic.duration), (8, Span::seconds(30)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("name = \"tcq\"", "no benchmark \"tcq\""),
            ("preset = \"fast\"", "no preset \"fast\""),
            ("name = \"udp\"\nstreams = 2", "streams: unknown field"),
            ("duration = \"soon\"", "duration: \"soon\" is not a length"),
            ("duration = 10", "duration: invalid type"),
            ("streams = 0", "streams: 0 is not within 1"),
            ("bidir = true\nreverse = true", "bidir:"),
            ("name = \"http\"\nsigma = 9.0", "sigma: 9"),
        ] {
            let error = toml(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn every_benchmark_survives_being_written_and_read() {
        for bench in Bench::ALL {
            let spec = Spec::from(bench);
            assert_eq!(spec.bench(), bench);
            let json = serde_json::to_string(&spec).unwrap_or_default();
            assert!(
                json.contains(&format!("\"name\":\"{}\"", bench.name())),
                "{json}"
            );
            let read: Result<Spec, _> = serde_json::from_str(&json);
            assert_eq!(read.ok(), Some(spec));
            let study = format!("name = \"{}\"\npreset = \"study\"", bench.name());
            assert!(toml(&study).is_ok(), "{study}");
        }
        let schema = serde_json::to_string(&schemars::schema_for!(Spec)).unwrap_or_default();
        assert!(schema.contains("load-latency") && schema.contains("congestion"));
    }
}
