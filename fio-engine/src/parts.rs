//! Units longer than the server takes at a time: each goes out as several operations, and ends when all of them have.
//!
//! fio itself would ask again for what a short I/O has left over, but counts what it asks for, so that it would end
//! before everything was done.

use crate::fio::Unit;

/// Set in the tokens of parts; a unit's own token is an address, and those are even.
const PART: u64 = 1;

/// The units that are done in parts.
#[derive(Default)]
pub struct Parts {
    /// Places without a unit are used again.
    units: Vec<Option<Whole>>,
    free: Vec<u32>,
}

/// One unit.
struct Whole {
    unit: Unit,
    /// Length of each part but the last, in bytes.
    part_bytes: u32,
    /// Parts on their way.
    left: u32,
    /// Bytes from the start that are known to have been moved, once no part is left.
    moved: u64,
    /// The first error that was met.
    error: Option<raio::Error>,
}

/// How a unit has ended.
pub struct Ended {
    pub unit: Unit,
    /// Bytes moved, from the start.
    pub result: Result<u64, raio::Error>,
}

impl Parts {
    /// Notes that a unit will be done in parts, and returns its place.
    pub fn begin(&mut self, unit: Unit, part_bytes: u32) -> u32 {
        let whole = Whole { unit, part_bytes, left: 0, moved: unit.length(), error: None };
        if let Some(place) = self.free.pop() {
            self.units[place as usize] = Some(whole);
            return place;
        }
        self.units.push(Some(whole));
        // At most the depth.
        self.units.len() as u32 - 1
    }

    /// The token of a unit's part, which is on its way now.
    pub fn started(&mut self, place: u32, number: u32) -> u64 {
        if let Some(whole) = &mut self.units[place as usize] {
            whole.left += 1;
        }
        u64::from(place) << 32 | u64::from(number) << 1 | PART
    }

    /// The part that was started last, and all after it, did not go out.
    pub fn refused(&mut self, place: u32, number: u32, error: raio::Error) -> Option<Ended> {
        self.ended(u64::from(place) << 32 | u64::from(number) << 1 | PART, Err(error))
    }

    /// Whether a token is that of a part.
    pub fn is_part(token: u64) -> bool {
        token & PART != 0
    }

    /// A part has ended with so many bytes moved; says how its unit has ended if it was the last.
    pub fn ended(&mut self, token: u64, result: Result<u32, raio::Error>) -> Option<Ended> {
        let (place, number) = ((token >> 32) as usize, (token as u32) >> 1);
        let entry = self.units.get_mut(place)?;
        let whole = entry.as_mut()?;
        let start = u64::from(number) * u64::from(whole.part_bytes);
        let length = whole.unit.length().saturating_sub(start).min(u64::from(whole.part_bytes));
        match result {
            Ok(bytes) if u64::from(bytes) >= length => {}
            // What follows a short part does not count.
            Ok(bytes) => whole.moved = whole.moved.min(start + u64::from(bytes)),
            Err(error) => {
                whole.error.get_or_insert(error);
            }
        }
        whole.left -= 1;
        if whole.left > 0 {
            return None;
        }
        let Whole { unit, moved, error, .. } = entry.take()?;
        self.free.push(place as u32);
        Some(Ended { unit, result: error.map_or(Ok(moved), Err) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fio::sys::io_u;

    /// A unit of so many bytes.
    fn with_unit(length: u64, test: impl FnOnce(Unit)) {
        // SAFETY: numbers, null pointers and absent functions: all of it may be zero.
        let mut memory: io_u = unsafe { std::mem::zeroed() };
        memory.xfer_buflen = length;
        // SAFETY: the structure lives until the test is over.
        test(unsafe { Unit::new(&raw mut memory) }.unwrap());
    }

    fn start(parts: &mut Parts, unit: Unit, count: u32) -> Vec<u64> {
        let place = parts.begin(unit, 100);
        (0..count).map(|number| parts.started(place, number)).collect()
    }

    #[test]
    fn a_unit_ends_with_its_last_part_in_any_order() {
        with_unit(250, |unit| {
            let mut parts = Parts::default();
            for _ in 0..3 {
                let tokens = start(&mut parts, unit, 3);
                assert!(tokens.iter().all(|token| Parts::is_part(*token)) && !Parts::is_part(unit.token()));
                assert!(parts.ended(tokens[2], Ok(50)).is_none());
                assert!(parts.ended(tokens[0], Ok(100)).is_none());
                let ended = parts.ended(tokens[1], Ok(100)).unwrap();
                assert!(ended.unit == unit && ended.result.unwrap() == 250);
            }
            assert_eq!(parts.units.len(), 1, "places are used again");
        });
    }

    #[test]
    fn what_stands_behind_a_short_part_does_not_count() {
        with_unit(300, |unit| {
            let mut parts = Parts::default();
            let tokens = start(&mut parts, unit, 3);
            parts.ended(tokens[1], Ok(40));
            parts.ended(tokens[2], Ok(0));
            assert_eq!(parts.ended(tokens[0], Ok(100)).unwrap().result.unwrap(), 140);
        });
    }

    #[test]
    fn an_error_of_a_part_is_that_of_the_unit_once_all_have_ended() {
        with_unit(300, |unit| {
            let mut parts = Parts::default();
            let tokens = start(&mut parts, unit, 2);
            let full = || raio::Error::QueueFull { depth: 1 };
            assert!(parts.refused(0, 1, full()).is_none());
            let ended = parts.ended(tokens[0], Ok(100)).unwrap();
            assert!(matches!(ended.result, Err(raio::Error::QueueFull { .. })));
        });
    }
}
