//! A broker whose time a test moves on, with a gateway for short messages and calls.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carillon::dings::{DingPolicies, DingPolicy};
use carillon::server::{Options, Server};
use carillon_client::{
    Client, Ding, DingAttempt, DingId, DingProgress, DingPush, DingUpdate, Event, Events, MessageKind, Outlet,
    Recipients, Step, UserId,
};
use carillon_tests::ahead::AheadClock;
use carillon_tests::gateway::Gateway;
use carillon_tests::harness::{Site, connect, next_that, patiently};

/// See the module.
pub(crate) struct Office {
    pub(crate) gateway: Gateway,
    clock: Arc<AheadClock>,
    site: Site,
    server: Option<Server>,
}

impl Office {
    pub(crate) async fn open() -> Self {
        Self::with(policy()).await
    }

    /// With what its tenant allows.
    pub(crate) async fn with(policy: DingPolicy) -> Self {
        let (gateway, clock, site) = (Gateway::start().await, Arc::new(AheadClock::default()), Site::new());
        let options = site.options();
        let options = Options {
            clock: clock.clone(),
            dings: Arc::new(DingPolicies { default: policy, ..DingPolicies::default() }),
            outlets: vec![gateway.outlet(Outlet::SMS, "sms"), gateway.outlet(Outlet::PHONE, "phone")],
            callbacks: Some(options.listen),
            ..options
        };
        let server = Some(Server::start(options).unwrap());
        Self { gateway, clock, site, server }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn callbacks(&self) -> SocketAddr {
        self.server().callbacks_address().unwrap()
    }

    pub(crate) fn now_s(&self) -> u64 {
        self.clock.wall_s()
    }

    /// Lets time pass for the broker.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance_ms(u64::try_from(time.as_millis()).unwrap());
    }

    pub(crate) async fn client(&self, handle: &str) -> (Client, Events) {
        connect(self.config(handle)).await
    }

    pub(crate) fn config(&self, handle: &str) -> carillon_client::Config {
        self.site.config(self.server().address(), handle)
    }

    pub(crate) async fn admin(&self, handle: &str) -> (Client, Events) {
        connect(self.site.config_with(self.server().address(), self.site.token(handle, "admin"))).await
    }

    /// Somebody who has never connected.
    pub(crate) async fn user(&self, handle: &str) -> UserId {
        patiently(self.admin("head").await.0.create_user(handle)).await.unwrap()
    }

    /// Until the broker has begun what was due by now: a DING that is made now begins after it.
    pub(crate) async fn settle(&self, client: &Client) {
        let nobody = self.user("nobody").await;
        let last = patiently(client.ding(to(&[nobody]))).await.unwrap();
        patiently(client.recall_ding(last.ding)).await.unwrap();
    }

    /// The attempts at a recipient, once the outcome of each is known.
    pub(crate) async fn attempts_settled(&self, client: &Client, ding: DingId, user: UserId) -> Vec<DingAttempt> {
        use carillon_client::{AttemptState, CancelState};
        let settled = |attempt: &DingAttempt| {
            let known = attempt.outlet == Outlet::APP || attempt.state != AttemptState::STARTED;
            known && attempt.cancel != CancelState::DUE
        };
        patiently(async {
            loop {
                let attempts = client.ding_attempts(ding, user).await.unwrap();
                if attempts.len() > 1 && attempts.iter().all(settled) {
                    return attempts;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && let Err(failure) = server.stop()
            && !std::thread::panicking()
        {
            panic!("the broker failed: {failure}");
        }
    }
}

/// Everybody may use all outlets.
pub(crate) fn policy() -> DingPolicy {
    DingPolicy { outlets: vec![Outlet::APP, Outlet::SMS, Outlet::PHONE], ..DingPolicy::default() }
}

pub(crate) const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

pub(crate) fn to(users: &[UserId]) -> Ding {
    Ding::new(Recipients::Users(users.to_vec()), MessageKind::TEXT, "the server room is hot")
}

/// App at once, a short message after a minute, a call after three.
pub(crate) fn plan(ding: Ding) -> Ding {
    ding.step(Step::after(Outlet::APP, Duration::ZERO))
        .step(Step::after(Outlet::SMS, minutes(1)))
        .step(Step::after(Outlet::PHONE, minutes(3)))
}

pub(crate) async fn next_ding(events: &mut Events) -> DingPush {
    next_that(events, |event| if let Event::Ding(push) = event { Some(push.clone()) } else { None }).await
}

pub(crate) async fn next_update(events: &mut Events) -> DingUpdate {
    next_that(events, |event| if let Event::DingUpdate(update) = event { Some(update.clone()) } else { None }).await
}

/// How far the DING has come, as the next news of it says.
pub(crate) async fn next_progress(events: &mut Events, ding: DingId) -> DingProgress {
    next_that(events, |event| match event {
        Event::DingProgress(progress) if progress.ding == ding => Some(progress.clone()),
        _ => None,
    })
    .await
}
