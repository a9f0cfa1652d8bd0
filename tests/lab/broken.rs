//! Multicast that some receivers hear never, or no more after a while: who is in trouble says so,
//! gets the image all the same, and holds up nobody.

use std::time::Duration;

use imgcast_tests::netns::{Lab, SENDER_ADDRESS};
use imgcast_tests::process::wait_all;
use imgcast_tests::scratch::Scratch;

use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn of_eight_receivers_two_hear_no_multicast_and_the_others_hardly_notice() {
    let name = "of_eight_receivers_two_hear_no_multicast_and_the_others_hardly_notice";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(8).unwrap());
    lab.limit_rate(60).unwrap();
    // A firewall that knows the announcements' group only, and a switch that does not understand
    // who listens.
    lab.cut_data_groups(6).unwrap();
    lab.hide_reports(7).unwrap();
    let image = scratch.random_image(24);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "50M" };
    let undisturbed = transfer.time_group(6, &[]);

    let sent_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(8);
    let ask = ["--mcast-rdv-address", SENDER_ADDRESS];
    let mut deaf = [(6, &[][..]), (7, &ask)]
        .map(|(i, options)| transfer.start_receiver_with(i, &transfer.copy(i), options));
    let mut others: Vec<_> =
        (0..6).map(|i| transfer.start_receiver(i, &transfer.copy(i))).collect();
    let ages = transfer.ages_at_first_symbols(&mut sender, sent_before, &others);
    let slowest = transfer.slowest_since(&ages, &mut others);
    transfer.finish(6, &mut deaf);
    sender.succeed(SENDER_DEADLINE);
    for receiver in &deaf {
        let words = receiver.stderr();
        assert!(words.contains("nothing comes from multicast group 239.255."), "{words}");
        assert!(words.contains("IGMP snooping has a querier, and that no firewall"), "{words}");
    }
    let ratio = slowest.as_secs_f64() / undisturbed.as_secs_f64();
    println!(
        "beside two without multicast {slowest:.2?}, without them {undisturbed:.2?}: {ratio:.3}"
    );
    assert!(ratio <= 1.1, "{slowest:?} beside two without multicast, {undisturbed:?} without them");
}

#[test]
fn where_no_querier_asks_a_receiver_joins_anew_and_hears_multicast_again() {
    let name = "where_no_querier_asks_a_receiver_joins_anew_and_hears_multicast_again";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(4).unwrap());
    lab.limit_rate(50).unwrap();
    // The bridge forgets after five seconds who does not say again that it listens.
    let unasked = [2, 3];
    unasked.iter().for_each(|receiver| lab.hide_queries(*receiver).unwrap());
    let image = scratch.random_image(20);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "16M" };
    let mut sender = transfer.start_sender(4);
    let mut receivers: Vec<_> =
        (0..4).map(|i| transfer.start_receiver(i, &transfer.copy(i))).collect();
    for receiver in unasked {
        receivers[receiver].say("any more: asking for unicast and joining it anew", CUT_OFF_WITHIN);
    }
    for receiver in unasked {
        receivers[receiver].say("heard again since it was joined anew", BACK_WITHIN);
        receivers[receiver].say("check that the network has an IGMP querier", BACK_WITHIN);
    }
    let ends = wait_all(&mut receivers, TRANSFER_DEADLINE);
    transfer.finish(0, &mut receivers);
    sender.succeed(SENDER_DEADLINE);
    let seconds: Vec<f64> = ends.iter().map(|end| end.elapsed.as_secs_f64()).collect();
    println!("asked by a querier or not: {:.1?} s, {:.1?} s", &seconds[..2], &seconds[2..]);
    assert!(receivers[..2].iter().all(|receiver| !receiver.stderr().contains("nothing comes")));
}

#[test]
fn a_bridge_that_has_just_become_querier_cuts_nobody_off_for_long() {
    let name = "a_bridge_that_has_just_become_querier_cuts_nobody_off_for_long";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::in_memory(), Lab::new(4).unwrap());
    lab.limit_rate(50).unwrap();
    // Without a querier a bridge floods, whatever it knows; and it knows little for long.
    lab.set_bridge("mcast_querier 0 mcast_membership_interval 100").unwrap();
    let image = scratch.random_image(20);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "24M" };
    let undisturbed = transfer.time_group(4, &[]);

    let sent_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(4);
    let mut receivers: Vec<_> =
        (0..4).map(|i| transfer.start_receiver(i, &transfer.copy(i))).collect();
    let ages = transfer.ages_at_first_symbols(&mut sender, sent_before, &receivers);
    transfer.wait_for_half(&mut sender, sent_before);
    // Its first question gets lost, and the next one comes when the transfer is over.
    (0..4).for_each(|receiver| lab.hide_queries(receiver).unwrap());
    lab.set_bridge("mcast_membership_interval 26000 mcast_startup_query_interval 6000").unwrap();
    lab.set_bridge("mcast_querier 1").unwrap();
    let slowest = transfer.slowest_since(&ages, &mut receivers);
    sender.succeed(SENDER_DEADLINE);
    let cut_off = receivers.iter().filter(|receiver| receiver.stderr().contains("any more"));
    assert_eq!(cut_off.count(), 4, "the bridge floods as before");
    println!("cut off by a new querier: {slowest:.2?}, undisturbed: {undisturbed:.2?}");
    assert!(slowest <= undisturbed + CUT_OFF_MAX, "{slowest:?}, undisturbed {undisturbed:?}");
}

/// Memberships last five seconds; then half a second of silence is noticed.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(12);
/// Two seconds without a gap, and then it is said.
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// Half a second until it is noticed, two in which unicast alone is trusted, and what that leaves
/// to send again.
const CUT_OFF_MAX: Duration = Duration::from_secs(4);
