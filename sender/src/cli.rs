//! What can be typed: subcommands, options, their help.
//!
//! Each option has an environment variable, `IMGCAST_` and its name; that of the log filter is
//! `IMGCAST_LOG`. What the options mean
//! together is decided by [`Config`](crate::config::Config).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use imgcast_common::units::{BitRate, Seconds, UnitError};
use imgcast_common::wire::Name;
use tracing_subscriber::filter::Targets;

use crate::session::MEMBERS_MAX;

/// Sends a disk image to many machines at once
///
/// One sender pushes one image by IP multicast to all receivers that join.
/// Each of them verifies every byte; what it missed, it asks for.
#[derive(Debug, Parser)]
#[command(
    name = "imgcast-sender",
    version,
    max_term_width = 80,
    arg_required_else_help = true,
    help_expected = true,
    after_long_help = AFTER_HELP
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send an image to all receivers that join
    #[command(max_term_width = 80, after_long_help = AFTER_HELP)]
    Send(SendArgs),
}

/// What and how to send.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// Disk image: a regular file or a block device
    ///
    /// It is only read, and must not be written to until all receivers have it.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// What to call the image [default: its file name]
    ///
    /// Receivers show it, and choose by it. Up to 64 of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "NAME", env = "IMGCAST_NAME", hide_env_values = true)]
    #[arg(value_parser = name)]
    pub name: Option<Name>,

    /// Start once N receivers have joined
    ///
    /// Receivers may join later, too: they get what they missed. On a terminal any
    /// key starts with those who have joined; who is missing then still counts for
    /// the exit code.
    #[arg(long, value_name = "N", env = "IMGCAST_MIN_RECEIVERS", hide_env_values = true)]
    #[arg(default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX as i64))]
    #[arg(help_heading = START)]
    pub min_receivers: u32,

    /// But not before TIME has passed since the first one joined
    ///
    /// In seconds, or with a unit: 90, 90s, 2m.
    #[arg(long, value_name = "TIME", env = "IMGCAST_MIN_WAIT", hide_env_values = true)]
    #[arg(default_value = "0", help_heading = START)]
    pub min_wait: Seconds,

    /// Start anyway once TIME has passed since the first one joined
    ///
    /// Even with fewer than --min-receivers. Without it, only their number counts.
    #[arg(long, value_name = "TIME", env = "IMGCAST_MAX_WAIT", hide_env_values = true)]
    #[arg(help_heading = START)]
    pub max_wait: Option<Seconds>,

    /// Give up if no receiver has joined after TIME
    ///
    /// The exit code is then 4. 0 waits for ever.
    #[arg(long, value_name = "TIME", env = "IMGCAST_START_TIMEOUT", hide_env_values = true)]
    #[arg(default_value = "5m", help_heading = START)]
    pub start_timeout: Seconds,

    /// Send to receivers that cannot answer, then end
    ///
    /// For satellites, data diodes, broken unicast. Nobody is waited for: what is
    /// sent is announced for 2 s, or for --min-wait, and sent at --max-bitrate,
    /// which has to be given. Each receiver finds out whether it has all of it; if
    /// not, it says what it lacks and exits with 11.
    #[arg(long, env = "IMGCAST_ONE_WAY", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = ONE_WAY)]
    pub one_way: bool,

    /// One way: send all of the image N times [default: 2]
    ///
    /// Who comes late, or is cut off for a while, gets in the next pass what it
    /// missed in this one.
    #[arg(long, value_name = "N", env = "IMGCAST_PASSES", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..), help_heading = ONE_WAY)]
    pub passes: Option<u8>,

    /// One way: repair symbols for each pass, in PERCENT of the image [default: 5]
    ///
    /// With 5, one pass stands 1.5 % of loss and two passes stand 15 %.
    #[arg(long, value_name = "PERCENT", env = "IMGCAST_REPAIR", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u8).range(..=100), help_heading = ONE_WAY)]
    pub repair: Option<u8>,

    /// Send no faster than RATE bits per second
    ///
    /// 900M, 2.5G. Sending starts at this rate and adapts below it. Without it,
    /// the speed of the interface is the limit.
    #[arg(long, value_name = "RATE", env = "IMGCAST_MAX_BITRATE", hide_env_values = true)]
    #[arg(value_parser = bitrate, help_heading = NETWORK)]
    pub max_bitrate: Option<BitRate>,

    /// What to do about receivers that are far slower than all others
    ///
    /// At most a fifth of them, or one, and never the last.
    #[arg(long, value_name = "HOW", env = "IMGCAST_SLOW_RECEIVERS", hide_env_values = true)]
    #[arg(default_value = "detach", help_heading = NETWORK)]
    pub slow_receivers: Slow,

    /// Interface to send on: eth0, its address or its subnet
    ///
    /// Without it, the only one that fits, or the one with the default route.
    #[arg(long, value_name = "IF", env = "IMGCAST_INTERFACE", hide_env_values = true)]
    #[arg(help_heading = NETWORK)]
    pub interface: Option<String>,

    /// Routers that a datagram may pass, plus one
    ///
    /// The IP TTL or hop limit of all multicast: 1 stays on this network.
    #[arg(long, value_name = "N", env = "IMGCAST_TTL", hide_env_values = true)]
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    #[arg(help_heading = NETWORK)]
    pub ttl: u8,

    /// Group that sessions are announced to [default: 239.255.63.30]
    ///
    /// Receivers must use the same. An IPv6 group, such as ff15::6330, makes the
    /// session an IPv6 one.
    #[arg(long, value_name = "GROUP", env = "IMGCAST_MCAST_RDV_ADDRESS", hide_env_values = true)]
    #[arg(help_heading = NETWORK)]
    pub mcast_rdv_address: Option<IpAddr>,

    /// Group that carries the image [default: one of the session's own]
    ///
    /// Receivers learn it from the announcement.
    #[arg(long, value_name = "GROUP", env = "IMGCAST_MCAST_DATA_ADDRESS", hide_env_values = true)]
    #[arg(help_heading = NETWORK)]
    pub mcast_data_address: Option<IpAddr>,

    /// UDP port of announcements; the next one is that of the image
    ///
    /// Receivers must use the same.
    #[arg(long, value_name = "PORT", env = "IMGCAST_PORTBASE", hide_env_values = true)]
    #[arg(default_value_t = 6330, value_parser = clap::value_parser!(u16).range(1..=65534))]
    #[arg(help_heading = NETWORK)]
    pub portbase: u16,

    /// Whether kernel or interface may cut bursts into datagrams
    ///
    /// Turn it off if a driver damages what it cuts.
    #[arg(long, value_name = "WHEN", env = "IMGCAST_OFFLOAD", hide_env_values = true)]
    #[arg(default_value = "on", hide_short_help = true, help_heading = NETWORK)]
    pub offload: Switch,

    /// Show no progress, and log one level less
    ///
    /// The keyboard is left alone, too.
    #[arg(long, short, env = "IMGCAST_QUIET", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = OUTPUT)]
    pub quiet: bool,

    /// Log one level more; twice: every datagram
    #[arg(long, short, env = "IMGCAST_VERBOSE", hide_env_values = true)]
    #[arg(action = clap::ArgAction::Count, help_heading = OUTPUT)]
    pub verbose: u8,

    /// What to log, by module: imgcast_sender::session=debug
    #[arg(long, value_name = "FILTER", env = "IMGCAST_LOG", hide_env_values = true)]
    #[arg(hide_short_help = true, help_heading = OUTPUT)]
    pub log_filter: Option<Targets>,

    /// Seed of all random draws, to repeat a run
    #[arg(long, value_name = "N", env = "IMGCAST_SEED", hide = true)]
    pub seed: Option<u64>,
}

