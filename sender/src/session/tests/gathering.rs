//! Who is let in, and when it starts.

use super::*;

#[test]
fn it_starts_when_enough_have_joined_and_the_least_wait_is_over() {
    let mut table = Table::new(|config| {
        config.receivers_min = 2;
        config.wait_min = Duration::from_secs(5);
    });
    table.join(1);
    table.run(Duration::from_secs(20));
    assert_eq!(table.state(), SenderState::Gathering);
    table.join(2);
    table.run(Duration::from_millis(100));
    assert_ne!(table.state(), SenderState::Gathering);
    let mut table = Table::new(|config| config.wait_min = Duration::from_secs(5));
    table.join(1);
    table.run(Duration::from_millis(4900));
    assert_eq!(table.state(), SenderState::Gathering);
    table.run(Duration::from_millis(200));
    assert_ne!(table.state(), SenderState::Gathering);
}

#[test]
fn it_starts_without_the_missing_ones_when_the_longest_wait_is_over() {
    let mut table = Table::new(|config| {
        config.receivers_min = 9;
        config.wait_max = Some(Duration::from_secs(5));
    });
    let node = table.join(1);
    table.run(Duration::from_secs(6));
    assert_ne!(table.state(), SenderState::Gathering);
    table.finish(node, IMAGE);
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 9, done: 1 }));
}

#[test]
fn the_operator_starts_it_with_those_who_have_joined_if_there_are_any() {
    let mut table = Table::new(|config| {
        config.receivers_min = 9;
        config.wait_min = Duration::from_secs(5);
    });
    assert!(!table.session.handle_start(table.now), "with nobody");
    table.run(Duration::from_secs(1));
    assert_eq!(table.state(), SenderState::Gathering);
    let node = table.join(1);
    assert!(table.session.handle_start(table.now));
    table.drain();
    assert_eq!(table.events.iter().filter(|event| **event == Event::Started).count(), 1);
    assert_eq!(table.state(), SenderState::Sending);
    assert!(!table.session.handle_start(table.now), "it has begun");
    let late = table.join(2);
    for node in [node, late] {
        table.finish(node, IMAGE);
    }
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 9, done: 2 }));
}

#[test]
fn who_is_done_before_the_start_counts_as_one_of_those_who_are_waited_for() {
    let mut table = Table::new(|config| config.receivers_min = 3);
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_secs(40));
    assert_eq!((table.state(), table.outcome()), (SenderState::Gathering, None), "it has one");
    let leaving = table.join(2);
    let leave = Leave { receiver: leaving.id, reason: LeaveReason::Interrupted };
    table.hear(leaving.address, &Message::Leave(leave));
    let Message::Join(again) = join(1) else { panic!() };
    table.hear(done.address, &Message::Join(Join { nonce: [99; 16], ..again }));
    table.join(3);
    table.run(LONG);
    assert_eq!(table.state(), SenderState::Gathering, "who left or was replaced does not count");
    let other = table.join_again(4);
    assert_eq!(table.state(), SenderState::Sending);
    table.finish(other, IMAGE);
    table.run(LONG);
    let announced = table.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Announce(announce) => Some(announce.receivers_joined),
        _ => None,
    });
    assert_eq!(announced, Some(3), "two who lack something, and one who is done");
    assert!(table.symbols_of_all() > 0);
}

#[test]
fn with_those_who_are_done_alone_it_starts_and_ends_when_it_is_told_to_or_has_waited_long() {
    for is_told in [false, true] {
        let mut table = Table::new(|config| {
            config.receivers_min = 2;
            config.wait_max = Some(Duration::from_secs(60));
        });
        let done = table.join_again(1);
        table.finish(done, IMAGE);
        table.run(Duration::from_secs(59));
        assert_eq!(table.state(), SenderState::Gathering);
        if is_told {
            assert!(table.session.handle_start(table.now));
        }
        table.run(Duration::from_secs(12));
        assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 2, done: 1 }));
    }
}

