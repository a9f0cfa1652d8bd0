//! What is on offer: listens for a while, then prints a table or JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{SessionId, Stream},
    net::{Interface, Offload},
    units::ByteSize,
    wire::{Announce, Join, Message, Role, SenderState},
};

use crate::{
    config::ListConfig,
    driver::now,
    error::Error,
    session::Transmit,
    sockets::{self, Arrival, Sockets},
};

/// Listens as `config` says and prints what it heard.
///
/// # Errors
/// If the interface or its sockets cannot be used, or standard output takes nothing.
pub fn run(config: &ListConfig) -> Result<(), Error> {
    let rendezvous = config.network.rendezvous;
    let interface = sockets::interface(&config.network)?;
    let offers = sockets::event_loop()?.block_on(listen(config, interface))?;
    if offers.is_empty() && !config.is_json {
        eprintln!("nothing is on offer at {rendezvous}");
        return Ok(());
    }
    let text = if config.is_json { json(&offers).to_string() } else { table(&offers) };
    match writeln!(io::stdout(), "{text}") {
        // Whoever reads it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|source| Error::System { action: "write to standard output", source })
        }
    }
}

type Offers = BTreeMap<SessionId, (std::net::IpAddr, Announce)>;

async fn listen(config: &ListConfig, interface: Interface) -> Result<Offers, Error> {
    let asks = config.network.asks_one_sender();
    let group = (!asks).then_some(config.network.rendezvous);
    let (mut sockets, mut arrivals) = Sockets::open(interface, 1, Offload::Off, group)?;
    let (mut offers, until) = (Offers::new(), now() + config.wait);
    let mut ask_at = now();
    while now() < until {
        if asks && now() >= ask_at {
            ask_at = now() + ASK_INTERVAL;
            sockets.send(&question(config));
        }
        let wake_at: Instant = if asks { until.min(ask_at) } else { until };
        let arrival = tokio::time::timeout_at(wake_at.into(), arrivals.recv()).await;
        let Ok(Some(Arrival::Datagrams(_, batch))) = arrival else { continue };
        for (from, datagram) in batch.datagrams() {
            if let Ok((header, Message::Announce(announce))) =
                Message::parse(datagram, Role::Receiver)
            {
                offers.insert(header.session, (from.ip(), announce));
            }
        }
    }
    Ok(offers)
}

fn question(config: &ListConfig) -> Transmit {
    let join = Join {
        nonce: [0; 16],
        key: [0; 16],
        have: false,
        mtu: false,
        unfit: false,
        capabilities: 0,
        target_bytes: 0,
        memory_blocks: 0,
        host: String::new(),
        handshake: Vec::new(),
    };
    Transmit {
        to: config.network.rendezvous,
        session: SessionId::NONE,
        stream: Stream::Image,
        message: Message::Join(join),
        octets_min: imgcast_common::wire::QUESTION_OCTETS,
    }
}

fn table(offers: &Offers) -> String {
    let head = format!(
        "{:<24} {:>10} {:<15} {:<9} {:<11} image",
        "name", "size", "sender", "state", "receivers"
    );
    let rows = offers.values().map(|(sender, offer)| {
        format!(
            "{:<24} {:>10} {:<15} {:<9} {:<11} {}",
            offer.name.to_string(),
            ByteSize(offer.layout.bytes()).to_string(),
            sender.to_string(),
            state(offer.state),
            receivers(offer),
            offer.image
        )
    });
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Who is there, or where nobody can say so, which pass of how many it is.
fn receivers(offer: &Announce) -> String {
    let way = if offer.one_way { "pass " } else { "" };
    format!("{way}{} of {}", offer.receivers_joined, offer.receivers_expected)
}

fn json(offers: &Offers) -> serde_json::Value {
    let one = |(session, (sender, offer)): (&SessionId, &(std::net::IpAddr, Announce))| {
        serde_json::json!({
            "name": offer.name.as_str(),
            "image": offer.image.to_string(),
            "bytes": offer.layout.bytes(),
            "sender": sender.to_string(),
            "session": session.to_string(),
            "data_group": offer.data_group.to_string(),
            "state": state(offer.state),
            "one_way": offer.one_way,
            "receivers_joined": (!offer.one_way).then_some(offer.receivers_joined),
            "receivers_expected": (!offer.one_way).then_some(offer.receivers_expected),
            "pass": offer.one_way.then_some(offer.receivers_joined),
            "passes": offer.one_way.then_some(offer.receivers_expected),
        })
    };
    serde_json::json!({ "v": 1, "offers": offers.iter().map(one).collect::<Vec<_>>() })
}

const fn state(state: SenderState) -> &'static str {
    match state {
        SenderState::Gathering => "gathering",
        SenderState::Sending => "sending",
        SenderState::Idle => "idle",
        SenderState::Closing => "closing",
    }
}

/// Between two questions to one sender.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
