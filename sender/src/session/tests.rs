//! Conversations with a session.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    wire::{
        AbortReason, BlockRange, Done, Eject, EjectReason, Header, Join, Leave, LeaveReason,
        Message, Name, Need, NeedFlags, RefuseReason, SenderState, WHOLE, Welcome, padded_len,
    },
};

use super::*;

mod closing;
mod floods;
mod gathering;
mod needs;
mod passes;
mod slowness;

/// A session on a table: messages go in, everything that comes out is kept.
struct Table {
    session: Session,
    now: Instant,
    sent: Vec<(Destination, Message<'static>)>,
    bursts: Vec<Burst>,
    events: Vec<Event>,
    counter: u64,
    /// NEEDs that were taken.
    needs_taken: BTreeMap<ReceiverId, u64>,
}

#[derive(Clone, Copy)]
struct Node {
    address: SocketAddr,
    id: ReceiverId,
}

pub(crate) const SESSION: SessionId = SessionId(0x5e55);
const IMAGE: ImageId = ImageId([7; 32]);
const BLOCKS: u32 = 40;

impl Table {
    fn new(change: impl Fn(&mut SessionConfig)) -> Self {
        let layout = Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap();
        let mut zero_blocks = BitSet::new(BLOCKS);
        zero_blocks.insert(3);
        let mut config = config(layout, zero_blocks);
        change(&mut config);
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let now = Instant::now();
        let session = Session::new(config, 1, now);
        let (sent, bursts, events) = (Vec::new(), Vec::new(), Vec::new());
        let needs_taken = BTreeMap::new();
        Self { session, now, sent, bursts, events, counter: 0, needs_taken }
    }

    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(transmit) = self.session.poll_transmit(self.now) {
                idle = false;
                match transmit {
                    Transmit::Message { to, message, .. } => self.sent.push((to, *message)),
                    Transmit::Burst(burst) => self.bursts.push(burst),
                }
            }
            while let Some(event) = self.session.poll_event() {
                idle = false;
                if let Event::TurnWanted { turn, .. } = event {
                    self.session.handle_turn_ready(turn);
                }
                self.events.push(event);
            }
            if idle {
                return;
            }
        }
    }

    fn hear_of(&mut self, from: SocketAddr, stream: Stream, message: &Message<'_>, octets: usize) {
        self.counter += 1;
        let header = Header { session: SESSION, stream, counter: self.counter };
        self.session.handle_message(self.now, from, &header, message, octets);
        if let Message::Need(need) = message {
            let member = self.session.member(need.receiver);
            let taken = member.is_some_and(|member| member.need_counter == self.counter);
            *self.needs_taken.entry(need.receiver).or_default() += u64::from(taken);
        }
        self.drain();
    }

    fn taken(&self, node: Node) -> u64 {
        self.needs_taken.get(&node.id).copied().unwrap_or(0)
    }

    fn hear(&mut self, from: SocketAddr, message: &Message<'_>) {
        self.hear_of(from, Stream::Image, message, 1080);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.session.poll_timeout().max(self.now).min(end);
            self.session.handle_timeout(self.now);
            self.drain();
            self.now += Duration::from_micros(1);
        }
    }

    fn join(&mut self, number: u8) -> Node {
        let address = SocketAddr::from(([10, 0, 0, number], 4000));
        self.hear(address, &join(number));
        let id = self.welcomes().last().unwrap().receiver;
        Node { address, id }
    }

    /// The same of one that holds something of the image, or all of it.
    fn join_again(&mut self, number: u8) -> Node {
        let address = SocketAddr::from(([10, 0, 0, number], 4000));
        let Message::Join(join) = join(number) else { panic!() };
        self.hear(address, &Message::Join(Join { have: true, ..join }));
        let id = self.welcomes().last().unwrap().receiver;
        Node { address, id }
    }

    fn welcomes(&self) -> Vec<Welcome> {
        let welcomes = self.sent.iter().filter_map(|(_, message)| match message {
            Message::Welcome(welcome) => Some(welcome.clone()),
            _ => None,
        });
        welcomes.collect()
    }

    fn refusals(&self) -> Vec<RefuseReason> {
        let refusals = self.sent.iter().filter_map(|(_, message)| match message {
            Message::Refuse(refuse) => Some(refuse.reason),
            _ => None,
        });
        refusals.collect()
    }

    fn need(&mut self, node: Node, needs: &[BlockRange]) {
        let echo_micros = self.session.clock.micros(self.now);
        self.hear(node.address, &need(node.id, echo_micros, needs));
        self.now += Duration::from_millis(100);
    }

    fn finish(&mut self, node: Node, image: ImageId) {
        let done = Done {
            receiver: node.id,
            succeeded: true,
            image,
            bytes_written: 1,
            seconds: 1,
            refetched_blocks: 0,
            error_code: 0,
            text: String::new(),
        };
        self.hear(node.address, &Message::Done(done));
    }

    fn symbols_of(&self, block: u32, from: usize) -> u32 {
        let bursts = self.bursts[from..].iter();
        bursts.filter(|burst| burst.block == BlockId::image(block)).map(|burst| burst.count).sum()
    }

    fn symbols_of_all(&self) -> u32 {
        self.bursts.iter().map(|burst| burst.count).sum()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.events.iter().find_map(|event| match event {
            Event::Finished(outcome) => Some(outcome.clone()),
            _ => None,
        })
    }

    fn state(&self) -> SenderState {
        self.session.status().state
    }
}

/// A session that one receiver is enough for.
pub(crate) fn config(layout: Layout, zero_blocks: BitSet) -> SessionConfig {
    SessionConfig {
        session: SESSION,
        image: IMAGE,
        index_hash: [1; 32],
        layout,
        zero_blocks,
        name: Name::new("disk").unwrap(),
        sector_size: None,
        data_group: "239.255.70.7:6331".parse().unwrap(),
        unicast_port: 6330,
        mtu: 1500,
        receivers_min: 1,
        wait_min: Duration::ZERO,
        wait_max: None,
        start_timeout: Some(Duration::from_secs(30)),
        rate_start: Some(100_000_000),
        rate_max: 100_000_000,
        one_way: None,
        framing_octets: 66,
        slow_receivers: SlowReceivers::Detach,
    }
}

/// Of host `node` with its number.
pub(crate) fn join(number: u8) -> Message<'static> {
    Message::Join(Join {
        nonce: [number; 16],
        key: [number; 16],
        have: false,
        mtu: false,
        unfit: false,
        capabilities: 0,
        target_bytes: u64::MAX,
        memory_blocks: 64,
        host: format!("node{number}"),
        handshake: Vec::new(),
    })
}

fn need(receiver: ReceiverId, echo_micros: u64, needs: &[BlockRange]) -> Message<'static> {
    Message::Need(Need {
        receiver,
        echo_micros,
        hold_micros: 0,
        network_loss: Some(0),
        socket_loss: 0,
        free_blocks: 64,
        drain_kilobytes: 0,
        done_blocks: 0,
        poll: 0,
        flags: NeedFlags::default(),
        needs: needs.to_vec(),
    })
}

const LONG: Duration = Duration::from_secs(3);