#[test]
fn who_joins_only_to_say_that_it_cannot_take_part_is_told_of_and_starts_nothing() {
    let mut table = Table::new(|_| {});
    let address = SocketAddr::from(([10, 0, 0, 9], 4000));
    let [told, silent] = [9, 8].map(|number| match join(number) {
        Message::Join(join) => Message::Join(Join { unfit: true, ..join }),
        other => panic!("{other:?}"),
    });
    table.hear(address, &told);
    let id = table.welcomes().last().unwrap().receiver;
    table.run(LONG);
    assert!(!table.session.handle_start(table.now), "there is nobody to start with");
    let done = Done {
        receiver: id,
        succeeded: false,
        image: ImageId([0; 32]),
        bytes_written: 0,
        seconds: 0,
        refetched_blocks: 0,
        error_code: 7,
        text: "the disk is too small".into(),
    };
    table.hear(address, &Message::Done(done));
    table.run(LONG);
    let status = table.session.status();
    assert_eq!((status.state, status.active, status.gone), (SenderState::Gathering, 0, 1));
    let member = table.session.member(id).unwrap();
    let words = member.done.as_ref().map(|done| done.text.as_str());
    assert_eq!((member.state, words), (MemberState::Failed, Some("the disk is too small")));
    assert_eq!(table.events, [Event::Changed(id)]);
    table.hear(address, &silent);
    assert_eq!(table.session.status().active, 0, "nor does one that never says why");
    let node = table.join(1);
    assert_eq!(table.state(), SenderState::Sending);
    table.finish(node, IMAGE);
    table.run(Duration::from_secs(20));
    let outcome = table.outcome();
    assert_eq!(outcome, Some(Outcome::Ended { expected: 3, done: 1 }), "nobody waits for it");
}

#[test]
fn it_gives_up_when_nobody_comes() {
    let mut table = Table::new(|_| {});
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::NoReceivers));
}

#[test]
fn the_same_join_gets_the_same_welcome_and_a_new_run_takes_the_old_one_s_place() {
    let mut table = Table::new(|config| config.receivers_min = 9);
    let node = table.join(1);
    assert_eq!(table.join(1).id, node.id);
    let Message::Join(again) = join(1) else { panic!() };
    table.hear(node.address, &Message::Join(Join { nonce: [99; 16], ..again }));
    assert_ne!(table.welcomes().last().unwrap().receiver, node.id);
    let ejected = |(to, message): &(Destination, Message<'_>)| {
        matches!(message, Message::Eject(eject) if eject.receiver == node.id)
            && *to == Destination::Unicast(node.address)
    };
    assert!(table.sent.iter().any(ejected));
    assert_eq!(table.session.status().active, 1);
}

#[test]
fn a_join_that_is_smaller_than_its_welcome_is_not_answered() {
    let mut table = Table::new(|_| {});
    let from = SocketAddr::from(([10, 0, 0, 1], 4000));
    table.hear_of(from, Stream::Image, &join(1), padded_len(1024) - 1);
    assert!(table.welcomes().is_empty() && table.refusals().is_empty());
    let Message::Join(unpadded) = join(1) else { panic!() };
    table.hear_of(from, Stream::Image, &Message::Join(Join { mtu: true, ..unpadded }), 100);
    assert_eq!(table.refusals(), [RefuseReason::Mtu]);
}

#[test]
fn at_most_16384_receivers_and_1024_half_open_ones() {
    let mut table = Table::new(|config| config.receivers_min = 20_000);
    let confirm = |table: &mut Table, id: u32, address| {
        table.now += Duration::from_millis(1);
        table.hear(address, &need(ReceiverId(id), 0, &[]));
    };
    let mut admitted = 0;
    for number in 0..u32::try_from(MEMBERS_MAX).unwrap() + 10 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 4000));
        let Message::Join(any) = join(0) else { panic!() };
        let mut nonce = [1; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        table.hear(address, &Message::Join(Join { nonce, key: nonce, ..any }));
        if number == HALF_OPEN_MAX {
            assert_eq!(table.welcomes().len(), HALF_OPEN_MAX as usize, "one too many waits");
            for id in 0..HALF_OPEN_MAX {
                let ip = std::net::Ipv4Addr::from(0x0a00_0000 + id);
                confirm(&mut table, id, SocketAddr::from((ip, 4000)));
            }
            let Message::Join(any) = join(0) else { panic!() };
            table.hear(address, &Message::Join(Join { nonce, key: nonce, ..any }));
        }
        if let Some(welcome) = table.welcomes().last()
            && welcome.nonce == nonce
        {
            admitted += 1;
            if number >= HALF_OPEN_MAX {
                confirm(&mut table, welcome.receiver.0, address);
            }
        }
        table.sent.retain(|(_, message)| {
            matches!(message, Message::Refuse(_))
                || (number < HALF_OPEN_MAX && matches!(message, Message::Welcome(_)))
        });
    }
    assert_eq!(admitted, MEMBERS_MAX);
    assert_eq!(table.refusals(), [RefuseReason::Full; 10]);
}

