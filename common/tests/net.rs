//! Real sockets over loopback multicast, without privileges; what loopback cannot do as it comes
//! (IPv6 groups, narrow routes) runs in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use imgcast_common::net::{
    BatchLayout, BatchPool, BatchReceiver, BatchSender, Datagram, Family, GroupSocket, Interface,
    NetError, NodeSocket, Offload, Sent,
};
use machine::is_in_namespace;

#[path = "../../tests/support/machine.rs"]
#[expect(unreachable_pub, reason = "imgcast_tests makes it public")]
mod machine;

type Heard = Vec<(SocketAddr, Vec<u8>)>;

const LAYOUTS: [BatchLayout; 2] = [BatchLayout::COALESCED, PLAIN];
const OFFLOADS: [Offload; 2] = [Offload::IfAvailable, Offload::Off];
const PLAIN: BatchLayout = BatchLayout::plain(2048);
const ROUNDS: usize = 10;

#[test]
fn ipv4_groups_carry_the_same_octets_in_order_on_every_path() {
    every_path_delivers(Family::V4);
}

#[test]
fn ipv6_groups_carry_the_same_octets_in_order_on_every_path() {
    let name = "ipv6_groups_carry_the_same_octets_in_order_on_every_path";
    if is_in_namespace(name, "ip -6 route add local ff00::/8 dev lo table local") {
        every_path_delivers(Family::V6);
    }
}

#[test]
fn an_ipv6_group_without_a_route_is_refused_with_the_command_that_adds_one() {
    let name = "an_ipv6_group_without_a_route_is_refused_with_the_command_that_adds_one";
    if !is_in_namespace(name, "true") {
        return;
    }
    let error = sender(Family::V6, Offload::Off).send_one(b"x", group(Family::V6)).unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("add local ff00::/8 dev lo"), "{error}");
}

#[test]
fn a_path_narrower_than_the_interface_is_an_error_and_not_a_fragment() {
    let name = "a_path_narrower_than_the_interface_is_an_error_and_not_a_fragment";
    if !is_in_namespace(name, "ip route add 239.0.0.0/8 dev lo mtu 1000") {
        return;
    }
    let mut sender = sender(Family::V4, Offload::IfAvailable);
    let octets = [1; 973];
    let run = [Datagram::whole(&octets); 4];
    let text = sender.send_run(&run, group(Family::V4)).unwrap_err().to_string();
    assert!(text.contains("973 octets") && text.contains("972 octets (MTU 1000)"), "{text}");
    assert!(sender.uses_offload(), "one narrow path must not end offload for all");
    let fitting = [Datagram::whole(&octets[..972]); 4];
    assert_eq!(sender.send_run(&fitting, group(Family::V4)).unwrap().datagrams, 4);
}

#[test]
fn several_receivers_on_one_host_hear_the_same_group() {
    let group = group(Family::V4);
    let mut receivers = [group_receiver(group, PLAIN), group_receiver(group, PLAIN)];
    sender(Family::V4, Offload::IfAvailable).send_one(b"to all", group).unwrap();
    for receiver in &mut receivers {
        assert_eq!(receive(receiver, 1)[0].1, b"to all");
    }
}

#[test]
fn a_joined_burst_is_taken_apart_with_a_short_last_segment() {
    let group = group(Family::V4);
    let mut receiver = group_receiver(group, BatchLayout::COALESCED);
    let mut sender = sender(Family::V4, Offload::IfAvailable);
    let octets = [7; 1000];
    let run = [&octets[..], &octets, &octets, &octets[..3]].map(Datagram::whole);
    let sent = sender.send_run(&run, group).unwrap();
    assert_eq!(sent, Sent { datagrams: 4, octets: 3003 });
    let sizes: Vec<usize> = receive(&mut receiver, 4).iter().map(|heard| heard.1.len()).collect();
    assert_eq!(sizes, [1000, 1000, 1000, 3]);
}

