//! Socket options that both kinds of sockets share: buffers, fragmentation, the MTU of a path.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsFd;

use nix::sys::socket::sockopt;
use nix::sys::socket::{getsockopt, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::interface::{Family, Interface};

/// How much of a buffer the kernel gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BufferGrant {
    /// What was asked for, in octets.
    pub asked_bytes: usize,
    /// What was granted, in the same measure (the kernel reserves twice as much, for its own
    /// overhead). Less than asked: net.core.rmem_max or wmem_max cut it, and this process lacks
    /// CAP_NET_ADMIN.
    pub granted_bytes: usize,
}

impl BufferGrant {
    /// The kernel gave less than was asked for.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.granted_bytes < self.asked_bytes
    }
}

pub(super) fn new_socket(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The interface index goes along with an address that means nothing without it.
pub(super) fn scoped(address: IpAddr, port: u16, interface_index: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddrV4::new(address, port).into(),
        IpAddr::V6(address) => {
            let needs_scope = address.is_unicast_link_local() || is_link_scoped_group(address);
            let scope_id = if needs_scope { interface_index } else { 0 };
            SocketAddrV6::new(address, port, 0, scope_id).into()
        }
    }
}

/// Receive buffer, past net.core.rmem_max where this process may.
pub(super) fn set_receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<BufferGrant> {
    let asked_bytes = bytes.min(BUFFER_BYTES_MAX);
    if setsockopt(socket, sockopt::RcvBufForce, &asked_bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &asked_bytes)?;
    }
    let granted_bytes = getsockopt(socket, sockopt::RcvBuf)? / KERNEL_BUFFER_FACTOR;
    Ok(BufferGrant { asked_bytes: bytes, granted_bytes })
}

/// Send buffer, past net.core.wmem_max where this process may.
pub(super) fn set_send_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<BufferGrant> {
    let asked_bytes = bytes.min(BUFFER_BYTES_MAX);
    if setsockopt(socket, sockopt::SndBufForce, &asked_bytes).is_err() {
        setsockopt(socket, sockopt::SndBuf, &asked_bytes)?;
    }
    let granted_bytes = getsockopt(socket, sockopt::SndBuf)? / KERNEL_BUFFER_FACTOR;
    Ok(BufferGrant { asked_bytes: bytes, granted_bytes })
}

/// Whether datagrams of this family leave with DF set (IPv4) or unfragmented (IPv6).
///
/// IPv6 sockets get IPV6_DONTFRAG. IPv4 sockets keep the mode they are born with: unless the
/// sysctl ip_no_pmtu_disc says otherwise it is IP_PMTUDISC_WANT, which sets DF on whatever fits the
/// path MTU and fragments the rest; [`super::BatchSender`] lets nothing pass that does not fit.
pub(super) fn forbid_fragments(socket: &impl AsFd, family: Family) -> io::Result<bool> {
    match family {
        Family::V6 => {
            setsockopt(socket, sockopt::Ipv6DontFrag, &true)?;
            Ok(true)
        }
        Family::V4 => {
            let mode = fs::read_to_string("/proc/sys/net/ipv4/ip_no_pmtu_disc");
            Ok(mode.is_ok_and(|mode| mode.trim() == "0"))
        }
    }
}

/// Which interface a socket sends its groups over.
pub(super) fn send_groups_over(socket: &Socket, address: IpAddr, index: u32) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => socket.set_multicast_if_v4(&address),
        IpAddr::V6(_) => socket.set_multicast_if_v6(index),
    }
}

/// The MTU towards `destination` as the kernel knows it now; without one: towards any group.
pub(super) fn path_mtu_octets(
    address: IpAddr,
    index: u32,
    destination: Option<SocketAddr>,
) -> io::Result<u32> {
    let socket = new_socket(Family::of(address))?;
    socket.bind(&scoped(address, 0, index).into())?;
    send_groups_over(&socket, address, index)?;
    let any_group: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::new(239, 255, 63, 30).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x6330).into(),
    };
    let destination = destination.unwrap_or_else(|| scoped(any_group, 6330, index));
    socket.connect(&destination.into())?;
    let mtu_octets = getsockopt(&socket, sockopt::IpMtu)?;
    u32::try_from(mtu_octets).map_err(io::Error::other)
}

pub(super) fn is_group_of(group: SocketAddr, interface: &Interface) -> bool {
    group.ip().is_multicast() && Family::of(group.ip()) == interface.family()
}

/// Scopes 1 and 2 of RFC 4291 2.7 are the same group on every link: the link has to be named.
fn is_link_scoped_group(address: Ipv6Addr) -> bool {
    address.is_multicast() && matches!(address.segments()[0] & 0x000f, 1 | 2)
}

/// The kernel doubles what is asked for and says the double when read.
const KERNEL_BUFFER_FACTOR: usize = 2;

/// The kernel keeps the doubled size in a signed 32-bit number.
const BUFFER_BYTES_MAX: usize = 0x3fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_table_tells_the_mtu_where_sysfs_does_not() {
        let lo = Interface::find("lo", Family::V4).unwrap();
        let mtu_octets = path_mtu_octets(lo.address, lo.index, None).unwrap();
        assert!((1501..=lo.mtu_octets).contains(&mtu_octets), "{mtu_octets}");
    }

    #[test]
    fn only_addresses_of_one_link_carry_its_index() {
        let scope_of = |address: &str| match scoped(address.parse().unwrap(), 1, 7) {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        for of_one_link in ["fe80::1", "ff02::1", "ff12::1", "ff01::1"] {
            assert_eq!(scope_of(of_one_link), 7, "{of_one_link}");
        }
        for anywhere in ["10.0.0.1", "2001:db8::1", "::1", "ff15::6330"] {
            assert_eq!(scope_of(anywhere), 0, "{anywhere}");
        }
    }
}
