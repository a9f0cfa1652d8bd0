//! What nodes of both kinds need of the world around them.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use imgcast_common::prng::mix;
use imgcast_sender::session::Destination;

use crate::{
    checker::Checker,
    config::Fidelity,
    image::Image,
    planted::PlantedBug,
    queue::{Happening, Queue, SymbolRun},
};

/// The world as a node sees it.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The virtual time since the world began.
    pub(crate) now: Duration,
    base: Instant,
    pub(crate) fidelity: Fidelity,
    pub(crate) planted: Option<PlantedBug>,
    pub(crate) images: Vec<Rc<Image>>,
    pub(crate) queue: Queue,
    pub(crate) checker: Checker,
    pub(crate) outbox: Vec<Outgoing>,
    /// Who listens to what may have changed.
    pub(crate) audience_changed: bool,
    pub(crate) trace: Trace,
}

/// Something that a node sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    FromSender { sender: usize, to: Destination, datagram: Rc<[u8]> },
    Run { run: SymbolRun },
    FromReceiver { receiver: usize, to: SocketAddr, datagram: Rc<[u8]> },
}

/// A hash over everything that happened, and the last of it as text.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    lines: Option<VecDeque<String>>,
}

/// When a node is woken next.
#[derive(Debug)]
pub(crate) struct Alarm {
    at: Duration,
    last: Duration,
    at_once: u32,
}

impl Surroundings {
    pub(crate) fn new(
        fidelity: Fidelity,
        planted: Option<PlantedBug>,
        images: Vec<Rc<Image>>,
        trace: bool,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
        let base = Instant::now();
        Self {
            now: Duration::ZERO,
            base,
            fidelity,
            planted,
            images,
            queue: Queue::default(),
            checker: Checker::default(),
            outbox: Vec::new(),
            audience_changed: true,
            trace: Trace { hash: 0, lines: trace.then(VecDeque::new) },
        }
    }

    /// The virtual time as sessions take it.
    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// A session's time as the world counts it.
    pub(crate) fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.base)
    }

    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    pub(crate) fn after(&mut self, wait: Duration, happening: Happening) {
        self.queue.push(self.now + wait, happening);
    }

    /// Adds to the trace; the text is made only if somebody wants to read it.
    pub(crate) fn note(&mut self, number: u64, text: impl FnOnce() -> String) {
        let nanos = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        self.trace.hash = mix(self.trace.hash ^ mix(nanos) ^ number.rotate_left(17));
        if let Some(lines) = &mut self.trace.lines {
            if lines.len() >= TRACE_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(format!("{:>13.6} {}", self.now.as_secs_f64(), text()));
        }
    }

    pub(crate) fn safety(&mut self, text: String) {
        self.checker.safety(self.now, text);
    }
}

impl Trace {
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}

impl Alarm {
    pub(crate) const fn new() -> Self {
        Self { at: Duration::MAX, last: Duration::ZERO, at_once: 0 }
    }

    /// Sees to it that `happening` is queued for `deadline` or before.
    pub(crate) fn set(
        &mut self,
        around: &mut Surroundings,
        deadline: Option<Instant>,
        happening: Happening,
    ) {
        let Some(deadline) = deadline else { return };
        let at = around.since_start(deadline).max(around.now);
        if at < self.at {
            self.at = at;
            around.queue.push(at, happening);
        }
    }

    /// An alarm of this node went off; returns whether it was the one that is set.
    pub(crate) fn rings(&mut self, now: Duration) -> bool {
        if now != self.at {
            return false;
        }
        self.at = Duration::MAX;
        self.at_once = if now == self.last { self.at_once + 1 } else { 0 };
        self.last = now;
        true
    }

    /// Whether the node was woken so often within one moment that it must be a busy loop.
    pub(crate) const fn is_busy_loop(&self) -> bool {
        self.at_once > WAKES_AT_ONCE_MAX
    }
}

/// Where receiver number `node`, which runs on host `host`, takes unicast.
pub(crate) fn receiver_address(host: usize, node: usize) -> SocketAddr {
    let [.., high, low] = host.to_be_bytes();
    let port = 20_000 + u16::try_from(node).unwrap_or(0);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, high, low)), port)
}

/// Where sender number `config` takes unicast, however often it starts.
pub(crate) fn sender_address(config: usize) -> SocketAddr {
    let [.., low] = config.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, low)), 6330)
}

/// The data group of this number.
pub(crate) fn group_address(group: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 64, group)), 6331)
}

/// A node that is woken so often without time going by would keep a core busy for good.
pub(crate) const WAKES_AT_ONCE_MAX: u32 = 10_000;
/// Enough to see what led to a failure.
const TRACE_LINES_MAX: usize = 200_000;
