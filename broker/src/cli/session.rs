//! A command's session: from context, user and slot to a connected client.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon_client::{
    Client, Config, ConnectError, Cursor, Event, Events, FileStore, Roots, Start, Store, TokenSource, Welcome,
};
use tokio::task::JoinHandle;

use super::context::{Context, Credential, claims};
use super::failure::{Exit, Failure};
use super::names::Names;
use super::out::note;
use super::publish::left_void;
use super::slots::{self, Purpose, Slot};
use super::time::parse_duration;
use super::token::{Role, check_name, sign};
use carillon::report::escape;

/// Signed by the command itself, a token is good for this long; the SDK gets the next one in time.
const TOKEN_SECONDS: u64 = 600;

/// Where `--help` lists them.
const HEADING: &str = "As whom, to which broker";

/// Which broker, and as whom: arguments that all client commands share.
#[derive(Debug, clap::Args)]
pub(crate) struct As {
    /// As whom; default: the context's `user`
    #[arg(long, value_name = "HANDLE", help_heading = HEADING)]
    pub(crate) user: Option<String>,
    /// With which rights (needs a context that can sign tokens); default: those of a user, and more where a command needs them
    #[arg(long, value_enum, value_name = "ROLE", help_heading = HEADING)]
    role: Option<Role>,
    /// The context; default: ./carillon-data/context.toml
    #[arg(long, env = "CARILLON_CONTEXT", value_name = "FILE", help_heading = HEADING)]
    context: Option<PathBuf>,
    /// How long to wait for the broker and its answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, help_heading = HEADING)]
    pub(crate) timeout: Duration,
}

/// What a command does with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Prints events.
    Read {
        /// From where on.
        from: From,
        /// Of what was missed, only so many of each conversation.
        newest: Option<u32>,
    },
    /// Asks.
    Ask,
    /// Publishes, and may ask.
    Publish,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Where its slot is.
    Cursor,
    /// At the first message the user may have.
    Beginning,
}

/// An open session.
pub(crate) struct Session {
    /// The device.
    pub(crate) client: Client,
    /// Whose it is.
    pub(crate) user: String,
    /// Handles and conversations.
    pub(crate) names: Names,
    /// Its device.
    pub(crate) slot: Arc<Slot>,
    /// Where the broker is, for errors.
    address: String,
    timeout: Duration,
}

impl Session {
    /// How long one answer may take, for what asks for many.
    pub(crate) fn patience(&self) -> Patience {
        Patience { address: self.address.clone(), timeout: self.timeout }
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// How long an answer may take.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    address: String,
    timeout: Duration,
}

impl Patience {
    /// Waits for what takes a few requests.
    ///
    /// # Cancel safety
    /// As what is waited for.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Self { address, timeout } = self;
        tokio::time::timeout(*timeout, answer).await.unwrap_or_else(|_| {
            let text = format!(
                "the broker at {address} has not answered within {timeout:?}; whether it was done is not known"
            );
            Err(Failure::new(Exit::Unreachable, text))
        })
    }
}

impl As {
    /// Opens a session; its events are for the caller, who must take them.
    pub(crate) async fn connect(self, purpose: Use) -> Result<(Session, Events), Failure> {
        self.connect_with(purpose, Role::User).await
    }

    /// As [`As::connect`], with these rights unless `--role` says otherwise.
    pub(crate) async fn connect_with(self, purpose: Use, role: Role) -> Result<(Session, Events), Failure> {
        let context = Context::find(self.context.as_deref())?;
        let credential = context.credential()?;
        let (user, tenant) = self.identity(&context, &credential)?;
        check_name("user", &user)?;
        let kind = if matches!(purpose, Use::Read { .. }) { Purpose::Reader } else { Purpose::Asker };
        let store = Arc::new(slots::take(&context.state, &tenant, &user, kind)?);
        let token = match credential {
            Credential::Token(token) => TokenSource::Fixed(token),
            Credential::Key(key) => signing(key, tenant, user.clone(), self.role.unwrap_or(role)),
        };
        let client = connect(&context, token, store.clone(), purpose, self.timeout).await;
        let (client, events) = client.map_err(|error| unreachable(error, &context, self.timeout))?;
        // A reader is done with a reset when it has printed that.
        if kind == Purpose::Asker {
            store.save_cursor(head(&client.welcome())).map_err(ConnectError::Store)?;
            // No id is known yet.
            client.begin_anew();
        }
        if purpose != Use::Publish {
            let left = client.recovered().len() as u64;
            if left > 0 {
                note(format_args!("carillon: {}", left_void(left)));
            }
        }
        let names = Names::new(client.clone());
        Ok((Session { client, user, names, slot: store, address: context.address, timeout: self.timeout }, events))
    }

    /// As [`As::connect_with`], for a command that reads no events.
    pub(crate) async fn ask_with(self, purpose: Use, role: Role) -> Result<Asking, Failure> {
        let (session, events) = self.connect_with(purpose, role).await?;
        Ok(Asking::new(session, events))
    }

    /// As [`As::ask_with`], with a user's rights.
    pub(crate) async fn ask(self, purpose: Use) -> Result<Asking, Failure> {
        self.ask_with(purpose, Role::User).await
    }

    /// Acts as this user if nobody is named, and tokens are signed here.
    pub(crate) fn user_or(&mut self, user: &str) -> Result<(), Failure> {
        let context = Context::find(self.context.as_deref())?;
        if self.user.is_none() && context.user.is_none() && matches!(context.credential()?, Credential::Key(_)) {
            self.user = Some(user.to_owned());
        }
        Ok(())
    }

