//! What the command line means: every default decided, every value checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use imgcast_common::id::ImageId;
use imgcast_common::layout::BLOCK_LOG2_DEFAULT;
use imgcast_common::net::Offload;
use imgcast_common::prng::Prng;
use imgcast_common::units::Seconds;
use imgcast_common::wire::Name;
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::cli::{ListArgs, NetworkArgs, ReceiveArgs, Switch};
use crate::error::Error;
use crate::image::{Keep, TargetOptions};
use crate::memory::{self, Memory};

/// A run of `receive`.
#[derive(Clone, Debug)]
pub struct ReceiveConfig {
    /// The disk or file to write to: a path, `serial=...` or `wwn=...`.
    pub output: PathBuf,
    /// What may be done to it, and how.
    pub target: TargetOptions,
    /// Whether nobody is to be asked before a disk is overwritten.
    pub is_agreed: bool,
    /// What outlives the run, and how sure it has to be of its end.
    pub keep: Keep,
    /// The image wanted; without it the only one on offer.
    pub image: Option<ImageChoice>,
    /// Where senders are looked for.
    pub network: NetworkConfig,
    /// TTL or hop limit of what is sent to a group.
    pub hops: u8,
    /// Memory for incomplete and unwritten blocks and for decoding.
    pub memory: Memory,
    /// How long to wait for a sender; `None` is for ever.
    pub start_timeout: Option<Duration>,
    /// How long to wait for the next block to get done; `None` is for ever.
    pub receive_timeout: Option<Duration>,
    /// Whether to show no progress.
    pub is_quiet: bool,
    /// What is logged.
    pub log: Targets,
    /// The share of arriving datagrams to drop, in parts of a million.
    pub drop_parts_per_million: u32,
    /// The seed of every random draw.
    pub seed: u64,
    /// Whether the kernel may join and split datagrams.
    pub offload: Offload,
}

/// A run of `list`.
#[derive(Clone, Debug)]
pub struct ListConfig {
    /// Whether to print JSON instead of a table.
    pub is_json: bool,
    /// How long to listen.
    pub wait: Duration,
    /// Where senders are looked for.
    pub network: NetworkConfig,
}

/// Where senders are looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkConfig {
    /// The interface as the operator names it; `None` lets the routing table decide.
    pub interface: Option<String>,
    /// The group where senders announce, or a sender's own address, with the rendezvous port.
    pub rendezvous: SocketAddr,
}

/// An image as the operator names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ImageChoice {
    /// By its hash: everything is verified from it alone.
    Id(ImageId),
    /// By the name that its sender gives it.
    Name(Name),
}

impl TryFrom<ReceiveArgs> for ReceiveConfig {
    type Error = Error;

    fn try_from(args: ReceiveArgs) -> Result<Self, Error> {
        if args.output.as_os_str() == "-" {
            let text = "blocks arrive in any order, which no pipe can take; name a disk or file";
            return Err(Error::Usage { option: "--output", text: text.into() });
        }
        let memory = Memory::new(args.memory.map_or_else(memory::default_bytes, |size| size.0));
        memory.check(1 << BLOCK_LOG2_DEFAULT, 0)?;
        Ok(Self {
            log: log(&args),
            output: args.output,
            target: TargetOptions { overwrite: args.overwrite, holes: args.holes },
            is_agreed: args.yes,
            keep: args.keep.into(),
            image: args.image,
            network: args.network.try_into()?,
            hops: args.ttl,
            memory,
            start_timeout: unless_zero(args.start_timeout),
            receive_timeout: unless_zero(args.receive_timeout),
            is_quiet: args.quiet,
            drop_parts_per_million: args.drop.parts_per_million,
            seed: args.seed.unwrap_or_else(Prng::fresh_seed),
            offload: match args.offload {
                Switch::On => Offload::IfAvailable,
                Switch::Off => Offload::Off,
            },
        })
    }
}

impl TryFrom<ListArgs> for ListConfig {
    type Error = Error;

    fn try_from(args: ListArgs) -> Result<Self, Error> {
        let network = args.network.try_into()?;
        Ok(Self { is_json: args.json, wait: args.wait.0, network })
    }
}

impl TryFrom<NetworkArgs> for NetworkConfig {
    type Error = Error;

    fn try_from(args: NetworkArgs) -> Result<Self, Error> {
        let address = args.mcast_rdv_address;
        if address.is_unspecified() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            let text = format!("{address} is neither a multicast group nor a sender's address");
            return Err(Error::Usage { option: "--mcast-rdv-address", text });
        }
        let rendezvous = SocketAddr::new(address, args.portbase);
        Ok(Self { interface: args.interface, rendezvous })
    }
}

impl NetworkConfig {
    /// Whether a single sender is asked instead of a group.
    #[must_use]
    pub fn asks_one_sender(&self) -> bool {
        !self.rendezvous.ip().is_multicast()
    }
}

impl ImageChoice {
    /// Whether an image of this name and id is the one meant.
    #[must_use]
    pub fn accepts(&self, name: &Name, image: ImageId) -> bool {
        match self {
            Self::Id(wanted) => *wanted == image,
            Self::Name(wanted) => wanted == name,
        }
    }
}

impl FromStr for ImageChoice {
    type Err = ImageChoiceError;

    fn from_str(text: &str) -> Result<Self, ImageChoiceError> {
        // A name of 64 hexadecimal digits would be a bad joke; the id is the safer reading.
        let id = ImageId::from_hex(text).map(Self::Id);
        id.or_else(|| Name::new(text).map(Self::Name)).ok_or(ImageChoiceError)
    }
}

impl fmt::Display for ImageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name.as_str()),
        }
    }
}

