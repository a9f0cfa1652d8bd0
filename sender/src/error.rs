//! Everything that can end a transfer, in words the operator can act on.
//!
//! A variant is one thing to do something about. Its code is stable, for scripts and for searching;
//! its exit code says the same more coarsely. Both programs give their exit codes the same meaning.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use imgcast_common::limits;
use imgcast_common::net::NetError;
use imgcast_common::units::{ByteSize, Seconds};
use nix::sys::signal::Signal;
use thiserror::Error;

/// Why an image was not sent, or not to everybody.
#[derive(Debug, Error)]
pub enum Error {
    /// The image cannot be opened.
    #[error(
        "cannot open image {}: {source}; check the path and that it may be read",
        path.display()
    )]
    ImageOpen {
        /// The image.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It has no length, or no place in it can be read twice.
    #[error("{} is a {kind}; name a regular file or a block device instead", path.display())]
    ImageKind {
        /// What was named as image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Somebody has locked it, who writes to it as far as anybody can tell.
    #[error(
        "image {path} is locked by another program, which may be writing to it, such as \
         imgcast-receiver or fdisk; wait until that has ended (lslocks and `fuser -v {path}` show \
         which it is), and send it again",
        path = path.display()
    )]
    ImageLocked {
        /// The image.
        path: PathBuf,
    },
    /// There is nothing to send.
    #[error("image {} is empty; check that it was written, and to this path", path.display())]
    ImageEmpty {
        /// The image.
        path: PathBuf,
    },
    /// There is more than the protocol can number.
    #[error("image {} has {size}, but {size_max} is the most that can be sent", path.display())]
    ImageTooLarge {
        /// The image.
        path: PathBuf,
        /// Its length.
        size: ByteSize,
        /// The largest length.
        size_max: ByteSize,
    },
    /// A place in the image cannot be read.
    #[error(
        "cannot read image {} at offset {offset}: {source}; check its disk or server, and the \
         kernel's log",
        path.display()
    )]
    ImageRead {
        /// The image.
        path: PathBuf,
        /// Where, in octets.
        offset: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image is not any more what was announced.
    #[error(
        "the image changed while it was being sent: {} at offset {offset}; find out what writes \
         to it, stop that, and send it again",
        path.display()
    )]
    ImageChanged {
        /// The image.
        path: PathBuf,
        /// Where it was noticed: the start of a block, or the end if it was between two blocks.
        offset: u64,
    },
    /// The image is not as long any more as what was announced.
    #[error(
        "the image was truncated while it was being sent: to {bytes_now} octets, from \
         {bytes_before}: {}; find out what does that, stop it, and send a whole image again",
        path.display()
    )]
    ImageTruncated {
        /// The image.
        path: PathBuf,
        /// Its length when it was opened, in octets.
        bytes_before: u64,
        /// Its length when that was noticed.
        bytes_now: u64,
    },
    /// An address that should be a multicast group is none.
    #[error(
        "{option} {address} is not a multicast group; use one in 239.0.0.0/8 or ff15::/16, or \
         leave the option out"
    )]
    NotAGroup {
        /// The option.
        option: &'static str,
        /// Its value.
        address: IpAddr,
    },
    /// One group is IPv4 and the other IPv6.
    #[error(
        "--mcast-rdv-address {rendezvous} and --mcast-data-address {data} are of different \
         families; a session is either IPv4 or IPv6"
    )]
    FamiliesDiffer {
        /// The rendezvous group.
        rendezvous: IpAddr,
        /// The data group.
        data: IpAddr,
    },
    /// The longest wait is shorter than the shortest.
    #[error("--min-wait {min} is longer than --max-wait {max}; lower it, or raise --max-wait")]
    WaitsCross {
        /// The shortest wait.
        min: Seconds,
        /// The longest wait.
        max: Seconds,
    },
    /// Nobody can tell what the network carries, and the operator did not.
    #[error(
        "--one-way needs --max-bitrate: no receiver can say what the network carries; give a rate \
         that every link on the way takes, with what else it has to carry"
    )]
    OneWayRate,
    /// Receivers are waited for that cannot say that they are there.
    #[error(
        "{option} makes no sense with --one-way: nobody can join; leave it out, and give receivers \
         time to start with --min-wait"
    )]
    OneWayWaits {
        /// The option.
        option: &'static str,
    },
    /// An option for sessions without a way back.
    #[error("{option} is for --one-way only: receivers that can answer ask for what they lack")]
    NotOneWay {
        /// The option.
        option: &'static str,
    },
    /// An interface, a socket or the way to the receivers.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The time to wait for a first receiver is over.
    #[error(
        "no receiver has joined{} within {waited}; check that they run on this network with the \
         same rendezvous address, or raise --start-timeout",
        and_stayed(*.gone)
    )]
    NoReceivers {
        /// How many joined, but went away again.
        gone: u32,
        /// The start timeout.
        waited: Seconds,
    },
    /// The operator, or the system, ended the program.
    #[error("ended by {signal}; receivers keep what they verified and need only the rest later")]
    Interrupted {
        /// How.
        signal: Signal,
    },
    /// The operating system refuses what every program needs.
    #[error("cannot start {what}: {source}; {}", limits::advice(source))]
    System {
        /// What was to be started.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What should be impossible.
    #[error("cannot {task}: {reason}; this is a defect of imgcast, please report it")]
    Internal {
        /// What was to be done.
        task: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// A short name that no later version changes.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ImageOpen { .. } => "image-open",
            Self::ImageKind { .. } => "image-kind",
            Self::ImageLocked { .. } => "image-locked",
            Self::ImageEmpty { .. } => "image-empty",
            Self::ImageTooLarge { .. } => "image-too-large",
            Self::ImageRead { .. } => "image-read",
            Self::ImageChanged { .. } => "image-changed",
            Self::ImageTruncated { .. } => "image-truncated",
            Self::NotAGroup { .. } => "not-a-group",
            Self::FamiliesDiffer { .. } => "families-differ",
            Self::WaitsCross { .. } => "waits-cross",
            Self::OneWayRate => "one-way-rate",
            Self::OneWayWaits { .. } => "one-way-waits",
            Self::NotOneWay { .. } => "not-one-way",
            Self::Network(error) => Trouble::of(error).code(),
            Self::NoReceivers { .. } => "no-receivers",
            Self::Interrupted { .. } => "interrupted",
            Self::System { .. } => "system",
            Self::Internal { .. } => "internal",
        }
    }

    /// What the program ends with, one of [`exit`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ImageOpen { .. }
            | Self::ImageKind { .. }
            | Self::ImageLocked { .. }
            | Self::ImageEmpty { .. }
            | Self::ImageTooLarge { .. } => exit::PREFLIGHT,
            Self::ImageRead { .. } => exit::READ,
            Self::ImageChanged { .. } | Self::ImageTruncated { .. } => exit::VERIFICATION,
            Self::NotAGroup { .. }
            | Self::FamiliesDiffer { .. }
            | Self::WaitsCross { .. }
            | Self::OneWayRate
            | Self::OneWayWaits { .. }
            | Self::NotOneWay { .. } => exit::USAGE,
            Self::Network(error) => Trouble::of(error).exit_code(),
            Self::NoReceivers { .. } => exit::NO_RECEIVERS,
            Self::Interrupted { signal } => {
                exit::SIGNAL.saturating_add(u8::try_from(*signal as i32).unwrap_or(0))
            }
            Self::System { .. } | Self::Internal { .. } => exit::INTERNAL,
        }
    }
}