#[test]
fn joins_of_ever_new_runs_of_one_receiver_do_not_fill_the_table() {
    let mut table = Table::new(|config| config.receivers_min = 20_000);
    let silent = table.join(4);
    let lost = table.join(5);
    table.now += Duration::from_millis(1);
    table.need(lost, &[]);
    table.run(Duration::from_secs(120));
    let [first, replaced] = [1, 6].map(|number| {
        let node = table.join(number);
        table.now += Duration::from_millis(1);
        table.need(node, &[]);
        node
    });
    let Message::Join(again) = join(6) else { panic!() };
    table.hear(replaced.address, &Message::Join(Join { nonce: [99; 16], ..again }));
    let Message::Join(any) = join(2) else { panic!() };
    for number in 0..u32::try_from(MEMBERS_MAX).unwrap() + 10 {
        let mut nonce = [1; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        table.now += Duration::from_millis(1);
        let address = SocketAddr::from(([10, 0, 0, 2], 4000));
        table.hear(address, &Message::Join(Join { nonce, ..any.clone() }));
        table.sent.clear();
    }
    let other = table.join(3);
    let there: BTreeMap<_, _> = table.session.members().map(|it| (it.id, it.state)).collect();
    assert!(there.len() < MEMBERS_MAX, "{} members", there.len());
    let states = [first, other, lost, replaced, silent].map(|node| there.get(&node.id).copied());
    let [active, lost, ejected] = [MemberState::Active, MemberState::Lost, MemberState::Ejected];
    let known = [Some(active), Some(active), Some(lost), Some(ejected), None];
    assert_eq!(states, known, "who has said anything stays");
}

#[test]
fn joins_in_masses_from_one_host_keep_no_other_out_and_are_no_matter_of_mtu() {
    let mut table = Table::new(|config| config.receivers_min = 20_000);
    let host = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(number), 4000));
    let Message::Join(any) = join(0) else { panic!() };
    for number in 0..HALF_OPEN_OF_HOST_MAX + 10 {
        let mut nonce = [1; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        table.hear(host(1), &Message::Join(Join { nonce, key: nonce, ..any.clone() }));
    }
    assert_eq!(table.welcomes().len(), HALF_OPEN_OF_HOST_MAX as usize);
    let (nonce, key) = ([9; 16], [9; 16]);
    table.hear(host(1), &Message::Join(Join { nonce, key, mtu: true, ..any.clone() }));
    assert_eq!(table.refusals(), [], "it may ask again");
    table.hear(host(2), &Message::Join(Join { nonce, key, ..any.clone() }));
    assert_eq!(table.welcomes().len(), HALF_OPEN_OF_HOST_MAX as usize + 1);
    table.now += Duration::from_millis(1);
    table.hear(host(1), &need(ReceiverId(0), 0, &[]));
    table.hear(host(1), &Message::Join(Join { nonce: [8; 16], key: [8; 16], ..any }));
    assert_eq!(table.welcomes().len(), HALF_OPEN_OF_HOST_MAX as usize + 2);
}

#[test]
fn after_the_last_one_left_there_is_as_much_time_for_another_as_at_first() {
    let mut table = Table::new(|config| config.receivers_min = 2);
    let node = table.join(1);
    for _ in 0..50 {
        table.need(node, &[]);
        table.run(Duration::from_secs(1));
    }
    let leave = Leave { receiver: node.id, reason: LeaveReason::Interrupted };
    table.hear(node.address, &Message::Leave(leave));
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::NoReceivers));
}
