//! Looks whether a gateway is there before a fleet is sent to it: one connection, one CONNECT, one
//! DISCONNECT. A door.
#![allow(
    clippy::disallowed_methods,
    reason = "a door: one blocking connection before anything runs"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{Connect, Packet, Protocol, Writer, connack_meaning, first_packet};

/// How long it may take to connect, and to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why there is no gateway for this fleet, in words.
pub type NoGateway = String;

/// Whether a server at `address` takes a client of this protocol and name.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn probe(address: SocketAddr, protocol: Protocol, client_id: &str) -> Result<(), NoGateway> {
    let stream =
        TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "nobody listens there: start the gateway (`tidegate run`), or name another with \
             --connect HOST:PORT"
                    .to_owned()
            }
            _ => format!(
                "{error}: is the host on and the network there? --connect HOST:PORT names another"
            ),
        })?;
    let code = ask(stream, protocol, client_id).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "it takes connections, and does not answer a CONNECT in 5 s: is it a gateway?"
                .to_owned()
        }
        _ => format!(
            "it ends the connection instead of answering a CONNECT ({error}): is it a gateway?"
        ),
    })?;
    match code {
        0 => Ok(()),
        code => Err(format!("it refuses with {code}: {}", connack_meaning(code))),
    }
}

fn ask(mut stream: TcpStream, protocol: Protocol, client_id: &str) -> io::Result<u8> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut bytes = Vec::new();
    let mut writer = Writer {
        buffer: &mut bytes,
        protocol,
    };
    writer.connect(&Connect {
        client_id,
        keep_alive_seconds: 10,
        clean: true,
    });
    stream.write_all(&bytes)?;
    let code = connack(&mut stream, protocol)?;
    bytes.clear();
    Writer {
        buffer: &mut bytes,
        protocol,
    }
    .disconnect();
    // It answered; whether it hears the goodbye changes nothing.
    let _ = stream.write_all(&bytes);
    Ok(code)
}

fn connack(stream: &mut TcpStream, protocol: Protocol) -> io::Result<u8> {
    let mut buffer = [0; 2_048];
    let mut filled = 0;
    loop {
        let read = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let packet = first_packet(buffer.get(..filled).unwrap_or_default(), protocol);
        match packet {
            Ok(None) => {}
            Ok(Some((Packet::Connack { code, .. }, _))) => return Ok(code),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
