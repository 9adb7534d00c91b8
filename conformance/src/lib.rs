//! What every transport has to do, a test per rule. A transport gets the whole suite by one call:
//!
//! ```ignore
//! conformance::suite!(tcp, conformance::Fabric::built_in("tcp://127.0.0.1:0/"));
//! ```
//!
//! The expression makes a fresh [`Fabric`] for each test. Contexts are driven in turn from one thread, without polling,
//! so that the same tests run on virtual time; nothing asserts how long something takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod cancel;
pub mod flow;
pub mod misuse;
pub mod one_way;
mod pair;
pub mod remote;
pub mod requests;
pub mod sessions;
pub mod teardown;
pub mod transfer;

pub use pair::{Fabric, Pair, watchdog};

/// Makes a fresh transport for a test.
pub type Make<'a> = &'a dyn Fn() -> Fabric;

/// Bytes that tell where they belong.
#[must_use]
pub fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(salt)).collect()
}

/// Defines the whole suite, as a module of this name with a `#[test]` for each rule.
#[macro_export]
macro_rules! suite {
    ($name:ident, $fabric:expr) => {
        $crate::define_suite! {
            $name, $fabric,
            requests: {
                a_request_comes_back_with_its_header_and_data
                many_requests_at_once_are_answered_in_any_order
                a_server_may_ask_its_client
                a_dropped_request_is_answered_for
                a_response_above_its_room_is_an_error_on_both_sides
                a_large_response_to_a_request_that_is_not_idempotent_is_refused
                data_lands_in_the_pieces_that_were_named
                checksums_are_in_force_where_both_offer_them
            }
            one_way: {
                messages_arrive_in_order
                both_sides_send
                a_receipt_says_accepted_or_rejected
                a_request_may_have_a_receipt
                a_receiver_that_does_not_release_stops_its_sender
                a_side_may_take_no_messages
                data_waits_for_the_byte_grant
                a_sender_hears_when_its_memory_is_free
                data_may_have_256_pieces
                a_sender_says_that_more_follows
                a_lost_connection_ends_receipts_and_notices
            }
            cancel: {
                the_responder_may_give_a_request_up
                an_answer_may_come_all_the_same
                a_cancel_that_crosses_the_answer_is_too_late
                a_request_that_nobody_has_seen_is_not_delivered
                a_request_that_was_not_sent_is_taken_back
                a_late_request_keeps_its_slot_until_the_peer_confirms
                deadlines_hold_before_the_grant_and_pass_after_the_answer
                a_lost_connection_ends_cancels
            }
            transfer: {
                large_data_lands_where_the_receiver_says
                an_announcement_holds_nothing_up
                unwanted_data_is_not_sent
                an_announced_request_can_be_cancelled
                a_lost_connection_gives_assigned_memory_back
            }
            remote: {
                memory_is_read_and_written
                many_operations_at_once
                the_server_may_reach_the_client
                bounds_permission_and_key_are_checked_by_the_owner
                memory_is_exposed_to_one_connection_only
                exposed_memory_can_be_revoked
                a_write_on_its_way_ends_at_the_revoke
            }
            flow: {
                slots_and_sizes_are_limited
                a_receiver_that_does_not_answer_stops_its_sender_by_bytes
                limits_are_visible_in_statistics
            }
            sessions: {
                a_connection_is_rejected_with_reason_and_private_data
                connections_of_one_session_share_its_name
                a_silent_application_is_rejected_for
                connections_wait_for_the_first_one
                a_connection_that_waited_may_be_the_first
                a_new_connection_can_be_handed_over
                a_client_follows_a_redirect
                a_client_is_not_sent_around_for_ever
                threads_share_a_session
            }
            teardown: {
                a_close_reaches_the_other_side_after_what_was_sent_before
                an_abort_ends_every_request_with_an_error
                both_sides_close_at_once
                a_connection_is_closed_inside_an_event
                a_server_stops_listening
                either_context_may_go_first
                a_handshake_is_broken_off
            }
            misuse: {
                handles_of_another_context_are_refused
                calls_on_an_ended_connection_are_refused
                messages_of_another_context_are_refused
                sizes_above_limits_are_refused
                things_are_dropped_in_any_order
                an_exhausted_pool_is_waited_for_or_told
                a_handler_may_panic
            }
        }
    };
}

/// The tests of [`suite!`].
#[doc(hidden)]
#[macro_export]
macro_rules! define_suite {
    ($name:ident, $fabric:expr, $($file:ident: { $($test:ident)* })*) => {
        mod $name {
            #[allow(unused_imports, reason = "the fabric may need them")]
            use super::*;
            $(mod $file {
                #[allow(unused_imports, reason = "the fabric may need them")]
                use super::*;
                $(#[test]
                fn $test() {
                    $crate::$file::$test(&|| $fabric);
                })*
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    /// A test that is written is run.
    #[test]
    fn every_test_is_in_the_suite() {
        let list = include_str!("lib.rs");
        let files = [
            ("requests", include_str!("requests.rs")),
            ("one_way", include_str!("one_way.rs")),
            ("cancel", include_str!("cancel.rs")),
            ("transfer", include_str!("transfer.rs")),
            ("remote", include_str!("remote.rs")),
            ("flow", include_str!("flow.rs")),
            ("sessions", include_str!("sessions.rs")),
            ("teardown", include_str!("teardown.rs")),
            ("misuse", include_str!("misuse.rs")),
        ];
        for (file, text) in files {
            for line in text.lines().filter(|line| line.contains("(make: Make<'_>)")) {
                let Some(name) = line.strip_prefix("pub fn ").and_then(|rest| rest.split('(').next()) else {
                    continue;
                };
                assert!(
                    list.contains(&format!("                {name}\n")),
                    "{file}::{name} is not in the list"
                );
            }
        }
    }
}
