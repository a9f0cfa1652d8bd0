//! Links in the network: found without being told, and shared with others.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{ops::Range, time::Duration};

use imgcast_tests::{
    BackboneConfig, CROSSED_DURING, Crossed, Fidelity, ImageConfig, ReceiverConfig, Report,
    SenderConfig, When, WorldConfig,
};

use crate::run;

#[test]
fn a_link_in_the_network_is_found_within_three_seconds_and_then_little_is_lost() {
    let mut missed = Vec::new();
    for link in LINKS {
        for (seed, queue_octets, receivers) in
            [(1, QUEUE_SMALL, 1), (2, QUEUE, 1), (3, QUEUE_SMALL, 8), (4, QUEUE, 8)]
        {
            let mut config = world(seed, link, queue_octets, &[Duration::ZERO], receivers);
            config.images[0].bytes = image_bytes(link, if link == 10_000 { 6 } else { 15 });
            let report = run(config);
            report.assert_all_done();
            let from = flows_from(&report.crossed[0]) + TENTHS_TO_FIND;
            let during = from..tenth_of(report.done_at) - 2;
            let carried = share(&report, 0, during.clone(), link);
            let lost = loss(&report, during);
            let name = format!("{link} Mbit/s, {} KiB, {receivers} receivers", queue_octets >> 10);
            let found = found_after(&report, link);
            println!("{name}: found after {found:.1} s, carried {carried:.3}, lost {lost:.4}");
            if !(carried > 0.85 && lost < 0.01 && found <= 3.0) {
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn two_sessions_share_a_link_within_a_factor_of_two_in_the_mean() {
    for link in LINKS_SHARED {
        let (mut factors, mut losses) = (Vec::new(), Vec::new());
        for (later, seed) in [0, 4, 6].into_iter().flat_map(|later| SEEDS.map(|seed| (later, seed)))
        {
            let starts = [Duration::ZERO, Duration::from_secs(later)];
            let report = run(world(seed, link, QUEUE, &starts, 4));
            report.assert_all_done();
            let during = both_send(&report);
            let shares = [0, 1].map(|sender| share(&report, sender, during.clone(), link));
            let factor = shares[0] / shares[1];
            let lost = loss(&report, during.start + TENTHS_TO_FIND..during.end);
            println!(
                "{link} Mbit/s, second after {later} s, seed {seed}: {factor:.2} to 1 in {} s, \
                 {shares:.3?}, lost {lost:.4}",
                during.len() as f64 / 10.0
            );
            factors.push(factor.max(1.0 / factor));
            losses.push(lost);
        }
        let [mean, lost] =
            [&factors, &losses].map(|each| each.iter().sum::<f64>() / each.len() as f64);
        println!("{link} Mbit/s: {mean:.2} to 1, lost {lost:.4}, in the mean of {factors:.2?}");
        assert!(mean < FACTOR_MEAN_MAX, "{link}: {factors:?}");
        assert!(factors.iter().all(|factor| *factor < FACTOR_MAX), "{link}: {factors:?}");
        assert!(lost < LOST_BY_TWO_MAX, "{link}: {losses:?}");
    }
}

#[test]
fn a_fast_path_is_used_at_once() {
    for receivers in [1, 8] {
        let config = world(1, 20_000, QUEUE, &[Duration::ZERO], receivers);
        let report = run(config);
        let fast = report.rates.iter().find(|(_, rate)| *rate >= 7_200 * MEGABIT).unwrap().0;
        let took = fast - report.started_at;
        println!("{receivers} receivers: 7.2 Gbit/s after {took:?}: {:?}", report.rates);
        assert!(took < FAST_WITHIN, "{took:?}");
    }
}

/// Senders that start one after the other and are told nothing, each with so many receivers.
pub(crate) fn world(
    seed: u64,
    link: u64,
    queue_octets: u64,
    starts: &[Duration],
    receivers: usize,
) -> WorldConfig {
    let bytes = if link > 10_000 { image_bytes(link, 1) } else { image_bytes(link, 14) };
    let image = ImageConfig { bytes, block_log2: 20, symbol_size: 1_408, zero_ppm: 0 };
    let rate_max = if link == 10_000 { 20_000 } else { 10_000 } * MEGABIT;
    let sender = |(number, starts_at): (usize, &Duration)| SenderConfig {
        starts_at: *starts_at,
        image: number,
        group: u8::try_from(number).unwrap(),
        rate_max,
        wait_max: None,
        turn_delay: Duration::from_millis(2),
        ..SenderConfig::new(u32::try_from(receivers).unwrap())
    };
    let receiver = |number: usize| {
        let session = number / receivers;
        let starts = When::At(starts[session]);
        let wants = Some(session);
        let mut receiver = ReceiverConfig { wants, starts, ..ReceiverConfig::default() };
        receiver.disk.bytes_per_second = 4 << 30;
        receiver.down.delay = Duration::from_micros(100 + 10 * number as u64);
        receiver
    };
    WorldConfig {
        fidelity: Fidelity::Rank,
        images: vec![image; starts.len()],
        senders: starts.iter().enumerate().map(sender).collect(),
        receivers: (0..receivers * starts.len()).map(receiver).collect(),
        uplink_bits_per_second: 2 * rate_max,
        backbone: Some(BackboneConfig {
            bits_per_second: link * MEGABIT,
            queue: Duration::from_nanos(queue_octets * 8_000 / link),
        }),
        ..WorldConfig::small(seed, 0)
    }
}

/// As much as so many seconds of the link carry.
pub(crate) const fn image_bytes(link: u64, seconds: u64) -> u64 {
    link * MEGABIT / 8 * seconds * 1_408 / 1_518
}

/// When data began to flow, in tenths of a second.
fn flows_from(crossed: &[Crossed]) -> usize {
    crossed.iter().position(|it| it.carried_octets + it.dropped_octets > DATA_OCTETS_MIN).unwrap()
}

fn tenth_of(time: Duration) -> usize {
    usize::try_from(time.as_nanos() / CROSSED_DURING.as_nanos()).unwrap()
}

/// What a sender got through, over all that the link carries in this time.
pub(crate) fn share(report: &Report, sender: usize, tenths: Range<usize>, link: u64) -> f64 {
    let crossed = report.crossed[sender].get(tenths.clone()).unwrap();
    let octets: u64 = crossed.iter().map(|it| it.carried_octets).sum();
    let time = CROSSED_DURING.as_secs_f64() * tenths.len() as f64;
    octets as f64 * 8.0 / ((link * MEGABIT) as f64 * time)
}

/// The share of all that came to the link that it dropped in this time.
pub(crate) fn loss(report: &Report, tenths: Range<usize>) -> f64 {
    let crossed = || report.crossed.iter().flat_map(|it| it.get(tenths.clone()).unwrap());
    let dropped: u64 = crossed().map(|it| it.dropped_octets).sum();
    let carried: u64 = crossed().map(|it| it.carried_octets).sum();
    dropped as f64 / (dropped + carried) as f64
}

/// From when the later one has begun until one has sent nearly all.
pub(crate) fn both_send(report: &Report) -> Range<usize> {
    let end = |crossed: &[Crossed]| {
        let carried: u64 = crossed.iter().map(|it| it.carried_octets).sum();
        let mut sum = 0;
        let most = |it: &Crossed| {
            sum += it.carried_octets;
            sum * 20 > carried * 19
        };
        crossed.iter().position(most).unwrap()
    };
    flows_from(&report.crossed[1])..end(&report.crossed[0]).min(end(&report.crossed[1]))
}

/// Seconds from the first data until, for a second, most of the link is used and little is lost.
fn found_after(report: &Report, link: u64) -> f64 {
    let from = flows_from(&report.crossed[0]);
    let is_found = |tenth: &usize| {
        let during = *tenth..*tenth + 10;
        share(report, 0, during.clone(), link) > 0.7 && loss(report, during) < 0.02
    };
    let found = (from..report.crossed[0].len() - 10).find(is_found).unwrap_or(usize::MAX);
    (found - from) as f64 / 10.0
}

const MEGABIT: u64 = 1_000_000;
/// What links in the network carry, in Mbit/s; the sender's interface claims at least 10 Gbit/s.
const LINKS: [u64; 4] = [20, 100, 1_000, 10_000];
/// Not 10 Gbit/s: six pairs of transfers of 6 s there take more than 90 s of processor time.
pub(crate) const LINKS_SHARED: [u64; 3] = [20, 100, 1_000];
/// Of a port of a switch …
pub(crate) const QUEUE: u64 = 512 << 10;
/// … and of a small one.
pub(crate) const QUEUE_SMALL: u64 = 128 << 10;
/// A few round trips, and six steps that twelve milliseconds of data are judged by.
const FAST_WITHIN: Duration = Duration::from_millis(250);
/// More in a tenth of a second than there is before data.
const DATA_OCTETS_MIN: u64 = 100_000;
const TENTHS_TO_FIND: usize = 30;
/// Others than those for which the steps and cuts were chosen.
const SEEDS: [u64; 3] = [11, 12, 13];
/// Each of the two probes, and on slow links neither knows of it until a queue is full.
const LOST_BY_TWO_MAX: f64 = 0.02;
const FACTOR_MEAN_MAX: f64 = 1.7;
/// Nobody starves, however unlucky.
const FACTOR_MAX: f64 = 3.0;
