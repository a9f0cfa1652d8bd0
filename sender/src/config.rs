//! What was typed, in the terms of the program: the only form in which it sees it.
//!
//! Decides defaults that follow from other options, among them the addresses of a session
//! (protocol section 8). Whether image and interface exist is found out by who opens them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgcast_common::id::SessionId;
use imgcast_common::net::{Family, Offload};
use imgcast_common::prng::Prng;
use imgcast_common::wire::Name;
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::cli::{Args, Command, SendArgs, Slow, Switch};
use crate::error::Error;
use crate::session::{OneWay, SlowReceivers};

/// What to send, to whom and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The image's path.
    pub image: PathBuf,
    /// What receivers call it.
    pub name: Name,
    /// When sending begins.
    pub start: StartRule,
    /// Nobody can answer: how it is sent then.
    pub one_way: Option<OneWay>,
    /// The upper bound of the sending rate; `None` leaves it to the interface.
    pub rate_bits_per_second_max: Option<u64>,
    /// What becomes of receivers that are far slower than all others.
    pub slow_receivers: SlowReceivers,
    /// The interface by name, address or subnet; `None` if it goes without saying.
    pub interface: Option<String>,
    /// TTL or hop limit of multicast.
    pub hops: u8,
    /// The address family of the session.
    pub family: Family,
    /// The group and port that sessions are announced to.
    pub rendezvous: SocketAddr,
    /// The group for the image, if it does not follow from the session.
    pub data_address: Option<IpAddr>,
    /// The first of the two ports.
    pub portbase: u16,
    /// Whether bursts may be handed over in one piece.
    pub offload: Offload,
    /// What all random draws follow from.
    pub seed: u64,
    /// Whether progress is shown.
    pub shows_progress: bool,
    /// What is logged.
    pub log: Targets,
}

/// When sending begins. All times but the last count from the first receiver's joining.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StartRule {
    /// So many receivers must have joined,
    pub receivers_min: u32,
    /// and so much time must have passed;
    pub wait_min: Duration,
    /// or this much, however few have joined. `None`: the number alone counts.
    pub wait_max: Option<Duration>,
    /// The time from the program's start until it gives up. `None`: never.
    pub timeout: Option<Duration>,
}