    /// The user and tenant: those of the token, if there is one already.
    fn identity(&self, context: &Context, credential: &Credential) -> Result<(String, String), Failure> {
        let Credential::Token(token) = credential else {
            let user = self.user.clone().or_else(|| context.user.clone());
            let user = user.ok_or_else(|| Failure::usage("as whom? Say --user HANDLE, or `user` in the context"))?;
            return Ok((user, context.tenant.clone()));
        };
        let claims = claims(token)?;
        if self.user.as_ref().is_some_and(|user| *user != claims.sub) {
            return Err(Failure::usage(format!("the context's token is of {:?}: leave --user out", claims.sub)));
        }
        if self.role.is_some_and(|role| role.name() != claims.role) {
            return Err(Failure::usage(format!(
                "the context's token has the role {:?}: leave --role out",
                claims.role
            )));
        }
        Ok((claims.sub, claims.tenant))
    }
}

/// Tokens that the command signs itself.
pub(crate) fn signing(key: PathBuf, tenant: String, user: String, role: Role) -> TokenSource {
    TokenSource::from_fn(move || {
        // A key file of a hundred bytes: reading it blocks for no time that matters.
        let token = sign(&key, &tenant, &user, role, TOKEN_SECONDS);
        let token = token.map_err(|failure| failure.report(false).unwrap_or_default().into());
        async move { token }
    })
}

/// Connects, unless it takes too long.
pub(crate) async fn connect(
    context: &Context,
    token: TokenSource,
    store: Arc<dyn Store>,
    purpose: Use,
    timeout: Duration,
) -> Result<(Client, Events), Option<ConnectError>> {
    let mut config = Config::new(context.address.clone(), token)
        .server_name(context.server_name.clone())
        .roots(Roots::File(context.ca.clone()))
        .store(store);
    if purpose != Use::Publish {
        config.producer = None;
    }
    // Who only asks or publishes shows nothing to anybody: it must not count as a device that has a DING.
    config.shows_dings = matches!(purpose, Use::Read { .. });
    if let Use::Read { from, newest } = purpose {
        config.newest = newest;
        if from == From::Beginning {
            config = config.start(Start::Beginning);
        }
    }
    config.client = concat!("carillon-cli ", env!("CARGO_PKG_VERSION")).to_owned();
    match tokio::time::timeout(timeout, Client::connect(config)).await {
        Ok(connected) => connected.map_err(Some),
        Err(_) => Err(None),
    }
}

fn unreachable(error: Option<ConnectError>, context: &Context, timeout: Duration) -> Failure {
    match error {
        Some(error) => error.into(),
        None => {
            let address = &context.address;
            let text = format!(
                "no broker answers at {address} ({timeout:?}): is `carillon dev`, or the context's broker, running?"
            );
            Failure::new(Exit::Unreachable, text)
        }
    }
}

/// The cursor of one who wants nothing that is there already.
fn head(welcome: &Welcome) -> Cursor {
    let Welcome { shard, incarnation, head, .. } = *welcome;
    Cursor { shard, incarnation, position: head, receipts_through: head }
}

/// A session whose events are taken and dropped, unacknowledged, by a task of its own; what becomes of the connection is noted.
pub(crate) struct Asking {
    /// The session.
    pub(crate) session: Session,
    ended: Arc<Mutex<Option<ConnectError>>>,
    dropping: JoinHandle<()>,
}

impl Asking {
    fn new(session: Session, mut events: Events) -> Self {
        let ended = Arc::new(Mutex::new(None));
        let told = Arc::clone(&ended);
        let began = session.client.welcome().incarnation;
        let client = session.client.clone();
        let dropping = tokio::spawn(async move {
            let mut connection = Connection::default();
            while let Some(event) = events.next().await {
                connection.note(&event);
                // The command has looked ids up: as no other event is taken, everything that names one fails from here on.
                if matches!(event, Event::Reset) && client.welcome().incarnation != began {
                    break;
                }
                if let Event::Ended(error) = event {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        });
        Self { session, ended, dropping }
    }

    /// Does something that asks the broker, within `--timeout`; then closes.
    pub(crate) async fn within<T>(
        mut self,
        asking: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let patience = self.session.patience();
        let done = patience.wait(asking(&mut self.session)).await;
        self.close(done).await
    }

    /// As [`Asking::within`], for what takes as many requests as there are pages: each of them is to wait with the
    /// session's [`Patience`].
    pub(crate) async fn through<T>(
        mut self,
        asking: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let done = asking(&mut self.session).await;
        self.close(done).await
    }

    /// Closes in good order. If the client ended by itself, that is why the command failed.
    pub(crate) async fn close<T>(self, done: Result<T, Failure>) -> Result<T, Failure> {
        self.session.client.close().await;
        // The events end with the client.
        self.dropping.await.ok();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (done, ended) {
            (Err(Failure::Told { .. }), Some(error)) => Err(error.into()),
            (done, _) => done,
        }
    }
}

/// Notes when the connection goes and comes back.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    is_lost: bool,
}

impl Connection {
    /// Looks at an event.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Disconnected { reason } => {
                self.is_lost = true;
                note(format_args!("carillon: {}; trying again", escape(&reason.to_string())));
            }
            Event::Connected(_) if self.is_lost => {
                self.is_lost = false;
                note("carillon: connected again");
            }
            Event::Reset => note("carillon: the broker has another journal than before; starting anew"),
            _ => {}
        }
    }
}

/// Where the tour of `carillon dev` keeps a device of a user.
pub(crate) fn tour_store(state: &Path, device: &str) -> Result<Arc<FileStore>, Failure> {
    let directory = state.join("tour").join(device);
    let store = FileStore::open(&directory);
    store
        .map(Arc::new)
        .map_err(|error| Failure::caused(Exit::Failed, format!("cannot use {}: {error}", directory.display()), error))
}
