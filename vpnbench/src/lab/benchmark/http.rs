//! Download of many objects over HTTP/1.1: a server in b, a client in a.
//!
//! `GET /object/N` answers with N bytes that do not compress; `GET /name` with the server's name,
//! which `connect` asks for as the study's connection test did.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::endpoint::{self, Failure, local_port, monotonic_ns};
use super::spec::Http;
use super::{Ready, Setup, Transport, listens};
use crate::analysis::benchmark::Benchmark;
use crate::analysis::benchmark::model::{Connection, Quantiles, Transfers};
use crate::lab::error::Result;
use crate::lab::part;

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How long one object may take without a byte.
const STALL: Duration = Duration::from_secs(30);

/// Settings of the part `http-server`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Server {
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// What it answers to `/name`.
    pub(super) name: String,
}

/// Settings of the part `http-client`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Client {
    server: SocketAddr,
    spec: Http,
}

/// Starts the server and waits until it listens.
pub(super) fn prepare(spec: &Http, setup: Setup<'_>) -> Result<Ready> {
    let server = SocketAddr::new(setup.server_address(), spec.port);
    let settings = Server {
        listen: server,
        name: "b".to_owned(),
    };
    let log = setup.logs.join("http-server.log");
    let process = part::start(
        setup.undo,
        "http-server",
        &settings,
        &setup.hosts.b.netns,
        log,
    )?;
    listens(&process, Transport::Tcp, spec.port)?;
    let client = Client {
        server,
        spec: spec.clone(),
    };
    Ok(Ready::of(
        vec![process],
        endpoint::command("http-client", &client)?,
    ))
}

/// The part `http-server`.
pub(in crate::lab) fn serve(settings: &str) -> Result<()> {
    let server: Server = part::settings("http-server", settings)?;
    endpoint::run("http-server", async move {
        let listener = TcpListener::bind(server.listen)
            .await
            .map_err(Failure::of(format!("listening on {}", server.listen)))?;
        let mut pattern = vec![0; CHUNK_BYTES];
        StdRng::seed_from_u64(1).fill_bytes(&mut pattern);
        let (pattern, name) = (Bytes::from(pattern), Bytes::from(server.name));
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map_err(Failure::of("accepting"))?.0,
                () = endpoint::terminated() => return Ok(()),
            };
            let (pattern, name) = (pattern.clone(), name.clone());
            let service = service_fn(move |request| {
                let answer = answer(&request, &pattern, &name);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A connection that fails concerns its client, who says so.
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    })
}

fn answer(request: &Request<Incoming>, pattern: &Bytes, name: &Bytes) -> Response<Repeated> {
    let path = request.uri().path();
    let size = path.strip_prefix("/object/").map(str::parse::<u64>);
    let (status, chunk, left) = match size {
        Some(Ok(size)) => (StatusCode::OK, pattern, size),
        _ if path == "/name" => (StatusCode::OK, name, name.len() as u64),
        _ => (StatusCode::NOT_FOUND, pattern, 0),
    };
    let mut response = Response::new(Repeated {
        chunk: chunk.clone(),
        left,
    });
    *response.status_mut() = status;
    response
}

/// A body of some length that repeats a chunk.
struct Repeated {
    chunk: Bytes,
    left: u64,
}

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(self.chunk.len() as u64);
        self.left -= length;
        let data = self.chunk.slice(..length as usize);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Sizes of the objects: log-normal, at least 1 byte, at most the largest.
fn sizes(spec: &Http) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(spec.seed);
    let logarithm = (spec.median_bytes.max(1) as f64).ln();
    let Ok(distribution) = LogNormal::new(logarithm, spec.sigma) else {
        return vec![spec.median_bytes; spec.objects as usize];
    };
    let size = |_| {
        let size: f64 = distribution.sample(&mut random);
        (size as u64).clamp(1, spec.largest_bytes)
    };
    (0..spec.objects).map(size).collect()
}

/// What the downloads of one repetition share.
#[derive(Default)]
struct Tally {
    next: AtomicUsize,
    done: Mutex<Done>,
}

#[derive(Default, Clone)]
struct Done {
    objects: u64,
    failed: u64,
    bytes: u64,
    object_us: Vec<f64>,
    connect_us: Vec<f64>,
    first_byte_us: Vec<f64>,
    ports: Vec<u16>,
    error: Option<String>,
}