/// On or off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Switch {
    /// Wherever it works
    On,
    /// Never
    Off,
}

/// What becomes of slow receivers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Slow {
    /// Nobody waits for them: they get the rest when the others are done
    Detach,
    /// The others go at their pace; of more than 20 receivers, one in twenty have to be slow
    Wait,
    /// They are sent away, and exit with 5
    Drop,
}

fn name(text: &str) -> Result<Name, String> {
    let allowed = "use 1 to 64 of A-Z a-z 0-9 . _ -, but not . or ..";
    Name::new(text).ok_or_else(|| allowed.to_owned())
}

/// A rate with which an image arrives within somebody's lifetime.
fn bitrate(text: &str) -> Result<BitRate, String> {
    let rate: BitRate = text.parse().map_err(|error: UnitError| error.to_string())?;
    if rate.0 < BITRATE_MIN {
        return Err(format!(
            "that is {rate}, and at least {} are needed; is a unit missing, as in 20M?",
            BitRate(BITRATE_MIN)
        ));
    }
    Ok(rate)
}

/// Five datagrams a second.
const BITRATE_MIN: u64 = 64_000;
const START: &str = "When to start";
const ONE_WAY: &str = "Without a way back";
const NETWORK: &str = "Network";
const OUTPUT: &str = "Output";

