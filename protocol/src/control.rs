//! Conversations, members and users.

use alloc::vec::Vec;

use crate::frame::Text;
use crate::ids::{ConversationId, Seq, UserId};
use crate::kinds::{Change, ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};

crate::elements! {
    /// One conversation of the asking user.
    ConversationEntry {
        /// Its id.
        conversation: ConversationId,
        /// Its kind.
        kind: ConversationKind,
        /// What the user is in it.
        role: Role,
        /// Who may post.
        post_policy: PostPolicy,
        /// What members may have of the history.
        history: HistoryPolicy,
        /// What authors may learn of who has read.
        receipts: ReceiptPolicy,
        /// The last seq, 0 when nothing was published.
        last_seq: Seq,
        /// The user's watermark.
        read_up_to: Seq,
        /// Messages after the watermark that the user did not write.
        unread: u64,
        /// Present members.
        members: u32,
        /// The other user of a direct conversation, else `u32::MAX`.
        peer: UserId,
        /// Bytes of its name in `names`.
        name_bytes: u8,
    }

    /// One member.
    MemberEntry {
        /// The user.
        user: UserId,
        /// Owner, admin or member.
        role: Role,
        /// Entitled to what comes after this seq.
        joined: Seq,
        /// The member's watermark; 0 of others where receipts are not `ON`.
        read_up_to: Seq,
    }

    /// One user's handle.
    UserEntry {
        /// The user.
        user: UserId,
        /// Bytes of the handle in `handles`; 0 when the id is of no user.
        handle_bytes: u8,
    }
}

crate::element!(UserId);

crate::frames! {
    /// Client → broker: a new group or channel, the sender its owner. Answered by `ConversationCreated`.
    0x40 ConversationCreate {
        /// Chosen by the client, above 0.
        request: u32,
        /// `GROUP` or `CHANNEL`.
        kind: ConversationKind,
        /// Who may post; 0: `MEMBERS` in a group, `ADMINS` in a channel.
        post_policy: PostPolicy,
        /// What members may have of the history; 0: `JOINED`.
        history: HistoryPolicy,
        /// What authors may learn of who has read; 0: `ON` in a group, `COUNTS` in a channel.
        receipts: ReceiptPolicy,
    } [
        /// Unique in the tenant; services and admins may give one, else empty. If it is taken by one's own, that one is the answer.
        name: Text,
        /// At most 1,000; more are added afterwards.
        members: Vec<UserId>,
    ]

    /// Broker → client: the conversation is there, durably.
    0x41 ConversationCreated {
        /// The request.
        request: u32,
        /// Its id.
        conversation: ConversationId,
        /// 1 when a conversation of that name was there before, else 0.
        existed: u8,
    }

    /// Client → broker, owner, admin or service: these users become members; for present members the role is set. Answered by `Done`.
    0x42 MembersAdd {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// `MEMBER` or `ADMIN`; `OWNER` only by an owner or service.
        role: Role,
    } [
        /// 1 to 1,000.
        members: Vec<UserId>,
    ]

    /// Client → broker, owner, admin or service: these are members no longer. Answered by `Done`.
    0x43 MembersRemove {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
    } [
        /// 1 to 1,000.
        members: Vec<UserId>,
    ]

    /// Client → broker: be a member no longer. Answered by `Done`.
    0x44 Leave {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
    }

    /// Client → broker: the conversations I am in. Answered by `Conversations`.
    0x45 ConversationList {
        /// Chosen by the client, above 0.
        request: u32,
        /// The page starts here.
        from: ConversationId,
        /// Entries wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client: one page of conversations.
    0x46 Conversations {
        /// The request.
        request: u32,
        /// Where the next page starts; `u64::MAX` when this is the last.
        next: ConversationId,
    } [
        /// By id, ascending.
        entries: Vec<ConversationEntry>,
        /// Their names, back to back.
        names: Text,
    ]

    /// Client → broker: who is in this conversation? Answered by `Members`.
    0x47 MemberList {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// The page starts at this user.
        from: UserId,
        /// Entries wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client: one page of members.
    0x48 Members {
        /// The request.
        request: u32,
        /// Where the next page starts; `u32::MAX` when this is the last.
        next: UserId,
    } [
        /// By user id, ascending.
        entries: Vec<MemberEntry>,
    ]

    /// The payload of a `SYSTEM` message in the personal conversation of the user it is about.
    0x49 MembershipChanged {
        /// The conversation.
        conversation: ConversationId,
        /// Its kind.
        kind: ConversationKind,
        /// What happened.
        change: Change,
        /// The role now, or last.
        role: Role,
        /// Who did it.
        by: UserId,
    }

    /// Client → broker: the conversation with this name, if I may know it. Answered by `ConversationCreated` with `existed` 1.
    0x4a ConversationFind {
        /// Chosen by the client, above 0.
        request: u32,
    } [
        /// The name.
        name: Text,
    ]

    /// Client → broker: who is this handle? Answered by `UserFound`.
    0x4b UserFind {
        /// Chosen by the client, above 0.
        request: u32,
        /// 1: make the user if there is none (services and admins), else 0.
        create: u8,
    } [
        /// The handle.
        handle: Text,
    ]

    /// Broker → client: the user.
    0x4c UserFound {
        /// The request.
        request: u32,
        /// Its id.
        user: UserId,
    }

    /// Client → broker: the handles of these users. Answered by `UserHandles`.
    0x4d UserLookup {
        /// Chosen by the client, above 0.
        request: u32,
    } [
        /// 1 to 1,000.
        users: Vec<UserId>,
    ]

    /// Broker → client: handles, in the order asked for.
    0x4e UserHandles {
        /// The request.
        request: u32,
    } [
        /// One a user asked for.
        entries: Vec<UserEntry>,
        /// Their handles, back to back.
        handles: Text,
    ]
}
