//! Waiting until a DING is confirmed by all, or over.

use std::time::Duration;

use carillon_client::protocol::ding::USER_NONE;
use carillon_client::{DingId, DingState, DingStatusReply, DingUpdate, Event, Events};

use super::status::ask_whole;
use crate::cli::failure::{Exit, Failure};
use crate::cli::out::{Out, note};
use crate::cli::session::{As, Connection, Session, Use};
use crate::cli::show::{Json, state_name};
use carillon::report::escape;

/// News of a DING are pushed once, to who is connected then: who waits looks for itself now and then.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Connects, does what names the DING, and then tells who confirms it, until all have or it is over.
pub(super) async fn until_over(
    who: As,
    json: bool,
    begin: impl AsyncFnOnce(&mut Session) -> Result<DingId, Failure>,
) -> Result<(), Failure> {
    let (session, mut events) = who.connect(Use::Ask).await?;
    let mut waiting = Waiting { session, json, out: Out::new(), told: 0 };
    let done = tokio::select! {
        done = waiting.run(&mut events, begin) => done,
        _ = tokio::signal::ctrl_c() => {
            note("carillon: interrupted; the DING goes on ringing");
            Ok(())
        }
    };
    waiting.session.client.close().await;
    done
}

struct Waiting {
    session: Session,
    json: bool,
    out: Out,
    /// Confirmations that were printed.
    told: u32,
}

/// How far a DING is.
struct Stand {
    state: DingState,
    confirmed: u32,
    recipients: u32,
}

impl From<&DingStatusReply> for Stand {
    fn from(status: &DingStatusReply) -> Self {
        Self { state: status.state, confirmed: status.confirmed, recipients: status.recipients }
    }
}

impl Waiting {
    async fn run(
        &mut self,
        events: &mut Events,
        begin: impl AsyncFnOnce(&mut Session) -> Result<DingId, Failure>,
    ) -> Result<(), Failure> {
        let ding = begin(&mut self.session).await?;
        let mut connection = Connection::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = look.tick() => {
                    let status = ask_whole(&self.session, ding).await?;
                    if let Some(ended) = self.ended(&(&status).into())? {
                        return ended;
                    }
                    continue;
                }
            };
            let Some(event) = event else {
                return Err(Failure::new(Exit::Unreachable, "the session is over; the DING goes on ringing"));
            };
            connection.note(&event);
            match event {
                Event::Ended(error) => return Err(error.into()),
                Event::DingUpdate(update) if update.ding == ding => {
                    let stand = self.tell(update).await?;
                    if let Some(ended) = self.ended(&stand)? {
                        return ended;
                    }
                }
                _ => {}
            }
        }
    }

    /// Prints an update: who confirmed, and how many have.
    async fn tell(&mut self, update: DingUpdate) -> Result<Stand, Failure> {
        let Self { session, json, out, told } = self;
        let DingUpdate { user, state, confirmed, recipients, .. } = update;
        if *json {
            Json.print(&Event::DingUpdate(update), session, out).await?;
        } else if user != USER_NONE {
            let user = session.names.handle(user).await?;
            *told += 1;
            out.line(format_args!("{} confirmed ({} of {recipients})", escape(&user), confirmed.max(*told)))?;
        }
        out.flush()?;
        // What is told of one user says nothing of the whole.
        let state = if user == USER_NONE { state } else { DingState::OPEN };
        Ok(Stand { state, confirmed, recipients })
    }

    /// How the DING ended, if it has.
    fn ended(&mut self, stand: &Stand) -> Result<Option<Result<(), Failure>>, Failure> {
        let Stand { state, confirmed, recipients } = *stand;
        if confirmed >= recipients {
            if !self.json {
                self.out.line("all have confirmed")?;
                self.out.flush()?;
            }
            return Ok(Some(Ok(())));
        }
        if state == DingState::OPEN {
            return Ok(None);
        }
        let text = format!("the DING is {}: {confirmed} of {recipients} had confirmed", state_name(state));
        Ok(Some(Err(Failure::new(Exit::Failed, text))))
    }
}
