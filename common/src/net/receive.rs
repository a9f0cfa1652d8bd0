//! Receiving batches: recvmmsg, and segments that the kernel joined taken apart again (UDP_GRO).

use std::array;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, getsockname, recvmmsg,
    setsockopt, sockopt,
};

use super::batch::{Batch, BatchLayout, BatchPool, Filled, SLOTS_MAX};
use super::error::NetError;

/// Reads one socket into batches of a pool. One reader per socket.
///
/// It holds the socket; share that through an `Arc` to send on it or renew it at the same time.
#[derive(Debug)]
pub struct BatchReceiver<S> {
    socket: S,
    local: SocketAddr,
    pool: BatchPool,
    coalesces: bool,
    /// How batches are cut up now.
    layout: BatchLayout,
    /// Datagrams since the kernel joined any, or was told to or not to.
    unjoined: usize,
    overflow_last: u32,
    overflow_total: u64,
}

impl<S: AsFd> BatchReceiver<S> {
    /// Prepares the socket: joined segments if the pool's batches are laid out for them and the
    /// kernel has it (Linux 5.0), and the count of what the kernel had to drop.
    ///
    /// # Errors
    /// If it is not a socket with an IP address.
    pub fn new(socket: S, pool: BatchPool) -> Result<Self, NetError> {
        let local = local_address(&socket).map_err(|source| NetError::Receive {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
        })?;
        let layout = pool.layout();
        let wanted = layout.holds_bursts();
        let switched = setsockopt(&socket, sockopt::UdpGroSegment, &wanted).is_ok();
        setsockopt(&socket, sockopt::RxqOvfl, &1)
            .map_err(|errno| NetError::Receive { address: local, source: errno.into() })?;
        Ok(Self {
            socket,
            local,
            pool,
            coalesces: wanted && switched,
            layout: if wanted && !switched { BatchLayout::SINGLES } else { layout },
            unjoined: 0,
            overflow_last: 0,
            overflow_total: 0,
        })
    }

    /// Waits for datagrams, up to the socket's receive timeout, and takes all that are there, up to
    /// one batch. `None`: nothing came, or the pool had no free batch for 100 ms.
    ///
    /// # Errors
    /// [`NetError::Receive`] if the socket cannot be read any more.
    pub fn receive(&mut self) -> Result<Option<Batch>, NetError> {
        let Some(mut batch) = self.pool.take(POOL_WAIT) else { return Ok(None) };
        match self.fill(&mut batch) {
            Ok(()) => {
                self.adapt(&batch);
                Ok(Some(batch))
            }
            // ECONNREFUSED answers an earlier datagram of ours: nothing is wrong with this socket.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(NetError::Receive { address: self.local, source: errno.into() }),
        }
    }

    /// Whether the kernel can join segments for this socket.
    #[must_use]
    pub fn coalesces(&self) -> bool {
        self.coalesces
    }

    /// The socket it reads.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    fn fill(&mut self, batch: &mut Batch) -> Result<(), Errno> {
        let layout = self.layout;
        let (octets, filled) = batch.parts(layout.slots());
        let mut slots = octets.chunks_exact_mut(layout.slot_octets());
        let mut buffers: [[IoSliceMut<'_>; 1]; SLOTS_MAX] =
            array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        // New headers for each call: the kernel shortens the space for control messages in them to
        // what it used, and nix does not lengthen it again.
        let space = cmsg_space!(i32, u32);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(layout.slots(), Some(space));
        let received = recvmmsg(
            self.socket.as_fd().as_raw_fd(),
            &mut headers,
            buffers.iter_mut().take(layout.slots()),
            MsgFlags::MSG_WAITFORONE,
            None,
        )?;
        for (slot, message) in received.enumerate() {
            let Some(source) = message.address.as_ref().and_then(socket_address) else { continue };
            let mut segment_octets = message.bytes;
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::UdpGroSegments(size) => {
                        segment_octets = usize::try_from(size).unwrap_or(message.bytes);
                    }
                    ControlMessageOwned::RxqOvfl(count) => {
                        self.overflow_total += u64::from(advance(&mut self.overflow_last, count));
                    }
                    _ => {}
                }
            }
            let start = slot * layout.slot_octets();
            filled.push(Filled { start, source, octets: message.bytes, segment_octets });
        }
        batch.set_overflow_total(self.overflow_total);
        Ok(())
    }

    /// Reads more at a time where the kernel joins nothing: few large slots would mean a call, and
    /// a batch to be handed on, for every few datagrams. Now and then it is tried again.
    fn adapt(&mut self, batch: &Batch) {
        if !self.coalesces {
            return;
        }
        let joins = self.layout.holds_bursts();
        if batch.is_joined() {
            self.unjoined = 0;
        } else if !joins || batch.fill() >= CROWDED {
            // Where datagrams come one now and then there is nothing to join.
            self.unjoined += batch.filled();
        }
        let patience = if joins { UNJOINED_MAX } else { SINGLES_MAX };
        // Better where the socket is empty: what waits may be a burst, and be cut.
        let is_late = self.unjoined >= patience + LATE;
        if self.unjoined < patience || (batch.fill() >= 1.0 && !is_late) {
            return;
        }
        if setsockopt(&self.socket, sockopt::UdpGroSegment, &!joins).is_ok() {
            self.layout = if joins { BatchLayout::SINGLES } else { BatchLayout::COALESCED };
        }
        self.unjoined = 0;
    }
}

/// By how much a wrapping counter of the kernel grew. Drops are counted on several processors and
/// may be seen slightly out of order: a step back is no growth.
fn advance(last: &mut u32, now: u32) -> u32 {
    let step = now.wrapping_sub(*last);
    if step > u32::MAX / 2 {
        return 0;
    }
    *last = now;
    step
}

fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
    socket_address(&address).ok_or_else(|| io::Error::other("not a socket of IPv4 or IPv6"))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some((*v4).into()),
        (_, Some(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// Where so many in a row came singly, the path joins none: a burst has 44.
const UNJOINED_MAX: usize = 512;
/// A batch of which so much is filled may have come as a burst.
const CROWDED: f64 = 0.5;
/// A socket that is not empty for so long will not be soon.
const LATE: usize = 4_096;
/// At a gigabit another look every three seconds.
const SINGLES_MAX: usize = 1 << 18;
/// A consumer that is this late holds all batches; the reader then looks at its stop flag.
const POOL_WAIT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overflow_count_goes_on_where_the_kernel_wraps_and_never_back() {
        let mut last = u32::MAX - 1;
        assert_eq!(advance(&mut last, 3), 5);
        assert_eq!(advance(&mut last, 3), 0);
        assert_eq!(advance(&mut last, 2), 0);
        assert_eq!(advance(&mut last, 4), 1);
    }
}
