//! Formulas of RFC 5401 that both ends share: the quantised GRTT, the feedback window and the
//! backoff drawn from it.

use std::time::Duration;

use crate::prng::Prng;

/// Packs a round trip time into the octet of RFC 5401 section 3.7.4, rounding up.
#[must_use]
pub fn quantise_rtt(rtt: Duration) -> u8 {
    let seconds = rtt.as_secs_f64().clamp(RTT_SECONDS_MIN, RTT_SECONDS_MAX);
    let steps = if seconds < 33.0 * RTT_SECONDS_MIN {
        (seconds / RTT_SECONDS_MIN).ceil() - 1.0
    } else {
        (255.0 - 13.0 * (RTT_SECONDS_MAX / seconds).ln()).ceil()
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let octet = steps.clamp(0.0, 255.0) as u8;
    octet
}

/// Unpacks the octet of RFC 5401 section 3.7.4.
#[must_use]
pub fn unquantise_rtt(octet: u8) -> Duration {
    Duration::from_secs_f64(if octet <= 31 {
        f64::from(octet + 1) * RTT_SECONDS_MIN
    } else {
        RTT_SECONDS_MAX / (f64::from(255 - octet) / 13.0).exp()
    })
}

/// The octet that announces a group size: the logarithm of the power of two at or above it.
#[must_use]
pub const fn group_log2(receivers: u32) -> u8 {
    let [log2, ..] = (u32::BITS - receivers.saturating_sub(1).leading_zeros()).to_le_bytes();
    log2
}

/// `T_fb`, the window over which receivers spread their feedback: none for up to 32 receivers, all
/// of whom a sender hears at once without harm, else 1.5·log2(N)·GRTT, or `leisure` if that is
/// longer, within 2 … 400 ms. While the sender has other things to send an answer may wait, and
/// one NEED then speaks for many blocks.
#[must_use]
pub fn feedback_window(group_log2: u8, grtt: Duration, leisure: Duration) -> Duration {
    if group_log2 <= GROUP_LOG2_SMALL {
        return Duration::ZERO;
    }
    let rounds = grtt * u32::from(group_log2) * 3 / 2;
    rounds.max(leisure).clamp(FEEDBACK_WINDOW_MIN, FEEDBACK_WINDOW_MAX)
}

/// A backoff within `window` from the truncated exponential distribution of RFC 5401 section
/// 3.2.2: of N receivers that draw at once only a few draw a short one.
#[must_use]
pub fn draw_backoff(prng: &mut Prng, window: Duration, group_log2: u8) -> Duration {
    let seconds = window.as_secs_f64();
    if seconds <= 0.0 {
        return Duration::ZERO;
    }
    let lambda = f64::from(1u32 << group_log2.min(30)).ln() + 1.0;
    let scale = lambda.exp() - 1.0;
    let x = lambda / (seconds * scale) + prng.unit() * lambda / seconds;
    let backoff = seconds / lambda * (x * scale * seconds / lambda).ln();
    Duration::from_secs_f64(backoff.clamp(0.0, seconds))
}

const RTT_SECONDS_MIN: f64 = 1e-6;
const RTT_SECONDS_MAX: f64 = 1000.0;

/// GRTT before the first measurement: a busy LAN.
pub const GRTT_START: Duration = Duration::from_millis(10);
/// Below it the scheduling of a loaded host is longer than the wire.
pub const GRTT_MIN: Duration = Duration::from_millis(1);
/// A LAN that takes longer is not working.
pub const GRTT_MAX: Duration = Duration::from_secs(1);
/// A sample above it cannot come from a working LAN and is ignored.
pub const RTT_SAMPLE_MAX: Duration = Duration::from_secs(10);

/// Backoffs would make so few wait longer than their answers take to receive.
const GROUP_LOG2_SMALL: u8 = 5;
/// Shorter windows vanish in the timer granularity of hosts.
const FEEDBACK_WINDOW_MIN: Duration = Duration::from_millis(2);
/// Longer ones let more blocks pile up undecoded than receivers can hold.
const FEEDBACK_WINDOW_MAX: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisation_rounds_up_by_at_most_a_thirteenth() {
        for micros in [1, 2, 31, 33, 34, 100, 1_000, 10_000, 123_456, 1_000_000, 10_000_000] {
            let rtt = Duration::from_micros(micros);
            let back = unquantise_rtt(quantise_rtt(rtt));
            let ratio = back.as_secs_f64() / rtt.as_secs_f64();
            assert!((0.999..1.09).contains(&ratio), "{rtt:?} became {back:?}");
        }
        assert_eq!(quantise_rtt(Duration::ZERO), 0);
        assert_eq!(quantise_rtt(Duration::from_secs(5000)), 255);
    }

    #[test]
    fn group_sizes_round_up() {
        let sizes = [0, 1, 2, 3, 4, 5, 1000, 1024, 1025, 16_384];
        assert_eq!(sizes.map(group_log2), [0, 0, 1, 2, 2, 3, 10, 10, 11, 14]);
    }

    #[test]
    fn a_lone_receiver_need_not_wait_and_ten_thousand_wait_twenty_grtt() {
        let grtt = Duration::from_millis(10);
        assert_eq!(feedback_window(0, grtt, Duration::ZERO), Duration::ZERO);
        assert_eq!(feedback_window(14, grtt, Duration::ZERO), Duration::from_millis(210));
        assert_eq!(feedback_window(5, GRTT_MAX, GRTT_MAX), Duration::ZERO);
        assert_eq!(feedback_window(6, GRTT_MIN, Duration::ZERO), Duration::from_millis(9));
        assert_eq!(feedback_window(14, GRTT_MAX, Duration::ZERO), Duration::from_millis(400));
        let leisure = Duration::from_millis(140);
        assert_eq!(feedback_window(6, grtt, leisure), leisure);
        assert_eq!(feedback_window(14, grtt, leisure), Duration::from_millis(210));
    }

    #[test]
    fn few_of_many_draw_a_short_backoff() {
        let mut prng = Prng::new(1);
        let window = Duration::from_millis(200);
        let draws: Vec<_> = (0..10_000).map(|_| draw_backoff(&mut prng, window, 14)).collect();
        assert!(draws.iter().all(|backoff| *backoff <= window));
        // The distribution puts 47 of 10,000 into the first half, 8,825 into the last fifth.
        let early = draws.iter().filter(|backoff| **backoff < window / 2).count();
        assert!((20..90).contains(&early), "{early} in the first half");
        let late = draws.iter().filter(|backoff| **backoff > window * 8 / 10).count();
        assert!((8_600..9_050).contains(&late), "{late} in the last fifth");
    }
}
