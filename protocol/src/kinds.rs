//! Open enumerations of the wire: `u8` newtypes, so that a value from a newer peer survives being read.

crate::open_enums! {
    /// What a message is; the broker looks at none of them but `SYSTEM`, which only it may write.
    MessageKind {
        /// Plain UTF-8 text.
        TEXT = 1,
        /// A voice note.
        VOICE = 2,
        /// A picture.
        PICTURE = 3,
        /// A file.
        FILE = 4,
        /// A mail.
        MAIL = 5,
        /// A card with actions.
        CARD = 6,
        /// Written by the broker: its payload is a frame, such as `MembershipChanged`.
        SYSTEM = 7,
        /// Takes an earlier message back.
        RECALL = 8,
        /// Replaces an earlier message.
        EDIT = 9,
    }

    /// The four kinds of conversations.
    ConversationKind {
        /// Two users; made by the first message between them.
        DIRECT = 1,
        /// Members post and read.
        GROUP = 2,
        /// Few post, many read.
        CHANNEL = 3,
        /// One user's own events; only the broker writes.
        PERSONAL = 4,
    }

    /// What a member may do in a conversation.
    Role {
        /// Reads; posts where the conversation lets members post.
        MEMBER = 1,
        /// Adds and removes members, posts.
        ADMIN = 2,
        /// As an admin, and cannot be removed by one.
        OWNER = 3,
    }

    /// Who may post.
    PostPolicy {
        /// Every member.
        MEMBERS = 1,
        /// Owners and admins.
        ADMINS = 2,
    }

    /// What a member may have of a conversation's history.
    HistoryPolicy {
        /// What was published during the member's own stints.
        JOINED = 1,
        /// As well what was published before the member joined.
        FULL = 2,
    }

    /// What a conversation's members may learn of who has read their messages.
    ReceiptPolicy {
        /// How many have read, and who.
        ON = 1,
        /// How many have read.
        COUNTS = 2,
        /// Nothing.
        OFF = 3,
    }

    /// Which way a page of history goes from where it starts.
    Direction {
        /// To older messages.
        BACKWARD = 1,
        /// To newer ones.
        FORWARD = 2,
    }

    /// Which stream carries a frame to a device.
    Lane {
        /// DINGs.
        URGENT = 1,
        /// Messages in position order, receipts between them.
        INBOX = 2,
        /// Pages and exports.
        BULK = 3,
    }

    /// What a publish or a DING is addressed to.
    Target {
        /// A conversation id.
        CONVERSATION = 1,
        /// A user id: the direct conversation with that user.
        USER = 2,
        /// A list of users in the tail.
        USERS = 3,
    }

    /// What happened to a membership.
    Change {
        /// The user became a member.
        ADDED = 1,
        /// The user was removed by another.
        REMOVED = 2,
        /// The user left.
        LEFT = 3,
        /// The user's role is another.
        ROLE = 4,
    }

    /// Which list a read status wants.
    StatusList {
        /// Counts alone.
        COUNTS = 0,
        /// Those who have read.
        DONE = 1,
        /// Those who have not.
        OPEN = 2,
    }

    /// How far a message has come with one member.
    ReadState {
        /// No device of the member is known to have it.
        NOT_DELIVERED = 1,
        /// A device has acknowledged it.
        DELIVERED = 2,
        /// The member has marked it as read.
        READ = 3,
    }

    /// Where a DING stands for one recipient, or as a whole.
    DingState {
        /// Its time has not come.
        SCHEDULED = 1,
        /// Its first step has begun; as a whole: somebody has not confirmed.
        SENT = 2,
        /// A device has it, or an outlet says that the recipient has. Never a whole's.
        DELIVERED = 3,
        /// Confirmed by the recipient; as a whole: by all.
        CONFIRMED = 4,
        /// Its time ran out first.
        EXPIRED = 5,
        /// Taken back by its sender.
        RECALLED = 6,
        /// Its time ran out, no device had it and no outlet took it. Never a whole's.
        FAILED = 7,
    }

    /// What carries a DING to a person. From 64 on they are the operator's own.
    Outlet {
        /// The urgent lane of all the recipient's devices.
        APP = 1,
        /// A short message.
        SMS = 2,
        /// A phone call.
        PHONE = 3,
        /// A mail.
        MAIL = 4,
        /// A push service of a mobile system.
        PUSH = 5,
    }

    /// How far one attempt to reach a recipient by an outlet has come. Later values win, whatever the order of the news.
    AttemptState {
        /// Begun, durably; what became of it is not known yet.
        STARTED = 1,
        /// The gateway has taken it.
        ACCEPTED = 2,
        /// It did not work.
        FAILED = 3,
        /// The gateway says that the recipient has it.
        DELIVERED = 4,
        /// The recipient has answered it: that is a confirmation.
        ANSWERED = 5,
    }

    /// Whether the gateway was told that an attempt is moot.
    CancelState {
        /// There is nothing to tell.
        NONE = 0,
        /// It is to be told.
        DUE = 1,
        /// It was told, or had never been handed the attempt.
        DONE = 2,
        /// It could not be told within the tries.
        GAVE_UP = 3,
    }

    /// What a DING does about the hours in which its tenant wants no calls and short messages.
    QuietHours {
        /// Steps wait until they are over.
        HEED = 0,
        /// Steps begin all the same, if the tenant allows it.
        OVERRIDE = 1,
    }

    /// What a `Signal` says of its sender.
    SignalKind {
        /// Is writing.
        TYPING = 1,
        /// Has stopped writing.
        TYPING_STOPPED = 2,
        /// Has the conversation before its eyes.
        PRESENT = 3,
        /// No longer.
        AWAY = 4,
    }

    /// What `Retire` gives up.
    Retired {
        /// A device, with its cursor.
        DEVICE = 1,
        /// A producer, with its results.
        PRODUCER = 2,
    }
}
