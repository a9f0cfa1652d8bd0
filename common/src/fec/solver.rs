//! The missing source symbols of a block as sums of those that are there and of repair symbols.
//!
//! With P the columns of the generator for present symbols and M those for missing ones, received
//! repair symbols are `repairs = P · present + M · missing`. So missing ones are
//! `M⁻¹ · repairs + M⁻¹ · P · present`: the small matrices are worked out first, and only then does
//! every symbol pass once.

use super::gf256::{Kernel, add_products, invert};

/// For each missing symbol the coefficients that make it up.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The repair symbols needed, by their place among those given; as many as are missing.
    pub(super) repairs: Vec<usize>,
    /// A row for each missing symbol: first a column for each present one, then for each of
    /// `repairs`.
    pub(super) coefficients: Vec<u8>,
}

impl Recipe {
    /// Works it out. A row has what the repair symbol of that place is made of: the coefficients
    /// of the `present` symbols and then those of the missing ones. `None` if the rows, of which
    /// no more are asked for than needed, do not determine what is missing.
    pub(super) fn new<E>(
        kernel: Kernel,
        present: usize,
        missing: usize,
        rows: impl Iterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<Option<Self>, E> {
        let mut inverse = Inverse::new(kernel, missing);
        let mut used = Vec::with_capacity(missing);
        let mut repairs = Vec::with_capacity(missing);
        for (place, row) in rows.enumerate() {
            let row = row?;
            if inverse.add(&row[present..]) {
                used.push(row);
                repairs.push(place);
            }
            if repairs.len() == missing {
                break;
            }
        }
        let Some(inverse) = inverse.finish() else { return Ok(None) };
        let mut coefficients = vec![0; missing * (present + missing)];
        let mut targets = Vec::with_capacity(missing);
        let rows = coefficients.chunks_exact_mut(present + missing);
        for (row, inverse) in rows.zip(inverse.chunks_exact(missing)) {
            let (of_present, of_repairs) = row.split_at_mut(present);
            of_repairs.copy_from_slice(inverse);
            targets.push(of_present);
        }
        let sources: Vec<&[u8]> = used.iter().map(|row| &row[..present]).collect();
        add_products(kernel, &mut targets, &sources, &inverse);
        Ok(Some(Self { repairs, coefficients }))
    }
}

/// A square matrix that is inverted while its rows come in.
///
/// Holds a row for each column that has its pivot, 0 at all other pivots: on the left what remains
/// of the sum of rows of the matrix, on the right the factors of this sum.
#[derive(Debug)]
struct Inverse {
    kernel: Kernel,
    size: usize,
    rows: Vec<Vec<u8>>,
    /// The pivot column of each row.
    pivots: Vec<usize>,
}

impl Inverse {
    const fn new(kernel: Kernel, size: usize) -> Self {
        Self { kernel, size, rows: Vec::new(), pivots: Vec::new() }
    }

    /// Takes a row unless it is a sum of those before; whether it did.
    fn add(&mut self, row: &[u8]) -> bool {
        let mut row = row.to_vec();
        row.resize(2 * self.size, 0);
        row[self.size + self.rows.len()] = 1;
        let factors: Vec<u8> = self.pivots.iter().map(|&pivot| row[pivot]).collect();
        let sources: Vec<&[u8]> = self.rows.iter().map(Vec::as_slice).collect();
        add_products(self.kernel, &mut [&mut row], &sources, &factors);
        let Some(pivot) = row[..self.size].iter().position(|&octet| octet != 0) else {
            return false;
        };
        let mut scaled = vec![0; row.len()];
        add_products(self.kernel, &mut [&mut scaled], &[&row], &[invert(row[pivot])]);
        let factors: Vec<u8> = self.rows.iter().map(|other| other[pivot]).collect();
        let mut targets: Vec<&mut [u8]> = self.rows.iter_mut().map(Vec::as_mut_slice).collect();
        add_products(self.kernel, &mut targets, &[&scaled], &factors);
        self.rows.push(scaled);
        self.pivots.push(pivot);
        true
    }

    /// The inverse, row after row, its columns in the order in which rows were taken; `None` if
    /// those were too few.
    fn finish(self) -> Option<Vec<u8>> {
        if self.rows.len() < self.size {
            return None;
        }
        let mut inverse = vec![0; self.size * self.size];
        for (row, pivot) in self.rows.iter().zip(self.pivots) {
            inverse[pivot * self.size..][..self.size].copy_from_slice(&row[self.size..]);
        }
        Some(inverse)
    }
}