impl Config {
    /// The group and port that carry the image in this session.
    #[must_use]
    pub fn data_group(&self, session: SessionId) -> SocketAddr {
        let derived = data_group(session, self.family, self.portbase);
        match self.data_address {
            Some(address) => SocketAddr::new(address, derived.port()),
            None => derived,
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Self, Error> {
        let Command::Send(args) = args.command;
        let (family, rendezvous) = rendezvous(&args)?;
        if let Some(max) = args.max_wait.filter(|max| args.min_wait > *max) {
            return Err(Error::WaitsCross { min: args.min_wait, max });
        }
        let one_way = one_way(&args)?;
        let name = args.name.clone().map_or_else(|| name_of(&args.image), Ok)?;
        Ok(Self {
            start: StartRule {
                receivers_min: args.min_receivers,
                wait_min: args.min_wait.0.max(one_way.map_or(Duration::ZERO, |_| ONE_WAY_LEAD)),
                wait_max: args.max_wait.map(|wait| wait.0),
                timeout: Some(args.start_timeout.0).filter(|timeout| !timeout.is_zero()),
            },
            one_way,
            name,
            rate_bits_per_second_max: args.max_bitrate.map(|rate| rate.0),
            slow_receivers: match args.slow_receivers {
                Slow::Detach => SlowReceivers::Detach,
                Slow::Wait => SlowReceivers::Wait,
                Slow::Drop => SlowReceivers::Drop,
            },
            hops: args.ttl,
            family,
            rendezvous: SocketAddr::new(rendezvous, args.portbase),
            data_address: args.mcast_data_address,
            portbase: args.portbase,
            offload: match args.offload {
                Switch::On => Offload::IfAvailable,
                Switch::Off => Offload::Off,
            },
            seed: args.seed.unwrap_or_else(Prng::fresh_seed),
            shows_progress: !args.quiet,
            log: log(&args),
            interface: args.interface,
            image: args.image,
        })
    }
}

/// The data group of a session where none is given (protocol section 8).
///
/// Switches know a group by the low 23 bits of an IPv4 address (RFC 1112 section 6.4) or the low
/// 32 of an IPv6 one (RFC 2464 section 7). No group of ours shares them with 224.0.0.x, nor with
/// ff02::1 or the solicited-node groups, which switches flood to everybody.
///
/// ```text
/// IPv4   239.255.(64 + 7 session bits).(8 session bits)
/// IPv6   ff15::6331:4xxx:xxxx … ff15::6331:7xxx:xxxx with 30 session bits
/// ```
#[must_use]
pub fn data_group(session: SessionId, family: Family, portbase: u16) -> SocketAddr {
    let [.., c, d, e, f] = session.0.to_be_bytes();
    let address = match family {
        Family::V4 => IpAddr::from([239, 255, 64 + (e & 0x7f), f]),
        Family::V6 => {
            let high = u16::from_be_bytes([0x40 | (c & 0x3f), d]);
            IpAddr::from([0xff15, 0, 0, 0, 0, 0x6331, high, u16::from_be_bytes([e, f])])
        }
    };
    SocketAddr::new(address, portbase.saturating_add(1))
}

/// The family of the session and its rendezvous address, from the two groups of which either,
/// both or none is given.
fn rendezvous(args: &SendArgs) -> Result<(Family, IpAddr), Error> {
    let given = [
        ("--mcast-rdv-address", args.mcast_rdv_address),
        ("--mcast-data-address", args.mcast_data_address),
    ];
    for (option, address) in given {
        if let Some(address) = address.filter(|address| !address.is_multicast()) {
            return Err(Error::NotAGroup { option, address });
        }
    }
    match given.map(|(_, address)| address) {
        [Some(rendezvous), Some(data)] if rendezvous.is_ipv4() != data.is_ipv4() => {
            Err(Error::FamiliesDiffer { rendezvous, data })
        }
        [Some(rendezvous), _] => Ok((Family::of(rendezvous), rendezvous)),
        [None, Some(data)] if data.is_ipv6() => Ok((Family::V6, RENDEZVOUS_V6.into())),
        [None, _] => Ok((Family::V4, RENDEZVOUS_V4.into())),
    }
}

/// How the image is sent if nobody can answer; refuses what makes no sense then, or only then.
fn one_way(args: &SendArgs) -> Result<Option<OneWay>, Error> {
    if !args.one_way {
        let given = [("--passes", args.passes.is_some()), ("--repair", args.repair.is_some())];
        return match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Error::NotOneWay { option }),
            None => Ok(None),
        };
    }
    let waits = [
        ("--min-receivers", args.min_receivers > 1),
        ("--max-wait", args.max_wait.is_some()),
        ("--slow-receivers", args.slow_receivers != Slow::Detach),
    ];
    if let Some((option, _)) = waits.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Error::OneWayWaits { option });
    }
    if args.max_bitrate.is_none() {
        return Err(Error::OneWayRate);
    }
    Ok(Some(OneWay {
        passes: args.passes.unwrap_or(PASSES),
        repair_percent: args.repair.unwrap_or(REPAIR_PERCENT),
    }))
}

/// The file name of the image with everything replaced that a [`Name`] does not allow.
fn name_of(image: &Path) -> Result<Name, Error> {
    let file_name = image.file_name().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let replaced = file_name.chars().map(|c| if allowed(c) { c } else { '-' });
    let name: String = replaced.take(Name::OCTETS_MAX).collect();
    // Without a file name it is a directory, which nobody sends.
    Name::new(&name).ok_or_else(|| Error::ImageKind { path: image.to_owned(), kind: "directory" })
}

/// What is logged: by module if the operator says so, else our own crates at one level.
fn log(args: &SendArgs) -> Targets {
    let level = match (args.quiet, args.verbose) {
        (true, 0) => Level::WARN,
        (false, 0) | (true, 1) => Level::INFO,
        (false, 1) | (true, 2) => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = || Targets::new().with_default(Level::WARN).with_target("imgcast", level);
    args.log_filter.clone().unwrap_or_else(ours)
}

/// Receivers that run already hear the first announcements, choose, and join the group by then.
const ONE_WAY_LEAD: Duration = Duration::from_secs(2);

/// What a cut took, or a late start, the second pass brings.
const PASSES: u8 = 2;

/// Random loss of 1.5 % is made up for in a single pass; more costs all the time that few need.
const REPAIR_PERCENT: u8 = 5;

/// Where receivers listen for sessions, IPv4.
const RENDEZVOUS_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 63, 30);

