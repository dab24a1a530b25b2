//! Replies: which frames answer a request, and which request they answer.

use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreated, Conversations, Members, UserFound, UserHandles};
use carillon_protocol::ding::{DingConfirmed, DingCreated, DingReminded};
use carillon_protocol::ding_status::{DingAttempts, DingStatusReply, Dings};
use carillon_protocol::error::{Done, Error};
use carillon_protocol::presence::{Presences, Sessions, SessionsKicked};
use carillon_protocol::receipt::{Marked, ReadStatusReply};

use crate::history::Received;

/// A reply that says what was asked for.
pub(crate) trait Reply: Sized {
    /// The reply, if the answer is one of its kind.
    fn from_answer(answer: Answer) -> Option<Self>;
}

macro_rules! answers {
    ($($name:ident,)*) => {
        /// Every frame that answers a request, refusals apart.
        #[derive(Debug)]
        pub(crate) enum Answer {
            $($name($name),)*
            /// Comes on the bulk lane, in several frames.
            History(Received),
        }

        impl Answer {
            /// The name of the frame.
            pub(crate) const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                    Self::History(_) => Received::NAME,
                }
            }
        }

        $(impl Reply for $name {
            fn from_answer(answer: Answer) -> Option<Self> {
                if let Answer::$name(reply) = answer { Some(reply) } else { None }
            }
        })*

        impl Reply for Received {
            fn from_answer(answer: Answer) -> Option<Self> {
                if let Answer::History(page) = answer { Some(page) } else { None }
            }
        }

        /// The request that a frame answers, and its answer or refusal.
        ///
        /// # Errors
        /// The frame, if it answers none.
        pub(crate) fn answer_of(frame: Frame) -> Result<(u32, Result<Answer, Error>), Box<Frame>> {
            match frame {
                $(Frame::$name(reply) => Ok((reply.request, Ok(Answer::$name(reply)))),)*
                Frame::Error(error) => Ok((error.request, Err(error))),
                other => Err(Box::new(other)),
            }
        }
    };
}

answers! {
    Done, Marked, ReadStatusReply, DingCreated, DingConfirmed, DingReminded, DingStatusReply, DingAttempts, Dings,
    ConversationCreated, Conversations, Members, UserFound, UserHandles,
    Presences, Sessions, SessionsKicked,
}