#[test]
fn where_nothing_is_joined_more_is_read_at_a_time_and_a_burst_is_whole_all_the_same() {
    let group = group(Family::V4);
    let mut receiver = group_receiver(group, BatchLayout::COALESCED);
    let octets = [3; 1000];
    let run = [Datagram::whole(&octets); 64];
    let mut most = 0;
    let mut single = sender(Family::V4, Offload::Off);
    // It is found out only where the socket was empty: in between it has to be.
    for _ in 0..20 {
        single.send_run(&run, group).unwrap();
        let mut left = run.len();
        while left > 0 {
            let batch = receiver.receive().unwrap().unwrap();
            let sizes: Vec<usize> = batch.datagrams().map(|(_, octets)| octets.len()).collect();
            assert!(sizes.iter().all(|size| *size == octets.len()), "{sizes:?}");
            (most, left) = (most.max(sizes.len()), left - sizes.len());
        }
    }
    assert!(most > 20, "{most}");
    sender(Family::V4, Offload::IfAvailable).send_run(&run, group).unwrap();
    let sizes: Vec<usize> = receive(&mut receiver, 64).iter().map(|heard| heard.1.len()).collect();
    assert_eq!(sizes, [1000; 64]);
}

#[test]
fn after_many_single_datagrams_joining_is_tried_again() {
    let group = group(Family::V4);
    let mut receiver = group_receiver(group, BatchLayout::COALESCED);
    let octets = [3; 100];
    let run = [Datagram::whole(&octets); 64];
    // How many datagrams were joined at most.
    let mut pass_on = |sender: &mut BatchSender| {
        sender.send_run(&run, group).unwrap();
        let (mut left, mut joined, mut silences) = (run.len(), 1, 0);
        while left > 0 {
            let Some(batch) = receiver.receive().unwrap() else {
                silences += 1;
                assert!(silences < 100, "{left} did not come");
                continue;
            };
            joined = joined.max(batch.datagrams_joined());
            left -= batch.datagrams().count();
        }
        joined
    };
    let mut single = sender(Family::V4, Offload::Off);
    let mut bursts = sender(Family::V4, Offload::IfAvailable);
    assert!(pass_on(&mut bursts) > 1, "at first they are joined");
    for _ in 0..20 {
        assert_eq!(pass_on(&mut single), 1);
    }
    let mut datagrams = 0;
    // Fewer single ones at a time than end joining.
    while pass_on(&mut bursts) == 1 && datagrams < 1_000_000 {
        datagrams += 64;
        for _ in 0..4 {
            datagrams += 64;
            pass_on(&mut single);
        }
    }
    assert!((250_000..300_000).contains(&datagrams), "{datagrams}");
}

#[test]
fn mixed_and_empty_datagrams_arrive_as_they_were_sent() {
    let group = group(Family::V4);
    let octets = [9; 500];
    let sizes = [0, 0, 10, 500, 500, 20, 30, 30, 0, 1];
    let run = sizes.map(|size| Datagram::whole(&octets[..size]));
    for (offload, layout) in OFFLOADS.into_iter().zip(LAYOUTS) {
        let mut receiver = group_receiver(group, layout);
        sender(Family::V4, offload).send_run(&run, group).unwrap();
        let heard = receive(&mut receiver, sizes.len());
        assert_eq!(heard.iter().map(|heard| heard.1.len()).collect::<Vec<_>>(), sizes);
    }
}

#[test]
fn a_group_socket_hears_no_other_group_at_its_port() {
    let wanted = group(Family::V4);
    let other = loop {
        let other = SocketAddr::new(group(Family::V4).ip(), wanted.port());
        if other != wanted {
            break other;
        }
    };
    let mut receiver = group_receiver(wanted, PLAIN);
    let mut others = group_receiver(other, PLAIN);
    let mut sender = sender(Family::V4, Offload::Off);
    sender.send_one(b"other", other).unwrap();
    sender.send_one(b"wanted", wanted).unwrap();
    assert_eq!(receive(&mut others, 1)[0].1, b"other");
    assert_eq!(receive(&mut receiver, 1)[0].1, b"wanted");
}

#[test]
fn a_renewed_membership_still_hears_and_a_dropped_one_is_gone() {
    let group = group(Family::V4);
    let (socket, _) = GroupSocket::join(&loopback(Family::V4), group, 1 << 20).unwrap();
    socket.set_receive_timeout(Some(Duration::from_millis(100))).unwrap();
    let socket = Arc::new(socket);
    let mut receiver = BatchReceiver::new(Arc::clone(&socket), BatchPool::new(1, PLAIN)).unwrap();
    socket.renew().unwrap();
    assert!(is_member(group));
    sender(Family::V4, Offload::Off).send_one(b"again", group).unwrap();
    assert_eq!(receive(&mut receiver, 1)[0].1, b"again");
    drop((receiver, socket));
    assert!(!is_member(group));
}

