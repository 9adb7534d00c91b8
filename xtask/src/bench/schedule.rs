//! What is going to be measured, and doing it: rounds over everything, within the time that there is.

use super::Arguments;
use super::contender::Contender;
use super::crowd::Crowd;
use super::message::{self, Talk};
use super::place::Place;
use super::plan::{self, Curve};
use super::progress::Progress;
use super::row::Row;
use super::transport::{TRANSPORTS, Transport};
use crate::{Result, compile};
use std::collections::BTreeSet;
use std::time::Duration;

/// The part of a run's time that a point of a curve gets.
const CURVES_SHARE: f64 = 0.6;

/// What is going to be measured.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) rows: Vec<Row>,
    pub(crate) curves: Vec<Curve>,
    pub(crate) talks: Vec<Talk>,
    pub(crate) crowds: Vec<Crowd>,
    /// Ours, needed for it.
    programs: BTreeSet<&'static str>,
}

impl Schedule {
    /// All of it, or what the person asks for.
    pub(crate) fn make(arguments: &Arguments) -> Result<Schedule> {
        let Arguments { quick, only, .. } = arguments;
        let transports: Vec<&'static Transport> = TRANSPORTS.iter().collect();
        let wanted = |row: &Row| only.as_ref().is_none_or(|text| row.work.describe().contains(text));
        let mut rows = plan::rows(&transports, *quick);
        rows.retain(wanted);
        let mut curves = plan::curves(&transports, *quick);
        curves.iter_mut().for_each(|curve| curve.rows.retain(wanted));
        curves.retain(|curve| !curve.rows.is_empty());
        // Messages and crowds are not rows of work: a wish for certain rows leaves them out, but under their own names.
        let with = |name: &str| only.as_ref().is_none_or(|text| text == name);
        let talks = if with("messages") { message::talks() } else { Vec::new() };
        let crowds: Vec<Crowd> = if with("connections") {
            transports.iter().map(|transport| Crowd::new(transport, *quick)).collect()
        } else {
            Vec::new()
        };
        let needs = [
            (!rows.is_empty() || !curves.is_empty(), &["raio-server", "raio", "minimal"][..]),
            (!talks.is_empty(), &["xio", "minimal"]),
            (!crowds.is_empty(), &["raio-server", "raio", "connections"]),
            (only.is_none(), &["plot"]),
        ];
        let programs: BTreeSet<&str> =
            needs.iter().filter(|(is_needed, _)| *is_needed).flat_map(|(_, names)| *names).copied().collect();
        if programs.is_empty() {
            let names: Vec<String> =
                plan::rows(&transports, *quick).iter().map(|row| row.work.describe()).collect();
            return Err(format!(
                "nothing is called so; there are messages, connections, and:\n{}",
                names.join("\n")
            ));
        }
        Ok(Schedule { rows, curves, talks, crowds, programs })
    }

    fn has_engine(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.entries).any(|entry| entry.contender.is_engine())
    }

    /// Runs there will be, in all rounds.
    fn runs(&self, rounds: usize) -> usize {
        let of_rows = |is_meant: fn(&Row) -> bool| {
            self.rows.iter().filter(|row| is_meant(row)).map(|row| row.entries.len()).sum::<usize>()
        };
        let talks: usize = self.talks.iter().map(Talk::runs).sum();
        let (crowds_first, crowds_later) =
            self.crowds.iter().map(Crowd::runs).fold((0, 0), |sum, runs| (sum.0 + runs.0, sum.1 + runs.1));
        let curves: usize =
            self.curves.iter().flat_map(|curve| &curve.rows).map(|row| row.entries.len()).sum();
        let each = of_rows(|_| true) + of_rows(is_run_twice) + talks;
        each * rounds + crowds_first + crowds_later * rounds.saturating_sub(1) + curves
    }

    /// Builds what is needed; a part that can't be built is taken out, and a note says so.
    ///
    /// # Errors
    /// Our own programs can't be built.
    pub(crate) fn build(&mut self, place: &mut Place) -> Result<Vec<String>> {
        let programs: Vec<&str> = self.programs.iter().copied().collect();
        println!("Building {}", programs.join(", "));
        compile::programs(&programs)?;
        if !self.has_engine() {
            return Ok(Vec::new());
        }
        println!("Building the engine for fio");
        match crate::fio::build() {
            Ok(engine) => place.engine = Some(engine.folder),
            Err(reason) => {
                self.rows.iter_mut().for_each(|row| row.leave_out(Contender::is_engine));
                return Ok(vec![format!("fio with our engine was left out: {reason}")]);
            }
        }
        Ok(Vec::new())
    }

    /// Measures as long as there is time, and says in notes what became of it.
    ///
    /// The curves come after the first round, so that they are there in any case; the rest of the time gives rounds.
    pub(crate) fn measure(
        &mut self,
        place: &mut Place,
        arguments: &Arguments,
        limit: Duration,
    ) -> Vec<String> {
        let rounds = arguments.rounds;
        let mut progress = Progress::new(self.runs(rounds as usize), limit);
        let mut notes = Vec::new();
        let mut done = 0;
        while done < rounds && !progress.is_over() {
            println!("round {} of {rounds}", done + 1);
            if !self.round(place, arguments.quick, &mut progress) {
                break;
            }
            if done == 0 {
                self.run_curves(place, &mut progress, &mut notes);
            }
            done += 1;
        }
        if done < rounds {
            notes.push(format!("Time was over in round {} of {rounds}.", done + 1));
        }
        notes.push(format!("{done} whole rounds, {} s a run.", place.seconds));
        notes.extend(self.crowds.iter().flat_map(|crowd| &crowd.failures).cloned());
        notes
    }

    /// Runs everything once; says whether there was time for all of it.
    fn round(&mut self, place: &Place, quick: bool, progress: &mut Progress) -> bool {
        for row in &mut self.rows {
            if progress.is_over() {
                return false;
            }
            row.run(place, progress);
        }
        for talk in &mut self.talks {
            if progress.is_over() {
                return false;
            }
            talk.run(place, progress);
        }
        for crowd in &mut self.crowds {
            if progress.is_over() {
                return false;
            }
            crowd.run(place, quick, progress);
        }
        for row in self.rows.iter_mut().filter(|row| is_run_twice(row)) {
            if progress.is_over() {
                return false;
            }
            row.run(place, progress);
        }
        true
    }

    fn run_curves(&mut self, place: &mut Place, progress: &mut Progress, notes: &mut Vec<String>) {
        let seconds = place.seconds;
        place.seconds = seconds * CURVES_SHARE;
        for row in self.curves.iter_mut().flat_map(|curve| &mut curve.rows) {
            if progress.is_over() {
                notes.push(format!("Time was over before: {}.", row.work.describe()));
                continue;
            }
            row.run(place, progress);
        }
        place.seconds = seconds;
    }
}

/// Latencies of single requests vary most between runs: such rows have two runs in each round.
fn is_run_twice(row: &Row) -> bool {
    row.work.depth == 1
}