const AFTER_HELP: &str = "\
Examples:
  imgcast-sender send node.img
      to whoever joins, as soon as somebody has
  imgcast-sender send node.img --min-receivers 40 --max-wait 5m
      to forty machines, or to those that are there after five minutes
  imgcast-sender send /dev/vg0/golden --name node --interface eth1
      a block device under a name of its own, on this interface
  imgcast-sender send node.img --one-way --passes 3 --max-bitrate 20M
      three times, to whoever listens behind a satellite or a data diode
  IMGCAST_MAX_BITRATE=400M imgcast-sender send node.img
      options from the environment, here to leave room on the link

While it runs:
  any key    starts with those who have joined, on a terminal without --quiet
  SIGUSR1    prints how far each receiver is, or who has joined
  SIGINT     stops and tells the receivers; a second time, stops at once

Exit codes:
  0  all expected receivers have verified the image; one way: all was sent
  1  internal error
  2  the command line makes no sense
  3  image, interface or socket cannot be used
  4  no receiver joined before --start-timeout
  5  finished, but some receivers do not have the image
  6  the network takes no datagrams any more
  8  the image cannot be read any more, or the network not be used
  9  the image changed while it was being sent
128+n  ended by signal n";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn helps() -> [String; 4] {
        let mut root = Args::command();
        root.build();
        let mut send = root.find_subcommand("send").unwrap().clone();
        [&mut root, &mut send]
            .map(|command| {
                [command.render_help().to_string(), command.render_long_help().to_string()]
            })
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for help in helps() {
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn help_has_examples_and_each_exit_code_but_not_what_is_hidden() {
        use crate::error::exit;
        let [short, long, send_short, send_long] = helps();
        for help in [&long, &send_long] {
            assert!(help.contains("Examples:\n  imgcast-sender send node.img\n"));
            for code in [
                exit::COMPLETE,
                exit::INTERNAL,
                exit::USAGE,
                exit::PREFLIGHT,
                exit::NO_RECEIVERS,
                exit::INCOMPLETE,
                exit::STALLED,
                exit::READ,
                exit::VERIFICATION,
            ] {
                assert!(help.contains(&format!("\n{code:3}  ")), "exit code {code}");
            }
            assert!(!help.contains("\n  7  ") && !help.contains("\n 10  "), "no such code");
            assert!(help.contains(&format!("\n{}+n  ", exit::SIGNAL)));
        }
        assert!(short.contains("send") && !short.contains("Examples"));
        assert!(send_long.contains("--offload") && !send_short.contains("--offload"));
        assert!(!send_long.contains("--seed"));
    }

    #[test]
    fn each_long_option_has_its_environment_variable() {
        let root = Args::command();
        let send = root.find_subcommand("send").unwrap();
        let mut options = 0;
        for argument in send.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let long = if long == "log-filter" { "log" } else { long };
            let variable = format!("IMGCAST_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().unwrap().to_str(), Some(variable.as_str()));
            options += 1;
        }
        assert_eq!(options, 20);
    }

    #[test]
    fn nonsense_is_refused_and_no_arguments_show_the_help() {
        let parse = |args: &[&str]| {
            Args::try_parse_from([&["imgcast-sender"], args].concat()).unwrap_err().kind()
        };
        assert_eq!(parse(&[]), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(parse(&["send"]), ErrorKind::MissingRequiredArgument);
        for option in [
            "--min-receivers=0",
            "--min-receivers=16385",
            "--min-wait=soon",
            "--max-bitrate=0",
            "--max-bitrate=20",
            "--ttl=0",
            "--ttl=256",
            "--portbase=0",
            "--portbase=65535",
            "--mcast-data-address=everywhere",
            "--passes=0",
            "--passes=256",
            "--repair=101",
            "--name=a/b",
            "--name=..",
        ] {
            assert_eq!(parse(&["send", "image", option]), ErrorKind::ValueValidation, "{option}");
        }
        for option in ["--offload=maybe", "--slow-receivers=hurry"] {
            assert_eq!(parse(&["send", "image", option]), ErrorKind::InvalidValue, "{option}");
        }
    }
}
