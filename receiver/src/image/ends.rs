//! The first and the last block of a device: with their partition tables, or the boot code of one,
//! a disk looks whole.

use std::ops::Range;

/// Both, kept until everything else is on disk. Of an image of one block they are the same.
#[derive(Debug)]
pub(super) struct Ends {
    last_number: u32,
    first: End,
    last: End,
}

/// What an end is to be, at last.
#[derive(Debug, Default)]
pub(super) enum End {
    #[default]
    Missing,
    Held(Vec<u8>),
    /// The device has it, unless the ends have been zeroed since.
    Found(Vec<u8>),
    Zero,
}

impl Ends {
    /// Of an image of so many blocks, at least one.
    pub(super) const fn new(blocks: u32) -> Self {
        Self { last_number: blocks.saturating_sub(1), first: End::Missing, last: End::Missing }
    }

    /// Whether this block is one.
    pub(super) const fn has(&self, number: u32) -> bool {
        number == 0 || number == self.last_number
    }

    /// Keeps one.
    pub(super) fn hold(&mut self, number: u32, bytes: Vec<u8>) {
        *self.end(number) = End::Held(bytes);
    }

    /// Keeps one that the device has already.
    pub(super) fn find(&mut self, number: u32, bytes: Vec<u8>) {
        *self.end(number) = End::Found(bytes);
    }

    /// Notes which of them are zero; returns the blocks between them, which are not kept.
    pub(super) fn zero(&mut self, blocks: &Range<u32>) -> Range<u32> {
        for number in [0, self.last_number] {
            if blocks.contains(&number) {
                *self.end(number) = End::Zero;
            }
        }
        blocks.start.max(1)..blocks.end.min(self.last_number)
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        let (first, last) = (0, self.last_number);
        [last, first].into_iter().take(if first == last { 1 } else { 2 })
    }

    /// Whether the device has them if all those that are to be zero are, which `is_zero` tells.
    pub(super) fn are_there(&self, is_zero: impl Fn(u32) -> bool) -> bool {
        let is_there = |(number, end): (u32, &End)| match end {
            End::Missing | End::Held(_) => false,
            End::Found(_) => true,
            End::Zero => is_zero(number),
        };
        let last = if self.last_number == 0 { &self.first } else { &self.last };
        is_there((0, &self.first)) && is_there((self.last_number, last))
    }

    /// What the end `number` is to be.
    pub(super) fn take(&mut self, number: u32) -> End {
        std::mem::take(self.end(number))
    }

    const fn end(&mut self, number: u32) -> &mut End {
        if number == 0 { &mut self.first } else { &mut self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_run_of_zeroes_are_kept_and_what_is_between_is_not() {
        let mut ends = Ends::new(10);
        assert!(ends.has(0) && ends.has(9) && !ends.has(1) && !ends.has(8));
        for (run, between) in
            [(0..10, 1..9), (0..3, 1..3), (7..10, 7..9), (4..5, 4..5), (0..1, 1..1), (9..10, 9..9)]
        {
            assert_eq!(ends.zero(&run), between, "{run:?}");
        }
        assert!(matches!((ends.take(0), ends.take(9)), (End::Zero, End::Zero)));
        assert!(matches!(ends.take(0), End::Missing), "taken");
        assert_eq!(ends.numbers().collect::<Vec<u32>>(), [9, 0]);
    }

    #[test]
    fn the_device_has_the_ends_if_it_has_both_and_zeroes_where_they_are_to_be() {
        let mut ends = Ends::new(10);
        assert!(!ends.are_there(|_| true));
        ends.find(0, vec![1]);
        assert!(!ends.are_there(|_| true), "only one");
        ends.zero(&(9..10));
        assert!(ends.are_there(|number| number == 9) && !ends.are_there(|_| false));
        ends.hold(0, vec![1]);
        assert!(!ends.are_there(|_| true), "that was fetched");
        let mut one = Ends::new(1);
        one.find(0, vec![1]);
        assert!(one.are_there(|_| false));
        assert!(matches!(one.take(0), End::Found(bytes) if bytes == [1]));
    }

    #[test]
    fn an_image_of_one_block_has_one_end_and_one_of_two_nothing_between() {
        let mut one = Ends::new(1);
        one.hold(0, vec![7]);
        assert_eq!(one.numbers().collect::<Vec<u32>>(), [0]);
        assert!(one.zero(&(0..1)).is_empty());
        assert!(matches!(one.take(0), End::Zero));
        let mut two = Ends::new(2);
        assert!(two.zero(&(0..2)).is_empty());
        two.hold(1, vec![8]);
        assert!(
            matches!((two.take(0), two.take(1)), (End::Zero, End::Held(bytes)) if bytes == [8])
        );
    }
}
