//! The offered rate that both servers are compared at: a part of etcd's maximum in the same run.

use std::collections::BTreeMap;

/// Which part: latency at saturation mostly tells the length of the queue, and far below it little.
const PART_OF_MAXIMUM: f64 = 0.7;

/// Rates by scenario. The first round of etcd sets one; it stays for all rounds of both servers.
#[derive(Debug, Default)]
pub(super) struct Rates {
    known: BTreeMap<&'static str, f64>,
}

impl Rates {
    /// The rate for a scenario, once etcd has told its maximum.
    pub(super) fn rate(
        &mut self,
        scenario: &'static str,
        is_etcd: bool,
        maximum: f64,
    ) -> Result<f64, String> {
        if is_etcd && maximum > 0.0 {
            self.known.entry(scenario).or_insert(maximum * PART_OF_MAXIMUM);
        }
        let known = self.known.get(scenario).copied();
        known.ok_or_else(|| "etcd's maximum is not known, so there is no rate to offer".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_maximum_of_etcd_sets_the_rate_of_both() {
        let mut rates = Rates::default();
        assert_eq!(rates.rate("put", true, 1000.0), Ok(700.0));
        assert_eq!(rates.rate("put", false, 9000.0), Ok(700.0));
        assert_eq!(rates.rate("put", true, 2000.0), Ok(700.0));
    }

    #[test]
    fn without_etcd_there_is_no_rate() {
        assert!(Rates::default().rate("put", false, 9000.0).is_err());
        assert!(Rates::default().rate("put", true, 0.0).is_err());
    }

    #[test]
    fn scenarios_have_rates_of_their_own() {
        let mut rates = Rates::default();
        rates.rate("put", true, 1000.0).unwrap();
        assert!(rates.rate("get", false, 1.0).is_err());
    }
}
