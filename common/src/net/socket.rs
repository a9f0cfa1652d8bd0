//! The two kinds of UDP sockets a node has: its own unicast one, and one per group it listens to.
//!
//! Decides how they are bound and which options they carry. Batches in and out of them are the
//! business of `send` and `receive`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{InterfaceIndexOrAddress, Socket};

use super::error::NetError;
use super::interface::{Family, Interface};
use super::options::{
    self, BufferGrant, forbid_fragments, is_group_of, new_socket, scoped, send_groups_over,
};

/// A node's own socket: it sends to groups and to nodes, and receives unicast.
///
/// Bound to the interface's address, so that it hears no group and several nodes share a host.
#[derive(Debug)]
pub struct NodeSocket {
    socket: Socket,
    interface: Interface,
    local: SocketAddr,
    forbids_fragments: bool,
}

impl NodeSocket {
    /// Opens it on `interface` at `port_preferred`, or at any free port if that one is taken (0:
    /// any). Datagrams to groups leave over this interface with `hops` as TTL or hop limit, and
    /// nodes on this host hear them too.
    ///
    /// # Errors
    /// If the address cannot be bound or an option cannot be set.
    pub fn open(interface: &Interface, hops: u8, port_preferred: u16) -> Result<Self, NetError> {
        let preferred = scoped(interface.address, port_preferred, interface.index);
        let refused = |option, source| option_error(option, preferred, interface, source);
        let family = interface.family();
        let socket = new_socket(family).map_err(|source| refused("a UDP socket", source))?;
        let bound = match socket.bind(&preferred.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                socket.bind(&scoped(interface.address, 0, interface.index).into())
            }
            other => other,
        };
        bound.map_err(|source| NetError::Bind {
            address: preferred,
            interface: interface.name.clone(),
            source,
        })?;
        send_groups_over(&socket, interface.address, interface.index)
            .map_err(|source| refused("the interface for multicast", source))?;
        let loops = match family {
            Family::V4 => socket.set_multicast_loop_v4(true),
            Family::V6 => socket.set_multicast_loop_v6(true),
        };
        loops.map_err(|source| refused("the multicast loop", source))?;
        let limited = match family {
            Family::V4 => socket.set_multicast_ttl_v4(u32::from(hops)),
            Family::V6 => socket.set_multicast_hops_v6(u32::from(hops)),
        };
        limited.map_err(|source| refused("the TTL of multicast", source))?;
        let forbids_fragments = forbid_fragments(&socket, family)
            .map_err(|source| refused("the don't-fragment option", source))?;
        let local = socket.local_addr().and_then(|address| {
            address.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
        });
        let local = local.map_err(|source| refused("a local address", source))?;
        Ok(Self { socket, interface: interface.clone(), local, forbids_fragments })
    }

    /// The address and port it is bound to: where this node hears unicast.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The interface it was opened on.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Whether what leaves here is never fragmented on its way. False only for IPv4 on a host with
    /// net.ipv4.ip_no_pmtu_disc set: then routers may cut datagrams, and a warning is in order.
    #[must_use]
    pub fn forbids_fragments(&self) -> bool {
        self.forbids_fragments
    }

    /// Asks for room for `bytes` octets that wait to be sent.
    ///
    /// # Errors
    /// If the kernel refuses any size.
    pub fn set_send_buffer(&self, bytes: usize) -> Result<BufferGrant, NetError> {
        options::set_send_buffer(&self.socket, bytes)
            .map_err(|source| option_error("SO_SNDBUF", self.local, &self.interface, source))
    }

    /// Asks for room for `bytes` octets that wait to be received.
    ///
    /// # Errors
    /// If the kernel refuses any size.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<BufferGrant, NetError> {
        options::set_receive_buffer(&self.socket, bytes)
            .map_err(|source| option_error("SO_RCVBUF", self.local, &self.interface, source))
    }

    /// How long a read waits for a first datagram; `None`: for ever.
    ///
    /// # Errors
    /// If the kernel refuses it, as it does for zero.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> Result<(), NetError> {
        self.socket
            .set_read_timeout(timeout)
            .map_err(|source| option_error("SO_RCVTIMEO", self.local, &self.interface, source))
    }
}

