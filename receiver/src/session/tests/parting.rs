//! The end: flushed, and told to whoever is the sender by then.

use super::*;

#[test]
fn done_is_said_after_the_flush_until_it_is_acknowledged() {
    let mut table = Table::receiving();
    table.receive_all();
    assert!(table.events.contains(&Event::Flush));
    assert!(!table.sent.iter().any(|message| matches!(message, Message::Done(_))));
    table.sent.clear();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(1));
    let dones = table.sent.iter().filter(|message| matches!(message, Message::Done(_))).count();
    assert!((5..=7).contains(&dones), "{dones} in a second");
    assert_eq!(table.outcome(), None);
    table.hear(Via::Unicast, Message::DoneAck(DoneAck::of(&[ReceiverId(4)]).unwrap()));
    assert_eq!(table.outcome(), None, "it was somebody else's");
    table.hear(Via::Unicast, Message::DoneAck(DoneAck::of(&[ReceiverId(4), ME]).unwrap()));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: true }));
}

#[test]
fn without_an_acknowledgement_the_copy_stands() {
    let mut table = Table::receiving();
    table.receive_all();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(61));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
}

#[test]
fn being_ejected_or_stopped_ends_it() {
    let mut table = Table::receiving();
    let other = Eject { receiver: ReceiverId(1), reason: EjectReason::Replaced };
    table.hear(Via::Unicast, Message::Eject(other));
    assert_eq!(table.outcome(), None);
    let eject = Eject { receiver: ME, reason: EjectReason::Replaced };
    table.hear(Via::Unicast, Message::Eject(eject));
    assert_eq!(table.failure(), Failure::Ejected(EjectReason::Replaced));
    let mut table = Table::receiving();
    table.session.handle_stop(table.now);
    table.run(Duration::from_secs(1));
    assert!(table.sent.iter().any(|message| matches!(message, Message::Leave(_))));
    assert_eq!(table.failure(), Failure::Interrupted);
}

#[test]
fn who_cannot_take_part_is_let_in_to_say_why_and_asks_for_nothing() {
    let mut table = unfit();
    table.welcome();
    table.run(Duration::from_millis(100));
    assert!(table.joins().count() > 0 && table.joins().all(|join| join.unfit));
    let Some(Message::Done(done)) = table.sent.last() else { panic!("{:?}", table.sent) };
    let told = (done.succeeded, done.error_code, done.text.as_str());
    assert_eq!(told, (false, 7, "the disk is too small"));
    assert!(!table.sent.iter().any(|message| matches!(message, Message::Need(_))));
    assert_eq!(table.outcome(), None);
    table.hear(Via::Unicast, Message::DoneAck(DoneAck::of(&[ME]).unwrap()));
    assert_eq!(table.failure(), Failure::Driver);
}

#[test]
fn a_target_that_fails_while_the_sender_is_asked_is_told_of_by_the_same_run() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(310));
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(50));
    table.session.handle_failure(table.now, 8, "the disk fails");
    table.run(Duration::from_secs(1));
    let joins: Vec<_> = table.joins().map(|join| (join.nonce, join.mtu, join.unfit)).collect();
    let nonce = joins[0].0;
    assert!(joins.len() > 2 && !joins[0].2 && joins.last().unwrap().2, "{joins:?}");
    assert!(joins.iter().all(|join| join.0 == nonce && !join.1), "{joins:?}");
    table.welcome();
    table.run(Duration::from_millis(100));
    let Some(Message::Done(done)) = table.sent.last() else { panic!("{:?}", table.sent) };
    assert_eq!((done.succeeded, done.error_code), (false, 8));
}

#[test]
fn where_the_sender_hears_nothing_who_cannot_take_part_says_nothing() {
    let mut table = Table::new(|_| {});
    table.offer_one_way(SESSION);
    table.run(Duration::from_millis(310));
    table.session.handle_failure(table.now, 7, "the disk is too small");
    table.run(Duration::from_millis(50));
    assert_eq!((table.failure(), table.sent.len()), (Failure::Driver, 0));
}

#[test]
fn who_cannot_take_part_goes_unheard_where_the_sender_does_not_let_it_in() {
    let mut table = unfit();
    table.run(Duration::from_secs(1));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.failure(), Failure::Driver);
    let mut table = unfit();
    let nonce = table.joins().next_back().unwrap().nonce;
    let refuse = Refuse { nonce, reason: RefuseReason::Full, mtu: 1500 };
    table.hear(Via::Unicast, Message::Refuse(refuse));
    assert_eq!(table.failure(), Failure::Driver, "its own words are worth more");
}

