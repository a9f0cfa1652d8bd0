//! A set of small numbers with a fixed end: which blocks, which symbols.
//!
//! Numbers outside the set's length are never in it: asking for one, adding one or taking one out
//! changes nothing and cannot panic.

use std::iter;

/// A subset of `0 .. len`, one bit each, with its size at hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BitSet {
    /// Bit `i` is bit `i % 64`, counted from the least significant one, of word `i / 64`. Bits
    /// from `len` on are clear.
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl BitSet {
    /// The empty subset of `0 .. len`.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, count: 0 }
    }

    /// All of `0 .. len`.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let Some(last) = words.last_mut() {
            *last >>= len.next_multiple_of(64) - len;
        }
        Self { words, len, count: len }
    }

    /// Reads a bitmap whose bit 0 is the most significant bit of octet 0; `None` unless it has
    /// exactly the octets that `len` bits take and the bits left over in the last one are zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let mut set = Self::new(len);
        for (word, octets) in set.words.iter_mut().zip(bytes.chunks(8)) {
            let mut little_endian = [0; 8];
            for (to, from) in little_endian.iter_mut().zip(octets) {
                *to = from.reverse_bits();
            }
            *word = u64::from_le_bytes(little_endian);
        }
        set.count = set.words.iter().map(|word| word.count_ones()).sum();
        let tail = set.words.last().map_or(0, |last| 64 - last.leading_zeros());
        let tail_max = if len.is_multiple_of(64) { 64 } else { len % 64 };
        (tail <= tail_max).then_some(set)
    }

    /// The bitmap that [`from_bytes`](Self::from_bytes) reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let octets = self.words.iter().flat_map(|word| word.to_le_bytes()).map(u8::reverse_bits);
        octets.take(self.len.div_ceil(8) as usize).collect()
    }

    /// The end of the range that this is a subset of.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// How many numbers are in it; takes no time.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether all of `0 .. len` is in it.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether `index` is in it.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds `index`; returns whether it was missing.
    pub fn insert(&mut self, index: u32) -> bool {
        let changes = index < self.len && !self.contains(index);
        if changes {
            self.words[index as usize / 64] |= 1 << (index % 64);
            self.count += 1;
        }
        changes
    }

    /// Adds `first + i` for every bit `i` of `numbers` that is set; returns those that were
    /// missing, in the same form.
    pub fn insert_all(&mut self, first: u32, numbers: u64) -> u64 {
        let (word, shift) = (first as usize / 64, first % 64);
        let inside = match self.len.checked_sub(first) {
            None | Some(0) => return 0,
            Some(room) if room < 64 => numbers & ((1 << room) - 1),
            Some(_) => numbers,
        };
        let here = u64::MAX >> shift;
        let mut added = inside & here & !(self.words[word] >> shift);
        self.words[word] |= added << shift;
        let behind = inside & !here;
        if behind != 0
            && let Some(next) = self.words.get_mut(word + 1)
        {
            let more = behind & !(*next << (64 - shift));
            *next |= more >> (64 - shift);
            added |= more;
        }
        self.count += added.count_ones();
        added
    }

    /// Takes `index` out; returns whether it was in.
    pub fn remove(&mut self, index: u32) -> bool {
        let changes = self.contains(index);
        if changes {
            self.words[index as usize / 64] &= !(1 << (index % 64));
            self.count -= 1;
        }
        changes
    }

    /// The lowest member that is not below `index`.
    #[must_use]
    pub fn first_set_from(&self, index: u32) -> Option<u32> {
        self.first_from(index, 0)
    }

    /// The lowest number of `index .. len` that is not a member.
    #[must_use]
    pub fn first_clear_from(&self, index: u32) -> Option<u32> {
        self.first_from(index, u64::MAX)
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        iter::successors(self.first_set_from(0), |last| self.first_set_from(last + 1))
    }

    /// The members as runs of consecutive numbers, ascending: (first, run), run ≥ 1.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let run_from = |index| {
            let first = self.first_set_from(index)?;
            Some((first, self.first_clear_from(first).unwrap_or(self.len) - first))
        };
        iter::successors(run_from(0), move |(first, run)| run_from(first + run))
    }

    /// The lowest number of `index .. len` whose bit differs from those of `ground`.
    fn first_from(&self, index: u32, ground: u64) -> Option<u32> {
        let mut start = index;
        while start < self.len {
            let rest = (self.words[start as usize / 64] ^ ground) >> (start % 64);
            if rest != 0 {
                return Some(start + rest.trailing_zeros()).filter(|&found| found < self.len);
            }
            // Saturates only where `len` is within 64 of the largest number.
            start = (start - start % 64).saturating_add(64);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bit_0_is_the_most_significant_bit_of_octet_0() {
        let mut set = BitSet::new(20);
        assert!(set.insert(0) && set.insert(9) && set.insert(19));
        assert_eq!(set.to_bytes(), [0b1000_0000, 0b0100_0000, 0b0001_0000]);
    }

    #[test]
    fn a_bitmap_of_the_wrong_length_or_with_a_bit_left_over_is_refused() {
        assert_eq!(BitSet::from_bytes(&[0xff, 0x80], 9).unwrap(), BitSet::full(9));
        assert!(BitSet::from_bytes(&[0xff, 0xc0], 9).is_none());
        assert!(BitSet::from_bytes(&[0xff, 0x01], 9).is_none());
        assert!(BitSet::from_bytes(&[0xff], 9).is_none());
        assert!(BitSet::from_bytes(&[0xff, 0x80, 0], 9).is_none());
        assert!(BitSet::from_bytes(&[], 0).is_some());
        assert_eq!(BitSet::from_bytes(&[0xff; 16], 128).unwrap(), BitSet::full(128));
        assert!(BitSet::from_bytes(&[0xff; 16], 127).is_none());
    }

    #[test]
    fn a_number_beyond_the_length_is_never_in() {
        let mut set = BitSet::full(65);
        for beyond in [65, 66, 127, 128, u32::MAX] {
            assert!(!set.insert(beyond) && !set.contains(beyond) && !set.remove(beyond));
            assert_eq!((set.first_set_from(beyond), set.first_clear_from(beyond)), (None, None));
        }
        assert!(set.is_full());
        assert_eq!(set.first_clear_from(0), None);
        assert_eq!(BitSet::new(65).first_set_from(0), None);
    }

    proptest! {
        #[test]
        fn adding_many_at_once_is_adding_each(
            len in 0u32..200,
            before in vec(0u32..200, 0..60),
            first in 0u32..210,
            numbers in any::<u64>(),
        ) {
            let mut set = BitSet::new(len);
            before.iter().for_each(|index| {
                set.insert(*index);
            });
            let mut one_by_one = set.clone();
            let added = (0..64)
                .filter(|bit| numbers >> bit & 1 == 1 && one_by_one.insert(first + bit))
                .fold(0, |added, bit| added | 1 << bit);
            prop_assert_eq!(set.insert_all(first, numbers), added);
            prop_assert_eq!(set, one_by_one);
        }

        #[test]
        fn it_behaves_like_a_sorted_set(
            len in 0u32..300,
            steps in vec((any::<bool>(), 0u32..310), 0..400),
            from_full in any::<bool>(),
        ) {
            let mut set = if from_full { BitSet::full(len) } else { BitSet::new(len) };
            let mut model: BTreeSet<u32> = if from_full { (0..len).collect() } else { [].into() };
            for (add, index) in steps {
                if add {
                    prop_assert_eq!(set.insert(index), index < len && model.insert(index));
                } else {
                    prop_assert_eq!(set.remove(index), model.remove(&index));
                }
            }
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(&BitSet::from_bytes(&set.to_bytes(), len), &Some(set.clone()));
            for index in 0..=len {
                prop_assert_eq!(set.contains(index), model.contains(&index));
                prop_assert_eq!(set.first_set_from(index), model.range(index..).next().copied());
                let clear = (index..len).find(|other| !model.contains(other));
                prop_assert_eq!(set.first_clear_from(index), clear);
            }
            let mut end = None;
            for (first, run) in set.runs() {
                prop_assert!(run > 0 && end.is_none_or(|end| first > end));
                prop_assert!((first..first + run).all(|index| model.remove(&index)));
                end = Some(first + run);
            }
            prop_assert!(model.is_empty());
        }
    }
}
