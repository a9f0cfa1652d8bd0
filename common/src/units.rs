//! Sizes, rates and times as people write and read them.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

/// A number of octets: `4096`, `64K`, `16MiB`, `1G`; the letters count in powers of 1,024.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct ByteSize(pub u64);

/// A rate in bits per second: `900M`, `1G`, `20k`, with powers of 1,000; `bit` or `bit/s` may
/// follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct BitRate(pub u64);

/// A time: `30` (seconds), `1.5s`, `250ms`, `5m`, `2h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct Seconds(pub Duration);

/// So many of something, with its names for one and for others: `1 pass`, `3 passes`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted(pub u64, pub &'static str, pub &'static str);

/// Why a quantity was not understood.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is not a {what}: write {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.into(), what: "size", example: "64M or 2GiB" };
        let (number, unit) = split(text).ok_or_else(error)?;
        let unit = unit.to_ascii_lowercase();
        let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
        let power = ["", "k", "m", "g", "t"].iter().position(|name| *name == unit);
        scaled(number, 1024.0, power.ok_or_else(error)?).map(Self).ok_or_else(error)
    }
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.into(), what: "bit rate", example: "900M or 10G" };
        let (number, unit) = split(text).ok_or_else(error)?;
        let unit = unit.to_ascii_lowercase();
        let unit = unit.strip_suffix("/s").or(unit.strip_suffix("ps")).unwrap_or(&unit);
        let unit = unit.strip_suffix("bit").or(unit.strip_suffix('b')).unwrap_or(unit);
        let power = ["", "k", "m", "g", "t"].iter().position(|name| *name == unit);
        let rate = scaled(number, 1000.0, power.ok_or_else(error)?).filter(|rate| *rate > 0);
        rate.map(Self).ok_or_else(error)
    }
}

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.into(), what: "time", example: "30, 90s or 5m" };
        let (number, unit) = split(text).ok_or_else(error)?;
        let scale = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(error()),
        };
        let seconds = number * scale;
        if seconds > SECONDS_MAX {
            return Err(error());
        }
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| error())
    }
}

impl Counted {
    /// So many blocks.
    #[must_use]
    pub fn blocks(count: impl Into<u64>) -> Self {
        Self(count.into(), "block", "blocks")
    }

    /// So many passes over an image.
    #[must_use]
    pub fn passes(count: impl Into<u64>) -> Self {
        Self(count.into(), "pass", "passes")
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one, others) = self;
        write!(f, "{count} {}", if *count == 1 { one } else { others })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match (whole / 3600, whole / 60 % 60, whole % 60) {
            (0, 0, _) if self.0.subsec_millis() == 0 => write!(f, "{whole}s"),
            (0, 0, _) => write!(f, "{:.1}s", self.0.as_secs_f64()),
            (0, minutes, seconds) => write!(f, "{minutes}m{seconds:02}s"),
            (hours, minutes, seconds) => write!(f, "{hours}h{minutes:02}m{seconds:02}s"),
        }
    }
}

/// Splits a number from the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

fn scaled(number: f64, base: f64, power: usize) -> Option<u64> {
    let value = number * base.powi(i32::try_from(power).ok()?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked range")]
    (value.is_finite() && value < 9e18).then_some(value as u64)
}

fn show(f: &mut fmt::Formatter<'_>, value: u64, base: f64, units: &[&str]) -> fmt::Result {
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= base && unit + 1 < units.len() {
        scaled /= base;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && scaled < 100.0);
    write!(f, "{scaled:.decimals$} {}", units[unit])
}

/// Ten years: nobody waits longer, and clocks cannot count on for ever.
const SECONDS_MAX: f64 = 315_576_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_something_is_not_called_as_several_are() {
        assert_eq!(Counted::passes(0u8).to_string(), "0 passes");
        assert_eq!(Counted::passes(1u8).to_string(), "1 pass");
        assert_eq!(Counted::blocks(2u32).to_string(), "2 blocks");
    }

    #[test]
    fn sizes_rates_and_times_are_read_as_people_write_them() {
        assert_eq!("64K".parse(), Ok(ByteSize(65_536)));
        assert_eq!("1.5GiB".parse(), Ok(ByteSize(3 << 29)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        assert_eq!("900M".parse(), Ok(BitRate(900_000_000)));
        assert_eq!("1gbit".parse(), Ok(BitRate(1_000_000_000)));
        assert_eq!("10Gbit/s".parse(), Ok(BitRate(10_000_000_000)));
        assert_eq!("100Mbps".parse(), Ok(BitRate(100_000_000)));
        assert_eq!("30".parse(), Ok(Seconds(Duration::from_secs(30))));
        assert_eq!("250ms".parse(), Ok(Seconds(Duration::from_millis(250))));
        assert_eq!("5m".parse(), Ok(Seconds(Duration::from_secs(300))));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!("".parse::<ByteSize>().is_err());
        assert!("12 parsecs".parse::<ByteSize>().is_err());
        assert!("0".parse::<BitRate>().is_err());
        assert!("-3s".parse::<Seconds>().is_err());
        assert!("99999999h".parse::<Seconds>().is_err());
        let error = "fast".parse::<BitRate>().unwrap_err();
        assert_eq!(error.to_string(), "\"fast\" is not a bit rate: write 900M or 10G");
    }

    #[test]
    fn quantities_are_shown_short() {
        assert_eq!(ByteSize(512).to_string(), "512 B");
        assert_eq!(ByteSize(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(BitRate(940_000_000).to_string(), "940 Mbit/s");
        assert_eq!(Seconds(Duration::from_secs(250)).to_string(), "4m10s");
        assert_eq!(Seconds(Duration::from_millis(1500)).to_string(), "1.5s");
    }
}