#[test]
fn two_nodes_of_one_host_share_an_address_and_talk_by_unicast() {
    let interface = loopback(Family::V4);
    let first = Arc::new(NodeSocket::open(&interface, 1, 0).unwrap());
    let second = NodeSocket::open(&interface, 1, first.local().port()).unwrap();
    assert_eq!(second.local().ip(), first.local().ip());
    assert_ne!(second.local().port(), first.local().port());
    assert!(second.local().port() != 0 && second.forbids_fragments());
    second.set_receive_timeout(Some(Duration::from_millis(100))).unwrap();
    let to = second.local();
    let mut receiver = BatchReceiver::new(second, BatchPool::new(2, LAYOUTS[0])).unwrap();
    BatchSender::new(Arc::clone(&first), Offload::Off).send_one(b"hello", to).unwrap();
    assert_eq!(receive(&mut receiver, 1), [(first.local(), b"hello".to_vec())]);
}

#[test]
fn a_peer_that_is_gone_does_not_stop_the_sender() {
    let mut sender = sender(Family::V4, Offload::IfAvailable);
    let gone = NodeSocket::open(&loopback(Family::V4), 1, 0).unwrap().local();
    for _ in 0..3 {
        sender.send_one(b"anybody?", gone).unwrap();
    }
}

#[test]
fn what_overflows_a_tiny_receive_buffer_is_counted() {
    let group = group(Family::V4);
    let (socket, _) = GroupSocket::join(&loopback(Family::V4), group, 1).unwrap();
    socket.set_receive_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut receiver = BatchReceiver::new(socket, BatchPool::new(1, PLAIN)).unwrap();
    let mut sender = sender(Family::V4, Offload::Off);
    let octets = [3; 1000];
    let (mut sent, mut heard, mut overflow) = (0, 0, 0);
    for _ in 0..ROUNDS {
        sent += sender.send_run(&[Datagram::whole(&octets); 100], group).unwrap().datagrams;
        while let Some(batch) = receiver.receive().unwrap() {
            heard += batch.datagrams().count();
            assert!(batch.overflow_total() >= overflow, "the count goes one way only");
            overflow = batch.overflow_total();
        }
    }
    assert!(overflow > 0);
    assert!(overflow <= u64::try_from(sent - heard).unwrap(), "{overflow} of {sent} - {heard}");
}

