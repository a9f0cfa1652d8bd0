//! What limits the rate without the network: the sender's own link, and hosts that do not get
//! through what arrives. Each is found and followed, and nothing is dropped for long.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{ops::RangeInclusive, time::Duration};

use imgcast_tests::{
    Fidelity, ImageConfig, IntakeConfig, Loss, PlantedBug, ReceiverConfig, Report, SenderConfig,
    SlowReceivers, When, WorldConfig,
};

use crate::run;

#[test]
fn the_rate_settles_at_what_the_sender_s_own_link_takes() {
    for (link, rate_max) in LINKS {
        for (seed, receivers, loss_ppm) in [(1, 1, 0), (2, 8, 0), (3, 8, 10_000)] {
            let report = run(linked(seed, receivers, link, rate_max, loss_ppm));
            let name =
                format!("{link} Mbit/s of {rate_max}, {receivers} receivers, {loss_ppm} ppm");
            let limit = link * MEGABIT;
            report.assert_all_done();
            tell(&name, &report, limit);
            assert!(share(&report, limit, 0.9..=1.1) >= 0.7, "{name}");
            // Now and then it is tried whether the link takes a quarter more by now.
            assert!(share(&report, limit, 0.9..=1.3) > 0.999, "{name}");
            // Repairs of 1 % loss included.
            assert!(goodput(&report) >= 0.92, "{name}");
        }
    }
}

/// A report that seems to speak of the rate in force, but counted next to nothing yet, sets a floor
/// that all others exceed.
#[test]
fn a_lossy_medium_never_slows_the_session_however_many_sync_it_loses() {
    for seed in 1..=20 {
        let limit = 1_000 * MEGABIT;
        let report = run(linked(seed, 1, 1_000, 10_000, 200_000));
        let name = format!("seed {seed}");
        report.assert_all_done();
        tell(&name, &report, limit);
        // While the floor is measured anew R is halved.
        assert!(share(&report, limit, 0.45..=1.3) > 0.999, "{name}");
        assert!(goodput(&report) >= 0.7, "{name}");
    }
}

/// What a receiver says before it has counted enough is no floor either.
#[test]
fn a_lossy_crowd_never_stops_the_session_by_what_it_says_first() {
    for seed in 1..=100 {
        let report = run(linked(seed, 16, 50, 10_000, 200_000));
        report.assert_all_done();
        assert!(goodput(&report) >= 0.6, "seed {seed}: {:.3}", goodput(&report));
    }
}

#[test]
fn a_sender_that_does_not_hear_of_its_backlog_never_finds_its_link() {
    for (link, rate_max) in LINKS {
        let report = run(linked(1, 8, link, rate_max, 0).planted(PlantedBug::BacklogUntold));
        if rate_max / link >= BACKLOG_DEAFENS {
            assert_eq!(report.done(), 0, "{link} Mbit/s of {rate_max}");
            continue;
        }
        tell("untold", &report, link * MEGABIT);
        assert!(share(&report, link * MEGABIT, 0.0..=5.0) < 0.001, "{link} Mbit/s of {rate_max}");
    }
}

#[test]
fn the_rate_settles_at_what_the_slowest_hosts_get_through() {
    for hosts in HOSTS {
        for (seed, loss_ppm) in [(1, 0), (2, 10_000)] {
            let report = run(hosts.world(seed, loss_ppm));
            let (name, limit) = (format!("{hosts:?}, {loss_ppm} ppm"), hosts.gets_through());
            report.assert_all_done();
            tell(&name, &report, limit);
            // It rises in steps until they are behind again.
            assert!(share(&report, limit, 0.85..=1.2) >= 0.85, "{name}");
            assert!((0.9..1.1).contains(&mean(&report, limit)), "{name}");
            let [early, late] = drops(&report);
            assert!(late * 200 < report.group_symbols, "{name}");
            assert!(early * 30 < report.group_symbols || hosts.drops_at_first, "{name}: {early}");
            // What is dropped until the rate is found costs repairs, and so does loss.
            assert!(goodput(&report) >= if hosts.drops_at_first { 0.7 } else { 0.85 }, "{name}");
        }
    }
}

