//! What can be typed: subcommands, options, their help.
//!
//! Each option has an environment variable, `IMGCAST_` and its name; that of the log filter is
//! `IMGCAST_LOG`. What is meant by it all is decided by [`config`](crate::config).

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use imgcast_common::units::{ByteSize, Seconds};
use tracing_subscriber::filter::Targets;

use crate::config::ImageChoice;
use crate::image::Holes;
use crate::keep_args::KeepArgs;

/// Receives a disk image that is sent to many machines at once
///
/// Whatever arrives damaged or not at all is asked for; nothing unverified is
/// ever written.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "imgcast-receiver",
    version,
    arg_required_else_help = true,
    help_expected = true,
    max_term_width = HELP_COLUMNS_MAX,
    after_help = EXAMPLES,
    after_long_help = LONG_EXAMPLES
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Receive an image, verify it and write it to a disk or file
    #[command(after_help = EXAMPLES, after_long_help = LONG_EXAMPLES)]
    Receive(ReceiveArgs),
    /// List the images that are on offer on this network
    List(ListArgs),
}

/// The options of `receive`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReceiveArgs {
    /// Disk or file to write to; a disk is overwritten
    ///
    /// /dev/sda, any link to it, or serial=... or wwn=... of the disk: what
    /// fits several disks is refused, and those are listed. So is a disk that
    /// is mounted, swapped to or otherwise in use. Its first and last block,
    /// with the partition tables, are written last. A file gets its name when
    /// it is complete.
    #[arg(short, long, value_name = "TARGET", env = "IMGCAST_OUTPUT", hide_env_values = true)]
    #[arg(help_heading = IMAGE)]
    pub output: PathBuf,

    /// Overwrite a disk without asking
    ///
    /// Without this option it is shown what is on the disk, and asked, if
    /// standard input is a terminal: elsewhere nobody is ever asked.
    #[arg(short, long, env = "IMGCAST_YES", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = IMAGE)]
    pub yes: bool,

    /// Replace an output file that is there already
    #[arg(long, env = "IMGCAST_OVERWRITE", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = IMAGE)]
    pub overwrite: bool,

    /// How blocks of zeroes come onto a disk; of a file they are holes
    #[arg(long, value_name = "HOW", env = "IMGCAST_HOLES", hide_env_values = true)]
    #[arg(value_enum, default_value = "zero", help_heading = IMAGE)]
    pub holes: Holes,

    /// Image to receive, by name or id
    ///
    /// The id is the BLAKE3 hash that `b3sum` prints: with it, nothing but
    /// that image is accepted, whoever sends it. Without this option there
    /// must be exactly one image on offer.
    #[arg(long, value_name = "NAME-or-ID", env = "IMGCAST_IMAGE", hide_env_values = true)]
    #[arg(help_heading = IMAGE)]
    pub image: Option<ImageChoice>,

    /// What to keep, and what to look for.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// Where to listen.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// Routers that a datagram may pass, plus one
    #[arg(
        long,
        value_name = "N",
        env = "IMGCAST_TTL", hide_env_values = true,
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..),
        help_heading = NETWORK
    )]
    pub ttl: u8,

    /// Memory for blocks on their way, and for decoding [default: 1/4 of what is free, max. 1G]
    ///
    /// At least 16M, and more for images above 1 TiB, whose blocks are
    /// larger. With little memory a transfer that loses much takes longer.
    #[arg(long, value_name = "SIZE", env = "IMGCAST_MEMORY", hide_env_values = true)]
    #[arg(help_heading = LIMITS)]
    pub memory: Option<ByteSize>,

    /// Give up if no sender appears within TIME; 0 waits for ever
    #[arg(
        long,
        value_name = "TIME",
        env = "IMGCAST_START_TIMEOUT", hide_env_values = true,
        default_value = "5m",
        help_heading = LIMITS
    )]
    pub start_timeout: Seconds,

    /// Give up if no block gets done for TIME; 0 waits for ever
    ///
    /// It must be longer than a few blocks take at the sender's rate. One way:
    /// if nothing comes from the sender for TIME.
    #[arg(
        long,
        value_name = "TIME",
        env = "IMGCAST_RECEIVE_TIMEOUT", hide_env_values = true,
        default_value = "120",
        help_heading = LIMITS
    )]
    pub receive_timeout: Seconds,

    /// Show no progress, and log one level less
    #[arg(
        short,
        long,
        env = "IMGCAST_QUIET", hide_env_values = true,
        value_parser = BoolishValueParser::new(),
        help_heading = OUTPUT
    )]
    pub quiet: bool,

    /// Log one level more; twice: every datagram
    #[arg(short, long, env = "IMGCAST_VERBOSE", hide_env_values = true)]
    #[arg(action = ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,

    /// What to log, by module: imgcast_receiver::session=debug
    #[arg(long, value_name = "FILTER", env = "IMGCAST_LOG", hide_env_values = true)]
    #[arg(hide_short_help = true, help_heading = OUTPUT)]
    pub log_filter: Option<Targets>,

    /// Drop this share of the datagrams that arrive: 0.05 or 5%
    #[arg(
        long,
        hide = true,
        value_name = "SHARE",
        env = "IMGCAST_DROP",
        hide_env_values = true,
        default_value = "0"
    )]
    pub drop: Share,

    /// Seed of all random draws, to repeat a run
    #[arg(long, hide = true, value_name = "N", env = "IMGCAST_SEED", hide_env_values = true)]
    pub seed: Option<u64>,

    /// Whether the kernel may join and split datagrams
    #[arg(
        long,
        hide = true,
        env = "IMGCAST_OFFLOAD",
        hide_env_values = true,
        default_value = "on"
    )]
    pub offload: Switch,
}

