//! The byte stream to the broker: name, TCP, TLS. Every address of the name is tried, anew at each
//! connect.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Fault;
use crate::traffic::send::{RemoteSettings, handshake};

/// TCP, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A new stream, without delay for small packets: acknowledgements are small.
///
/// # Errors
/// Name, TCP or TLS failed, in words for the operator.
pub(super) async fn dial(
    remote: &RemoteSettings,
    tls: Option<ClientConfig>,
) -> Result<Box<dyn Stream>, Fault> {
    let host = remote.host.trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, remote.port))
        .await
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|error| Fault::Broken(error.to_string()))?;
    let Some(config) = tls else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Broken(format!("{host:?} is no name that a certificate could have")))?;
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await;
    let tls = connected.map_err(|error| broken(remote, &error))?;
    Ok(Box::new(tls))
}

/// What an error of the stream means.
pub(super) fn broken(remote: &RemoteSettings, error: &io::Error) -> Fault {
    let tls = remote.tls.as_ref();
    let explained = tls.and_then(|tls| handshake::explain(error, &remote.host, tls));
    Fault::Broken(explained.unwrap_or_else(|| error.to_string()))
}
