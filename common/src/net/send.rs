//! Sending runs of datagrams: one call for a burst that the kernel or the interface cuts into
//! datagrams (UDP_SEGMENT), else sendmmsg.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg,
};

use super::error::NetError;
use super::interface::{Interface, max_datagram_octets};
use super::options::path_mtu_octets;
use super::socket::NodeSocket;

/// Sends datagrams of a node. It blocks while the socket's send buffer is full and loses nothing.
///
/// Several senders may share a socket.
#[derive(Debug)]
pub struct BatchSender {
    socket: Arc<NodeSocket>,
    offload: Offload,
}

impl BatchSender {
    /// A sender over `socket`; with [`Offload::Off`] it never uses segmentation offload.
    #[must_use]
    pub fn new(socket: Arc<NodeSocket>, offload: Offload) -> Self {
        Self { socket, offload }
    }

    /// Sends all `datagrams` to `destination`, in order. Neighbours of equal size, the last of
    /// them possibly shorter, travel together.
    ///
    /// # Errors
    /// [`NetError::DatagramTooLarge`] before anything is sent if one does not fit the interface;
    /// else what the kernel answered. Then those before may have been sent.
    pub fn send_run(
        &mut self,
        datagrams: &[Datagram<'_>],
        destination: SocketAddr,
    ) -> Result<Sent, NetError> {
        let interface = self.socket.interface();
        let octets_max = interface.max_datagram_octets();
        let largest_octets = datagrams.iter().map(Datagram::octets).max().unwrap_or(0);
        if largest_octets > octets_max {
            return Err(self.too_large(largest_octets, interface.mtu_octets, destination));
        }
        let mut sent = Sent::default();
        let mut rest = datagrams;
        while !rest.is_empty() {
            let accepted = self.send_some(rest, destination)?;
            let (done, later) = rest.split_at(accepted);
            sent.datagrams += accepted;
            sent.octets += done.iter().map(Datagram::octets).sum::<usize>();
            rest = later;
        }
        Ok(sent)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// As [`Self::send_run`].
    pub fn send_one(&mut self, datagram: &[u8], destination: SocketAddr) -> Result<Sent, NetError> {
        self.send_run(&[Datagram::whole(datagram)], destination)
    }

    /// Whether bursts are sent with segmentation offload; it ends when the kernel or the interface
    /// turns out not to have it.
    #[must_use]
    pub fn uses_offload(&self) -> bool {
        self.offload == Offload::IfAvailable
    }

    /// The socket it sends over.
    #[must_use]
    pub fn socket(&self) -> &Arc<NodeSocket> {
        &self.socket
    }

    /// Sends at least the first of `rest` and says how many were accepted.
    fn send_some(
        &mut self,
        rest: &[Datagram<'_>],
        destination: SocketAddr,
    ) -> Result<usize, NetError> {
        for _ in 0..TRIES_MAX {
            match self.try_some(rest, destination) {
                Ok(accepted) => return Ok(accepted),
                // An ICMP answer to an earlier datagram, or a signal: this one was not sent.
                Err(Failure::Kernel(Errno::ECONNREFUSED | Errno::EINTR)) => {}
                Err(Failure::Kernel(Errno::ENOBUFS | Errno::EAGAIN)) => thread::sleep(TRY_PAUSE),
                Err(Failure::Kernel(errno)) => {
                    return Err(self.refused(errno, rest[0].octets(), destination));
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(NetError::Stuck {
            destination,
            interface: self.socket.interface().name.clone(),
            waited_ms: TRIES_MAX,
        })
    }

    fn try_some(
        &mut self,
        rest: &[Datagram<'_>],
        destination: SocketAddr,
    ) -> Result<usize, Failure> {
        let run = if self.uses_offload() { burst_length(rest) } else { 1 };
        if run > 1 {
            match self.send_burst(&rest[..run], destination) {
                Err(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP) => self.offload = Offload::Off,
                // Either this path is narrower than the interface, or memory is too fragmented for
                // a burst. Sent singly, IPv4 would fragment in the first case.
                Err(Errno::EMSGSIZE) => self.check_path(rest[0].octets(), destination)?,
                Err(errno) => return Err(Failure::Kernel(errno)),
                Ok(()) => return Ok(run),
            }
        }
        let singles = if self.uses_offload() { run } else { rest.len().min(SINGLES_MAX) };
        self.send_singles(&rest[..singles], destination).map_err(Failure::Kernel)
    }

    /// One call, cut into datagrams below the IP layer.
    fn send_burst(&self, burst: &[Datagram<'_>], destination: SocketAddr) -> Result<(), Errno> {
        let slices = slices_of(burst);
        let segment_octets = u16::try_from(burst[0].octets()).map_err(|_| Errno::EINVAL)?;
        let address = SockaddrStorage::from(destination);
        sendmsg(
            self.socket.as_fd().as_raw_fd(),
            slices[..burst.len()].as_flattened(),
            &[ControlMessage::UdpGsoSegments(&segment_octets)],
            MsgFlags::empty(),
            Some(&address),
        )
        .map(drop)
    }

    /// One call, one datagram per message.
    fn send_singles(
        &self,
        singles: &[Datagram<'_>],
        destination: SocketAddr,
    ) -> Result<usize, Errno> {
        let slices = slices_of(singles);
        let addresses = [Some(SockaddrStorage::from(destination)); SINGLES_MAX];
        let mut headers = MultiHeaders::preallocate(singles.len(), None);
        let accepted = sendmmsg(
            self.socket.as_fd().as_raw_fd(),
            &mut headers,
            &slices[..singles.len()],
            addresses,
            [],
            MsgFlags::empty(),
        )?;
        Ok(accepted.count())
    }

    fn check_path(&self, octets: usize, destination: SocketAddr) -> Result<(), Failure> {
        let interface = self.socket.interface();
        let path = path_mtu_octets(interface.address, interface.index, Some(destination));
        let mtu_octets = path.unwrap_or(interface.mtu_octets);
        if octets > max_datagram_octets(mtu_octets, interface.family()) {
            return Err(Failure::Final(self.too_large(octets, mtu_octets, destination)));
        }
        Ok(())
    }

    fn refused(&self, errno: Errno, octets: usize, destination: SocketAddr) -> NetError {
        let interface = self.socket.interface();
        let address = self.socket.local();
        let name = interface.name.clone();
        match errno {
            Errno::EMSGSIZE => {
                let path = path_mtu_octets(interface.address, interface.index, Some(destination));
                self.too_large(octets, path.unwrap_or(interface.mtu_octets), destination)
            }
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EADDRNOTAVAIL => {
                NetError::Unreachable {
                    destination,
                    address,
                    hint: route_hint(destination, interface),
                    interface: name,
                    source: errno.into(),
                }
            }
            _ => NetError::Send { destination, address, interface: name, source: errno.into() },
        }
    }

    fn too_large(&self, octets: usize, mtu_octets: u32, destination: SocketAddr) -> NetError {
        let interface = self.socket.interface();
        NetError::DatagramTooLarge {
            destination,
            datagram_octets: octets,
            octets_max: max_datagram_octets(mtu_octets, interface.family()),
            mtu_octets,
            interface: interface.name.clone(),
        }
    }
}

/// Whether a burst may be handed to the kernel in one piece.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Offload {
    /// Wherever kernel and interface have it.
    #[default]
    IfAvailable,
    /// Never: every datagram is a message of its own.
    Off,
}

/// One datagram in up to three pieces (header, symbol, trailer) that are never joined in memory.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its octets; pieces may be empty.
    pub parts: [&'a [u8]; PARTS],
}

impl<'a> Datagram<'a> {
    /// A datagram that lies in one piece.
    #[must_use]
    pub fn whole(octets: &'a [u8]) -> Self {
        Self { parts: [octets, &[], &[]] }
    }

    /// Its UDP payload in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// What the socket accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: usize,
    /// UDP payload in all of them.
    pub octets: usize,
}

enum Failure {
    Kernel(Errno),
    Final(NetError),
}

/// How many of the first datagrams can travel as one burst: all as large as the first, but for a
/// last one that may be shorter. Empty ones are no segments and travel alone.
fn burst_length(datagrams: &[Datagram<'_>]) -> usize {
    let Some(segment_octets) = datagrams.first().map(Datagram::octets) else { return 0 };
    if segment_octets == 0 {
        return 1;
    }
    let segments_max = (BURST_OCTETS_MAX / segment_octets).clamp(1, SEGMENTS_MAX);
    let limited = &datagrams[..datagrams.len().min(segments_max)];
    let equal = limited.iter().take_while(|datagram| datagram.octets() == segment_octets).count();
    let ends_shorter =
        limited.get(equal).is_some_and(|last| (1..segment_octets).contains(&last.octets()));
    equal + usize::from(ends_shorter)
}

/// The pieces as the kernel takes them; on the stack, because this runs for every burst.
fn slices_of<'a>(datagrams: &[Datagram<'a>]) -> [[IoSlice<'a>; PARTS]; SINGLES_MAX] {
    let mut slices = [[IoSlice::new(&[]); PARTS]; SINGLES_MAX];
    for (slices, datagram) in slices.iter_mut().zip(datagrams) {
        *slices = datagram.parts.map(IoSlice::new);
    }
    slices
}

/// IPv6 sends to a group only where a route says so. The kernel makes that route when an interface
/// comes up, but not for `lo`, where it has to be of type local: the group lives on this host.
fn route_hint(destination: SocketAddr, interface: &Interface) -> String {
    let name = &interface.name;
    if !destination.ip().is_multicast() {
        return format!("check the link, the address and the routes of {name}");
    }
    if destination.is_ipv4() {
        return format!("check that {name} is up and has its address");
    }
    let route_type = if interface.is_loopback { "local" } else { "multicast" };
    format!(
        "check that {name} is up; if it has no route for groups, add one: \
         ip -6 route add {route_type} ff00::/8 dev {name} table local"
    )
}

/// Header, symbol, trailer.
const PARTS: usize = 3;

/// A burst must stay under 65,536 octets with all headers, or the kernel cuts it in software at an
/// eighth of the speed (measured: 45 and 46 datagrams of 1,424 octets).
const BURST_OCTETS_MAX: usize = 65_280;

/// Newer kernels take 128 segments in one call, older ones no more than this.
const SEGMENTS_MAX: usize = 64;

/// Datagrams per sendmmsg: enough to hide the cost of the call.
const SINGLES_MAX: usize = 64;

/// Two seconds of pauses: far longer than any queue needs to drain, so the interface is stuck.
const TRIES_MAX: u32 = 2_000;

/// How long to leave a full queue alone: a millisecond drains 125 kB at 1 Gbit/s.
const TRY_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn burst_of(sizes: &[usize]) -> usize {
        let octets = vec![0; 65_536];
        let datagrams: Vec<Datagram<'_>> =
            sizes.iter().map(|&size| Datagram::whole(&octets[..size])).collect();
        burst_length(&datagrams)
    }

    #[test]
    fn a_burst_holds_equal_datagrams_and_a_shorter_last_one() {
        assert_eq!(burst_of(&[]), 0);
        assert_eq!(burst_of(&[100; 5]), 5);
        assert_eq!(burst_of(&[100, 100, 60, 100]), 3);
        assert_eq!(burst_of(&[60, 100, 100]), 1);
        assert_eq!(burst_of(&[100, 100, 0]), 2);
        assert_eq!(burst_of(&[0, 0]), 1);
    }

    #[test]
    fn a_burst_stays_below_the_limits_of_the_kernel() {
        assert_eq!(burst_of(&[1424; 100]), 45);
        assert_eq!(burst_of(&[100; 100]), SEGMENTS_MAX);
        assert_eq!(burst_of(&[9000; 10]), 7);
        assert_eq!(burst_of(&[65_500; 2]), 1);
    }
}
