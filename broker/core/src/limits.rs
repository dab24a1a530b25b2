//! What bounds the state of a shard. What is full refuses the input and says so; nothing here is dropped silently, but where
//! the text says "the oldest".

/// Devices of one user: a person's phones, tablets and desktops, with room for reinstalls. A 17th installation retires one.
pub const DEVICES_A_USER_MAX: usize = 16;

/// Bounded catch-ups of one device that left something out and are told apart: 20 bytes each, some weeks of a phone that comes
/// back to more than it wants. Of more the oldest two become one that offered nothing.
pub const WINDOWS_A_DEVICE_MAX: usize = 8;

/// Producers of one user: one a device, or one an instance of a service.
pub const PRODUCERS_A_USER_MAX: usize = 16;

/// Conversations a user is a present member of, the personal one included: one attach lists them all, 24 bytes each.
pub const CONVERSATIONS_A_USER_MAX: usize = 10_000;

/// Conversations a user was a member of and is no longer: as many again. Beyond it, the one left first is forgotten for this
/// user, and with it the entitlement to its old messages; a device that has not come so far is told that there were some.
pub const PAST_CONVERSATIONS_A_USER_MAX: usize = CONVERSATIONS_A_USER_MAX;

/// Stints of one user in one conversation; the oldest is dropped, and its range of seqs named to a device that has not come so far.
pub const STINTS_MAX: usize = 64;

/// Spans of a member's own messages that it has not marked as read: 24 bytes each, 1.5 KB of who answers 64 times without
/// reading once. Beyond it two of the older half become one, and how many are unread may be inexact inside it.
pub const OWN_SPANS_MAX: usize = 64;

/// Present members of a group: 3 to 18 bytes each and up to 34 in the orders to count from, so 52 MB, and 72 MB more if every one of
/// them has written since it last read. Channels are bounded by the tenant's users.
pub const GROUP_MEMBERS_MAX: usize = 1_000_000;

/// Stints of one conversation that are looked at one by one to count who has read. 64 lie in 6 KB, which takes no longer than
/// three descents into trees, and spares the many small conversations the 2 KB that trees of so many stints would take. With
/// more, the conversation keeps them ordered.
pub const STINTS_SCANNED_MAX: usize = 64;

/// Stints of one conversation up to which it keeps who marked last: 16 bytes for each member that has, 16 KB a conversation, found
/// and moved by a mark in under 1 µs. Of a larger one a device that comes back is told how many have read, and may ask who.
pub const NAMED_STINTS_MAX: u64 = 1_024;

/// Members that one page of a read status looks at: 50 to 300 KB of them, under a fifth of a millisecond. A page that has found
/// fewer than it may hold by then ends there, and names where the next one starts.
pub const MEMBERS_A_PAGE_SCANNED_MAX: usize = 16_384;

/// Tenants of a shard.
pub const TENANTS_MAX: usize = 65_536;

/// Users of one tenant: about 215 bytes each with a personal conversation, 350 with a device and a producer, so 3.5 GB at most.
pub const USERS_A_TENANT_MAX: usize = 10_000_000;

/// Conversations of a shard, the personal ones included: 128 bytes each when small.
pub const CONVERSATIONS_MAX: usize = 1 << 25;

/// Recipients of a DING up to which its sender is told of each confirmation, by name; of more it is told the counts.
pub const DING_NAMED_MAX: usize = 200;

/// DINGs that wait for one recipient, and open ones of one sender.
pub const DINGS_OPEN_A_USER_MAX: usize = 1_000;

/// DINGs kept of one sender, open and ended: the open ones and nine times as many to ask about. Beyond it the oldest ended
/// one is forgotten before its time.
pub const DINGS_KEPT_A_SENDER_MAX: usize = 10 * DINGS_OPEN_A_USER_MAX;

/// Recipients of all the DINGs kept of one sender: 72 bytes each, and 16 an attempt by an outlet; 18 MB, or 25 DINGs of the largest. When
/// there are more the oldest ended ones are forgotten before their time; when all are open, a further one is refused.
pub const DING_RECIPIENTS_A_SENDER_MAX: usize = 250_000;

/// Likewise of all the senders of one tenant: 290 MB.
pub const DING_RECIPIENTS_A_TENANT_MAX: usize = 4_000_000;

/// A DING gives up after 30 days at the latest.
pub const DING_EXPIRES_AFTER_MS_MAX: u64 = 30 * DAY_MS;

/// A DING starts within 90 days.
pub const DING_STARTS_WITHIN_MS_MAX: u64 = 90 * DAY_MS;

/// A step of a DING begins again after a second at the earliest.
pub const DING_REPEAT_EVERY_MS_MIN: u32 = 1_000;

/// Times that the steps of a plan may begin in all; what is left of `DING_ATTEMPTS_MAX` is for reminders by hand.
pub const DING_STEP_TIMES_MAX: usize = 192;

/// What may be looked up to see whether a sender is in a conversation with each recipient: some 4 ms. A DING that takes more is
/// refused; one to a conversation takes nothing.
pub const DING_ACQUAINTED_LOOKUPS_MAX: usize = 20_000;

/// Devices that have DINGs, in one record: 12 bytes each, so that a record of them stays far below a batch; what is more takes
/// more records.
pub const DING_DELIVERIES_A_RECORD_MAX: usize = 1_000;

/// What became of calls, in one record: 18 bytes each.
pub const DING_OUTCOMES_A_RECORD_MAX: usize = 1_000;

/// An ended DING can be asked about for a week.
pub const DING_RETENTION_MS: u64 = 7 * DAY_MS;

/// Timers that one tick fires; the rest stay due for the next batch. A million that are due at once take some 8,000 batches, a few
/// seconds.
pub const TIMERS_A_TICK_MAX: usize = 128;

/// Recipients that one tick begins steps for, the last one's apart: some 5 ms, and 80 KB of signals.
pub const RECIPIENTS_A_TICK_MAX: usize = 20_000;

/// Cursors in one record: 24 bytes each, so that a record of them stays far below a batch; what is more takes more records.
pub const CURSORS_A_RECORD_MAX: usize = 1_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
