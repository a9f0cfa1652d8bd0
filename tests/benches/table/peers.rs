//! The programs that are measured, each with the options that its user would choose on this
//! network, and how it shows that a receiver has its copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use imgcast_tests::netns::is_installed;
use imgcast_tests::netns::{Lab, Node, address};
use imgcast_tests::programs::programs;

use crate::cases::Case;

/// A sender and its receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    /// The programs under test, with further options for each.
    Imgcast { sender: &'static [&'static str], receiver: &'static [&'static str] },
    /// Random octets without a protocol, over IPv4.
    Raw,
    /// The image without a protocol, over IPv4.
    RawImage,
    /// udpcast in its usual mode: full duplex, slices acknowledged by all.
    Udpcast,
    /// UFTP: passes over the file, each sends what was reported missing.
    Uftp,
}

/// When a receiver has its copy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// It has exited with 0.
    Exited,
    /// Its copy has the image's size; it is written in order.
    FullSize,
    /// It says so.
    Says(&'static str),
}

/// The places of one transfer.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) image: &'a Path,
    pub(crate) directory: &'a Path,
    pub(crate) index_cache: &'a Path,
}

impl Stage<'_> {
    /// Where the copy of `receiver` will be, under the name that UFTP gives it.
    pub(crate) fn copy(&self, receiver: usize) -> PathBuf {
        self.directory_of(receiver).join("image")
    }

    pub(crate) fn directory_of(&self, receiver: usize) -> PathBuf {
        self.directory.join(format!("receiver-{receiver}"))
    }
}

impl Peer {
    /// The programs as they are by default.
    pub(crate) const IMGCAST: Self = Self::Imgcast { sender: &[], receiver: &[] };

    /// The package to install for it, where it is not there.
    pub(crate) fn missing_package(self) -> Option<&'static str> {
        match self {
            Self::Udpcast if !is_installed("udp-sender") => Some("udpcast"),
            Self::Uftp if !is_installed("uftpd") => Some("uftp"),
            _ => None,
        }
    }

    pub(crate) const fn done(self) -> Done {
        match self {
            Self::Imgcast { .. } | Self::Raw | Self::RawImage => Done::Exited,
            Self::Udpcast => Done::FullSize,
            Self::Uftp => Done::Says("done file close"),
        }
    }

    pub(crate) fn sender(self, case: &Case, stage: &Stage<'_>) -> Command {
        let program = |path: &Path| stage.lab.command(Node::Sender, path);
        let receivers = case.network.receivers;
        match self {
            Self::Imgcast { sender, .. } => {
                let mut command = program(&programs().sender);
                command.args(["send", "--interface", "eth0", "--min-receivers"]);
                command.arg(receivers.to_string()).args(sender).arg(stage.image);
                command.env("XDG_CACHE_HOME", stage.index_cache);
                command
            }
            Self::Raw => {
                let mut command = program(Path::new(RAW));
                command.args(["send", "--interface", "eth0", "--seconds", RAW_SECONDS]);
                command
            }
            Self::RawImage => {
                let mut command = program(Path::new(RAW));
                command.args(["send-image", "--interface", "eth0", "--receivers"]);
                command.arg(receivers.to_string()).arg(stage.image);
                command
            }
            Self::Udpcast => {
                let mut command = program(Path::new("udp-sender"));
                command.args(UDPCAST_COMMON).args(["--full-duplex", "--rexmit-hello-interval"]);
                command.args(["100", "--min-receivers", &receivers.to_string(), "--file"]);
                command.arg(stage.image);
                // It counts a receiver as connected when it has the request; where the reply is
                // lost only a later hello mends that, and there is none once it has started.
                if case.network.loss_per_mille > 0 {
                    command.args(["--min-wait", "1"]);
                }
                command
            }
            Self::Uftp => {
                let ids: Vec<String> = (0..receivers)
                    .map(|i| format!("0x{:08X}", address(Node::Receiver(i)).to_bits()))
                    .collect();
                // Beyond the link's rate its own queue blocks it; -1 is as fast as it goes.
                let rate = case.network.mbit_per_second.map_or(-1, |mbit| i64::from(mbit) * 940);
                let mut command = program(Path::new("uftp"));
                command.args(["-R", &rate.to_string(), "-B", "1048576", "-b", "1400", "-t", "1"]);
                command.args(["-x", "2", "-I", "eth0", "-H", &ids.join(","), "-D", "image"]);
                command.arg(stage.image);
                command
            }
        }
    }

    pub(crate) fn receiver(self, number: usize, stage: &Stage<'_>) -> Command {
        let program = |path: &Path| stage.lab.command(Node::Receiver(number), path);
        match self {
            Self::Imgcast { receiver, .. } => {
                let mut command = program(&programs().receiver);
                command.args(["receive", "--interface", "eth0"]).args(receiver);
                command.arg("--output").arg(stage.copy(number));
                command
            }
            Self::Raw => {
                let mut command = program(Path::new(RAW));
                command.args([
                    "receive",
                    "--interface",
                    "eth0",
                    "--work",
                    "copy+crc",
                    "--timeout",
                    "60",
                ]);
                command
            }
            Self::RawImage => {
                let mut command = program(Path::new(RAW));
                command.args(["receive-image", "--interface", "eth0", "--output"]);
                command.arg(stage.copy(number));
                command
            }
            Self::Udpcast => {
                let mut command = program(Path::new("udp-receiver"));
                command.args(UDPCAST_COMMON).args(["--rcvbuf", "8388608", "--file"]);
                command.arg(stage.copy(number));
                command
            }
            Self::Uftp => {
                let mut command = program(Path::new("uftpd"));
                command.args(["-d", "-q", "-x", "2", "-I", "eth0", "-B", "33554432", "-D"]);
                command.arg(stage.directory_of(number));
                command
            }
        }
    }
}

const UDPCAST_COMMON: [&str; 8] =
    ["--interface", "eth0", "--portbase", "9000", "--ttl", "1", "--nokbd", "--no-progress"];

/// Built by cargo along with this program.
const RAW: &str = env!("CARGO_BIN_EXE_imgcast-raw");

/// Long enough to be steady.
const RAW_SECONDS: &str = "3";
