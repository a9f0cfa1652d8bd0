//! Whether group and sender are heard, and what comes of it when they are not.

use super::*;

#[test]
fn nothing_from_the_group_while_it_sends_is_reported_and_taken_back_later() {
    let mut table = Table::receiving();
    table.sync(&[]);
    table.sent.clear();
    table.run(Duration::from_millis(700));
    assert!(table.needs().iter().any(|need| need.flags.no_multicast));
    assert!(table.events.contains(&Event::Notice(Notice::NoMulticast { any_more: true })));
    assert!(table.events.contains(&Event::RenewMembership));
    table.run_with_sender(Duration::from_millis(2_200));
    assert!(table.events.contains(&Event::Notice(Notice::MulticastAgain { by_joining: true })));
    table.needs();
    table.run_with_sender(Duration::from_secs(1));
    assert!(table.needs().iter().all(|need| !need.flags.no_multicast));
}

#[test]
fn a_group_that_was_never_heard_and_one_that_comes_back_late_are_told_apart_from_others() {
    let mut table = Table::member();
    table.session.contact.begin_session(table.now);
    table.session.contact.on_state(SenderState::Sending);
    table.run(Duration::from_millis(700));
    let never = Event::Notice(Notice::NoMulticast { any_more: false });
    assert!(table.events.contains(&never));
    table.run(Duration::from_millis(1_000));
    table.run_with_sender(Duration::from_millis(2_200));
    let by_itself = Event::Notice(Notice::MulticastAgain { by_joining: false });
    assert!(table.events.contains(&by_itself));
}

#[test]
fn memberships_are_refreshed_before_switches_forget_them() {
    let renewals = |table: &Table| {
        table.events.iter().filter(|event| **event == Event::RenewMembership).count()
    };
    let mut listening = Table::new(|config| config.start_timeout = None);
    listening.run(Duration::from_secs(185));
    assert_eq!(renewals(&listening), 3);
    let mut table = Table::receiving();
    table.session.config.receive_timeout = None;
    table.run_with_sender(Duration::from_secs(125));
    assert_eq!(renewals(&table), 2);
    assert!(!table.session.status(table.now).no_multicast);
}

#[test]
fn another_session_of_the_same_image_takes_over_and_verified_blocks_stay() {
    let mut table = Table::receiving();
    table.symbols(0, 0..16, 16);
    table.checked(BlockId::image(0), Checked::Whole);
    table.session.handle_stored(table.now, 0);
    table.run(Duration::from_secs(3));
    assert!(table.events.contains(&Event::Notice(Notice::SenderSilent)));
    table.offer(SessionId(8), "other", 2);
    assert!(!matches!(table.events.last(), Some(Event::Chosen(_))), "not this image");
    table.offer(SessionId(9), "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == SessionId(9));
    assert!(table.events.iter().any(chosen));
    table.sent.clear();
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.sent[..], [Message::Join(join)] if join.have));
    assert_eq!(table.session.status(table.now).verified_blocks, 2);
}

#[test]
fn the_clock_of_the_session_before_is_not_compared_with_that_of_the_next() {
    let mut table = Table::receiving();
    let sync_at = |table: &mut Table, session, micros| {
        let sync = Sync { time_micros: micros, ..Table::empty_sync() };
        table.hear_in(session, Via::Group, &Message::Sync(sync));
    };
    sync_at(&mut table, SESSION, 900_000_000);
    table.run(Duration::from_millis(30));
    sync_at(&mut table, SESSION, 900_010_000);
    let waited = table.session.lag();
    assert!(waited.abs_diff(Duration::from_millis(20)) < Duration::from_millis(1), "{waited:?}");
    table.run(Duration::from_secs(3));
    table.offer(SessionId(9), "disk", 1);
    assert_eq!(table.session.lag(), Duration::ZERO);
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(100));
    table.welcome_in(SessionId(9));
    sync_at(&mut table, SessionId(9), 5_000_000);
    assert_eq!(table.session.lag(), Duration::ZERO, "its clock began later");
    table.run(Duration::from_millis(30));
    sync_at(&mut table, SessionId(9), 5_010_000);
    let waited = table.session.lag();
    assert!(waited.abs_diff(Duration::from_millis(20)) < Duration::from_millis(1), "{waited:?}");
}

#[test]
fn a_sender_that_is_gone_is_waited_for_and_then_given_up_with_its_last_words() {
    let mut table = Table::receiving();
    let abort = Abort { reason: AbortReason::Interrupted, text: "enough".into() };
    table.hear(Via::Group, Message::Abort(abort));
    table.run(Duration::from_secs(29));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(3));
    assert_eq!(table.failure(), Failure::SenderGone(Some("enough".into())));
}

#[test]
fn whoever_waits_for_the_image_is_told_once_that_its_name_means_another_one() {
    let others = |table: &Table| {
        let is_other = |event: &&Event| match event {
            Event::Notice(Notice::OtherImage(offer)) => offer.announce.image == ImageId([2; 32]),
            _ => false,
        };
        table.events.iter().filter(is_other).count()
    };
    let mut table = Table::receiving();
    table.offer(SessionId(8), "disk", 2);
    assert_eq!(others(&table), 0, "its own sender is there");
    table.run(Duration::from_secs(3));
    table.offer(SessionId(7), "another", 3);
    for _ in 0..3 {
        table.offer(SessionId(8), "disk", 2);
        table.run(Duration::from_millis(250));
    }
    assert_eq!(others(&table), 1);
    assert_eq!(table.outcome(), None);
    let mut table = Table::receiving();
    table.receive_all();
    table.run(Duration::from_secs(3));
    table.offer(SessionId(8), "disk", 2);
    assert_eq!(others(&table), 0, "it has everything");
}

#[test]
fn a_sender_that_sends_nothing_useful_is_given_up() {
    let mut table = Table::receiving();
    table.run_with_sender(Duration::from_secs(33));
    assert_eq!(table.failure(), Failure::Stalled);
}

#[test]
fn without_a_limit_the_wait_for_a_sender_neither_ends_nor_spins() {
    let mut table = Table::receiving();
    table.session.config.receive_timeout = None;
    table.run(Duration::from_secs(3));
    let mut wakes = 0;
    let end = table.now + Duration::from_secs(600);
    while table.now < end {
        table.now = table.session.poll_timeout().unwrap().max(table.now);
        table.session.handle_timeout(table.now);
        table.drain();
        wakes += 1;
        assert!(wakes < 2_000, "it spins");
    }
    assert_eq!(table.outcome(), None);
}