#[test]
fn hosts_that_do_not_say_that_they_are_behind_drop_a_great_deal() {
    for hosts in HOSTS.into_iter().filter(|hosts| !hosts.drops_at_first) {
        let report = run(hosts.world(1, 0).planted(PlantedBug::PaceUntold));
        tell("untold", &report, hosts.gets_through());
        let dropped: u64 = drops(&report).iter().sum();
        assert!(dropped * 4 > report.group_symbols, "{hosts:?}: {dropped}");
    }
}

#[test]
fn the_rate_settles_at_what_a_disk_takes_for_which_memory_is_short() {
    let limit = 250 * MEGABIT;
    for receivers in [1, 8] {
        let mut config = world(1, receivers, limit, 1_000 * MEGABIT);
        config.senders[0].slow_receivers = SlowReceivers::Wait;
        config.receivers[0].memory_blocks = 64;
        config.receivers[0].disk.bytes_per_second = limit / 8 * 1_408 / 1_518;
        let report = run(config);
        let name = format!("a slow disk among {receivers}");
        report.assert_all_done();
        tell(&name, &report, limit);
        assert!(share(&report, limit, 0.85..=1.4) >= 0.85, "{name}");
        assert!((0.9..1.1).contains(&mean(&report, limit)), "{name}");
        assert!(goodput(&report) >= 0.95, "{name}");
    }
}

#[test]
fn whoever_joins_late_is_not_taken_for_one_who_loses_nothing() {
    for seed in 1..=5 {
        let limit = 200 * MEGABIT;
        let mut config = world(seed, 8, limit, limit);
        config.senders[0].receivers_min = 5;
        let config = config.each_receiver(|number, receiver| {
            receiver.down.loss = Loss::Bernoulli(20_000);
            if let Some(late) = number.checked_sub(5) {
                receiver.starts = When::At(Duration::from_millis(2_000 + 500 * late as u64));
            }
        });
        let report = run(config);
        report.assert_all_done();
        tell(&format!("seed {seed}"), &report, limit);
        assert!(mean(&report, limit) >= 0.9, "seed {seed}");
    }
}

#[test]
fn sockets_that_hold_64_kib_get_the_image_all_the_same() {
    for (seed, wire_megabits) in [(1, 100), (2, 1_000)] {
        let hosts = Hosts { buffer_bytes: 64 << 10, wire_megabits, ..HOSTS[4] };
        let report = run(hosts.world(seed, 0));
        report.assert_all_done();
        tell(&format!("{hosts:?}"), &report, hosts.gets_through());
        assert!(goodput(&report) >= 0.5, "{hosts:?}: {}", goodput(&report));
    }
}

#[test]
fn loss_in_the_network_stays_known_while_sockets_drop() {
    for seed in 11..=14 {
        let hosts = HOSTS[4];
        let report = run(hosts.world(seed, 50_000));
        report.assert_all_done();
        tell(&format!("seed {seed}"), &report, hosts.gets_through());
        assert!((0.9..1.1).contains(&mean(&report, hosts.gets_through())), "seed {seed}");
    }
}

#[test]
fn of_a_large_group_a_few_slow_hosts_are_slow_alone_and_many_slow_it() {
    for (slow, receivers, policy, slows) in [
        (1, 64, SlowReceivers::Wait, false),
        (3, 100, SlowReceivers::Wait, false),
        (10, 100, SlowReceivers::Wait, true),
        (3, 100, SlowReceivers::Detach, false),
        (10, 100, SlowReceivers::Detach, false),
        (30, 100, SlowReceivers::Detach, true),
    ] {
        let hosts = Hosts { slow, receivers, policy, ..LARGE };
        let report = run(hosts.world(1, 0));
        report.assert_all_done();
        tell(&format!("{slow} of {receivers}, {policy:?}"), &report, hosts.gets_through());
        // By then the wire has carried half of the image.
        let half = report.started_at + Duration::from_secs(IMAGE_SECONDS / 8);
        let before = report.rates.iter().take_while(|(at, _)| *at <= half);
        let rate = before.last().map_or(0, |(_, rate)| *rate);
        let wire = hosts.wire_megabits * MEGABIT;
        assert_eq!(rate < wire / 2, slows, "{hosts:?}: {rate} of {wire}");
        assert!(slows || rate > wire * 8 / 10, "{hosts:?}: {rate} of {wire}");
    }
}

