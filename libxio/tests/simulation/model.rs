//! What is known of each message, and what must come of it.

use std::collections::HashMap;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    OneWay,
    RemoteRead,
    RemoteWrite,
}

/// What is known of a message.
#[derive(Debug)]
pub struct Known {
    pub kind: Kind,
    pub data_length: usize,
    /// On which of the client's connections it was sent, counted.
    pub connection: usize,
    pub timeout: bool,
    pub named_landing: bool,
    pub wants_receipt: bool,
    pub wants_notice: bool,
    /// The receiving application has seen it.
    pub seen: bool,
    /// What the receiving application said by a receipt.
    pub receipt_given: Option<libxio::Receipt>,
    pub abandoned: bool,
    pub cancels_asked: u32,
    // What the sender has heard.
    pub responses: u32,
    pub late: bool,
    pub released: u32,
    pub receipts: u32,
    pub notices: u32,
    pub cancels_ended: u32,
}

impl Known {
    pub fn new(kind: Kind, data_length: usize, connection: usize) -> Known {
        Known {
            kind,
            data_length,
            connection,
            timeout: false,
            named_landing: false,
            wants_receipt: false,
            wants_notice: false,
            seen: false,
            receipt_given: None,
            abandoned: false,
            cancels_asked: 0,
            responses: 0,
            late: false,
            released: 0,
            receipts: 0,
            notices: 0,
            cancels_ended: 0,
        }
    }

    /// Nothing more has to come.
    fn has_ended(&self) -> bool {
        let answered = self.kind == Kind::OneWay || self.responses == 1;
        let received = self.kind != Kind::OneWay || !self.wants_receipt || self.receipts == 1;
        let noticed = !self.wants_notice || self.notices == 1;
        answered && received && noticed && self.cancels_ended == self.cancels_asked
    }
}

/// All messages of a run, by their token.
#[derive(Debug, Default)]
pub struct Model {
    pub messages: HashMap<u64, Known>,
    begun: u64,
    /// The last message that each side's application has seen of each connection: later ones have higher tokens.
    last_seen: HashMap<(usize, usize), u64>,
    /// For each side, what its blocks of memory hold: the token that was written last, if that is known.
    pub blocks: [[Block; super::BLOCKS as usize]; 2],
    pub tally: Tally,
}

/// What a block of exposed memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Block {
    /// Zeros.
    #[default]
    Fresh,
    /// The content of this message.
    Holds(u64),
    /// An operation is under way on it.
    Busy,
    /// A write has failed half-way.
    Unknown,
}

impl Model {
    pub fn begin(&mut self, token: u64, known: Known) {
        assert!(self.messages.insert(token, known).is_none());
        self.begun = self.begun.max(token + 1);
    }

    /// Messages begun so far: the next token.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    pub fn get(&mut self, token: u64) -> &mut Known {
        self.messages.get_mut(&token).expect("it speaks of a message that was sent")
    }

    /// The application of a side sees a message: once, and in order.
    pub fn see(&mut self, side: usize, token: u64, announced: bool) {
        let known = self.messages.get_mut(&token).expect("a message that was sent");
        assert!(!known.seen, "message {token} was delivered twice");
        known.seen = true;
        let last = self.last_seen.entry((side, known.connection)).or_default();
        assert!(*last <= token, "message {token} is out of order");
        *last = token + 1;
        self.tally.announced += u64::from(announced);
    }

    pub fn all_ended(&self) -> bool {
        self.messages.values().all(Known::has_ended)
    }

    pub fn assert_all_ended(&self) {
        for (token, known) in &self.messages {
            assert!(known.has_ended(), "message {token} has no end: {known:?}");
            assert!(known.released <= u32::from(known.late && known.named_landing), "{token}: {known:?}");
        }
    }
}

/// How often the interesting things came to pass, so that a run that tests nothing is noticed.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub executed_unanswered: u64,
    pub cancelled: u64,
    pub too_late: u64,
    pub late: u64,
    pub landings_released: u64,
    pub receipts: u64,
    pub notices: u64,
    pub one_way: u64,
    pub announced: u64,
    pub remote_done: u64,
    pub remote_refused: u64,
    pub send_ready: u64,
    pub lost: u64,
}

impl Tally {
    fn all(&mut self) -> [&mut u64; 14] {
        [
            &mut self.answered,
            &mut self.executed_unanswered,
            &mut self.cancelled,
            &mut self.too_late,
            &mut self.late,
            &mut self.landings_released,
            &mut self.receipts,
            &mut self.notices,
            &mut self.one_way,
            &mut self.announced,
            &mut self.remote_done,
            &mut self.remote_refused,
            &mut self.send_ready,
            &mut self.lost,
        ]
    }

    pub fn add(&mut self, other: &Tally) {
        let &Tally {
            answered,
            executed_unanswered,
            cancelled,
            too_late,
            late,
            landings_released,
            receipts,
            notices,
            one_way,
            announced,
            remote_done,
            remote_refused,
            send_ready,
            lost,
        } = other;
        let others = [
            answered,
            executed_unanswered,
            cancelled,
            too_late,
            late,
            landings_released,
            receipts,
            notices,
            one_way,
            announced,
            remote_done,
            remote_refused,
            send_ready,
            lost,
        ];
        for (sum, one) in self.all().into_iter().zip(others) {
            *sum += one;
        }
    }

    pub fn assert_each_came_to_pass(&mut self) {
        let seen = format!("{self:?}");
        assert!(self.all().into_iter().all(|count| *count > 0), "the faults leave too little: {seen}");
    }
}
