//! Which leases there are, for who asks for all of them.
//!
//! Taking the list is one pass over the table; putting it in order takes far longer with many leases, and is left to
//! [`Listing::ids`], which needs no access to the lessor any more.

/// Which leases there were at one moment.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Expiry and id.
    leases: Vec<(u64, i64)>,
}

impl Listing {
    pub(crate) fn new(leases: impl Iterator<Item = (u64, i64)>) -> Self {
        Self { leases: leases.collect() }
    }

    /// How many there were.
    pub const fn count(&self) -> usize {
        self.leases.len()
    }

    /// The ids, by expiry and then by id; by id alone when the lessor was not primary.
    pub fn ids(mut self) -> Vec<i64> {
        self.leases.sort_unstable();
        self.leases.into_iter().map(|(_, id)| id).collect()
    }
}