/// What was typed can be neither name nor id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an image is named by up to 64 of A-Z a-z 0-9 . _ -, or by its id, 64 hexadecimal digits")]
pub struct ImageChoiceError;

/// What is logged: by module if the operator says so, else our own crates at one level.
fn log(args: &ReceiveArgs) -> Targets {
    let level = match (args.quiet, args.verbose) {
        (true, 0) => Level::WARN,
        (false, 0) | (true, 1) => Level::INFO,
        (false, 1) | (true, 2) => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = || Targets::new().with_default(Level::WARN).with_target("imgcast", level);
    args.log_filter.clone().unwrap_or_else(ours)
}

fn unless_zero(time: Seconds) -> Option<Duration> {
    Some(time.0).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Args, Command};
    use crate::image::Holes;

    fn config(arguments: &[&str]) -> Result<ReceiveConfig, Error> {
        let line = [&["imgcast-receiver", "receive"], arguments].concat();
        match Args::try_parse_from(line).unwrap().command {
            Command::Receive(args) => args.try_into(),
            Command::List(_) => panic!("not a list"),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_meant() {
        let config = config(&[
            "-o",
            "/dev/sdz",
            "--image",
            "debian-13",
            "-i",
            "eth1",
            "--memory",
            "64M",
            "--start-timeout",
            "0",
            "--receive-timeout",
            "1m",
            "--portbase",
            "7000",
            "--mcast-rdv-address",
            "ff15::6330",
            "--ttl",
            "3",
            "-q",
            "--drop",
            "2%",
            "--seed",
            "7",
            "--offload",
            "off",
            "--yes",
            "--overwrite",
            "--holes",
            "discard",
        ]);
        let config = config.unwrap();
        assert_eq!(config.output, PathBuf::from("/dev/sdz"));
        assert_eq!(config.image.unwrap().to_string(), "debian-13");
        assert_eq!(config.network.interface.as_deref(), Some("eth1"));
        assert_eq!(config.network.rendezvous.to_string(), "[ff15::6330]:7000");
        assert_eq!((config.memory.bytes(), config.hops), (64 << 20, 3));
        assert_eq!(config.start_timeout, None);
        assert_eq!(config.receive_timeout, Some(Duration::from_secs(60)));
        assert_eq!((config.drop_parts_per_million, config.seed), (20_000, 7));
        assert_eq!((config.is_quiet, config.offload), (true, Offload::Off));
        assert!(config.is_agreed && config.target.overwrite);
        assert_eq!(config.target.holes, Holes::Discard);
    }

    #[test]
    fn what_is_absent_is_decided() {
        let config = config(&["-o", "disk.img"]).unwrap();
        assert_eq!(config.network.rendezvous.to_string(), "239.255.63.30:6330");
        assert!(!config.network.asks_one_sender());
        assert_eq!(config.offload, Offload::IfAvailable);
        assert!(!config.is_agreed && !config.target.overwrite);
        assert_eq!(config.target.holes, Holes::Zero);
    }

    #[test]
    fn a_pipe_an_address_that_is_none_and_too_little_memory_are_usage_errors() {
        for (arguments, option) in [
            (&["-o", "-"][..], "--output"),
            (&["-o", "x", "--mcast-rdv-address", "0.0.0.0"], "--mcast-rdv-address"),
            (&["-o", "x", "--mcast-rdv-address", "255.255.255.255"], "--mcast-rdv-address"),
            (&["-o", "x", "--mcast-rdv-address", "::"], "--mcast-rdv-address"),
            (&["-o", "x", "--memory", "1"], "--memory"),
            (&["-o", "x", "--memory", "15M"], "--memory"),
        ] {
            let error = config(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with(option), "{error}");
        }
        let one = config(&["-o", "x", "--mcast-rdv-address", "10.0.0.1"]).unwrap();
        assert!(one.network.asks_one_sender());
    }

    #[test]
    fn our_own_log_follows_q_and_v_and_a_filter_overrides_both() {
        let is_logged = |args: &[&str], level| {
            let args = [&["-o", "x"], args].concat();
            config(&args).unwrap().log.would_enable("imgcast_receiver::session", &level)
        };
        for (args, most, too_much) in [
            (&["-q"][..], Level::WARN, Level::INFO),
            (&[], Level::INFO, Level::DEBUG),
            (&["-q", "-v"], Level::INFO, Level::DEBUG),
            (&["-v"], Level::DEBUG, Level::TRACE),
            (&["-v", "--log-filter=imgcast_receiver=error"], Level::ERROR, Level::WARN),
        ] {
            assert!(is_logged(args, most) && !is_logged(args, too_much), "{args:?}");
        }
        assert!(is_logged(&["-vv"], Level::TRACE));
    }

    #[test]
    fn an_image_is_chosen_by_name_or_by_id() {
        let id = ImageId([0xab; 32]);
        let name = Name::new("debian-13").unwrap();
        let by_id: ImageChoice = "AB".repeat(32).parse().unwrap();
        assert!(by_id.accepts(&name, id) && !by_id.accepts(&name, ImageId([0; 32])));
        let by_name: ImageChoice = "debian-13".parse().unwrap();
        assert!(by_name.accepts(&name, id) && !by_name.accepts(&Name::new("debian").unwrap(), id));
        assert_eq!("../etc".parse::<ImageChoice>(), Err(ImageChoiceError));
    }

    #[test]
    fn listing_waits_for_several_announcements() {
        let command = Args::try_parse_from(["imgcast-receiver", "list", "--json"]);
        let Command::List(arguments) = command.unwrap().command else { panic!("not a list") };
        let config = ListConfig::try_from(arguments).unwrap();
        assert!(config.is_json);
        assert_eq!(config.wait, Duration::from_millis(1500));
    }
}
