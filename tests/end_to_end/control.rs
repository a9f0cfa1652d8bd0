//! What can be asked and changed while the programs run: `SIGUSR1`, and a key on the sender's
//! terminal.

use std::fs::{self, File};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use imgcast_tests::process::{Process, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::gethostname;

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, random, under};
use crate::terminal::Terminal;

#[test]
fn sigusr1_tells_who_has_joined_and_what_is_waited_for_also_if_quiet() {
    let stage = Stage::new();
    let octets = random(BLOCK);
    let image = stage.image("image", &octets);
    let mut one = stage.receive("one", &["--quiet"]);
    ask(&mut one, &format!(" on lo (239.255.63.30:{})", stage.portbase));
    let mut sender = stage.send(&image, &["--quiet", "--min-receivers", "2"]);
    ask(&mut sender, "waiting for receivers: ");
    sender.say(" joined\n", DEADLINE);
    let joined = format!("; joined: {} (127.0.0.1)\n", host());
    ask(&mut sender, &format!("waiting for receivers: 1 of 2 joined, starts at 2{joined}"));
    ask(&mut one, "waiting for the sender to start: 1 of 2 receivers joined, starts at 2\n");
    let mut two = stage.receive("two", &["--quiet"]);
    for receiver in [&mut one, &mut two] {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    for name in ["one", "two"] {
        assert_holds(&stage.output(name), &octets);
    }
    assert!(!two.stderr().contains("waiting"), "it was not asked\n{}", two.output());
}

#[test]
fn sigusr1_during_a_transfer_tells_how_far_it_is_and_the_transfer_goes_on() {
    let stage = Stage::new();
    let octets = random(8 * BLOCK);
    let options = ["--quiet", "--max-bitrate", "20M"];
    let mut sender = stage.send(&stage.image("image", &octets), &options);
    let mut receiver = stage.receive("copy", &["--quiet"]);
    sender.say(" joined\n", DEADLINE);
    ask(&mut sender, " of 1 receivers done, loss ");
    ask(&mut receiver, "bit/s");
    receiver.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    let said = sender.stderr();
    let progress: Vec<&str> =
        said.lines().skip_while(|line| !line.contains(" receivers done")).take(2).collect();
    assert!(progress[0].contains(" %  ") && progress[0].contains("bit/s"), "{said}");
    let name = format!("  {} (127.0.0.1) ", host());
    assert!(progress[1].starts_with(&name) && progress[1].contains(" %, loss "), "{said}");
    let said = receiver.stderr();
    assert!(said.contains(" %  ") && said.contains(", loss "), "{said}");
}

#[test]
fn sigusr1_while_the_image_is_hashed_tells_how_much_of_it_is() {
    let stage = Stage::new();
    let image = stage.path("image");
    // So large that nobody waits for its end; it takes no room.
    File::create(&image).unwrap().set_len(1 << 37).unwrap();
    let mut sender = stage.send(&image, &["--quiet"]);
    ask(&mut sender, "hashing the image: ");
    // What was started in the background ignores SIGINT until it handles it.
    sender.signal(Signal::SIGTERM);
    sender.wait(DEADLINE);
}

#[test]
fn a_key_starts_the_transfer_at_once_with_those_who_have_joined() {
    let stage = Stage::new();
    let octets = random(BLOCK);
    let image = stage.image("image", &octets);
    let terminal = Terminal::new();
    // Pressed before anybody was told that it counts.
    terminal.press("x");
    let mut sender = at(&terminal, &stage, &stage.sender(&image, &["--min-receivers", "2"]));
    let mut receiver = stage.receive("copy", &[]);
    let waiting = "waiting: 1 of 2 joined, starts at 2; press any key to start now\n";
    sender.say(waiting, DEADLINE);
    assert!(!terminal.has_lines(), "keys come one by one");
    terminal.press("\x1b[A");
    sender.say("starting without 1 of 2 receivers\n", DEADLINE);
    wait_until("the terminal is as it was", DEADLINE, || terminal.has_lines());
    receiver.succeed(DEADLINE);
    sender.exit_with(5, DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    assert!(!sender.stderr().contains("nobody"), "the early key counted\n{}", sender.output());
    assert_left_as_found(&sender);
}

#[test]
fn a_key_with_nobody_there_starts_nothing() {
    let stage = Stage::new();
    let octets = random(BLOCK);
    let image = stage.image("image", &octets);
    let terminal = Terminal::new();
    let mut sender = at(&terminal, &stage, &stage.sender(&image, &["--min-receivers", "2"]));
    wait_until("keys are heard", DEADLINE, || !terminal.has_lines());
    // Discarded if it came between the change and the look.
    wait_until("the key is heard", DEADLINE, || {
        terminal.press("x");
        sleep(BETWEEN_TRIES);
        sender.stderr().contains("no receiver has joined yet")
    });
    for mut receiver in ["one", "two"].map(|name| stage.receive(name, &[])) {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    assert!(!sender.stderr().contains("starting without"), "{}", sender.output());
    assert_left_as_found(&sender);
}

#[test]
fn a_sender_that_is_stopped_or_gives_up_leaves_the_terminal_as_it_was() {
    let stage = Stage::new();
    let image = stage.image("image", b"x");
    for (options, keys, code) in [(&["--start-timeout", "3"][..], "", 4), (&[], "\x03", 130)] {
        let terminal = Terminal::new();
        let mut sender = at(&terminal, &stage, &stage.sender(&image, options));
        wait_until("keys are heard", DEADLINE, || !terminal.has_lines());
        sender.say("waiting for receivers", DEADLINE);
        terminal.press(keys);
        sender.exit_with(code, DEADLINE);
        assert_left_as_found(&sender);
    }
}

#[test]
fn a_sender_in_the_background_takes_no_keys_and_is_not_stopped() {
    let stage = Stage::new();
    let sender = stage.sender(&stage.image("image", &random(BLOCK)), &["--min-receivers", "2"]);
    let script = "set -m; \"$0\" \"$@\" <\"$TERMINAL\" & wait $!; code=$?";
    takes_no_keys(&stage, &sender, script);
}

#[test]
fn a_quiet_sender_takes_no_keys() {
    let stage = Stage::new();
    let options = ["--quiet", "--min-receivers", "2"];
    let sender = stage.sender(&stage.image("image", &random(BLOCK)), &options);
    takes_no_keys(&stage, &sender, "\"$0\" \"$@\"; code=$?");
}

#[test]
fn standard_input_that_is_no_terminal_is_never_read() {
    let stage = Stage::new();
    let sender = stage.sender(&stage.image("image", &random(BLOCK)), &["--min-receivers", "2"]);
    // What the sender read would be missing from what is read after it.
    let script = "{ \"$0\" \"$@\"; code=$?; cat; exit $code; } <\"$INPUT\"";
    let mut command = under(script, &sender);
    command.env("INPUT", stage.image("input", b"left alone\n"));
    let mut sender = stage.start("sender", command);
    sender.say("waiting for receivers", DEADLINE);
    for mut receiver in ["one", "two"].map(|name| stage.receive(name, &[])) {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    assert!(sender.stdout().ends_with("left alone\n"), "{}", sender.output());
    assert!(!sender.stderr().contains("any key"), "{}", sender.output());
}

/// Runs a sender that waits for two receivers by `script`, which sets `code`: what is typed
/// meanwhile is there for the shell when it has ended.
fn takes_no_keys(stage: &Stage, sender: &Command, script: &str) {
    let terminal = Terminal::new();
    let script = format!("{script}; read -r line; echo \"typed: $line\"; exit $code");
    let mut sender = stage.start("sender", terminal.shell(&script, sender));
    let mut one = stage.receive("one", &[]);
    sender.say(" joined\n", DEADLINE);
    terminal.press("later\n");
    one.say("waiting for the sender to start: 1 of 2 receivers joined", DEADLINE);
    assert!(terminal.has_lines());
    let mut two = stage.receive("two", &[]);
    for receiver in [&mut one, &mut two] {
        receiver.succeed(DEADLINE);
    }
    sender.succeed(DEADLINE);
    assert!(sender.stdout().ends_with("typed: later\n"), "{}", sender.output());
    let said = sender.stderr();
    assert!(!said.contains("any key") && !said.contains("starting without"), "{said}");
}

/// Starts a sender at the terminal, whose settings are written down before and after it.
fn at(terminal: &Terminal, stage: &Stage, sender: &Command) -> Process {
    // A key that interrupts the sender is not to end the shell.
    let script = "trap : INT; stty -g; \"$0\" \"$@\"; code=$?; stty -g; exit $code";
    stage.start("sender", terminal.shell(script, sender))
}

fn assert_left_as_found(sender: &Process) {
    let said = sender.stdout();
    let settings = [said.lines().next(), said.lines().last()].map(Option::unwrap);
    assert!(settings[0].contains(':'), "not what stty writes\n{said}");
    assert_eq!(settings[0], settings[1]);
}

/// Asks again and again until the answer is this.
fn ask(process: &mut Process, answer: &str) {
    // A process that has not come to its main function yet would be ended.
    let status = format!("/proc/{}/status", process.id());
    wait_until("SIGUSR1 is held", DEADLINE, || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        blocked.is_some_and(|mask| mask & (1 << (Signal::SIGUSR1 as u64 - 1)) != 0)
    });
    wait_until(answer, DEADLINE, || {
        process.signal(Signal::SIGUSR1);
        sleep(BETWEEN_TRIES);
        process.stderr().contains(answer)
    });
}

fn host() -> String {
    gethostname().unwrap().into_string().unwrap()
}

/// Both programs look for questions and keys five times a second.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
