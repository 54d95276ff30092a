//! Ports that stay ours until we use them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// A port on 127.0.0.1, reserved for as long as this lives.
///
/// A socket is bound to it and does not listen. The kernel then gives the port to nobody who
/// asks for any port, while a program that asks for this very port, with `SO_REUSEADDR` as
/// every server sets it, gets it. Until then, connections to it are refused. Since two who
/// reserve would count as such a program too, a name in the kernel's abstract namespace says
/// that a port is reserved.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: OwnedFd,
    _name: UnixListener,
}

impl Port {
    /// Any free port.
    ///
    /// # Errors
    /// There is none.
    pub fn free() -> anyhow::Result<Self> {
        Self::reserve(0)
    }

    /// This port where it is free, else any.
    ///
    /// # Errors
    /// There is none.
    pub fn preferably(number: u16) -> anyhow::Result<Self> {
        Self::reserve(number).or_else(|_| Self::free())
    }

    fn reserve(number: u16) -> anyhow::Result<Self> {
        let held = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&held, true)?;
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::CLOEXEC)?;
        bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, number))?;
        let number = SocketAddr::try_from(getsockname(&held)?)?.port();
        let name = UnixAddr::from_abstract_name(format!("pm2-fleet-port-{number}"))?;
        Ok(Self { number, _held: held, _name: UnixListener::bind_addr(&name)? })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_reserved_port_is_refused_to_clients_and_open_to_the_program_it_is_for() {
        let port = Port::free().unwrap();
        assert!(TcpStream::connect(port.address()).is_err());
        assert_ne!(Port::preferably(port.number()).unwrap().number(), port.number());
        let listener = TcpListener::bind(port.address()).unwrap();
        assert!(TcpStream::connect(port.address()).is_ok());
        assert!(TcpListener::bind(port.address()).is_err());
        let taken = listener.local_addr().unwrap().port();
        assert_ne!(Port::preferably(taken).unwrap().number(), taken);
    }

    #[test]
    fn reserved_ports_are_given_to_nobody_else() {
        let ports: Vec<Port> = (0..200).map(|_| Port::free().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
