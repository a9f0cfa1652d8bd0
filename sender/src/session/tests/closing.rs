//! Last words, of receivers and of the session.

use super::*;

#[test]
fn where_all_had_the_image_it_stays_for_others_that_are_on_their_way_and_for_nobody_else() {
    let mut table = Table::new(|_| {});
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_millis(2_900));
    assert_ne!(table.state(), SenderState::Closing);
    let late = table.join_again(2);
    table.need(late, &[BlockRange::one(7, WHOLE)]);
    table.run(LONG);
    assert!(table.symbols_of(7, 0) > 0);
    table.finish(late, IMAGE);
    assert_eq!(table.state(), SenderState::Closing);
    let mut table = Table::new(|_| {});
    let done = table.join_again(1);
    table.finish(done, IMAGE);
    table.run(Duration::from_secs(6));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 1 }));
    let mut table = Table::new(|_| {});
    let done = table.join(1);
    table.finish(done, IMAGE);
    assert_eq!(table.state(), SenderState::Closing, "it lacked something");
}

#[test]
fn done_is_acknowledged_by_both_ways_and_ends_the_session() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    table.finish(node, IMAGE);
    for to in [Destination::Group, Destination::Unicast(node.address)] {
        let acknowledged = |(sent_to, message): &(Destination, Message<'_>)| {
            matches!(message, Message::DoneAck(ack) if ack.includes(node.id)) && *sent_to == to
        };
        assert!(table.sent.iter().any(acknowledged), "{to:?}");
    }
    assert_eq!(table.state(), SenderState::Closing);
    table.run(Duration::from_secs(2));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 1 }));
}

#[test]
fn the_group_is_told_with_the_next_sync_of_all_who_are_done() {
    let mut table = Table::new(|config| config.receivers_min = 4);
    let nodes: Vec<Node> = (1..=4).map(|number| table.join(number)).collect();
    table.run(LONG);
    table.sent.clear();
    nodes[..3].iter().for_each(|node| table.finish(*node, IMAGE));
    table.run(Duration::from_millis(600));
    let to_group = table.sent.iter().filter_map(|(to, message)| match message {
        Message::DoneAck(ack) if *to == Destination::Group => Some(ack),
        _ => None,
    });
    let told: Vec<_> = to_group.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(nodes[..3].iter().all(|node| told[0].includes(node.id)));
}

#[test]
fn a_receiver_with_another_image_is_not_done() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    table.finish(node, ImageId([8; 32]));
    assert_eq!(table.session.member(node.id).unwrap().state, MemberState::Failed);
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 0 }));
}

#[test]
fn who_leaves_is_not_waited_for() {
    let mut table = Table::new(|_| {});
    let node = table.join(1);
    table.run(LONG);
    let leave = Leave { receiver: node.id, reason: LeaveReason::Interrupted };
    table.hear(node.address, &Message::Leave(leave));
    table.run(Duration::from_secs(20));
    assert_eq!(table.outcome(), Some(Outcome::Ended { expected: 1, done: 0 }));
}

#[test]
fn who_says_nothing_for_a_minute_and_twenty_polls_is_lost_and_may_come_back() {
    let mut table = Table::new(|config| config.receivers_min = 2);
    let (silent, lively) = (table.join(1), table.join(2));
    table.run(LONG);
    for _ in 0..56 {
        table.need(lively, &[]);
        table.run(Duration::from_millis(900));
        assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Active);
    }
    table.run(Duration::from_secs(25));
    assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Lost);
    table.need(silent, &[]);
    assert_eq!(table.session.member(silent.id).unwrap().state, MemberState::Active);
}

#[test]
fn stopping_tells_everybody_and_ends_soon() {
    let mut table = Table::new(|_| {});
    table.join(1);
    table.run(Duration::from_millis(10));
    table.session.handle_stop(table.now, AbortReason::Interrupted, "enough");
    table.run(Duration::from_secs(1));
    let aborts = table
        .sent
        .iter()
        .filter(|(to, message)| matches!(message, Message::Abort(_)) && *to == Destination::Group);
    assert!(aborts.count() >= 5);
    assert_eq!(table.outcome(), Some(Outcome::Aborted(AbortReason::Interrupted)));
    table.join_late();
    assert_eq!(table.refusals(), [RefuseReason::Ending]);
}

impl Table {
    fn join_late(&mut self) {
        self.hear(SocketAddr::from(([10, 0, 0, 99], 4000)), &join(99));
    }
}
