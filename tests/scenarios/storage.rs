//! Little memory, and disks that are slow, stall or fail.

use std::time::Duration;

use imgcast_receiver::session::Failure;
use imgcast_tests::{Ending, Loss, Window, WorldConfig};

use crate::{all_done, run};

#[test]
fn eight_blocks_of_memory_are_enough() {
    all_done(|seed| {
        let mut config = WorldConfig::small(seed, 6).each_receiver(|_, receiver| {
            receiver.memory_blocks = 1;
            receiver.down.loss = Loss::Bernoulli(100_000);
        });
        config.images[0].bytes = 40 * 2048;
        config
    });
}

#[test]
fn a_disk_slower_than_the_network_gets_what_it_had_to_leave_later() {
    let reports = all_done(|seed| {
        let mut config = WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            receiver.memory_blocks = 1;
            if number == 0 {
                receiver.disk.bytes_per_second = 40_000;
            }
        });
        config.images[0].bytes = 40 * 2048;
        config
    });
    for report in reports {
        // 80 KiB at 40 kB/s are 2 s; it may wait for a turn now and then.
        assert!(report.done_at < Duration::from_secs(6), "{report}");
    }
}

#[test]
fn a_disk_that_stalls_for_thirty_seconds_goes_on_then_and_nobody_waits_for_it() {
    let reports = all_done(|seed| {
        WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            if number == 0 {
                // The image is on its way from 0.3 to 0.5 s.
                receiver.disk.stalls = vec![Window::millis(400, 30_400)];
            }
        })
    });
    for report in reports {
        let others = report.receivers.iter().filter(|it| it.config != 0).map(|it| it.at).max();
        assert!(others < Some(Duration::from_secs(3)), "{report}");
        assert!(report.done_at > Duration::from_secs(30), "it did stall: {report}");
    }
}

/// The first write, one in the midst of the image, the last one.
#[test]
fn a_write_that_fails_ends_its_receiver_and_nobody_else() {
    for (seed, write) in (0..20).flat_map(|seed| [0, 7, 15].map(|write| (seed, write))) {
        let report = run(WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            if number == 1 {
                receiver.disk.fails_at_write = Some(write);
            }
        }));
        report.assert_clean();
        assert_eq!(report.receivers[1].ending, Ending::Failed(Failure::Driver), "{report}");
        assert_eq!(report.done(), 3, "{report}");
    }
}

#[test]
fn a_link_slower_than_the_rate_slows_the_session() {
    all_done(|seed| {
        WorldConfig::small(seed, 4).each_receiver(|number, receiver| {
            if number == 2 {
                receiver.down.bits_per_second = Some(2_000_000);
            }
        })
    });
}
