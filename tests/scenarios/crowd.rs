//! A thousand receivers.

use std::time::Duration;

use imgcast_tests::{
    Fidelity, ImageConfig, Loss, ReceiverConfig, Report, SenderConfig, WorldConfig,
};

use crate::run;

/// Blocks of 1 MiB at 1 Gbit/s, decoded by rank.
pub(crate) fn crowd(seed: u64, receivers: usize, blocks: u64, loss_ppm: u32) -> WorldConfig {
    let image = ImageConfig { bytes: blocks << 20, block_log2: 20, symbol_size: 1408, zero_ppm: 0 };
    let sender = SenderConfig {
        rate_start: Some(1_000_000_000),
        rate_max: 1_000_000_000,
        wait_max: None,
        turn_delay: Duration::from_millis(2),
        ..SenderConfig::new(u32::try_from(receivers).unwrap_or(u32::MAX))
    };
    let receiver = ReceiverConfig {
        disk: imgcast_tests::Disk { bytes_per_second: 500 << 20, ..ReceiverConfig::default().disk },
        ..ReceiverConfig::default()
    };
    let config = WorldConfig {
        fidelity: Fidelity::Rank,
        images: vec![image],
        senders: vec![sender],
        receivers: vec![receiver; receivers],
        uplink_bits_per_second: 10_000_000_000,
        ..WorldConfig::small(seed, 0)
    };
    config.each_receiver(|_, receiver| {
        receiver.down.loss = Loss::Bernoulli(loss_ppm);
        receiver.up.loss = Loss::Bernoulli(loss_ppm);
    })
}

#[test]
fn a_thousand_receivers_that_lose_one_percent_cost_little_more_than_one() {
    let report: Report = run(crowd(1, 1_000, 128, 10_000));
    println!("{report}\nNEEDs by window: {:?}", report.needs_by_window());
    report.assert_all_done();
    assert!(report.overhead_ppm <= 1_050_000, "{report}");
}

#[test]
fn without_loss_the_sender_hears_hardly_more_of_thousands_than_of_one() {
    let heard = |receivers: usize| {
        let report = run(crowd(1, receivers, 64, 0));
        report.assert_all_done();
        assert_eq!((report.needs, report.unicast_symbols), (0, 0), "{report}");
        // Each says once that it is there.
        (report.reports - receivers as u64, report.syncs, report.duration)
    };
    let (reports, syncs, duration) = heard(4_000);
    let (reports_of_one, syncs_of_one, _) = heard(1);
    println!("{reports} reports, {syncs} SYNCs; of one {reports_of_one}, {syncs_of_one}");
    // Polls ask 64 a second, whatever the size of the group.
    assert!(reports as f64 <= 90.0 * duration.as_secs_f64(), "{reports} in {duration:?}");
    // They also join and finish over a second or two, each word of which may change the plan.
    assert!(syncs <= syncs_of_one + 1_000, "{syncs}, {syncs_of_one}");
}
