//! A sender whose image is not any more what it announced.

use super::*;

fn image_gone() -> Message<'static> {
    Message::Abort(Abort { reason: AbortReason::Image, text: "it changed".into() })
}

#[test]
fn a_sender_whose_image_is_gone_ends_it_at_once_whether_it_was_joined_or_not() {
    let mut table = Table::receiving();
    table.hear(Via::Group, image_gone());
    let gone = Failure::ImageGone("it changed".into());
    assert_eq!(table.failure(), gone);
    let mut table = Table::new(|_| {});
    table.offer(SESSION, "disk", 1);
    table.run(Duration::from_secs(1));
    table.session.handle_joined(table.now);
    table.hear(Via::Group, image_gone());
    assert_eq!(table.failure(), gone);
}

#[test]
fn a_sender_whose_image_is_gone_keeps_nobody_from_what_has_come_or_is_there() {
    let mut table = Table::receiving();
    for block in (0..BLOCKS).filter(|block| *block != 3) {
        table.symbols(block, 0..16, 16);
    }
    for block in (0..BLOCKS).filter(|block| *block != 3 && *block != 9) {
        table.checked(BlockId::image(block), Checked::Whole);
        table.session.handle_stored(table.now, block);
    }
    table.hear(Via::Group, image_gone());
    assert_eq!(table.outcome(), None, "block 9 is not judged yet");
    table.checked(BlockId::image(9), Checked::Whole);
    table.run(Duration::from_secs(6));
    assert_eq!(table.outcome(), None, "nor written");
    assert!(table.session.poll_timeout().unwrap() > table.now, "it spins");
    table.session.handle_stored(table.now, 9);
    table.drain();
    assert!(table.events.contains(&Event::Flush));

    let mut table = Table::searching();
    table.hear(Via::Group, image_gone());
    for block in 0..BLOCKS - 1 {
        table.checked(BlockId::image(block), Checked::Whole);
        table.session.handle_stored(table.now, block);
    }
    table.drain();
    assert_eq!(table.outcome(), None, "one is left to look for");
    table.session.handle_absent(table.now, BLOCKS - 1);
    table.drain();
    assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
}

#[test]
fn a_block_that_may_be_complete_is_judged_before_an_image_that_is_gone_ends_it() {
    for checked in [Checked::Whole, Checked::TooFew] {
        let mut table = Table::receiving();
        for block in (0..BLOCKS - 1).filter(|block| *block != 3) {
            table.symbols(block, 0..16, 16);
            table.checked(BlockId::image(block), Checked::Whole);
            table.session.handle_stored(table.now, block);
        }
        // As many as it takes, and more of its turn was to come.
        table.symbols(9, (0..15).chain([18]), 20);
        let last = BlockId::image(9);
        assert!(!table.events.contains(&Event::Check(last)));
        table.hear(Via::Group, image_gone());
        assert!(table.events.contains(&Event::Check(last)));
        assert_eq!(table.outcome(), None);
        table.checked(last, checked);
        if checked == Checked::Whole {
            table.session.handle_stored(table.now, 9);
            table.drain();
            assert!(table.events.contains(&Event::Flush));
        } else {
            assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
        }
    }
}

#[test]
fn where_another_session_has_the_image_it_goes_on_there() {
    let mut table = Table::receiving();
    table.offer(SessionId(9), "disk", 1);
    table.hear(Via::Group, image_gone());
    assert_eq!(table.outcome(), None);
    table.offer(SessionId(9), "disk", 1);
    let chosen = |event: &Event| matches!(event, Event::Chosen(it) if it.session == SessionId(9));
    assert!(table.events.iter().any(chosen));
    // One that is not heard again is not waited for.
    let mut table = Table::receiving();
    table.offer(SessionId(9), "disk", 1);
    table.hear(Via::Group, image_gone());
    table.run(Duration::from_secs(4));
    assert_eq!(table.outcome(), None);
    table.run(Duration::from_secs(2));
    assert_eq!(table.failure(), Failure::ImageGone("it changed".into()));
}