/// The options of `list`.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON object instead of a table
    ///
    /// Its list `offers` is empty if nothing is on offer.
    #[arg(long, env = "IMGCAST_JSON", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// Listen for TIME
    #[arg(
        long,
        value_name = "TIME",
        env = "IMGCAST_WAIT",
        hide_env_values = true,
        default_value = "1.5"
    )]
    pub wait: Seconds,

    /// Where to listen.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// Where senders are looked for.
#[derive(Clone, Debug, clap::Args)]
pub struct NetworkArgs {
    /// Interface to listen on: eth0, its address or its subnet
    ///
    /// Without it, the only one that fits, or the one with the default route.
    #[arg(short, long, value_name = "IF", env = "IMGCAST_INTERFACE", hide_env_values = true)]
    #[arg(help_heading = NETWORK)]
    pub interface: Option<String>,

    /// Group where senders announce images, or one sender's own address
    ///
    /// A sender's own unicast address finds it where multicast does not
    /// arrive. For IPv6 the usual group is ff15::6330.
    #[arg(
        long,
        value_name = "ADDR",
        env = "IMGCAST_MCAST_RDV_ADDRESS", hide_env_values = true,
        default_value_t = RENDEZVOUS,
        help_heading = NETWORK
    )]
    pub mcast_rdv_address: IpAddr,

    /// UDP port of announcements; the next one is that of the image
    #[arg(
        long,
        value_name = "PORT",
        env = "IMGCAST_PORTBASE", hide_env_values = true,
        default_value_t = PORTBASE,
        value_parser = clap::value_parser!(u16).range(1..=65_534),
        help_heading = NETWORK
    )]
    pub portbase: u16,
}

/// On or off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// A share of something, in parts of a million: `0.05` or `5%`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Share {
    /// 0 to 1,000,000.
    pub parts_per_million: u32,
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let (number, whole) = match text.trim().strip_suffix('%') {
            Some(percent) => (percent, 100.0),
            None => (text.trim(), 1.0),
        };
        let share: f64 = number.trim_end().parse().map_err(|_| ShareError)?;
        let share = share / whole;
        if !(0.0..=1.0).contains(&share) {
            return Err(ShareError);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1e6")]
        let parts_per_million = (share * 1e6).round() as u32;
        Ok(Self { parts_per_million })
    }
}

/// What was typed is no share.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a share is 0 to 1, such as 0.05, or 0% to 100%, such as 5%")]
pub struct ShareError;

pub(crate) const IMAGE: &str = "Image";
const NETWORK: &str = "Network";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";

const EXAMPLES: &str = "\
Examples:
  imgcast-receiver receive --output /dev/sda
  imgcast-receiver receive --output disk.img --image debian-13
  imgcast-receiver list";

const LONG_EXAMPLES: &str = "\
Examples:
  Write the only image on offer to a disk:
    imgcast-receiver receive --output /dev/sda

  From a script, to the disk with this serial number, whatever its name is:
    imgcast-receiver receive --output serial=S4EVNJ0N --yes

  Write one of several to a file, over a certain interface:
    imgcast-receiver receive --output disk.img --image debian-13 -i eth1

  Accept one image only, by its hash, from a sender that multicast does not
  reach from here:
    imgcast-receiver receive --output /dev/sda --image \"$(cat disk.b3)\" \\
      --mcast-rdv-address 10.0.0.1

  See what is on offer:
    imgcast-receiver list

