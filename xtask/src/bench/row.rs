//! A row: contenders that do the same work in turns, A B A B, so that what disturbs the machine disturbs all of them.

use super::contender::Contender;
use super::measured::{Figure, Measured};
use super::place::Place;
use super::progress::Progress;
use super::rounds::{Ratio, median_of};
use super::work::Work;
use serde_json::{Value, json};

/// Failures after which a contender is left out: one alone may be a moment's.
pub(crate) const FAILURES_MAX: u32 = 2;

/// The same work, done by several.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) work: Work,
    pub(crate) entries: Vec<Entry>,
}

/// One of them, and what it reached in each round.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) contender: Contender,
    pub(crate) rounds: Vec<Measured>,
    /// Why it failed, the last time that it did.
    pub(crate) failure: Option<String>,
    pub(crate) failures: u32,
}

impl Row {
    /// Of those contenders that can do the work.
    pub(crate) fn new(work: Work, contenders: &[Contender]) -> Row {
        let able = contenders.iter().filter(|contender| contender.can_do(&work));
        let entries = able
            .map(|contender| Entry { contender: *contender, rounds: Vec::new(), failure: None, failures: 0 })
            .collect();
        Row { work, entries }
    }

    /// Runs a round. A contender that fails again is left out from then on, and the reason kept.
    pub(crate) fn run(&mut self, place: &Place, progress: &mut Progress) {
        let what = self.work.describe();
        for entry in self.entries.iter_mut().filter(|entry| entry.failures < FAILURES_MAX) {
            match entry.contender.measure(&self.work, place) {
                Ok(measured) => {
                    progress.measured(&entry.contender.name(), &what, &measured);
                    entry.rounds.push(measured);
                }
                Err(sentence) => {
                    progress.failed(&entry.contender.name(), &what, &sentence);
                    entry.failure = Some(sentence);
                    entry.failures += 1;
                }
            }
        }
    }

    /// Leaves a contender out.
    pub(crate) fn leave_out(&mut self, is_meant: impl Fn(Contender) -> bool) {
        self.entries.retain(|entry| !is_meant(entry.contender));
    }

    /// What a contender reached, where it took part.
    pub(crate) fn rounds(&self, contender: Contender) -> &[Measured] {
        let entry = self.entries.iter().find(|entry| entry.contender == contender);
        entry.map_or(&[], |entry| &entry.rounds)
    }

    /// One contender's figure by another's, round by round.
    pub(crate) fn ratio(&self, ours: Contender, theirs: Contender, figure: Figure) -> Option<Ratio> {
        Ratio::of(self.rounds(ours), self.rounds(theirs), figure)
    }

    /// The median of a contender's figure.
    pub(crate) fn median(&self, contender: Contender, figure: Figure) -> Option<f64> {
        median_of(self.rounds(contender), figure)
    }

    /// All of it, for keeping.
    pub(crate) fn to_json(&self, place: &Place) -> Value {
        let entry = |entry: &Entry| {
            json!({
                "contender": entry.contender.name(),
                "commands": entry.contender.commands(&self.work, place),
                "rounds": entry.rounds.iter().map(|measured| measured.to_json()).collect::<Vec<_>>(),
                "failure": entry.failure,
            })
        };
        json!({ "work": self.work.describe(), "entries": self.entries.iter().map(entry).collect::<Vec<_>>() })
    }
}
