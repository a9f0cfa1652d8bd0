//! ANNOUNCEs of any content to a receiver that listens: none is chosen but one that is wanted and
//! fits, forged ones shut nobody out, and the table of offers has its limit.

use imgcast_common::{
    id::{ImageId, SessionId, Stream},
    layout::Layout,
    wire::{Announce, HEADER_LEN, Header, Message, Name, Role, SenderState, UNICAST, padded_len},
};
use imgcast_receiver::{
    memory::Memory,
    session::{Event, Failure, Outcome, Session, SessionConfig, Via, Wanted},
};

use super::input::{Input, beginning, host, make_right, offer};

pub(super) fn run(octets: &[u8]) {
    let mut input = Input::new(octets);
    let wanted = match input.u8() % 3 {
        0 => Wanted::Any,
        1 => Wanted::Name("a".into()),
        _ => Wanted::Image(ImageId([input.u8(); 32])),
    };
    let octets_max = [1472, 8972, 500][usize::from(input.u8() % 3)];
    let config = SessionConfig {
        wanted: wanted.clone(),
        host: "node".into(),
        key: [1; 16],
        resumes: false,
        target_bytes: None,
        memory: Memory::for_blocks(8, 1 << 10),
        datagram_octets_max: octets_max,
        start_timeout: Some(std::time::Duration::from_secs(60)),
        receive_timeout: Some(std::time::Duration::from_secs(60)),
        ask: input.chance().then(|| host(1)),
    };
    let mut now = beginning();
    let mut session = Session::new(config, input.u64(), now);
    let mut heard = 0;
    while !input.is_over() {
        match input.u8() {
            step @ 0..=250 => {
                let session_id = u64::from(step) + 1;
                let counter = UNICAST | u64::from(input.u8() | 1);
                let datagram = announcement(&mut input, session_id, counter);
                let parsed = Message::parse(&datagram, Role::Receiver);
                if let Ok((header, message)) = parsed {
                    heard += 1;
                    session.handle_message(now, Via::Rendezvous, host(step), &header, &message);
                }
            }
            251 => session.handle_other_version(input.u8()),
            252 => session.handle_stop(now),
            _ => {
                now += input.time();
                session.handle_timeout(now);
            }
        }
        while let Some(transmit) = session.poll_transmit() {
            assert_eq!(transmit.to, host(1), "only who is to be asked is asked");
        }
        assert!(session.status(now).offers <= OFFERS_MAX.min(heard));
        while let Some(event) = session.poll_event() {
            match event {
                Event::Chosen(offer) => {
                    assert!(wanted.accepts(&offer.announce), "{offer:?}");
                    assert_ne!(offer.announce.state, SenderState::Closing);
                    assert!(padded_len(offer.announce.layout.symbol_size()) <= octets_max);
                    return;
                }
                Event::Finished(outcome) => return check(&outcome, &wanted, octets_max),
                Event::Notice(_) | Event::RenewMembership => {}
                other => panic!("{other:?} without a session"),
            }
        }
    }
}

/// An ANNOUNCE whose fields are right, drawn from few values where they decide, and then perhaps
/// one or two more that are anything.
fn announcement(input: &mut Input<'_>, session: u64, counter: u64) -> Vec<u8> {
    let image = ImageId([input.u8() % 3; 32]);
    let bytes = u64::from(input.u16()) << (input.u8() % 28);
    let (block_log2, symbol_size) = (8 + input.u8() % 17, u16::from(input.u8()) * 32);
    let smallest = Layout::new(1, 10, 64).unwrap_or_else(|| unreachable!("within all limits"));
    let layout = Layout::new(bytes, block_log2, symbol_size).unwrap_or(smallest);
    let states =
        [SenderState::Gathering, SenderState::Sending, SenderState::Idle, SenderState::Closing];
    let state = input.u8();
    let name = Name::new(["a", "b", "disk"][usize::from(input.u8() % 3)]);
    let announce = Announce {
        image,
        index_hash: [input.u8(); 32],
        state: states[usize::from(state % 4)],
        one_way: state & 64 != 0,
        receivers_expected: input.u32(),
        name: name.unwrap_or_else(|| unreachable!("a plain name")),
        ..offer(layout)
    };
    let header = Header { session: SessionId(session), stream: Stream::Image, counter };
    let padding = usize::from(input.u8()) * usize::from(input.u8() % 2) * 4;
    let mut datagram = Message::Announce(announce).emit(&header, padding);
    for _ in 0..input.u8() % 3 {
        let at = HEADER_LEN + usize::from(input.u16()) % (datagram.len() - HEADER_LEN);
        for (octet, new) in datagram[at..].iter_mut().zip(input.octets(8)) {
            *octet = *new;
        }
    }
    make_right(&mut datagram);
    datagram
}

fn check(outcome: &Outcome, wanted: &Wanted, octets_max: usize) {
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?} without a session") };
    match failure {
        Failure::SeveralImages(offers) => {
            assert!(offers.len() > 1 && offers.iter().all(|it| wanted.accepts(&it.announce)));
            assert!(!matches!(wanted, Wanted::Image(_)), "a hash leaves no doubt");
        }
        Failure::NotOffered(offers) => {
            assert!(!offers.is_empty() && !offers.iter().any(|it| wanted.accepts(&it.announce)));
        }
        Failure::Ending(offer) => {
            assert!(wanted.accepts(&offer.announce));
            assert_eq!(offer.announce.state, SenderState::Closing);
        }
        Failure::Mtu { datagram_octets, sender_mtu: None } => {
            assert!(*datagram_octets > octets_max)
        }
        Failure::NoSender | Failure::OtherVersion(_) | Failure::Interrupted => {}
        other => panic!("{other:?} without a session"),
    }
}

/// As `offers` has it.
const OFFERS_MAX: usize = 256;