const fn and_stayed(gone: u32) -> &'static str {
    if gone > 0 { " and stayed" } else { "" }
}

/// What kind of trouble the network makes.
enum Trouble {
    /// No interface to use.
    Interface,
    /// No socket to be had on it.
    Socket,
    /// Datagrams do not fit.
    Mtu,
    /// The way to the receivers was there and is gone.
    Link,
    /// The interface takes nothing any more.
    Stuck,
}

impl Trouble {
    const fn of(error: &NetError) -> Self {
        match error {
            NetError::NoSuchInterface { .. }
            | NetError::NoAddress { .. }
            | NetError::InterfaceDown { .. }
            | NetError::NoInterface { .. }
            | NetError::AmbiguousInterface { .. }
            | NetError::List { .. } => Self::Interface,
            NetError::NotAGroup { .. }
            | NetError::Bind { .. }
            | NetError::Join { .. }
            | NetError::Option { .. } => Self::Socket,
            NetError::DatagramTooLarge { .. } => Self::Mtu,
            NetError::Unreachable { .. } | NetError::Send { .. } | NetError::Receive { .. } => {
                Self::Link
            }
            NetError::Stuck { .. } => Self::Stuck,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Socket => "socket",
            Self::Mtu => "mtu",
            Self::Link => "network",
            Self::Stuck => "stuck",
        }
    }

    const fn exit_code(&self) -> u8 {
        match self {
            Self::Interface | Self::Socket | Self::Mtu => exit::PREFLIGHT,
            Self::Link => exit::READ,
            Self::Stuck => exit::STALLED,
        }
    }
}