While it receives, SIGUSR1 prints how far it is, or what it waits for; SIGINT
stops it and tells the sender.

Exit codes:
  0  the image is verified and on disk   6  the transfer stalled
  1  internal error                      7  target refused, or no such image
  2  usage                               8  the disk cannot be written
  3  this host's network is not ready    9  verification failed
  4  no sender, or it is gone           10  only other versions on offer
  5  the sender refused or ejected us   11  one way, and not all arrived
                                        12  the disk did not keep the image
                                        128+n  stopped by signal n

Each option may be given as an environment variable instead.";

/// Where a text console still shows a line whole.
const HELP_COLUMNS_MAX: usize = 80;
/// Protocol section 8.
const RENDEZVOUS: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 255, 63, 30));
/// Protocol section 8.
const PORTBASE: u16 = 6330;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn receive(arguments: &[&str]) -> Result<ReceiveArgs, ErrorKind> {
        let line = [&["imgcast-receiver", "receive", "--output", "disk.img"], arguments].concat();
        match Args::try_parse_from(line).map_err(|error| error.kind())?.command {
            Command::Receive(arguments) => Ok(arguments),
            Command::List(_) => panic!("not a list"),
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns_and_shows_examples_but_nothing_hidden() {
        let mut command = Args::command();
        command.build();
        let mut pages = vec![command.clone()];
        pages.extend(command.get_subcommands().cloned());
        for mut page in pages {
            for text in [page.render_help(), page.render_long_help()] {
                let text = text.to_string();
                for line in text.lines() {
                    assert!(line.chars().count() <= 80, "{}: {line}", page.get_name());
                }
                assert!(!text.contains("--drop") && !text.contains("--seed"));
            }
        }
        let help = Args::command().render_long_help().to_string();
        assert!(help.contains("receive --output /dev/sda") && help.contains("Exit codes:"));
    }

    #[test]
    fn every_long_option_has_an_environment_variable_named_after_it() {
        let mut command = Args::command();
        command.build();
        for arg in command.get_subcommands().flat_map(clap::Command::get_arguments) {
            let Some(long) = arg.get_long() else { continue };
            if ["help", "version", "log-filter"].contains(&long) {
                continue;
            }
            let expected = format!("IMGCAST_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&expected[..]));
        }
    }

    #[test]
    fn defaults_are_those_of_the_protocol() {
        let arguments = receive(&[]).unwrap();
        assert_eq!(arguments.start_timeout.0, Duration::from_secs(300));
        assert_eq!(arguments.receive_timeout.0, Duration::from_secs(120));
        assert_eq!(arguments.network.mcast_rdv_address.to_string(), "239.255.63.30");
        assert_eq!((arguments.network.portbase, arguments.ttl), (6330, 1));
        assert_eq!(arguments.drop, Share::default());
        assert_eq!(arguments.offload, Switch::On);
        assert!(arguments.image.is_none() && arguments.memory.is_none());
    }

    #[test]
    fn values_out_of_range_are_usage_errors() {
        for bad in [
            &["--ttl", "0"][..],
            &["--portbase", "65535"],
            &["--portbase", "0"],
            &["--drop", "1.5"],
            &["--image", "not/a/name"],
            &["--memory", "plenty"],
            &["--log-filter", "session=loud"],
            &["--mcast-rdv-address", "example.org"],
        ] {
            assert_eq!(receive(bad).unwrap_err(), ErrorKind::ValueValidation, "{bad:?}");
        }
        let missing = Args::try_parse_from(["imgcast-receiver", "receive"]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(missing.exit_code(), 2);
    }

    #[test]
    fn a_share_is_a_fraction_or_a_percentage() {
        let parts = |text: &str| text.parse().map(|share: Share| share.parts_per_million);
        assert_eq!(parts("0.05"), Ok(50_000));
        assert_eq!(parts("5%"), Ok(50_000));
        assert_eq!(parts("1"), Ok(1_000_000));
        assert_eq!(parts("0.25 %"), Ok(2_500));
        for bad in ["", "5", "-0.1", "101%", "NaN", "half"] {
            assert_eq!(parts(bad), Err(ShareError), "{bad}");
        }
    }
}
