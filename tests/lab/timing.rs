//! Nobody waits for another one's trouble. Runs are compared with runs on the same machine, by
//! medians: these are the only verdicts here that rest on measured time.

use std::time::Duration;

use imgcast_tests::netns::{Lab, Node, SENDER_ADDRESS, host_name};
use imgcast_tests::process::{Process, wait_all};
use imgcast_tests::scratch::Scratch;

use crate::image::sha256;
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn a_receiver_without_multicast_gets_everything_by_unicast_and_slows_nobody() {
    let name = "a_receiver_without_multicast_gets_everything_by_unicast_and_slows_nobody";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(GROUP + 1).unwrap();
    lab.limit_rate(250).unwrap();
    lab.cut_multicast(GROUP).unwrap();
    let image = scratch.random_image(64);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let copy = scratch.path("unicast.img");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let sender = transfer.start_sender(GROUP);
        without.push(median(group_times(&transfer, GROUP)));
        drop(sender);

        let sender = transfer.start_sender(GROUP + 1);
        // It hears no announcement, so it is told where to ask for one.
        let ask = ["--mcast-rdv-address", SENDER_ADDRESS];
        let mut fourth = transfer.start_receiver_with(GROUP, &copy, &ask);
        with.push(median(group_times(&transfer, GROUP)));
        fourth.succeed(TRANSFER_DEADLINE);
        drop(sender);
        assert_eq!(sha256(&copy), sha256(&image));
        std::fs::remove_file(&copy).unwrap();
    }
    let (without, with) = (median(without), median(with));
    let most = without.mul_f64(1.1) + TIMER_ALLOWANCE;
    assert!(with <= most, "{with:?} beside a receiver without multicast, {without:?} without it");
}

#[test]
fn kill_nine_of_one_receiver_delays_nobody() {
    let name = "kill_nine_of_one_receiver_delays_nobody";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(GROUP + 1).unwrap();
    let image = scratch.random_image(96);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "200M" };
    let victims_copy = scratch.path("victim.img");

    let sender = transfer.start_sender(GROUP + 1);
    let mut undisturbed_fourth = transfer.start_receiver(GROUP, &victims_copy);
    let undisturbed = median(group_times(&transfer, GROUP));
    undisturbed_fourth.succeed(TRANSFER_DEADLINE);
    drop(sender);
    std::fs::remove_file(&victims_copy).unwrap();

    let sent_bytes_before = lab.sent_bytes();
    let mut sender = transfer.start_sender(GROUP + 1);
    let mut victim = transfer.start_receiver(GROUP, &victims_copy);
    let mut others = start_group(&transfer, GROUP);
    transfer.wait_for_half(&mut sender, sent_bytes_before);
    victim.kill_nine();
    let slowest = finish_group(&transfer, &mut others).into_iter().max().unwrap();
    let most = undisturbed + Duration::from_secs(1);
    assert!(slowest <= most, "{slowest:?} beside a killed receiver, {undisturbed:?} undisturbed");

    let end = sender.wait(SENDER_DEADLINE);
    let output = sender.output();
    assert!(end.status.code().is_some_and(|code| code != 0), "{end:?}\n{output}");
    let lost = host_name(Node::Receiver(GROUP));
    assert!(output.contains(&lost), "{lost} is not named\n{output}");
}

/// Lets the first `count` receivers get the image and returns how long each ran.
fn group_times(transfer: &Transfer<'_>, count: usize) -> Vec<Duration> {
    let mut receivers = start_group(transfer, count);
    finish_group(transfer, &mut receivers)
}

fn start_group(transfer: &Transfer<'_>, count: usize) -> Vec<Process> {
    (0..count).map(|i| transfer.start_receiver(i, &transfer.copy(i))).collect()
}

/// Waits for them all, compares their copies and removes them.
fn finish_group(transfer: &Transfer<'_>, receivers: &mut [Process]) -> Vec<Duration> {
    let ends = wait_all(receivers, TRANSFER_DEADLINE);
    let wanted = sha256(transfer.image);
    for (i, (end, receiver)) in ends.iter().zip(receivers).enumerate() {
        assert!(end.status.success(), "receiver {i}: {end:?}\n{}", receiver.output());
        let copy = transfer.copy(i);
        assert_eq!(sha256(&copy), wanted, "receiver {i}");
        std::fs::remove_file(&copy).expect("a copy can be removed");
    }
    ends.iter().map(|end| end.elapsed).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The receivers whose times are compared.
const GROUP: usize = 3;

/// An odd number, so that one disturbed run does not decide.
const REPETITIONS: usize = 3;

/// Random waits before JOIN and DONE and the start of four processes, which differ from run to
/// run whatever the size of the image.
const TIMER_ALLOWANCE: Duration = Duration::from_millis(150);
