//! Sockets that listen on TCP, from the kernel by sock_diag(7). `/proc/net/tcp` says the same,
//! but the kernel walks the table of all connections for it, which takes milliseconds on a
//! machine with much memory however few connections there are; here it looks at those that
//! listen alone.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    pub(super) port: u16,
    pub(super) inode: u64,
}

/// All of them, of IPv4 and IPv6.
pub(super) fn all() -> Vec<Listener> {
    let (v4, v6) = (AddressFamily::INET, AddressFamily::INET6);
    match [v4, v6].into_iter().map(of_family).collect::<io::Result<Vec<_>>>() {
        Ok(found) => found.into_iter().flatten().collect(),
        // A sandbox without netlink sockets, or a kernel without this interface.
        Err(_) => from_proc(),
    }
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, socket id.
const REQUEST: usize = 8 + 48;
/// Where port and inode stand in `struct inet_diag_msg`, of 72 bytes.
const PORT: std::ops::Range<usize> = 4..6;
const INODE: std::ops::Range<usize> = 68..72;

/// The kernel answers at once; a hang would be a fault that nothing else would show.
const WITHIN: Duration = Duration::from_secs(1);
/// Messages of one answer: more listeners than any machine has.
const MOST: usize = 10_000;

fn of_family(family: AddressFamily) -> io::Result<Vec<Listener>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(WITHIN))?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request(family), SendFlags::empty(), &kernel)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    for _ in 0..MOST {
        let (read, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        if take(buffer.get(..read).unwrap_or_default(), &mut found)? {
            return Ok(found);
        }
    }
    Err(io::Error::other("an answer without an end"))
}

fn request(family: AddressFamily) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Number and sender: there is one question, and the kernel knows who asks.
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
    request.extend((1u32 << TCP_LISTEN).to_ne_bytes());
    request.resize(HEADER + REQUEST, 0);
    request
}

/// Takes the messages of one packet; whether it was the last.
fn take(mut packet: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    let short = || io::Error::other("a message that is cut off");
    while !packet.is_empty() {
        let number = |range| packet.get(range).ok_or_else(short);
        let length = u32::from_ne_bytes(number(0..4)?.try_into().map_err(io::Error::other)?);
        let kind = u16::from_ne_bytes(number(4..6)?.try_into().map_err(io::Error::other)?);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let body = packet.get(HEADER..length).ok_or_else(short)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(io::Error::other("the kernel refuses")),
            _ => {
                let port = body.get(PORT).ok_or_else(short)?;
                let inode = body.get(INODE).ok_or_else(short)?;
                found.push(Listener {
                    port: u16::from_be_bytes(port.try_into().map_err(io::Error::other)?),
                    inode: u32::from_ne_bytes(inode.try_into().map_err(io::Error::other)?).into(),
                });
            }
        }
        // The next begins on a border of four bytes.
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn from_proc() -> Vec<Listener> {
    let mut all = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        all.extend(text.lines().skip(1).filter_map(listener));
    }
    all
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`
fn listener(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    // 0A: TCP_LISTEN
    if fields.nth(1)? != "0A" {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { port, inode: fields.nth(5)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ways_find_those_that_listen_and_no_others() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let connected = TcpStream::connect(address).unwrap();
        let other = connected.local_addr().unwrap().port();
        let asked: Vec<Listener> = [AddressFamily::INET, AddressFamily::INET6]
            .into_iter()
            .flat_map(|family| of_family(family).unwrap())
            .collect();
        for found in [asked, from_proc(), all()] {
            let mine: Vec<&Listener> =
                found.iter().filter(|listener| listener.port == address.port()).collect();
            let [mine] = mine[..] else { panic!("{mine:?}") };
            assert!(mine.inode > 0);
            assert!(from_proc().contains(mine), "{mine:?}");
            assert!(found.iter().all(|listener| listener.port != other));
        }
    }

    #[test]
    fn answers_that_are_cut_off_or_refusals_are_errors() {
        let mut found = Vec::new();
        for packet in [&[1, 0][..], &[255, 0, 0, 0, 20, 0], &[0; 16], &[17; 64]] {
            assert!(take(packet, &mut found).is_err(), "{packet:?}");
        }
        let mut done = vec![0; HEADER];
        done[0] = HEADER as u8;
        done[4] = NLMSG_DONE as u8;
        assert!(take(&done, &mut found).unwrap());
        done[4] = NLMSG_ERROR as u8;
        assert!(take(&done, &mut found).is_err());
        assert!(!take(&[], &mut found).unwrap());
        assert_eq!(found, []);
    }

    #[test]
    fn only_lines_of_listeners_are_read() {
        let line = "   0: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 12345 1 0 100 0 0 10 0";
        assert_eq!(listener(line), Some(Listener { port: 3001, inode: 12345 }));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("x"), None);
    }
}
