//! Makes one connection to the upstream: name, TCP, TLS, CONNECT, CONNACK, all within
//! `connect_timeout`. Name and credentials are read anew each time, and every address is tried. In
//! come settings, out goes a connection that is up or the reason why there is none, in words for
//! the operator. A door: it opens sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: it resolves names and opens sockets within time-outs"
)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::answers::first_packet;
use super::greeting::{Refusal, Welcome, connack, connect};
use super::no_connection::{DialError, Step};
use super::secret::Revealed;
use super::socket::{SendBuffer, Socket};
use super::tls::client_config;
use super::{Link, RemoteSettings, TlsSettings, UplinkSettings, handshake};
use crate::clock::Clock;
use crate::traffic::message::Tick;

/// What TLS may hold back in memory besides: one record.
const TLS_BUFFER_BYTES: usize = 16 * 1024;
/// Addresses of one name that are tried at each connect. Clouds give about eight.
const ADDRESSES_MAX: usize = 16;

/// A byte stream, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection that is up.
pub(super) struct Dialed {
    pub(super) stream: Box<dyn Stream>,
    pub(super) welcome: Welcome,
    /// Bytes that came behind CONNACK.
    pub(super) received: BytesMut,
    pub(super) address: SocketAddr,
    /// The TLS version, if it is TLS.
    pub(super) tls: Option<&'static str>,
    /// How long TCP took to connect: one round trip.
    pub(super) connected_in: Duration,
    /// When CONNECT was said.
    pub(super) asked: Tick,
    /// How long its answer took.
    pub(super) answered_in: Duration,
    pub(super) send_buffer: SendBuffer,
}

/// Connects. `turn` counts the tries, so that not each begins with the same address.
pub(super) async fn dial(
    settings: &UplinkSettings,
    link: Link,
    turn: u64,
    clock: Clock,
) -> Result<Dialed, DialError> {
    let remote = &settings.remote;
    let whole = remote.connect_timeout;
    let deadline = clock.now().after(whole);
    let caller = timeout(whole, Caller::prepare(settings, link, clock))
        .await
        .map_err(|_| DialError::TooLate(Step::Files, None, whole))??;
    let mut addresses = timeout(whole, resolve(remote))
        .await
        .map_err(|_| DialError::TooLate(Step::Name, None, whole))??;
    let first = turn.checked_rem(addresses.len() as u64).unwrap_or(0);
    addresses.rotate_left(usize::try_from(first).unwrap_or(0));
    caller.call_each(addresses, deadline).await
}

async fn resolve(remote: &RemoteSettings) -> Result<Vec<SocketAddr>, DialError> {
    let found = lookup_host((remote.host.as_str(), remote.port))
        .await
        .map_err(|error| DialError::NoAddress(Some(error)))?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

/// All that a call needs, whatever the address.
pub(super) struct Caller<'a> {
    settings: &'a UplinkSettings,
    connect: BytesMut,
    tls: Option<(TlsConnector, ServerName<'static>, &'a TlsSettings)>,
    clock: Clock,
}

/// What was read from disk for one try.
type Credentials = (Option<Revealed>, Option<rustls::ClientConfig>);

impl<'a> Caller<'a> {
    pub(super) async fn prepare(
        settings: &'a UplinkSettings,
        link: Link,
        clock: Clock,
    ) -> Result<Self, DialError> {
        let remote = &settings.remote;
        let (password, config) = credentials(remote.clone()).await?;
        let connect = connect(settings, link, password.as_ref()).map_err(|error| {
            DialError::Settings(format!("its settings make no CONNECT packet ({error})"))
        })?;
        let tls = match (config, &remote.tls) {
            (Some(config), Some(tls)) => {
                let name = ServerName::try_from(remote.host.clone()).map_err(|_| {
                    DialError::Settings(format!(
                        "{:?} in `url` is no host name or address that TLS can check",
                        remote.host
                    ))
                })?;
                Some((TlsConnector::from(Arc::new(config)), name, tls))
            }
            _ => None,
        };
        Ok(Self {
            settings,
            connect,
            tls,
            clock,
        })
    }