#[test]
fn a_datagram_beyond_the_mtu_is_refused_before_anything_is_sent_and_both_sizes_are_named() {
    let octets = vec![0; 65_508];
    let run = [Datagram::whole(b"small"), Datagram::whole(&octets)];
    for offload in OFFLOADS {
        let group = group(Family::V4);
        let mut receiver = group_receiver(group, PLAIN);
        let mut sender = sender(Family::V4, offload);
        let text = sender.send_run(&run, group).unwrap_err().to_string();
        for part in ["65508 octets", "interface lo", "65507 octets", "MTU 65536"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        sender.send_one(b"next", group).unwrap();
        assert_eq!(receive(&mut receiver, 1)[0].1, b"next");
    }
}

#[test]
fn an_address_that_is_no_group_or_of_the_other_family_is_refused() {
    for address in ["10.0.0.1:5000", "[ff15::6330]:5000"] {
        let error = GroupSocket::join(&loopback(Family::V4), address.parse().unwrap(), 1 << 16);
        let error = error.unwrap_err();
        assert!(matches!(error, NetError::NotAGroup { .. }), "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
}

#[test]
fn the_granted_buffer_is_told() {
    let node = NodeSocket::open(&loopback(Family::V4), 1, 0).unwrap();
    for grant in [node.set_receive_buffer(64 << 10), node.set_send_buffer(64 << 10)] {
        let grant = grant.unwrap();
        assert_eq!((grant.asked_bytes, grant.granted_bytes), (64 << 10, 64 << 10));
        assert!(!grant.is_cut());
    }
    let grant = node.set_receive_buffer(usize::MAX).unwrap();
    assert!(grant.is_cut() && grant.granted_bytes > 0, "{grant:?}");
}

#[test]
fn a_reader_waits_for_a_consumer_that_holds_all_batches() {
    let group = group(Family::V4);
    let (socket, _) = GroupSocket::join(&loopback(Family::V4), group, 1 << 20).unwrap();
    socket.set_receive_timeout(Some(Duration::from_millis(100))).unwrap();
    let pool = BatchPool::new(1, PLAIN);
    let mut receiver = BatchReceiver::new(socket, pool.clone()).unwrap();
    let mut sender = sender(Family::V4, Offload::Off);
    sender.send_one(b"one", group).unwrap();
    let held = (0..ROUNDS).find_map(|_| receiver.receive().unwrap()).unwrap();
    sender.send_one(b"two", group).unwrap();
    assert!(receiver.receive().unwrap().is_none());
    let consumer = thread::spawn(move || held.datagrams().next().unwrap().1.to_vec());
    assert_eq!(consumer.join().unwrap(), b"one");
    assert_eq!(pool.batches_free(), 1);
    assert_eq!(receive(&mut receiver, 1)[0].1, b"two");
}

fn every_path_delivers(family: Family) {
    for offload in OFFLOADS {
        for layout in LAYOUTS {
            let group = group(family);
            let mut receiver = group_receiver(group, layout);
            let mut sender = sender(family, offload);
            let source = sender.socket().local();
            for round in 0..ROUNDS {
                let symbols: Vec<Vec<u8>> = (0..50).map(|n| symbol(round * 50 + n)).collect();
                let mut run: Vec<Datagram<'_>> = symbols
                    .iter()
                    .map(|symbol| Datagram { parts: [&symbol[..24], &symbol[24..1432], b"crc4"] })
                    .collect();
                run.push(Datagram { parts: [b"last", &[], b"crc4"] });
                let sent = sender.send_run(&run, group).unwrap();
                assert_eq!(sent, Sent { datagrams: 51, octets: 50 * 1436 + 8 });
                let expected: Heard =
                    run.iter().map(|datagram| (source, datagram.parts.concat())).collect();
                assert!(receive(&mut receiver, 51) == expected, "{offload:?} {layout:?}");
            }
            assert_eq!(sender.uses_offload(), offload == Offload::IfAvailable);
        }
    }
}

fn symbol(number: usize) -> Vec<u8> {
    (0..1432).map(|at| u8::try_from((number * 31 + at * 7) % 251).unwrap()).collect()
}

/// Reads until `count` datagrams are there; panics if they do not come.
fn receive<S: std::os::fd::AsFd>(receiver: &mut BatchReceiver<S>, count: usize) -> Heard {
    let mut heard = Heard::new();
    let mut silences = 0;
    while heard.len() < count {
        match receiver.receive().unwrap() {
            Some(batch) => {
                heard.extend(batch.datagrams().map(|(source, octets)| (*source, octets.to_vec())));
            }
            None => silences += 1,
        }
        assert!(silences < 100, "{} of {count} datagrams came", heard.len());
    }
    heard
}

fn sender(family: Family, offload: Offload) -> BatchSender {
    let node = NodeSocket::open(&loopback(family), 1, 0).unwrap();
    BatchSender::new(Arc::new(node), offload)
}

fn group_receiver(group: SocketAddr, layout: BatchLayout) -> BatchReceiver<GroupSocket> {
    let interface = loopback(Family::of(group.ip()));
    let (socket, _) = GroupSocket::join(&interface, group, 4 << 20).unwrap();
    socket.set_receive_timeout(Some(Duration::from_millis(100))).unwrap();
    BatchReceiver::new(socket, BatchPool::new(2, layout)).unwrap()
}

fn loopback(family: Family) -> Interface {
    Interface::find("lo", family).unwrap()
}

/// A group and port that no other test uses at the same time, but for chance.
fn group(family: Family) -> SocketAddr {
    let random = RandomState::new().build_hasher().finish().to_be_bytes();
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(239, 255, random[0], random[1])),
        Family::V6 => {
            let low = u16::from_be_bytes([random[0], random[1]]);
            IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x6331, low))
        }
    };
    let port = 20_000 + u16::from_be_bytes([random[2], random[3]]) % 10_000;
    SocketAddr::new(address, port)
}

/// Whether this host is in the group on any interface, as the kernel tells.
fn is_member(group: SocketAddr) -> bool {
    let IpAddr::V4(address) = group.ip() else { panic!("IPv4 only") };
    let shown = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    std::fs::read_to_string("/proc/net/igmp").unwrap().contains(&shown)
}
