//! A sender that misbehaves in one way, made of the real wire format and the real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use imgcast_common::id::{EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream};
use imgcast_common::layout::Layout;
use imgcast_common::net::{
    BatchLayout, BatchPool, BatchReceiver, BatchSender, Family, Interface, NodeSocket, Offload,
};
use imgcast_common::wire::{
    Announce, Data, DataHead, Done, DoneAck, Eject, EjectReason, Header, Join, Message, Name, Poll,
    Refuse, RefuseReason, Role, SenderState, Sync, UNICAST, Welcome, padded_len,
};

/// What it does wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// It says that it sends, and sends no symbol.
    NoSymbols,
    /// Its index is not the one that it announces.
    WrongIndex,
    /// It lets nobody in.
    Full,
    /// Its session is ending.
    Ending,
    /// It ejects whoever speaks as a member, for being slow.
    Ejects,
    /// It speaks version 2.
    OtherVersion,
}

/// Runs in a thread until it is dropped.
#[derive(Debug)]
pub(crate) struct FakeSender {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeSender {
    pub(crate) fn start(portbase: u16, fault: Fault) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || Session::new(portbase, fault).run(&stopped);
        Self { stop, thread: Some(thread::spawn(run)) }
    }
}

impl Drop for FakeSender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the fake sender failed");
        }
    }
}

struct Session {
    fault: Fault,
    rendezvous: SocketAddr,
    group: SocketAddr,
    layout: Layout,
    unicast_port: u16,
    sender: BatchSender,
    receiver: BatchReceiver<Arc<NodeSocket>>,
    counter: u64,
    time_micros: u64,
}

impl Session {
    fn new(portbase: u16, fault: Fault) -> Self {
        let interface = Interface::find("lo", Family::V4).expect("there is a loopback");
        let node = Arc::new(NodeSocket::open(&interface, 1, 0).expect("a socket opens"));
        node.set_receive_timeout(Some(INTERVAL)).expect("it takes a timeout");
        let pool = BatchPool::new(2, BatchLayout::plain(9_000));
        Self {
            fault,
            rendezvous: ([239, 255, 63, 30], portbase).into(),
            group: ([239, 255, 66, 6], portbase + 1).into(),
            layout: Layout::for_image(3 << 20, 1_408).expect("a usual layout"),
            unicast_port: node.local().port(),
            receiver: BatchReceiver::new(Arc::clone(&node), pool).expect("it can be read"),
            sender: BatchSender::new(node, Offload::Off),
            counter: 0,
            time_micros: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Some(batch) = self.receiver.receive().expect("it can be read") {
                for (from, datagram) in batch.datagrams() {
                    if let Ok((_, message)) = Message::parse(datagram, Role::Sender) {
                        self.answer(*from, &message);
                    }
                }
            }
            self.announce();
            if self.fault != Fault::OtherVersion {
                self.sync();
            }
            if self.fault == Fault::WrongIndex {
                self.index();
            }
        }
    }

    fn answer(&mut self, to: SocketAddr, message: &Message<'_>) {
        match message {
            Message::Join(join) if self.fault == Fault::Full => self.refuse(to, join),
            Message::Join(join) => self.welcome(to, join),
            Message::Need(need) if self.fault == Fault::Ejects => {
                let eject = Eject { receiver: need.receiver, reason: EjectReason::Slow };
                self.send(to, Stream::Image, &Message::Eject(eject), 0);
            }
            Message::Done(Done { receiver, .. }) => {
                let ack = DoneAck::of(&[*receiver]).expect("there is one");
                self.send(to, Stream::Image, &Message::DoneAck(ack), 0);
            }
            _ => {}
        }
    }

    fn refuse(&mut self, to: SocketAddr, join: &Join) {
        let refuse = Refuse { nonce: join.nonce, reason: RefuseReason::Full, mtu: u16::MAX };
        self.send(to, Stream::Image, &Message::Refuse(refuse), 0);
    }

    fn welcome(&mut self, to: SocketAddr, join: &Join) {
        let welcome = Welcome {
            nonce: join.nonce,
            receiver: ReceiverId(0),
            state: SenderState::Sending,
            needs_per_second: 20,
            needs_burst: 10,
            silence_ms: 10_000,
            handshake: Vec::new(),
        };
        let octets_min = padded_len(self.layout.symbol_size());
        self.send(to, Stream::Image, &Message::Welcome(welcome), octets_min);
    }

    fn announce(&mut self) {
        let announce = Announce {
            image: ImageId([7; 32]),
            index_hash: [8; 32],
            layout: self.layout,
            data_group: self.group,
            unicast_port: self.unicast_port,
            one_way: false,
            sector_size: None,
            state: match self.fault {
                Fault::Ending => SenderState::Closing,
                _ => SenderState::Sending,
            },
            start_in_ms: 0,
            receivers_expected: 1,
            receivers_joined: 1,
            salt: [0; 16],
            signer: [0; 32],
            signature: [0; 64],
            name: Name::new("fake.img").expect("a name"),
        };
        self.send(self.rendezvous, Stream::Image, &Message::Announce(announce), 0);
    }

    fn sync(&mut self) {
        self.time_micros += 1;
        let sync = Sync {
            time_micros: self.time_micros,
            grtt: imgcast_common::timing::quantise_rtt(Duration::from_millis(10)),
            group_log2: 0,
            feedback_window_ms: 10,
            rate_kilobits: 100_000,
            repair_share: 0,
            state: SenderState::Sending,
            poll: Poll::default(),
            covers_first: 0,
            covers_end: 0,
            planned: Vec::new(),
        };
        self.send(self.group, Stream::Image, &Message::Sync(sync), 0);
    }

    /// All of the index, which fits into one symbol.
    fn index(&mut self) {
        let stored_len = self.layout.of_index().block_len(0);
        let esi = EncodingSymbolId::new(0).expect("a source symbol");
        let head = DataHead { block: 0, esi, turn: 0, stored_len, still_to_come: 0 };
        let symbol = vec![0; usize::from(self.layout.symbol_size())];
        self.send(self.group, Stream::Index, &Message::Data(Data { head, symbol: &symbol }), 0);
    }

    fn send(&mut self, to: SocketAddr, stream: Stream, message: &Message<'_>, octets_min: usize) {
        self.counter += 1;
        let other_sequence = if to == self.group { 0 } else { UNICAST };
        let counter = self.counter | other_sequence;
        let header = Header { session: SessionId(0x0e2e), stream, counter };
        let mut datagram = message.emit(&header, octets_min);
        if self.fault == Fault::OtherVersion {
            datagram[VERSION_AT] = 2;
        }
        self.sender.send_one(&datagram, to).expect("loopback takes it");
    }
}

/// Often enough to be heard within a receiver's shortest wait.
const INTERVAL: Duration = Duration::from_millis(50);
/// Octets 0 to 3 are the same in all versions.
const VERSION_AT: usize = 2;
