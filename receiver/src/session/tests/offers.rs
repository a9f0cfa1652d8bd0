//! Finding a session, and being let in.

use super::*;

#[test]
fn the_only_image_on_offer_is_chosen_after_listening_for_a_while() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(250));
    assert!(table.events.is_empty());
    table.run(Duration::from_millis(100));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SESSION));
}

#[test]
fn of_several_images_none_is_chosen_unasked() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "other", 2);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::SeveralImages(offers) if offers.len() == 2));
}

#[test]
fn a_name_that_two_images_share_is_not_enough() {
    let mut table = Table::new(|config| config.wanted = Wanted::Name("disk".into()));
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "disk", 2);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::SeveralImages(offers) if offers.len() == 2));
    let hash = ImageId([2; 32]);
    let mut table = Table::new(|config| config.wanted = Wanted::Image(hash));
    table.offer(SESSION, "disk", 1);
    table.offer(SessionId(9), "disk", 2);
    assert!(matches!(&table.events[..], [Event::Chosen(it)] if it.session == SessionId(9)));
}

#[test]
fn the_image_that_was_named_is_chosen_and_no_other() {
    for wanted in [Wanted::Name("other".into()), Wanted::Image(ImageId([2; 32]))] {
        let mut table = Table::new(|config| config.wanted = wanted.clone());
        table.offer(SESSION, "disk", 1);
        table.run(Duration::from_secs(5));
        assert!(table.events.is_empty());
        table.offer(SessionId(9), "other", 2);
        assert!(matches!(&table.events[..], [Event::Chosen(it)] if it.session == SessionId(9)));
    }
    let mut table = Table::new(|config| config.wanted = Wanted::Name("none".into()));
    for _ in 0..61 {
        table.offer(SESSION, "disk", 1);
        table.run(Duration::from_secs(1));
    }
    assert!(matches!(table.failure(), Failure::NotOffered(offers) if offers.len() == 1));
}

#[test]
fn when_the_table_of_offers_is_full_the_one_heard_longest_ago_makes_room() {
    let mut table = Table::new(|config| {
        config.wanted = Wanted::Name("disk".into());
        config.start_timeout = Some(Duration::from_secs(3));
    });
    let forge = |table: &mut Table, session| {
        table.offer(SessionId(session), "forged", 7);
        table.run(Duration::from_millis(1));
    };
    (1..=256).for_each(|session| forge(&mut table, session));
    forge(&mut table, 1);
    forge(&mut table, 257);
    assert_eq!(table.session.status(table.now).offers, 256);
    table.run(Duration::from_secs(3));
    let Failure::NotOffered(offers) = table.failure() else { panic!("{:?}", table.failure()) };
    let sessions: Vec<u64> = offers.iter().map(|offer| offer.session.0).collect();
    assert_eq!(sessions, [&[1][..], &Vec::from_iter(3..=257)].concat());

    let mut table = Table::new(|config| config.wanted = Wanted::Name("disk".into()));
    (1..=256).for_each(|session| forge(&mut table, session));
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_millis(700));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SESSION));
}

#[test]
fn without_a_sender_it_gives_up_in_time_and_says_if_another_version_was_heard() {
    let mut table = Table::new(|_| {});
    table.run(Duration::from_secs(59));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.failure(), Failure::NoSender);
    let mut table = Table::new(|_| {});
    table.session.handle_other_version(2);
    table.run(Duration::from_secs(61));
    assert_eq!(table.failure(), Failure::OtherVersion(2));
}

#[test]
fn a_session_that_is_ending_is_told_from_silence_and_from_other_images() {
    let ending = |table: &mut Table, image| {
        let announce = Announce { state: SenderState::Closing, ..Table::announce("disk", image) };
        table.hear_in(SESSION, Via::Rendezvous, &Message::Announce(announce));
    };
    let wants = |config: &mut SessionConfig| config.wanted = Wanted::Image(ImageId([1; 32]));
    for (image, is_wanted) in [(1, true), (2, false)] {
        let mut table = Table::new(wants);
        ending(&mut table, image);
        let status = table.session.status(table.now);
        assert_eq!((status.offers, status.is_ending), (0, true));
        // It is silent long before this receiver has waited long enough.
        table.run(Duration::from_secs(30));
        assert!(!table.session.status(table.now).is_ending);
        table.run(Duration::from_secs(31));
        match table.failure() {
            Failure::Ending(offer) => assert!(is_wanted && offer.session == SESSION),
            Failure::NotOffered(offers) => assert!(!is_wanted && offers.len() == 1),
            other => panic!("{other:?}"),
        }
    }
    let mut table = Table::new(wants);
    ending(&mut table, 1);
    table.offer(SessionId(2), "disk", 1);
    table.run(Duration::from_millis(500));
    assert!(matches!(&table.events[..], [Event::Chosen(offer)] if offer.session == SessionId(2)));
}

#[test]
fn datagrams_that_do_not_fit_are_found_out_before_and_after_joining() {
    let mut table = Table::new(|config| config.datagram_octets_max = 1000);
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    assert!(matches!(table.failure(), Failure::Mtu { sender_mtu: None, .. }));
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_secs(1));
    let Some(Message::Join(join)) = table.sent.last().cloned() else { panic!() };
    let unpadded = table.sent.iter().filter(|m| matches!(m, Message::Join(join) if join.mtu));
    assert_eq!(unpadded.count(), 1, "after three unanswered ones");
    let refuse = Refuse { nonce: join.nonce, reason: RefuseReason::Mtu, mtu: 9000 };
    for _ in 0..16 {
        assert_eq!(table.outcome(), None, "a long one may have been lost by chance");
        table.hear(Via::Unicast, Message::Refuse(refuse));
        table.run(Duration::from_millis(200));
    }
    assert!(matches!(table.failure(), Failure::Mtu { sender_mtu: Some(9000), .. }));
}

#[test]
fn a_join_is_repeated_until_it_is_answered() {
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(60));
    assert_eq!(table.joins().count(), 1);
    table.run(Duration::from_millis(500));
    assert_eq!(table.joins().count(), 3, "at 0, 0.1 and 0.3 s");
    table.run(Duration::from_secs(1));
    table.welcome();
    let joins = table.joins().count();
    table.run(Duration::from_millis(1500));
    assert_eq!(table.joins().count(), joins);
}

#[test]
fn who_may_hold_something_says_so_when_it_joins() {
    let mut table = Table::new(|config| config.resumes = true);
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.run(Duration::from_millis(50));
    assert!(table.sent.iter().any(|it| matches!(it, Message::Join(join) if join.have)));
}
