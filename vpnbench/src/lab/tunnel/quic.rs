//! One stream of a QUIC connection between the ends.
//!
//! The connection's certificate is made on the spot and not checked: what the stream carries is
//! encrypted and authenticated with the tunnel's own key anyway, and this is a laboratory.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::account::{ThreadRecord, add};
use super::context::{Shared, Side};
use super::lane::{Input, Output, PATIENCE};
use super::packet::Packet;
use super::stream::{FrameReader, FrameWriter};
use super::udp::set_buffers;
use crate::lab::error::{LabError, Result};

/// Name in the certificate.
const NAME: &str = "vpnbench";
/// Flow control window of the stream and the connection in bytes, so that it never limits here.
const WINDOW: u32 = 16 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const CHUNK: usize = 1 << 18;

/// The thread that runs the connection, until the last user is gone.
struct Driver {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    fn start() -> io::Result<Driver> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let work = move || {
            let _closed = runtime.block_on(ended);
        };
        let thread = thread::Builder::new().name("quic".to_owned()).spawn(work)?;
        Ok(Driver {
            handle,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Both halves of the stream.
pub(super) struct Stream {
    send: SendStream,
    receive: RecvStream,
    connection: Connection,
    _endpoint: Endpoint,
    driver: Arc<Driver>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects the two ends. None if the tunnel is stopped meanwhile.
pub(super) fn connect(
    shared: &Shared,
    local: SocketAddr,
    peer: SocketAddr,
    listen: bool,
) -> Result<Option<Stream>> {
    let failed = || LabError::failed::<Failure>("opening a QUIC stream with", peer);
    let driver = Driver::start().map_err(|error| failed()(error.into()))?;
    let handle = driver.handle.clone();
    let _inside = handle.enter();
    let endpoint = endpoint(shared, local, listen).map_err(failed())?;
    let halves = handle.block_on(async {
        let joined = join(&endpoint, peer, listen);
        tokio::pin!(joined);
        loop {
            tokio::select! {
                outcome = &mut joined => return outcome.map(Some),
                () = tokio::time::sleep(PATIENCE) => if shared.stopping() { return Ok(None) },
            }
        }
    });
    let Some((connection, send, receive)) = halves.map_err(failed())? else {
        return Ok(None);
    };
    let driver = Arc::new(driver);
    Ok(Some(Stream {
        send,
        receive,
        connection,
        _endpoint: endpoint,
        driver,
    }))
}

async fn join(
    endpoint: &Endpoint,
    peer: SocketAddr,
    listen: bool,
) -> std::result::Result<(Connection, SendStream, RecvStream), Failure> {
    if listen {
        let incoming = endpoint.accept().await.ok_or("the endpoint was closed")?;
        let connection = incoming.await?;
        let (send, receive) = connection.accept_bi().await?;
        return Ok((connection, send, receive));
    }
    let connection = endpoint.connect(peer, NAME)?.await?;
    let (mut send, receive) = connection.open_bi().await?;
    // A stream exists for the peer only once something came through it: an empty frame.
    send.write_all(&[0; 4]).await?;
    Ok((connection, send, receive))
}

fn endpoint(
    shared: &Shared,
    local: SocketAddr,
    listen: bool,
) -> std::result::Result<Endpoint, Failure> {
    let socket = UdpSocket::bind(local)?;
    set_buffers(&socket, &shared.settings)?;
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let transport = Arc::new(transport);
    let server = if listen {
        Some(server_config(&transport)?)
    } else {
        None
    };
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), server, socket, runtime)?;
    if !listen {
        endpoint.set_default_client_config(client_config(transport)?);
    }
    Ok(endpoint)
}

fn server_config(transport: &Arc<TransportConfig>) -> std::result::Result<ServerConfig, Failure> {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

fn client_config(transport: Arc<TransportConfig>) -> std::result::Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport);
    Ok(config)
}

/// Takes any certificate; see the module's documentation.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.0.signature_verification_algorithms
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.algorithms();
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.algorithms();
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl Stream {
    /// The two halves, for two threads.
    pub(super) fn split(self, input: Side, output: Side) -> (QuicInput, QuicOutput) {
        let keep = Arc::new((self.connection, self._endpoint, self.driver));
        let reader = QuicInput {
            stream: self.receive,
            chunk: vec![0; CHUNK],
            filled: 0,
            frames: FrameReader::new(input),
            keep: Arc::clone(&keep),
        };
        let writer = QuicOutput {
            stream: self.send,
            frames: FrameWriter::new(output),
            keep,
        };
        (reader, writer)
    }
}

/// What must live as long as either half; the driver goes last.
type Keep = Arc<(Connection, Endpoint, Arc<Driver>)>;

/// Reads packets from the stream.
pub(super) struct QuicInput {
    stream: RecvStream,
    chunk: Vec<u8>,
    filled: usize,
    frames: FrameReader,
    keep: Keep,
}

impl QuicInput {
    /// Reads up to `limit` long into the chunk.
    fn fill(&mut self, limit: Duration) -> Result<()> {
        if self.filled > 0 {
            return Ok(());
        }
        let (stream, chunk) = (&mut self.stream, &mut self.chunk);
        let read = self
            .keep
            .2
            .handle
            .block_on(async { tokio::time::timeout(limit, stream.read(chunk)).await });
        let failed = || LabError::failed::<Failure>("reading", "the QUIC stream from the peer");
        match read {
            Err(_timeout) => Ok(()),
            Ok(Ok(Some(count))) => {
                self.filled = count;
                Ok(())
            }
            Ok(Ok(None)) | Ok(Err(quinn::ReadError::ConnectionLost(_))) => {
                self.frames.side.shared.peer_ended();
                Ok(())
            }
            Ok(Err(error)) => Err(failed()(error.into())),
        }
    }
}

impl Input for QuicInput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.frames.attach(thread);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn wait(&mut self, limit: Duration) {
        if let Err(error) = self.fill(limit) {
            // The next read meets the same error and reports it.
            log::debug!("{error}");
        }
    }