/// What the exit codes mean.
pub mod exit {
    /// All receivers that were waited for have verified the image; one way: all was sent.
    pub const COMPLETE: u8 = 0;
    /// A defect of the program, or a system that cannot even start threads.
    pub const INTERNAL: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 2;
    /// Image, interface or socket cannot be used; nothing was sent.
    pub const PREFLIGHT: u8 = 3;
    /// No receiver joined in time.
    pub const NO_RECEIVERS: u8 = 4;
    /// The transfer ended, but not all receivers have the image.
    pub const INCOMPLETE: u8 = 5;
    /// The network takes no datagrams any more.
    pub const STALLED: u8 = 6;
    /// The image cannot be read any more, or the network not be used.
    pub const READ: u8 = 8;
    /// The image is not what was announced.
    pub const VERIFICATION: u8 = 9;
    /// To this the number of the signal is added.
    pub const SIGNAL: u8 = 128;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use std::net::SocketAddr;

    use super::*;

    fn refused() -> io::Error {
        io::Error::from_raw_os_error(13)
    }

    /// One of each variant, with what it must end the program with.
    fn all() -> Vec<(Error, &'static str, u8)> {
        let path = || PathBuf::from("/images/node.img");
        let size = ByteSize(1 << 44);
        let v4 = IpAddr::from([239, 1, 2, 3]);
        let v6 = IpAddr::from([0xff15, 0, 0, 0, 0, 0, 0, 1]);
        let secs = |count| Seconds(Duration::from_secs(count));
        let (min, max) = (secs(60), secs(30));
        let signal = |signal| Error::Interrupted { signal };
        let source = refused;
        let network = Error::Network;
        let name = || "eth0".to_owned();
        let address = SocketAddr::new(v4, 6331);
        vec![
            (Error::ImageOpen { path: path(), source: source() }, "image-open", 3),
            (Error::ImageKind { path: path(), kind: "directory" }, "image-kind", 3),
            (Error::ImageLocked { path: path() }, "image-locked", 3),
            (Error::ImageEmpty { path: path() }, "image-empty", 3),
            (Error::ImageTooLarge { path: path(), size, size_max: size }, "image-too-large", 3),
            (Error::ImageRead { path: path(), offset: 7, source: source() }, "image-read", 8),
            (Error::ImageChanged { path: path(), offset: 7 }, "image-changed", 9),
            (
                Error::ImageTruncated { path: path(), bytes_before: 9, bytes_now: 7 },
                "image-truncated",
                9,
            ),
            (Error::NotAGroup { option: "--x", address: v4 }, "not-a-group", 2),
            (Error::FamiliesDiffer { rendezvous: v4, data: v6 }, "families-differ", 2),
            (Error::WaitsCross { min, max }, "waits-cross", 2),
            (Error::OneWayRate, "one-way-rate", 2),
            (Error::OneWayWaits { option: "--x" }, "one-way-waits", 2),
            (Error::NotOneWay { option: "--x" }, "not-one-way", 2),
            (network(NetError::InterfaceDown { name: name() }), "interface", 3),
            (network(NetError::List { source: source() }), "interface", 3),
            (network(NetError::Bind { address, interface: name(), source: source() }), "socket", 3),
            (network(NetError::Receive { address, source: source() }), "network", 8),
            (
                network(NetError::Stuck { destination: address, interface: name(), waited_ms: 9 }),
                "stuck",
                6,
            ),
            (
                network(NetError::DatagramTooLarge {
                    destination: address,
                    datagram_octets: 1464,
                    octets_max: 1372,
                    mtu_octets: 1400,
                    interface: name(),
                }),
                "mtu",
                3,
            ),
            (Error::NoReceivers { gone: 0, waited: max }, "no-receivers", 4),
            (signal(Signal::SIGINT), "interrupted", 130),
            (signal(Signal::SIGTERM), "interrupted", 143),
            (Error::System { what: "threads", source: source() }, "system", 1),
            (Error::Internal { task: name(), reason: name() }, "internal", 1),
        ]
    }

    #[test]
    fn each_error_has_its_code_and_its_exit_code() {
        for (error, code, exit_code) in all() {
            assert_eq!((error.code(), error.exit_code()), (code, exit_code), "{error}");
        }
        let codes: BTreeSet<_> = all().iter().map(|(error, ..)| error.code()).collect();
        assert_eq!(codes.len(), 23, "18 variants besides Network, and five kinds of that");
    }

    #[test]
    fn texts_are_one_line_and_name_the_thing() {
        for (error, ..) in all() {
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.contains("  ") && !text.ends_with('.'), "{text}");
        }
        let again = io::Error::from_raw_os_error(11);
        let text = Error::System { what: "a thread", source: again }.to_string();
        assert!(text.contains("not enough memory, or no more processes"), "{text}");
        let changed = Error::ImageChanged { path: "/images/node.img".into(), offset: 1 << 20 };
        let text = changed.to_string();
        assert!(text.contains("the image changed while it was being sent: /images/node.img"));
        assert!(text.contains("at offset 1048576"));
    }
}