impl AsFd for NodeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that hears one group on one interface, and nothing else.
///
/// Bound to the group's own address: unicast and other groups of the host at the same port do not
/// reach it, and any number of nodes on a host may hear the same group. Dropping it leaves the
/// group.
#[derive(Debug)]
pub struct GroupSocket {
    socket: Socket,
    interface: Interface,
    group: SocketAddr,
}

impl GroupSocket {
    /// Joins `group` on `interface`, with room for `receive_buffer_bytes` octets that wait to be
    /// read.
    ///
    /// # Errors
    /// If it is no group of the interface's family, or cannot be bound or joined.
    pub fn join(
        interface: &Interface,
        group: SocketAddr,
        receive_buffer_bytes: usize,
    ) -> Result<(Self, BufferGrant), NetError> {
        if !is_group_of(group, interface) {
            return Err(NetError::NotAGroup {
                group,
                interface: interface.name.clone(),
                family: interface.family(),
            });
        }
        let group = scoped(group.ip(), group.port(), interface.index);
        let refused = |option, source| option_error(option, group, interface, source);
        let family = interface.family();
        let socket = new_socket(family).map_err(|source| refused("a UDP socket", source))?;
        socket.set_reuse_address(true).map_err(|source| refused("SO_REUSEADDR", source))?;
        // Before binding: from then on the socket must hear this interface's group only.
        let narrowed = match family {
            Family::V4 => socket.set_multicast_all_v4(false),
            Family::V6 => socket.set_multicast_all_v6(false),
        };
        narrowed.map_err(|source| refused("IP_MULTICAST_ALL", source))?;
        let grant = options::set_receive_buffer(&socket, receive_buffer_bytes)
            .map_err(|source| refused("SO_RCVBUF", source))?;
        socket.bind(&group.into()).map_err(|source| NetError::Bind {
            address: group,
            interface: interface.name.clone(),
            source,
        })?;
        let joined = Self { socket, interface: interface.clone(), group };
        joined.change_membership(true)?;
        Ok((joined, grant))
    }

    /// Leaves the group and joins it again, so that a switch that forgot it learns it anew.
    ///
    /// # Errors
    /// If the group cannot be joined again; then the socket hears nothing until a later `renew`
    /// succeeds.
    pub fn renew(&self) -> Result<(), NetError> {
        // Not a member any more (the interface went away and came back): joining is what matters.
        let _ = self.change_membership(false);
        self.change_membership(true)
    }

    /// The group and port.
    #[must_use]
    pub fn group(&self) -> SocketAddr {
        self.group
    }

    /// The interface the group is joined on.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// How long a read waits for a first datagram; `None`: for ever.
    ///
    /// # Errors
    /// If the kernel refuses it, as it does for zero.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> Result<(), NetError> {
        self.socket
            .set_read_timeout(timeout)
            .map_err(|source| option_error("SO_RCVTIMEO", self.group, &self.interface, source))
    }

    fn change_membership(&self, join: bool) -> Result<(), NetError> {
        let index = self.interface.index;
        let by_index = InterfaceIndexOrAddress::Index(index);
        let changed = match (self.group, join) {
            (SocketAddr::V4(group), true) => self.socket.join_multicast_v4_n(group.ip(), &by_index),
            (SocketAddr::V4(group), false) => {
                self.socket.leave_multicast_v4_n(group.ip(), &by_index)
            }
            (SocketAddr::V6(group), true) => self.socket.join_multicast_v6(group.ip(), index),
            (SocketAddr::V6(group), false) => self.socket.leave_multicast_v6(group.ip(), index),
        };
        changed.map_err(|source| NetError::Join {
            group: self.group,
            interface: self.interface.name.clone(),
            source,
        })
    }
}

impl AsFd for GroupSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn option_error(
    option: &'static str,
    address: SocketAddr,
    interface: &Interface,
    source: io::Error,
) -> NetError {
    NetError::Option { option, address, interface: interface.name.clone(), source }
}