/// Some hosts of a group that get through a quarter of the wire.
#[derive(Clone, Copy, Debug)]
struct Hosts {
    slow: usize,
    receivers: usize,
    wire_megabits: u64,
    buffer_bytes: usize,
    /// The buffer is full before the rate has been found.
    drops_at_first: bool,
    policy: SlowReceivers,
}

impl Hosts {
    /// Bits on the wire in a second.
    const fn gets_through(&self) -> u64 {
        self.wire_megabits * MEGABIT / 4
    }

    fn world(&self, seed: u64, loss_ppm: u32) -> WorldConfig {
        let rate = self.gets_through();
        let intake = IntakeConfig {
            bytes_per_second: rate / 8 * (1_408 + 44) / 1_518,
            buffer_bytes: self.buffer_bytes,
        };
        let mut config = world(seed, self.receivers, rate, self.wire_megabits * MEGABIT);
        config.senders[0].slow_receivers = self.policy;
        config.each_receiver(|number, receiver| {
            receiver.intake = (number < self.slow).then_some(intake);
            receiver.down.loss = Loss::Bernoulli(loss_ppm);
        })
    }
}

/// A sender whose own link takes so many Mbit/s.
fn linked(seed: u64, receivers: usize, link: u64, rate_max: u64, loss_ppm: u32) -> WorldConfig {
    let mut config = world(seed, receivers, link * MEGABIT, rate_max * MEGABIT);
    config.senders[0].link_bits_per_second = Some(link * MEGABIT);
    config.each_receiver(|_, receiver| receiver.down.loss = Loss::Bernoulli(loss_ppm))
}

/// An image that takes eight seconds at `rate`.
fn world(seed: u64, receivers: usize, rate: u64, rate_max: u64) -> WorldConfig {
    let bytes = rate / 8 * IMAGE_SECONDS * 1_408 / 1_518;
    let image = ImageConfig { bytes, block_log2: 20, symbol_size: 1_408, zero_ppm: 0 };
    let sender = SenderConfig {
        rate_max,
        wait_max: None,
        turn_delay: Duration::from_millis(2),
        ..SenderConfig::new(u32::try_from(receivers).unwrap())
    };
    let mut receiver = ReceiverConfig::default();
    receiver.disk.bytes_per_second = 2 << 30;
    WorldConfig {
        fidelity: Fidelity::Rank,
        images: vec![image],
        senders: vec![sender],
        receivers: vec![receiver; receivers],
        uplink_bits_per_second: 20_000 * MEGABIT,
        ..WorldConfig::small(seed, 0)
    }
}

/// Says what came of a run in which the rate was to settle at `limit`.
fn tell(name: &str, report: &Report, limit: u64) {
    let far_off = |rate: u64| !(0.7..=1.3).contains(&(rate as f64 / limit as f64));
    let flowing = report.rates.windows(2).filter(|pair| pair[1].0 < report.done_at);
    let found = flowing.filter(|pair| far_off(pair[0].1)).map(|pair| pair[1].0).next_back();
    println!(
        "{name}: found after {:.2} s, within a tenth {:.2}, mean {:.3}, goodput {:.3}, overhead {} \
         ppm, dropped {:?}",
        found.unwrap_or_default().saturating_sub(report.started_at).as_secs_f64(),
        share(report, limit, 0.9..=1.1),
        mean(report, limit),
        goodput(report),
        report.overhead_ppm.saturating_sub(1_000_000),
        drops(report),
    );
}

