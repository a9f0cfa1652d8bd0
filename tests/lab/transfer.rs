//! The two command lines under test, in one place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imgcast_tests::netns::{Lab, Node};
use imgcast_tests::process::{Process, wait_all, wait_until};
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::Scratch;

use crate::image::{sha256, text};

/// One image on its way through one lab.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) scratch: &'a Scratch,
    pub(crate) image: &'a Path,
    pub(crate) max_bitrate: &'a str,
}

impl Transfer<'_> {
    /// Where the copy of a receiver goes that has no device.
    pub(crate) fn copy(&self, receiver: usize) -> PathBuf {
        self.scratch.path(&format!("copy-{receiver}.img"))
    }

    /// Starts the sender, which begins when `min_receivers` have joined.
    pub(crate) fn start_sender(&self, min_receivers: usize) -> Process {
        self.start_sender_with(min_receivers, &[])
    }

    /// Starts the sender likewise, with further options.
    pub(crate) fn start_sender_with(&self, min_receivers: usize, options: &[&str]) -> Process {
        let mut command = self.lab.command(Node::Sender, &programs().sender);
        command.args(["send", text(self.image), "--interface", "eth0"]);
        command.args(["--min-receivers", &min_receivers.to_string()]);
        command.args(["--max-bitrate", self.max_bitrate]).args(options);
        Process::start("sender", command, self.scratch.directory())
    }

    /// Starts `receiver`, which writes to `target`.
    pub(crate) fn start_receiver(&self, receiver: usize, target: &Path) -> Process {
        self.start_receiver_with(receiver, target, &[])
    }

    /// Starts `receiver` likewise, with further options.
    pub(crate) fn start_receiver_with(
        &self,
        receiver: usize,
        target: &Path,
        options: &[&str],
    ) -> Process {
        let command = self.lab.command(Node::Receiver(receiver), &programs().receiver);
        self.start_receiver_as(command, receiver, target, options)
    }

    /// Starts `receiver` likewise by `command`, which lacks only what the receiver is to do.
    pub(crate) fn start_receiver_as(
        &self,
        mut command: Command,
        receiver: usize,
        target: &Path,
        options: &[&str],
    ) -> Process {
        command.args(["receive", "--interface", "eth0", "--output", text(target)]).args(options);
        Process::start(&format!("receiver-{receiver}"), command, self.scratch.directory())
    }

    /// Sends the image once to so many receivers with these options, all of which must get it;
    /// returns how long the slowest took, from the first symbols on.
    pub(crate) fn time_group(&self, receivers: usize, options: &[&str]) -> Duration {
        let sent_before = self.lab.sent_bytes();
        let mut sender = self.start_sender(receivers);
        let mut group: Vec<Process> =
            (0..receivers).map(|i| self.start_receiver_with(i, &self.copy(i), options)).collect();
        let ages = self.ages_at_first_symbols(&mut sender, sent_before, &group);
        // The sender lingers for late questions, which is of no interest here.
        self.slowest_since(&ages, &mut group)
    }

    /// How old each of these receivers is when symbols begin to flow from the sender, whose
    /// interface stood at `sent_bytes_before` when it was started.
    pub(crate) fn ages_at_first_symbols(
        &self,
        sender: &mut Process,
        sent_bytes_before: u64,
        receivers: &[Process],
    ) -> Vec<Duration> {
        self.wait_for(FLOW_OCTETS, sender, sent_bytes_before);
        receivers.iter().map(Process::age).collect()
    }

    /// Waits until these receivers, numbered from 0, have ended well, then compares and removes
    /// their copies. Returns how long the slowest took since it had its age.
    pub(crate) fn slowest_since(&self, ages: &[Duration], receivers: &mut [Process]) -> Duration {
        let ends = wait_all(receivers, TRANSFER_DEADLINE);
        self.finish(0, receivers);
        let took = ends.iter().zip(ages).map(|(end, age)| end.elapsed.saturating_sub(*age));
        took.max().unwrap_or_default()
    }

    /// Waits until these receivers, numbered from `first` on, have ended well, then compares and
    /// removes their copies.
    pub(crate) fn finish(&self, first: usize, receivers: &mut [Process]) {
        let wanted = sha256(self.image);
        for (number, receiver) in (first..).zip(receivers) {
            receiver.succeed(TRANSFER_DEADLINE);
            let copy = self.copy(number);
            assert_eq!(sha256(&copy), wanted, "receiver {number}");
            std::fs::remove_file(&copy).expect("a copy can be removed");
        }
    }

    /// Waits until the sender's interface has sent half an image since it stood at
    /// `sent_bytes_before`.
    pub(crate) fn wait_for_half(&self, sender: &mut Process, sent_bytes_before: u64) {
        let half = std::fs::metadata(self.image).expect("the image is there").len() / 2;
        self.wait_for(half, sender, sent_bytes_before);
    }

    /// Waits likewise until it has sent so many octets.
    pub(crate) fn wait_for(&self, octets: u64, sender: &mut Process, sent_bytes_before: u64) {
        wait_until("enough of the image is sent", TRANSFER_DEADLINE, || {
            let sent = self.lab.sent_bytes() - sent_bytes_before;
            let end = sender.poll();
            assert!(end.is_none(), "{end:?} after {sent} bytes\n{}", sender.output());
            sent >= octets
        });
    }
}

/// When so much has left, symbols flow: joining takes less, up to 32 receivers.
const FLOW_OCTETS: u64 = 256 << 10;

/// No transfer of the lab takes more than a tenth of this on an idle machine.
pub(crate) const TRANSFER_DEADLINE: Duration = Duration::from_secs(600);

/// The sender lingers for 10 s and gives up on a silent receiver after at most 90.
pub(crate) const SENDER_DEADLINE: Duration = Duration::from_secs(180);
