//! What is aimed at: a bound on a figure, kept beside the scenario that gives it.

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Want {
    /// The ratio of etched to etcd, at most.
    RatioAtMost(f64),
    /// The ratio of etched to etcd, at least.
    RatioAtLeast(f64),
    /// The same, but only with the full number of keys: it falls as they grow.
    RatioAtMostWhenFull(f64),
    /// etched's figure by itself, at most.
    AtMost(f64),
    /// The same, but only with the full number of keys: it grows with them.
    AtMostWhenFull(f64),
}

/// A bound on one figure of a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// The figure's name.
    pub(super) figure: &'static str,
    pub(super) want: Want,
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Missed,
    /// It says nothing at the size that was run, or one of the servers has no figure.
    Unknown,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Unknown => "-",
        }
    }
}

impl Want {
    /// Judges etched's figure and its ratio to etcd's.
    pub(super) fn judge(self, ours: f64, ratio: f64, full: bool) -> Verdict {
        let (number, met) = match self {
            Self::RatioAtMost(bound) => (ratio, ratio <= bound),
            Self::RatioAtLeast(bound) => (ratio, ratio >= bound),
            Self::AtMostWhenFull(_) | Self::RatioAtMostWhenFull(_) if !full => {
                return Verdict::Unknown;
            }
            Self::RatioAtMostWhenFull(bound) => (ratio, ratio <= bound),
            Self::AtMost(bound) | Self::AtMostWhenFull(bound) => (ours, ours <= bound),
        };
        match (number.is_nan(), met) {
            (true, _) => Verdict::Unknown,
            (false, true) => Verdict::Met,
            (false, false) => Verdict::Missed,
        }
    }

    /// The bound on the ratio, if it is one.
    pub(super) fn ratio(self) -> Option<f64> {
        match self {
            Self::RatioAtMost(bound)
            | Self::RatioAtLeast(bound)
            | Self::RatioAtMostWhenFull(bound) => Some(bound),
            Self::AtMost(_) | Self::AtMostWhenFull(_) => None,
        }
    }

    /// In words, for the table.
    pub(super) fn text(self) -> String {
        match self {
            Self::RatioAtMost(bound) | Self::RatioAtMostWhenFull(bound) => {
                format!("ratio <= {}", short(bound))
            }
            Self::RatioAtLeast(bound) => format!("ratio >= {}", short(bound)),
            Self::AtMost(bound) | Self::AtMostWhenFull(bound) => format!("<= {}", short(bound)),
        }
    }
}

/// At most three decimals, and none that say nothing.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_itself_is_met() {
        assert_eq!(Want::RatioAtMost(0.5).judge(9.0, 0.5, true), Verdict::Met);
        assert_eq!(Want::RatioAtLeast(1.5).judge(9.0, 1.5, true), Verdict::Met);
        assert_eq!(Want::AtMost(9.0).judge(9.0, f64::NAN, true), Verdict::Met);
    }

    #[test]
    fn what_is_beyond_it_is_missed() {
        assert_eq!(Want::RatioAtMost(0.5).judge(0.1, 0.51, true), Verdict::Missed);
        assert_eq!(Want::RatioAtLeast(1.5).judge(2.0, 1.4, true), Verdict::Missed);
        assert_eq!(Want::AtMost(9.0).judge(9.1, 0.1, true), Verdict::Missed);
    }

    #[test]
    fn without_a_figure_or_at_a_small_size_nothing_is_said() {
        assert_eq!(Want::RatioAtMost(0.5).judge(0.1, f64::NAN, true), Verdict::Unknown);
        assert_eq!(Want::AtMostWhenFull(9.0).judge(1.0, 1.0, false), Verdict::Unknown);
        assert_eq!(Want::AtMostWhenFull(9.0).judge(10.0, 1.0, true), Verdict::Missed);
        assert_eq!(Want::RatioAtMostWhenFull(0.5).judge(1.0, 0.9, false), Verdict::Unknown);
        assert_eq!(Want::RatioAtMostWhenFull(0.5).judge(1.0, 0.9, true), Verdict::Missed);
    }

    #[test]
    fn words_have_no_needless_zeros() {
        assert_eq!(Want::RatioAtMost(1.0 / 3.0).text(), "ratio <= 0.333");
        assert_eq!(Want::AtMost(250.0).text(), "<= 250");
    }
}
