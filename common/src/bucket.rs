//! A limit on how often something may be said, kept by who says it and by who hears it.

use std::time::Instant;

/// A token bucket for counting messages.
#[derive(Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A bucket that holds so many tokens now.
    #[must_use]
    pub const fn new(now: Instant, tokens: f64) -> Self {
        Self { tokens, at: now }
    }

    /// Takes one token, if there is one: `per_second` flow in, up to `burst`.
    pub fn take(&mut self, now: Instant, per_second: f64, burst: f64) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + elapsed * per_second).min(burst);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn a_burst_is_granted_at_once_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 10.0);
        let at_once = (0..20).filter(|_| bucket.take(start, 20.0, 10.0)).count();
        assert_eq!(at_once, 10);
        let later = (1..=100).map(|step| start + step * Duration::from_millis(10));
        let granted = later.filter(|now| bucket.take(*now, 20.0, 10.0)).count();
        assert!((19..=20).contains(&granted), "{granted}");
    }
}