/// For what share of the time, once the rate should have settled, it was within a range of shares
/// of `limit`.
fn share(report: &Report, limit: u64, range: RangeInclusive<f64>) -> f64 {
    let rates = rates(report);
    let whole: f64 = rates.iter().map(|(_, seconds)| seconds).sum();
    let within = rates.iter().filter(|(rate, _)| range.contains(&(rate / limit as f64)));
    within.map(|(_, seconds)| seconds).sum::<f64>() / whole
}

/// The mean rate in that time, as a share of `limit`.
fn mean(report: &Report, limit: u64) -> f64 {
    let rates = rates(report);
    let seconds: f64 = rates.iter().map(|(_, seconds)| seconds).sum();
    rates.iter().map(|(rate, seconds)| rate * seconds).sum::<f64>() / seconds / limit as f64
}

/// The rates since they should have settled, and for how many seconds each was in force.
fn rates(report: &Report) -> Vec<(f64, f64)> {
    let begin = report.started_at + SETTLED_AFTER;
    let ends = report.rates.iter().skip(1).map(|(at, _)| *at).chain([report.done_at]);
    let spans = report.rates.iter().zip(ends).map(|((from, rate), until)| {
        let until = until.min(report.done_at);
        (*rate as f64, until.saturating_sub(begin.max(*from)).as_secs_f64())
    });
    spans.filter(|(_, seconds)| *seconds > 0.0).collect()
}

/// What the image alone takes at the limit that it was made for, over what it took.
fn goodput(report: &Report) -> f64 {
    IMAGE_SECONDS as f64 / (report.done_at - report.started_at).as_secs_f64()
}

/// Datagrams that sockets dropped in the first half of the transfer, and in the second.
fn drops(report: &Report) -> [u64; 2] {
    let middle = report.started_at + (report.done_at - report.started_at) / 2;
    let drops = report.drops.iter().flatten();
    drops.fold(
        [0, 0],
        |[early, late], (at, count)| {
            if *at < middle { [early + count, late] } else { [early, late + count] }
        },
    )
}

const MEGABIT: u64 = 1_000_000;
const IMAGE_SECONDS: u64 = 8;
/// Twenty control periods, and a start.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// What a sender's link takes, and the rate that its interface claims, in Mbit/s.
/// Behind the backlog of so many times the link nobody hears of the sender any more.
const BACKLOG_DEAFENS: u64 = 500;
const LINKS: [(u64, u64); 4] = [(20, 1_000), (100, 1_000), (1_000, 10_000), (20, 10_000)];
const HOSTS: [Hosts; 5] = [
    Hosts {
        slow: 1,
        receivers: 1,
        wire_megabits: 1_000,
        buffer_bytes: 32 << 20,
        drops_at_first: false,
        policy: SlowReceivers::Wait,
    },
    Hosts {
        slow: 1,
        receivers: 8,
        wire_megabits: 1_000,
        buffer_bytes: 32 << 20,
        drops_at_first: false,
        policy: SlowReceivers::Wait,
    },
    Hosts {
        slow: 3,
        receivers: 8,
        wire_megabits: 1_000,
        buffer_bytes: 4 << 20,
        drops_at_first: false,
        policy: SlowReceivers::Wait,
    },
    Hosts {
        slow: 8,
        receivers: 8,
        wire_megabits: 100,
        buffer_bytes: 4 << 20,
        drops_at_first: false,
        policy: SlowReceivers::Wait,
    },
    Hosts {
        slow: 1,
        receivers: 8,
        wire_megabits: 1_000,
        buffer_bytes: 200 << 10,
        drops_at_first: true,
        policy: SlowReceivers::Wait,
    },
];
/// Slow ones of a group that is larger than a rate is made for.
const LARGE: Hosts = Hosts {
    slow: 1,
    receivers: 64,
    wire_megabits: 200,
    buffer_bytes: 4 << 20,
    drops_at_first: true,
    policy: SlowReceivers::Wait,
};
