//! Checksums of what was copied, and the comparison with what can be read back.

use super::super::failure::Failure;
use super::super::place::Place;
use super::end::{self, End};
use super::{Done, Plan};
use crc_fast::{CrcAlgorithm, Digest, checksum_combine};
use indicatif::ProgressBar;
use libxio::Sgl;

/// CRC-32C, which the catalogue of CRCs calls iSCSI.
const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// The checksum of each block: 4 MiB for a TiB in blocks of 1 MiB.
#[derive(Debug)]
pub(super) struct Sums {
    blocks: Vec<u32>,
}

impl Sums {
    pub(super) fn new(plan: &Plan) -> Sums {
        Sums { blocks: vec![0; usize::try_from(plan.blocks()).unwrap_or(usize::MAX)] }
    }

    pub(super) fn set(&mut self, block: u64, data: &Sgl) {
        self.blocks[block as usize] = sum(data);
    }

    /// The checksum of all blocks together.
    pub(super) fn whole(&self, plan: &Plan) -> u32 {
        let mut whole = 0;
        for (block, sum) in self.blocks.iter().enumerate() {
            let length = u64::from(plan.length_of(block as u64));
            // A CRC-32 combined with another is one.
            whole = checksum_combine(ALGORITHM, u64::from(whole), u64::from(*sum), length) as u32;
        }
        whole
    }
}

fn sum(data: &Sgl) -> u32 {
    let mut digest = Digest::new(ALGORITHM);
    for piece in data.pieces() {
        match piece.try_as_slice() {
            Some(bytes) => digest.update(bytes),
            None => digest.update(&piece.to_vec()),
        }
    }
    digest.finalize() as u32
}

/// Reads the target back and compares it with the checksums of the source.
pub(super) fn compare(plan: &Plan, target: &mut End, sums: &Sums, place: &Place, bar: &ProgressBar) -> Done {
    let check = |block: u64, data: &Sgl| {
        let whole = data.len() == plan.length_of(block) as usize;
        if whole && sum(data) == sums.blocks[block as usize] {
            bar.inc(u64::from(plan.length_of(block)));
            return Ok(());
        }
        Err(Failure::Other {
            what: "verify",
            place: place.to_string(),
            why: format!(
                "the {} bytes from byte {} differ from the source",
                plan.length_of(block),
                plan.offset(block)
            ),
            advice: Some("the copy is bad: is anything else writing to it?".to_owned()),
        })
    };
    let (mut next, mut reading) = (0, 0);
    while next < plan.blocks() || reading > 0 {
        while next < plan.blocks() && reading < plan.depth {
            match target.read(plan.offset(next), plan.length_of(next), next)? {
                Some(data) => check(next, &data)?,
                None => reading += 1,
            }
            next += 1;
        }
        end::wait(target, reading)?;
        while let Some((block, data)) = target.next_read()? {
            reading -= 1;
            check(block, &data)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_blocks_make_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..1000_u32).map(|number| (number * 7) as u8).collect();
        let plan = Plan { length: 1000, block: 300, depth: 1 };
        let mut sums = Sums::new(&plan);
        for block in [2, 0, 3, 1] {
            let start = plan.offset(block) as usize;
            let part = bytes[start..start + plan.length_of(block) as usize].to_vec();
            sums.set(block, &part.into());
        }
        assert_eq!(sums.whole(&plan), sum(&bytes.into()));
        assert_eq!(sum(&b"123456789".to_vec().into()), 0xe306_9283);
    }
}
