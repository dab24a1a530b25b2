//! One try: resolve, judge the addresses, connect to one that was judged, POST, read the answer.
//!
//! A connection a try. So the address that was judged is the one that is called, and no state of an earlier answer matters;
//! what it costs, a handshake a call, is nothing beside a text message. No redirects are followed and no proxy of the
//! environment is used, because nothing here knows of them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::OutletOptions;
use super::address::may_call;
use super::body::{self, Status};
use super::call::{Call, Detail};
use super::held::{End, Tried};
use super::limits::{ADDRESSES_MAX, ANSWER_BYTES_MAX, ANSWER_HEAD_BYTES, LOOKUPS_MAX};
use super::signature::{ID, SIGNATURE, TIMESTAMP};
use crate::clock::Clock;
use crate::http::{BodyError, whole};

/// What the gateway is told of its caller.
const USER_AGENT: &str = concat!("carillon/", env!("CARGO_PKG_VERSION"));

/// Why a try did not come to an answer.
#[derive(Debug, Error)]
pub(super) enum TryError {
    #[error("cannot resolve the gateway's name: {0}")]
    Resolve(#[source] io::Error),
    #[error("the gateway's addresses are not allowed, the first is {0}: see `allow` and `plain` of the outlet")]
    RefusedAddress(SocketAddr),
    #[error("the gateway's name has no address")]
    NoAddress,
    #[error("cannot connect to the gateway: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS with the gateway failed: {0}; see `ca` of the outlet")]
    Tls(#[source] io::Error),
    #[error("the gateway did not answer in time")]
    Timeout,
    #[error("the connection to the gateway broke: {0}")]
    Broken(#[source] hyper::Error),
    #[error("the gateway's answer broke off: {0}")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TryError {
    fn end(&self) -> End {
        match self {
            Self::Resolve(_) | Self::NoAddress => End::Failed(Detail::RESOLVE, None),
            Self::RefusedAddress(_) => End::Refused(Detail::REFUSED_ADDRESS),
            Self::Connect(_) => End::Failed(Detail::CONNECT, None),
            Self::Tls(_) => End::Failed(Detail::TLS, None),
            Self::Timeout => End::Failed(Detail::TIMEOUT, None),
            Self::Broken(_) | Self::Answer(_) => End::Failed(Detail::BROKEN, None),
        }
    }
}

/// TCP, or TLS over it.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Calls one outlet's gateway.
pub(super) struct Gateway {
    options: OutletOptions,
    clock: Arc<dyn Clock>,
    /// Few resolutions at a time: the system's resolver blocks a thread, for as long as it likes, and the threads are counted.
    lookups: Arc<Semaphore>,
}

impl Gateway {
    pub(super) fn new(options: OutletOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// One try, whose end is an answer or an error; either comes within the outlet's time.
    ///
    /// Dropped, it may or may not have reached the gateway.
    pub(super) async fn try_call(&self, call: &Call) -> (Tried, Option<TryError>) {
        let handed = AtomicBool::new(false);
        let ended = timeout(self.options.timeout, self.converse(call, &handed)).await;
        let (end, error) = match ended.unwrap_or(Err(TryError::Timeout)) {
            Ok(end) => (end, None),
            Err(error) => (error.end(), Some(error)),
        };
        (Tried { handed: handed.load(Ordering::Relaxed), end }, error)
    }

    async fn converse(&self, call: &Call, handed: &AtomicBool) -> Result<End, TryError> {
        let addresses = self.judged().await?;
        let connect = timeout(self.options.connect_timeout, self.connect(&addresses));
        let stream = connect.await.map_err(|_| TryError::Connect(io::ErrorKind::TimedOut.into()))??;
        exchange(stream, || self.request(call), handed).await
    }

    /// The addresses that the name has now and that may be called.
    async fn judged(&self) -> Result<Vec<SocketAddr>, TryError> {
        let found = self.resolve().await?;
        let first = *found.first().ok_or(TryError::NoAddress)?;
        let target = &self.options.target;
        // What is not encrypted stays on this machine, unless the configuration says otherwise.
        let sealed =
            |address: &SocketAddr| target.secure || self.options.plain || address.ip().to_canonical().is_loopback();
        let may = |address: &SocketAddr| may_call(address.ip(), &self.options.allow) && sealed(address);
        let judged: Vec<_> = found.into_iter().filter(may).take(ADDRESSES_MAX).collect();
        if judged.is_empty() { Err(TryError::RefusedAddress(first)) } else { Ok(judged) }
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, TryError> {
        let target = &self.options.target;
        if let Some(address) = target.address() {
            return Ok(vec![SocketAddr::new(address, target.port)]);
        }
        let turn = self.lookups.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let name = (target.host.clone(), target.port);
        let lookup = spawn_blocking(move || {
            // Kept until the resolver returns, also when the try has ended before.
            let _turn = turn;
            (name.0.as_str(), name.1).to_socket_addrs().map(Iterator::collect)
        });
        lookup.await.map_err(io::Error::other).flatten().map_err(TryError::Resolve)
    }

    /// One address after the other; each gets its share of the time.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Box<dyn Io>, TryError> {
        let share = self.options.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut failed = TryError::NoAddress;
        for address in addresses {
            match connect_to(*address, share).await {
                Ok(stream) => return self.secure(stream).await,
                Err(error) => failed = TryError::Connect(error),
            }
        }
        Err(failed)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Box<dyn Io>, TryError> {
        if !self.options.target.secure {
            return Ok(Box::new(stream));
        }
        let name = self.options.target.server_name.clone();
        let connector = TlsConnector::from(self.options.tls.clone().expect("an outlet with https:// has TLS"));
        let stream = connector.connect(name, stream).await.map_err(TryError::Tls)?;
        Ok(Box::new(stream))
    }

    /// Signed now: a signature is believed for some minutes.
    fn request(&self, call: &Call) -> Request<Full<Bytes>> {
        let OutletOptions { target, secrets, name, .. } = &self.options;
        let (id, body, now_s) = (body::id(call), body::body(call, name), self.clock.wall().0 / 1_000);
        let signature = secrets.sign(&id, now_s, &body);
        let value = |text: &str| HeaderValue::from_str(text).expect("made of plain letters");
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.path.clone().into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, target.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(ID, value(&id));
        headers.insert(TIMESTAMP, HeaderValue::from(now_s));
        headers.insert(SIGNATURE, value(&signature));
        request
    }
}

/// The request, as late as can be, and what the answer means.
pub(super) async fn exchange(
    stream: Box<dyn Io>,
    request: impl FnOnce() -> Request<Full<Bytes>>,
    handed: &AtomicBool,
) -> Result<End, TryError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(TryError::Broken)?;
    let exchange = async {
        let request = request();
        handed.store(true, Ordering::Relaxed);
        read(sender.send_request(request).await.map_err(TryError::Broken)?).await
    };
    // The connection ends before, beside or after the answer; what it means for the answer, the exchange finds out.
    let drive = async {
        connection.await.ok();
        std::future::pending().await
    };
    tokio::select! {
        end = exchange => end,
        end = drive => end,
    }
}

async fn connect_to(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let stream = timeout(within, TcpStream::connect(address)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What an answer means.
async fn read(answer: Response<Incoming>) -> Result<End, TryError> {
    let (status, after) = (answer.status(), retry_after(&answer));
    let detail = Detail(status.as_u16());
    match status {
        status if status.is_success() => {
            // Taken, whatever the body says or how long it is; only one that breaks off is worth another try.
            match whole(answer.into_body(), ANSWER_BYTES_MAX).await {
                Ok(body) => Ok(End::Taken(body::status(&body), detail)),
                Err(BodyError::TooLong(_)) => Ok(End::Taken(Status::Accepted, Detail::ANSWER_TOO_LONG)),
                Err(BodyError::Broken(error)) => Err(TryError::Answer(error)),
            }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Ok(End::Failed(detail, after))
        }
        status if status.is_server_error() => Ok(End::Failed(detail, after)),
        // Redirects too: they would lead to where nobody has judged the address.
        _ => Ok(End::Refused(detail)),
    }
}

/// In seconds; a date, which no gateway needs, means nothing here.
fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