    /// One address after the other, until one answers; each has an equal share of the time that is left.
    pub(super) async fn call_each(
        &self,
        addresses: Vec<SocketAddr>,
        deadline: Tick,
    ) -> Result<Dialed, DialError> {
        let mut result = Err(DialError::NoAddress(None));
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let share = deadline.since(self.clock.now()) / left.max(1);
            left = left.saturating_sub(1);
            result = self.call(address, share).await;
            match &result {
                Err(error) if error.is_worth_another() => {}
                _ => break,
            }
        }
        result
    }

    /// One address, within `share`.
    async fn call(&self, address: SocketAddr, share: Duration) -> Result<Dialed, DialError> {
        let mut step = Step::Tcp;
        let try_it = self.try_address(address, &mut step);
        match timeout(share, try_it).await {
            Ok(result) => result,
            Err(_) => Err(DialError::TooLate(step, Some(address), tenths(share))),
        }
    }

    async fn try_address(&self, address: SocketAddr, step: &mut Step) -> Result<Dialed, DialError> {
        let began = self.clock.now();
        let tcp = open(address, self.settings)
            .await
            .map_err(|error| DialError::Network(Step::Tcp, address, error))?;
        let connected_in = self.clock.now().since(began);
        let tcp = Socket::new(tcp);
        let buffer = tcp
            .send_buffer()
            .map_err(|error| DialError::Network(Step::Tcp, address, error))?;
        let Some((connector, name, tls)) = &self.tls else {
            *step = Step::Connack;
            let tcp = Box::new(tcp);
            return self.greet(tcp, buffer, address, connected_in, None).await;
        };
        *step = Step::Tls;
        let explain = |error| self.explain(Step::Tls, address, error, tls);
        let stream = connector
            .connect_with(name.clone(), tcp, |session| {
                session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            })
            .await
            .map_err(explain)?;
        let version = stream.get_ref().1.protocol_version().map(version_name);
        *step = Step::Connack;
        let stream = Box::new(stream);
        self.greet(stream, buffer, address, connected_in, version)
            .await
    }

    fn explain(
        &self,
        step: Step,
        address: SocketAddr,
        error: io::Error,
        tls: &TlsSettings,
    ) -> DialError {
        match handshake::explain(&error, &self.settings.remote.host, tls) {
            Some(sentence) => DialError::Handshake(sentence),
            None => DialError::Network(step, address, error),
        }
    }

    /// CONNECT and CONNACK.
    async fn greet(
        &self,
        mut stream: Box<dyn Stream>,
        send_buffer: SendBuffer,
        address: SocketAddr,
        connected_in: Duration,
        tls: Option<&'static str>,
    ) -> Result<Dialed, DialError> {
        let asked = self.clock.now();
        // A server that turned us down may have closed already. Why it did can still be read, so a
        // failed write decides nothing.
        let written = write(&mut stream, &self.connect).await;
        let mut received = BytesMut::new();
        let welcome = match self.answer(&mut stream, address, &mut received).await {
            Err(DialError::Closed(..)) if written.is_err() => {
                let error = written
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                return Err(DialError::Network(Step::Connack, address, error));
            }
            answer => answer?,
        };
        Ok(Dialed {
            stream,
            welcome,
            received,
            address,
            tls,
            connected_in,
            asked,
            answered_in: self.clock.now().since(asked),
            send_buffer,
        })
    }

    async fn answer(
        &self,
        stream: &mut Box<dyn Stream>,
        address: SocketAddr,
        received: &mut BytesMut,
    ) -> Result<Welcome, DialError> {
        loop {
            match first_packet(received) {
                Ok(None) => {}
                Ok(Some((packet, size))) => {
                    let welcome = connack(packet, self.settings.protocol);
                    let _ = received.split_to(size);
                    return welcome.map_err(|refusal| refused(refusal, address));
                }
                Err(_) => return Err(DialError::NotMqtt(address)),
            }
            match stream.read_buf(received).await {
                Ok(0) => return Err(DialError::Closed(address, self.tls.is_some())),
                Ok(_) => {}
                Err(error) => return Err(self.broken(address, error)),
            }
        }
    }

    fn broken(&self, address: SocketAddr, error: io::Error) -> DialError {
        let closed = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        );
        match &self.tls {
            Some((_, _, tls)) if !closed => self.explain(Step::Connack, address, error, tls),
            _ if closed => DialError::Closed(address, self.tls.is_some()),
            _ => DialError::Network(Step::Connack, address, error),
        }
    }
}

/// A time as a person reads it.
fn tenths(time: Duration) -> Duration {
    let tenths = time.as_millis().saturating_add(50) / 100;
    Duration::from_millis(
        u64::try_from(tenths)
            .unwrap_or(u64::MAX)
            .saturating_mul(100),
    )
}

async fn write(stream: &mut Box<dyn Stream>, packet: &[u8]) -> io::Result<()> {
    stream.write_all(packet).await?;
    stream.flush().await
}

fn refused(refusal: Refusal, address: SocketAddr) -> DialError {
    match refusal {
        Refusal::Code(code, why) => DialError::Refused(code, why),
        Refusal::NoQos1 => DialError::NoQos1,
        Refusal::Malformed => DialError::NotMqtt(address),
    }
}

fn version_name(version: rustls::ProtocolVersion) -> &'static str {
    match version {
        rustls::ProtocolVersion::TLSv1_3 => "TLS 1.3",
        rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2",
        _ => "TLS",
    }
}

/// Reads what may have changed since the last try. On a thread that may wait: the system's
/// authorities take tens of milliseconds on a small box.
async fn credentials(remote: RemoteSettings) -> Result<Credentials, DialError> {
    let read = move || {
        let password = remote.password.as_ref().map(super::Secret::read);
        let config = remote.tls.as_ref().map(client_config);
        Ok((
            password.transpose().map_err(DialError::Secret)?,
            config.transpose().map_err(DialError::Tls)?,
        ))
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|error| {
            Err(DialError::Settings(format!(
                "reading credentials failed ({error})"
            )))
        })
}

async fn open(address: SocketAddr, settings: &UplinkSettings) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_nodelay(true)?;
    // Data that the peer's kernel does not take for this long ends the connection.
    SockRef::from(&socket).set_tcp_user_timeout(Some(settings.ack_timeout))?;
    if let Some(idle) = probe_after(settings.remote.keep_alive) {
        SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    socket.connect(address).await
}

/// Behind the time at which a PINGREQ would have found the peer dead, so that TCP's probes cost no
/// byte on a healthy metered link. The kernel takes whole seconds, at least one.
fn probe_after(keep_alive: Duration) -> Option<Duration> {
    (!keep_alive.is_zero())
        .then(|| Duration::from_secs(keep_alive.as_secs().saturating_mul(2).clamp(2, 32_767)))
}
