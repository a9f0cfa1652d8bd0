//! Who is stopped says so to the others, and leaves nothing half done.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::{BLOCK, DEADLINE, LONG, SLOW, Stage, assert_holds, random};

#[test]
fn a_sender_stopped_by_the_keyboard_tells_its_receivers_and_exits_with_130() {
    a_stopped_sender_tells_its_receivers(Signal::SIGINT, 130);
}

#[test]
fn a_sender_that_is_terminated_tells_its_receivers_and_exits_with_143() {
    a_stopped_sender_tells_its_receivers(Signal::SIGTERM, 143);
}

#[test]
fn a_sender_stopped_while_it_waits_exits_with_130() {
    let stage = Stage::new();
    let mut sender = stage.send(&stage.image("image", b"x"), &[]);
    sender.say("waiting for receivers", DEADLINE);
    sender.signal(Signal::SIGINT);
    sender.exit_with(130, DEADLINE);
}

#[test]
fn a_receiver_stopped_by_the_keyboard_leaves_and_the_others_get_the_image() {
    a_stopped_receiver_leaves(Signal::SIGINT, 130);
}

#[test]
fn a_receiver_that_is_terminated_leaves_and_the_others_get_the_image() {
    a_stopped_receiver_leaves(Signal::SIGTERM, 143);
}

#[test]
fn a_receiver_stopped_while_it_listens_exits_with_130_and_leaves_nothing() {
    let stage = Stage::new();
    let mut receiver = stage.receive("copy", &[]);
    receiver.say("listening for a sender", DEADLINE);
    receiver.signal(Signal::SIGINT);
    receiver.exit_with(130, DEADLINE);
    assert_eq!(stage.outputs(), [""; 0]);
}

#[test]
fn a_receiver_stopped_with_resume_says_what_stays_and_how_to_go_on() {
    let stage = Stage::new();
    let octets = random(LONG);
    let image = stage.image("image", &octets);
    let _sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
    let mut stopped = stage.receive("copy", &["--resume"]);
    let mut plain = stage.receive("plain", &[]);
    for receiver in [&mut stopped, &mut plain] {
        receiver.say("loss 0.0 %", DEADLINE);
        receiver.signal(Signal::SIGTERM);
        receiver.exit_with(143, DEADLINE);
    }
    let part = stage.output(".copy.imgcast-part");
    let words = format!("what was received stays in {}: to go on with it, ", part.display());
    assert!(stopped.stderr().contains(&words), "{}", stopped.output());
    assert!(stopped.stderr().contains("with --resume while the sender is running"));
    assert!(part.exists(), "{:?}", stage.outputs());
    assert!(plain.stderr().ends_with("stopped by signal 15\n"), "{}", plain.output());
}

#[test]
fn a_receiver_stopped_with_resume_before_anything_came_has_nothing_to_go_on_with() {
    let stage = Stage::new();
    let mut early = stage.receive("early", &["--resume"]);
    early.say("listening for a sender", DEADLINE);
    early.signal(Signal::SIGINT);
    early.exit_with(130, DEADLINE);
    assert!(early.stderr().ends_with("stopped by signal 2\n"), "{}", early.output());
}

#[test]
fn programs_that_are_stopped_and_asked_all_the_time_go_on() {
    let stage = Stage::new();
    let octets = random(16 * BLOCK + 5);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &SLOW);
    let mut receiver = stage.receive("copy", &[]);
    receiver.say("loss 0.0 %", DEADLINE);
    let mut interruptions = 0;
    while receiver.poll().is_none() && sender.poll().is_none() {
        for process in [&receiver, &sender] {
            // It may have ended meanwhile: then there is nobody to be interrupted.
            let id = Pid::from_raw(i32::try_from(process.id()).unwrap());
            for signal in [Signal::SIGSTOP, Signal::SIGUSR1, Signal::SIGCONT] {
                let _ = kill(id, signal);
            }
        }
        interruptions += 1;
        sleep(Duration::from_millis(5));
    }
    assert!(interruptions > 100, "{interruptions} are few in three seconds");
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
}

fn a_stopped_sender_tells_its_receivers(signal: Signal, code: i32) {
    let stage = Stage::new();
    let image = stage.image("image", &random(LONG));
    let mut sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
    let options = ["--receive-timeout", "3"];
    let mut receivers = ["one", "two"].map(|name| stage.receive(name, &options));
    receivers.iter_mut().for_each(|receiver| receiver.say("loss 0.0 %", DEADLINE));
    sender.signal(signal);
    sender.exit_with(code, DEADLINE);
    let said = sender.stderr();
    assert!(said.contains(&format!("error[interrupted]: ended by {signal}")), "{said}");
    for receiver in &mut receivers {
        receiver.exit_with(4, DEADLINE);
        let words = format!("the sender ended the session: the sender was stopped by {signal}\n");
        assert!(receiver.stderr().contains(&words), "{}", receiver.output());
    }
    assert_eq!(stage.outputs(), [""; 0]);
}

fn a_stopped_receiver_leaves(signal: Signal, code: i32) {
    let stage = Stage::new();
    let octets = random(8 * BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &["--min-receivers", "3", "--max-bitrate", "20M"]);
    let mut others = ["one", "two"].map(|name| stage.receive(name, &[]));
    let mut stopped = stage.receive("stopped", &[]);
    stopped.say("loss 0.0 %", DEADLINE);
    stopped.signal(signal);
    stopped.exit_with(code, DEADLINE);
    for other in &mut others {
        other.succeed(DEADLINE);
    }
    sender.exit_with(5, DEADLINE);
    let table = sender.stdout();
    let row = table.lines().nth(2).unwrap_or_default();
    assert!(row.contains(" left ") && row.ends_with("stopped at the node"), "{table}");
    for name in ["one", "two"] {
        assert_holds(&stage.output(name), &octets);
    }
    assert_eq!(stage.outputs(), ["one", "two"]);
}