    fn read(&mut self, now: u64, out: &mut Vec<Packet>) -> Result<()> {
        self.fill(Duration::ZERO)?;
        let count = std::mem::take(&mut self.filled);
        if count > 0 {
            self.frames.take(&self.chunk[..count], now, out);
        }
        Ok(())
    }
}

/// Writes packets to the stream.
pub(super) struct QuicOutput {
    stream: SendStream,
    frames: FrameWriter,
    keep: Keep,
}

/// Writes everything; false if the tunnel is stopped meanwhile.
async fn write_all(
    stream: &mut SendStream,
    mut rest: &[u8],
    side: &Side,
) -> std::result::Result<bool, quinn::WriteError> {
    while !rest.is_empty() {
        match tokio::time::timeout(PATIENCE, stream.write(rest)).await {
            Ok(Ok(count)) => rest = &rest[count..],
            Ok(Err(quinn::WriteError::ConnectionLost(_))) => {
                side.shared.peer_ended();
                return Ok(false);
            }
            Ok(Err(error)) => return Err(error),
            Err(_timeout) => {
                add(&side.counters().blocked, 1);
                if side.shared.stopping() {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

impl Output for QuicOutput {
    fn attach(&mut self, thread: &ThreadRecord) {
        self.frames.attach(thread);
    }

    fn put(&mut self, packets: &mut Vec<Packet>) -> Result<()> {
        let (stream, handle) = (&mut self.stream, &self.keep.2.handle);
        self.frames.put(packets, |bytes, side| {
            handle
                .block_on(write_all(stream, bytes, side))
                .map_err(LabError::failed(
                    "writing to",
                    "the QUIC stream to the peer",
                ))
        })
    }
}
