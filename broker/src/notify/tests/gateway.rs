//! A gateway that notes what comes and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Barrier, Notify};

/// One answer of the gateway.
pub(super) enum Answer {
    /// Status, one header and body.
    Now(u16, (&'static str, String), String),
    /// Not before the test is over.
    Never,
    /// When so many are there.
    Together(Arc<Barrier>),
    /// When it is told.
    When(Arc<Notify>),
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self::Now(status, ("x-nothing", "nothing".into()), String::new())
    }

    pub(super) fn body(status: u16, body: impl Into<String>) -> Self {
        Self::Now(status, ("content-type", "application/json".into()), body.into())
    }
}

/// A request that came.
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Requests under way at that moment, with this one.
    pub(super) under_way: usize,
}

impl Seen {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Verified by the reference library.
    pub(super) fn is_signed_with(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(&self.body, &self.headers).is_ok()
    }
}

struct Desk {
    seen: Sender<Seen>,
    answers: Mutex<VecDeque<Answer>>,
    under_way: Mutex<usize>,
}

/// See the module.
pub(super) struct Gateway {
    pub(super) url: String,
    seen: Receiver<Seen>,
    desk: Arc<Desk>,
}

impl Gateway {
    /// Gives these answers in order, and 202 from then on.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let (sender, seen) = channel(4_096);
        let answers = Mutex::new(answers.into_iter().collect());
        let desk = Arc::new(Desk { seen: sender, answers, under_way: Mutex::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ding", listener.local_addr().unwrap());
        let routes = Router::new().fallback(handle).with_state(desk.clone());
        tokio::spawn(async move { axum_serve(listener, routes).await });
        Self { url, seen, desk }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// What came and was not looked at.
    pub(super) fn rest(&mut self) -> usize {
        std::iter::from_fn(|| self.seen.try_recv().ok()).count()
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.desk.answers.lock().unwrap().push_back(answer);
    }
}

async fn axum_serve(listener: TcpListener, routes: Router) {
    use hyper::server::conn::http1;
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok() });
    }
}

async fn handle(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let under_way = {
        let mut under_way = desk.under_way.lock().unwrap();
        *under_way += 1;
        *under_way
    };
    let answer = desk.answers.lock().unwrap().pop_front().unwrap_or_else(|| Answer::status(202));
    desk.seen.try_send(Seen { path: uri.to_string(), headers, body, under_way }).ok();
    let response = match answer {
        Answer::Now(status, (name, value), body) => {
            let headers = [(HeaderName::from_static(name), value)];
            (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
        }
        Answer::Never => std::future::pending().await,
        Answer::Together(barrier) => {
            barrier.wait().await;
            StatusCode::ACCEPTED.into_response()
        }
        Answer::When(told) => {
            told.notified().await;
            StatusCode::ACCEPTED.into_response()
        }
    };
    *desk.under_way.lock().unwrap() -= 1;
    response
}