/// Where receivers listen for sessions, IPv6.
const RENDEZVOUS_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x6330);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, Error> {
        let command = ["imgcast-sender", "send", "/images/node.img"];
        let args = Args::try_parse_from([&command, args].concat()).unwrap();
        Config::try_from(args)
    }

    #[test]
    fn defaults_are_those_of_the_protocol() {
        let config = config(&[]).unwrap();
        assert_eq!(config.image, Path::new("/images/node.img"));
        assert_eq!(config.name.as_str(), "node.img");
        let rule = StartRule {
            receivers_min: 1,
            wait_min: Duration::ZERO,
            wait_max: None,
            timeout: Some(Duration::from_secs(300)),
        };
        assert_eq!(config.start, rule);
        assert_eq!((config.rate_bits_per_second_max, config.interface.as_deref()), (None, None));
        assert_eq!((config.hops, config.family, config.portbase), (1, Family::V4, 6330));
        assert_eq!(config.rendezvous, "239.255.63.30:6330".parse().unwrap());
        assert_eq!(config.offload, Offload::IfAvailable);
        assert_eq!(config.slow_receivers, SlowReceivers::Detach);
        assert!(config.shows_progress);
    }

    #[test]
    fn options_become_what_they_mean() {
        let config = config(&[
            "--name=golden",
            "--min-receivers=40",
            "--min-wait=10",
            "--max-wait=5m",
            "--start-timeout=0",
            "--max-bitrate=900M",
            "--interface=eth1",
            "--ttl=3",
            "--portbase=7000",
            "--offload=off",
            "--slow-receivers=drop",
            "--seed=42",
            "--quiet",
        ])
        .unwrap();
        let rule = StartRule {
            receivers_min: 40,
            wait_min: Duration::from_secs(10),
            wait_max: Some(Duration::from_secs(300)),
            timeout: None,
        };
        assert_eq!(config.start, rule);
        assert_eq!(config.name.as_str(), "golden");
        assert_eq!(config.rate_bits_per_second_max, Some(900_000_000));
        assert_eq!(config.interface.as_deref(), Some("eth1"));
        assert_eq!((config.hops, config.seed), (3, 42));
        assert_eq!(
            (config.rendezvous.port(), config.data_group(SessionId(1)).port()),
            (7000, 7001)
        );
        assert_eq!(config.offload, Offload::Off);
        assert_eq!(config.slow_receivers, SlowReceivers::Drop);
        assert!(!config.shows_progress);
    }

    #[test]
    fn the_family_is_that_of_the_groups() {
        let session = SessionId(0x1234);
        let v6 = config(&["--mcast-data-address=ff15::77"]).unwrap();
        assert_eq!(v6.family, Family::V6);
        assert_eq!(v6.rendezvous, "[ff15::6330]:6330".parse().unwrap());
        assert_eq!(v6.data_group(session), "[ff15::77]:6331".parse().unwrap());
        let v6 = config(&["--mcast-rdv-address=ff15::6330"]).unwrap();
        assert_eq!(v6.data_group(session), "[ff15::6331:4000:1234]:6331".parse().unwrap());
        let v4 = config(&["--mcast-data-address=239.1.2.3"]).unwrap();
        assert_eq!(v4.rendezvous.ip(), IpAddr::from(RENDEZVOUS_V4));
        assert_eq!(v4.data_group(session), "239.1.2.3:6331".parse().unwrap());
        let mixed = ["--mcast-rdv-address=239.1.2.3", "--mcast-data-address=ff15::77"];
        assert_eq!(config(&mixed).unwrap_err().code(), "families-differ");
        for option in ["--mcast-rdv-address", "--mcast-data-address"] {
            let error = config(&[option, "10.0.0.1"]).unwrap_err();
            assert_eq!(error.code(), "not-a-group");
            assert!(error.to_string().contains(&format!("{option} 10.0.0.1")), "{error}");
        }
    }

    #[test]
    fn waits_that_cross_are_refused() {
        let error = config(&["--min-wait=2m", "--max-wait=90"]).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("waits-cross", 2));
        assert!(config(&["--min-wait=90", "--max-wait=90s"]).is_ok());
    }

    #[test]
    fn one_way_needs_a_rate_and_waits_for_nobody() {
        let sent = config(&["--one-way", "--max-bitrate=20M"]).unwrap();
        assert_eq!(sent.one_way, Some(OneWay { passes: 2, repair_percent: 5 }));
        assert_eq!((sent.start.wait_min, sent.start.wait_max), (Duration::from_secs(2), None));
        let more = ["--one-way", "--max-bitrate=1M", "--passes=9", "--repair=0", "--min-wait=60"];
        let more = config(&more).unwrap();
        assert_eq!(more.one_way, Some(OneWay { passes: 9, repair_percent: 0 }));
        assert_eq!(more.start.wait_min, Duration::from_secs(60));
        for (options, code, words) in [
            (&["--one-way"][..], "one-way-rate", "--max-bitrate"),
            (&["--passes=3"], "not-one-way", "--passes"),
            (&["--repair=3"], "not-one-way", "--repair"),
            (&["--one-way", "--max-bitrate=1M", "--min-receivers=2"], "one-way-waits", "--min-r"),
            (&["--one-way", "--max-bitrate=1M", "--max-wait=9"], "one-way-waits", "--max-wait"),
        ] {
            let error = config(options).unwrap_err();
            assert_eq!((error.code(), error.exit_code()), (code, 2));
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn any_file_name_gives_a_name() {
        let name = |path: &str| name_of(Path::new(path)).map(|name| name.to_string()).ok();
        assert_eq!(name("/images/ubuntu 24.04 (golden).img").unwrap(), "ubuntu-24.04--golden-.img");
        assert_eq!(name("./Büro").unwrap(), "B-ro");
        assert_eq!(name("\u{1b}[31m").unwrap(), "--31m");
        assert_eq!(name(&"x".repeat(200)).unwrap(), "x".repeat(64));
        for directory in ["/", "..", "images/.."] {
            assert_eq!(name(directory), None, "{directory}");
        }
    }

    #[test]
    fn the_log_is_ours_at_one_level_or_what_was_asked_for() {
        let enabled = |args: &[&str], target: &str, level| {
            config(args).is_ok_and(|config| config.log.would_enable(target, &level))
        };
        for (args, most, first_missing) in [
            (&["-q"][..], Level::WARN, Some(Level::INFO)),
            (&[], Level::INFO, Some(Level::DEBUG)),
            (&["-q", "-v"], Level::INFO, Some(Level::DEBUG)),
            (&["-v"], Level::DEBUG, Some(Level::TRACE)),
            (&["-vv"], Level::TRACE, None),
        ] {
            for target in ["imgcast_sender::session", "imgcast_common::net"] {
                assert!(enabled(args, target, most), "{args:?}");
                assert!(first_missing.is_none_or(|level| !enabled(args, target, level)));
            }
            assert!(!enabled(args, "tokio", Level::INFO));
        }
        let filter = ["--log-filter=warn,imgcast_sender::session=trace"];
        assert!(enabled(&filter, "imgcast_sender::session", Level::TRACE));
        assert!(!enabled(&filter, "imgcast_common::net", Level::INFO));
    }

    #[test]
    fn no_data_group_reaches_a_switch_as_one_that_it_floods() {
        let mut prng = Prng::new(8);
        let edges =
            [0, 1, 0x80, 0xff, 0x1_0000, 0x8000, 0xff00_0000, u64::from(u32::MAX), u64::MAX];
        let mut groups = BTreeSet::new();
        for session in edges.into_iter().chain((0..100_000).map(|_| prng.bits())) {
            let v4 = data_group(SessionId(session), Family::V4, 6330);
            let IpAddr::V4(address) = v4.ip() else { panic!("{v4}") };
            let [a, b, c, _] = address.octets();
            assert_eq!((a, b), (239, 255));
            assert!((64..192).contains(&c), "neither x.0.0.y nor x.128.0.y, nor the rendezvous");
            assert!(b & 0x7f != 0 || c != 0, "the MAC address of {v4} is that of 224.0.0.x");
            groups.insert(v4);
            let v6 = data_group(SessionId(session), Family::V6, 6330);
            let IpAddr::V6(address) = v6.ip() else { panic!("{v6}") };
            let octets = address.octets();
            assert_eq!(octets[..12], [0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0x63, 0x31]);
            assert!(!matches!(octets[12], 0x00 | 0xff), "the MAC address of {v6} is flooded");
            assert_eq!((v4.port(), v6.port()), (6331, 6331));
        }
        assert!(groups.len() > 30_000, "sessions spread over {} groups", groups.len());
    }
}
