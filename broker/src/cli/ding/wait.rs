//! Waiting until a DING is confirmed by all, or over.

use carillon_client::{DingId, DingProgress, DingState, DingUpdate, Event, Events, USER_NONE};

use super::parse::state_name;
use crate::cli::failure::{Exit, Failure};
use crate::cli::out::{Out, note};
use crate::cli::session::{As, Connection, Session, Use};
use crate::cli::show::{Json, progress_line};
use carillon::report::escape;

/// Connects, does what names the DING, and then tells what comes of it, until all have confirmed or it is over.
pub(super) async fn until_over(
    who: As,
    json: bool,
    begin: impl AsyncFnOnce(&mut Session) -> Result<DingId, Failure>,
) -> Result<(), Failure> {
    let (session, mut events) = who.connect(Use::Ask).await?;
    let mut waiting = Waiting { session, json, out: Out::new(), told: Told::default() };
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
    told: Told,
}

/// What a person has been told already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    delivered: u32,
    confirmed: u32,
}

impl Told {
    /// Whether these counts say more than was told; then they are told.
    fn is_news(&mut self, progress: &DingProgress) -> bool {
        let DingProgress { delivered, confirmed, .. } = *progress;
        // Who confirms no longer counts among those who have it only: that is no news by itself.
        let is_news = confirmed > self.confirmed || delivered + confirmed > self.delivered + self.confirmed;
        *self = Self { delivered, confirmed: confirmed.max(self.confirmed) };
        is_news
    }
}

impl Waiting {
    async fn run(
        &mut self,
        events: &mut Events,
        begin: impl AsyncFnOnce(&mut Session) -> Result<DingId, Failure>,
    ) -> Result<(), Failure> {
        let ding = begin(&mut self.session).await?;
        // Told how it stands at once, and renewed in each session: nothing is missed while the connection is lost.
        let watched = self.session.client.watch_ding(ding).await;
        watched.map_err(|error| Failure::request(&format!("watching DING {ding}"), error))?;
        let mut connection = Connection::default();
        loop {
            let Some(event) = events.next().await else {
                return Err(Failure::new(Exit::Unreachable, "the session is over; the DING goes on"));
            };
            connection.note(&event);
            match event {
                Event::Ended(error) => return Err(error.into()),
                Event::Reset => {
                    let text =
                        format!("the broker was restored from a backup: whether it has DING {ding} is not known");
                    return Err(Failure::new(Exit::Failed, text));
                }
                Event::DingUpdate(update) if update.ding == ding => self.tell_update(update).await?,
                Event::DingProgress(progress) if progress.ding == ding => {
                    if let Some(ended) = self.tell_progress(progress).await? {
                        return ended;
                    }
                }
                _ => {}
            }
        }
    }

    /// Prints who confirmed. How the whole ended is told with its counts.
    async fn tell_update(&mut self, update: DingUpdate) -> Result<(), Failure> {
        let Self { session, json, out, told } = self;
        let DingUpdate { user, confirmed, recipients, .. } = update;
        if *json {
            Json.print(&Event::DingUpdate(update), session, out).await?;
        } else if user != USER_NONE {
            let user = session.names.handle(user).await?;
            told.confirmed = confirmed.max(told.confirmed);
            out.line(format_args!("{} confirmed ({confirmed} of {recipients})", escape(&user)))?;
        }
        Ok(out.flush()?)
    }

    /// Prints the counts, and says how the DING ended, if it has.
    async fn tell_progress(&mut self, progress: DingProgress) -> Result<Option<Result<(), Failure>>, Failure> {
        let Self { session, json, out, told } = self;
        let DingProgress { state, confirmed, recipients, .. } = progress;
        if *json {
            Json.print(&Event::DingProgress(progress), session, out).await?;
        } else if told.is_news(&progress) {
            out.line(progress_line(&progress))?;
        }
        out.flush()?;
        if state == DingState::SENT || state == DingState::SCHEDULED {
            return Ok(None);
        }
        if state == DingState::CONFIRMED {
            if !*json {
                out.line("all have confirmed")?;
                out.flush()?;
            }
            return Ok(Some(Ok(())));
        }
        let text = format!("the DING is {}: {confirmed} of {recipients} had confirmed", state_name(state));
        Ok(Some(Err(Failure::new(Exit::Failed, text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_client::{Position, Timestamp};

    #[test]
    fn counts_are_told_when_they_say_more_than_names_did() {
        let progress = |delivered, confirmed| DingProgress {
            ding: DingId(7),
            state: DingState::SENT,
            time: Timestamp(1),
            position: Position(1),
            recipients: 5,
            delivered,
            confirmed,
            failed: 0,
        };
        let mut told = Told::default();
        assert!(!told.is_news(&progress(0, 0)), "nothing has come of it yet");
        assert!(told.is_news(&progress(2, 0)), "two have it");
        assert!(!told.is_news(&progress(2, 0)), "that was told");
        told.confirmed = 1;
        assert!(!told.is_news(&progress(1, 1)), "one of them confirmed, which was told by name");
        assert!(told.is_news(&progress(0, 2)), "another did, and nobody said so");
    }
}
