//! Targets, and what the figures say about them.

use std::collections::BTreeMap;

use crate::cases::Case;
use crate::measure::Outcome;

/// What a row promises of one figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) value: Value,
    pub(crate) bound: Bound,
}

/// A figure, of the cases with these names. Ratios are taken within one repetition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// Goodput of the first over that of the second.
    Goodput(&'static str, &'static str),
    /// Goodput in Gbit/s: of the yardstick, without which no ratio means anything.
    Gigabits(&'static str),
    /// Goodput over the most that the link's framing allows.
    OfLink(&'static str),
    /// Time until the last receiver is done.
    Seconds(&'static str),
    /// Such a time over another.
    Time(&'static str, &'static str),
    /// Octets sent over other octets sent.
    Sent(&'static str, &'static str),
    /// CPU seconds of all an octet, over another's.
    Cpu(&'static str, &'static str),
    /// The most memory that the sender had resident, in MiB.
    SenderResident(&'static str),
    /// The most that a receiver had.
    ReceiverResident(&'static str),
}

/// What is good enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Whatever it is: it says what the machine allows.
    Any,
}

/// The outcomes of one repetition by the name of their case.
pub(crate) type Repetition = BTreeMap<&'static str, Vec<Outcome>>;

impl Check {
    /// The figure in each repetition that has it, in ascending order.
    pub(crate) fn values(&self, cases: &[Case], repetitions: &[Repetition]) -> Vec<f64> {
        let values = repetitions.iter().filter_map(|repetition| self.value.of(cases, repetition));
        sorted(values.collect())
    }

    pub(crate) fn verdict(&self, value: f64) -> &'static str {
        match self.bound {
            Bound::AtLeast(least) if value >= least => "met",
            Bound::AtMost(most) if value <= most => "met",
            Bound::AtLeast(_) | Bound::AtMost(_) => "MISSED",
            Bound::Any => "measured",
        }
    }

    /// The target in words.
    pub(crate) fn target(&self) -> String {
        let (sign, number) = match self.bound {
            Bound::AtLeast(number) => ("≥", number),
            Bound::AtMost(number) => ("≤", number),
            Bound::Any => return self.value.words(),
        };
        format!("{} {sign} {}", self.value.words(), self.value.format(number))
    }
}

impl Value {
    fn of(self, cases: &[Case], repetition: &Repetition) -> Option<f64> {
        let mean = |name: &str, figure: fn(&Outcome) -> f64| {
            let outcomes = repetition.get(name).filter(|outcomes| !outcomes.is_empty())?;
            Some(outcomes.iter().map(figure).sum::<f64>() / outcomes.len() as f64)
        };
        let ratio = |of: &str, over: &str, figure| Some(mean(of, figure)? / mean(over, figure)?);
        match self {
            Self::Goodput(of, over) => ratio(of, over, |outcome| outcome.goodput),
            Self::OfLink(of) => {
                let case = cases.iter().find(|case| case.name == of)?;
                Some(mean(of, |outcome| outcome.goodput)? / case.network.goodput_max()?)
            }
            Self::Gigabits(of) => mean(of, |outcome| outcome.goodput / 1e9),
            Self::Seconds(of) => mean(of, |outcome| outcome.seconds),
            Self::Time(of, over) => ratio(of, over, |outcome| outcome.seconds),
            Self::Sent(of, over) => ratio(of, over, |outcome| outcome.sent_bytes),
            Self::Cpu(of, over) => ratio(of, over, Outcome::cpu_seconds_an_octet),
            Self::SenderResident(of) => mean(of, |outcome| outcome.sender_resident_bytes / MIB),
            Self::ReceiverResident(of) => mean(of, |outcome| outcome.receiver_resident_bytes / MIB),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Goodput(of, over) => format!("goodput of {of} over {over}"),
            Self::OfLink(of) => format!("goodput of {of} over what the framing allows"),
            Self::Gigabits(of) => format!("goodput of {of}"),
            Self::Seconds(of) => format!("time of {of}"),
            Self::Time(of, over) => format!("time of {of} over {over}"),
            Self::Sent(of, over) => format!("octets sent of {of} over {over}"),
            Self::Cpu(of, over) => format!("CPU an octet of {of} over {over}"),
            Self::SenderResident(of) => format!("memory of the sender of {of}"),
            Self::ReceiverResident(of) => format!("memory of a receiver of {of}"),
        }
    }

    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Self::OfLink(_) => format!("{:.1} %", value * 100.0),
            Self::Gigabits(_) => format!("{value:.2} Gbit/s"),
            Self::Seconds(_) => format!("{value:.2} s"),
            Self::SenderResident(_) | Self::ReceiverResident(_) => format!("{value:.0} MiB"),
            _ => format!("{value:.3}"),
        }
    }
}

/// The one in the middle of an ascending list, or the mean of the two.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length.is_multiple_of(2) => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

const MIB: f64 = 1024.0 * 1024.0;
