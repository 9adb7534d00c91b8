//! Medians, and ratios of what was measured side by side.

use super::measured::{Figure, Measured};

/// The middle of some numbers; `None` of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// A ratio: of each round the one figure by the other, their median, least and greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Ratio {
    /// Of rounds that were run side by side; `None` where there are none, or a figure is missing.
    pub(crate) fn of(ours: &[Measured], theirs: &[Measured], figure: Figure) -> Option<Ratio> {
        let pairs = ours.iter().zip(theirs).map(|(ours, theirs)| (ours.get(figure), theirs.get(figure)));
        let ratios: Vec<f64> =
            pairs.filter(|(ours, theirs)| *ours > 0.0 && *theirs > 0.0).map(|(a, b)| a / b).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let greatest = ratios.iter().copied().reduce(f64::max)?;
        Some(Ratio { median: median(ratios)?, least, greatest })
    }

    /// `1.23x (1.10 - 1.31)`
    pub(crate) fn show(&self) -> String {
        format!("{:.2}x ({:.2} - {:.2})", self.median, self.least, self.greatest)
    }
}

/// The median of one figure.
pub(crate) fn median_of(rounds: &[Measured], figure: Figure) -> Option<f64> {
    median(rounds.iter().map(|measured| measured.get(figure)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        let rounds = |rates: &[f64]| -> Vec<Measured> {
            rates.iter().map(|rate| Measured { rate: *rate, ..Measured::default() }).collect()
        };
        let ratio = Ratio::of(&rounds(&[2.0, 6.0, 3.0]), &rounds(&[1.0, 2.0, 3.0]), Figure::Rate).unwrap();
        assert_eq!(ratio, Ratio { median: 2.0, least: 1.0, greatest: 3.0 });
        assert_eq!(ratio.show(), "2.00x (1.00 - 3.00)");
        assert_eq!(Ratio::of(&rounds(&[2.0]), &rounds(&[1.0]), Figure::Median), None);
    }
}