impl Tally {
    fn add(&self, change: impl FnOnce(&mut Done)) {
        change(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The part `http-client`.
pub(in crate::lab) fn fetch(settings: &str) -> Result<()> {
    let client: Client = part::settings("http-client", settings)?;
    endpoint::run("http-client", async move {
        let sizes: Arc<[u64]> = sizes(&client.spec).into();
        for _ in 0..client.spec.warm_up {
            repetition(&client, &sizes).await;
        }
        let started_ns = monotonic_ns();
        let (mut done, mut times) = (Done::default(), Vec::new());
        for _ in 0..client.spec.repetitions {
            let begun = Instant::now();
            let one = repetition(&client, &sizes).await;
            times.push(begun.elapsed().as_secs_f64());
            done.merge(one);
        }
        let result = result(&client, done, &times, started_ns);
        endpoint::emit(&result)
    })
}

/// Fetches all objects once.
async fn repetition(client: &Client, sizes: &Arc<[u64]>) -> Done {
    let tally = Arc::new(Tally::default());
    let mut workers = JoinSet::new();
    for _ in 0..client.spec.parallel {
        workers.spawn(worker(client.server, sizes.clone(), tally.clone()));
    }
    while workers.join_next().await.is_some() {}
    let done = tally.done.lock().unwrap_or_else(PoisonError::into_inner);
    done.clone()
}

/// Fetches objects until there are none left, over one connection while that lives.
async fn worker(server: SocketAddr, sizes: Arc<[u64]>, tally: Arc<Tally>) {
    let mut connection = None;
    loop {
        let Some(size) = sizes.get(tally.next.fetch_add(1, Ordering::Relaxed)) else {
            return;
        };
        let begun = Instant::now();
        let fetched = async {
            if connection.is_none() {
                connection = Some(connect(server, &tally).await?);
            }
            match connection.as_mut() {
                Some(sender) => object(sender, *size, &tally).await,
                None => Err("no connection".to_owned()),
            }
        };
        match fetched.await {
            Ok(bytes) => tally.add(|done| {
                done.objects += 1;
                done.bytes += bytes;
                done.object_us.push(begun.elapsed().as_secs_f64() * 1e6);
            }),
            Err(error) => {
                connection = None;
                tally.add(|done| {
                    done.failed += 1;
                    done.error.get_or_insert(error);
                });
            }
        }
        if endpoint::is_terminated() {
            return;
        }
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(server: SocketAddr, tally: &Tally) -> std::result::Result<Sender, String> {
    let begun = Instant::now();
    let stream = within(TcpStream::connect(server), "connecting").await?;
    let taken = begun.elapsed();
    let port = local_port(stream.local_addr());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    tally.add(|done| {
        done.connect_us.push(taken.as_secs_f64() * 1e6);
        done.ports.extend(port);
    });
    Ok(sender)
}

/// Fetches one object whole and returns its bytes.
async fn object(sender: &mut Sender, size: u64, tally: &Tally) -> std::result::Result<u64, String> {
    let begun = Instant::now();
    within(sender.ready(), "waiting for the connection").await?;
    let request = Request::get(format!("/object/{size}"))
        .header("host", "vpnbench")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = within(sender.send_request(request), "requesting").await?;
    if response.status() != StatusCode::OK {
        return Err(format!("the server answered {}", response.status()));
    }
    let mut body = response.into_body();
    let (mut bytes, mut first) = (0, None);
    while let Some(frame) = tokio::time::timeout(STALL, body.frame())
        .await
        .map_err(|_| format!("no byte for {} s", STALL.as_secs()))?
    {
        let frame = frame.map_err(|error| error.to_string())?;
        first.get_or_insert_with(|| begun.elapsed());
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    if bytes != size {
        return Err(format!("{bytes} of {size} bytes arrived"));
    }
    tally.add(|done| {
        let first_us = first.map(|first| first.as_secs_f64() * 1e6);
        done.first_byte_us.extend(first_us);
    });
    Ok(bytes)
}

/// Awaits something that may fail or stall.
async fn within<T, E: std::fmt::Display>(
    future: impl Future<Output = std::result::Result<T, E>>,
    what: &str,
) -> std::result::Result<T, String> {
    match tokio::time::timeout(STALL, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing for {} s", STALL.as_secs())),
    }
}

impl Done {
    fn merge(&mut self, other: Done) {
        self.objects += other.objects;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.object_us.extend(other.object_us);
        self.connect_us.extend(other.connect_us);
        self.first_byte_us.extend(other.first_byte_us);
        self.ports.extend(other.ports);
        self.error = self.error.take().or(other.error);
    }
}

fn result(client: &Client, done: Done, times: &[f64], started_ns: u64) -> Benchmark {
    let seconds: f64 = times.iter().sum();
    let wanted = u64::from(client.spec.objects) * u64::from(client.spec.repetitions);
    let connections = done.ports.iter().map(|port| Connection {
        local_port: *port,
        remote_port: client.server.port(),
        protocol: "tcp".to_owned(),
    });
    Benchmark {
        kind: "http".to_owned(),
        throughput_bps_received: (seconds > 0.0).then(|| 8.0 * done.bytes as f64 / seconds),
        bytes_received: Some(done.bytes),
        duration_s: Some(seconds),
        started_ns: Some(started_ns),
        streams: Some(client.spec.parallel),
        complete: done.objects == wanted,
        error: done.error,
        connections: connections.collect(),
        connect_us: Quantiles::of(done.connect_us),
        first_byte_us: Quantiles::of(done.first_byte_us),
        transfers: Some(Transfers {
            objects: done.objects,
            failed: done.failed,
            concurrency: client.spec.parallel,
            bytes: done.bytes,
            repetitions_s: times.to_vec(),
            mean_s: Some(seconds / times.len().max(1) as f64),
            object_us: Quantiles::of(done.object_us),
        }),
        ..endpoint::own()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_seed_and_the_distribution() {
        let spec = Http {
            objects: 10_000,
            ..Http::default()
        };
        let mut all = sizes(&spec);
        assert_eq!(all, sizes(&spec), "same seed, same sizes");
        let other = Http {
            seed: 2,
            ..spec.clone()
        };
        assert_ne!(all, sizes(&other));
        assert!(
            all.iter()
                .all(|size| (1..=spec.largest_bytes).contains(size))
        );
        all.sort_unstable();
        let median = all[all.len() / 2] as f64 / spec.median_bytes as f64;
        assert!((0.9..1.1).contains(&median), "{median}");
        let flat = Http { sigma: 0.0, ..spec };
        assert!(sizes(&flat).iter().all(|size| size.abs_diff(65_536) <= 1));
    }
}