/// One that has chosen an offer, and whose disk is too small for that.
fn unfit() -> Table {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(310));
    table.session.handle_failure(table.now, 7, "the disk is too small");
    table.run(Duration::from_millis(50));
    table
}

#[test]
fn a_sender_that_forgot_us_does_not_undo_the_flush() {
    let mut table = Table::receiving();
    table.receive_all();
    let refuse = Refuse { nonce: [0; 16], reason: RefuseReason::Rejoin, mtu: 1500 };
    table.hear(Via::Unicast, Message::Refuse(refuse));
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.run(Duration::from_secs(61));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
    let flushes = table.events.iter().filter(|event| **event == Event::Flush);
    assert_eq!(flushes.count(), 1);
}

/// Has `table` follow another session with the image, up to its JOIN.
fn follow(table: &mut Table, session: SessionId) {
    table.offer(session, "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == session);
    assert!(table.events.iter().any(chosen), "{:?}", table.events);
    table.sent.clear();
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.sent[..], [Message::Join(join)] if join.have), "{:?}", table.sent);
}

#[test]
fn whoever_has_everything_when_its_sender_is_started_again_tells_the_new_one() {
    let again = SessionId(9);
    // While it is flushed or read back, while the new one is asked, or after the old one was told.
    for flushed_after in [0, 1, 2, 3] {
        let mut table = Table::receiving();
        table.receive_all();
        let flushed = |table: &mut Table, step: u32| {
            if step == flushed_after {
                table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
                table.drain();
            }
        };
        flushed(&mut table, 0);
        table.run(Duration::from_secs(1));
        table.offer(again, "disk", 1);
        assert!(!matches!(table.events.last(), Some(Event::Chosen(_))), "the old one may be there");
        table.run(Duration::from_secs(2));
        flushed(&mut table, 1);
        follow(&mut table, again);
        flushed(&mut table, 2);
        table.done_in.clear();
        table.welcome_in(again);
        flushed(&mut table, 3);
        table.run(Duration::from_millis(100));
        assert!(!table.done_in.is_empty(), "{flushed_after}");
        assert!(table.done_in.iter().all(|session| *session == again), "{flushed_after}");
        let flushes = table.events.iter().filter(|event| **event == Event::Flush);
        assert_eq!(flushes.count(), 1, "{flushed_after}");
        table.hear_in(again, Via::Group, &Message::DoneAck(DoneAck::of(&[ME]).unwrap()));
        assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: true }), "{flushed_after}");
    }
}

#[test]
fn whoever_has_everything_ends_well_though_the_new_sender_refuses_it_or_is_gone() {
    let again = SessionId(9);
    for how in 0..4 {
        let mut table = Table::receiving();
        table.session.config.receive_timeout = None;
        table.receive_all();
        table.run(Duration::from_secs(3));
        follow(&mut table, again);
        let nonce = table.joins().next().map(|join| join.nonce);
        table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
        let full = Refuse { nonce: nonce.unwrap(), reason: RefuseReason::Full, mtu: 1500 };
        match how {
            0 => table.hear_in(again, Via::Unicast, &Message::Refuse(full)),
            1 => table.session.handle_stop(table.now),
            2 => table.run(Duration::from_secs(62)),
            _ => {
                let abort = Abort { reason: AbortReason::Image, text: "it changed".into() };
                table.hear_in(again, Via::Group, &Message::Abort(abort));
            }
        }
        table.drain();
        assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }), "{how}");
    }
}

#[test]
fn where_nobody_announces_the_new_sender_is_asked_for_while_the_image_is_flushed() {
    let ask = Some(SENDER);
    let questions = |table: &Table| {
        table
            .sent
            .iter()
            .filter(|it| matches!(it, Message::Join(join) if join.nonce == [0; 16]))
            .count()
    };
    for is_flushed in [false, true] {
        let mut table = Table::receiving();
        table.session.config.ask = ask;
        table.receive_all();
        if is_flushed {
            table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
        }
        table.run(Duration::from_millis(1_500));
        table.sent.clear();
        table.run(Duration::from_secs(3));
        assert!((3..8).contains(&questions(&table)), "{}", questions(&table));
    }
}

#[test]
fn an_end_after_the_flush_lets_it_go() {
    let mut table = Table::receiving();
    table.receive_all();
    table.session.handle_flushed(table.now, ImageId([1; 32]), 1 << 17);
    table.hear(Via::Group, Message::End(End { complete: false, text: String::new() }));
    assert_eq!(table.outcome(), Some(Outcome::Done { acknowledged: false }));
}
