//! Real registries on loopback behind a proxy that behaves as public registries do.
//!
//! A [`Lab`] is a CNCF distribution registry ([`Registry`]), what a public registry does on top of it (accounts, lagging
//! reads, a pull limit, referrers, immutable tags), and an address at which a client reaches it ([`Client`]). Every behaviour is a switch, off at first; several
//! can be on at once, and each can be changed while clients run:
//!
//! ```no_run
//! use std::time::Duration;
//! use registry_lab::{Account, Fault, Lab, Login, Rule, TokenServer};
//!
//! let accounts = [Account::new("ci", "secret").may_push("team/*")];
//! let lab = Lab::start().token_server(TokenServer::new(accounts)).lag(Duration::from_secs(2));
//! let config = lab.docker_config(&Login::password("ci", "secret"));
//! lab.arm([Rule::at_write(3, Fault::Status(429)), Rule::on("GET */manifests/latest", Fault::Reset).nth(1)]);
//! let image = format!("{}/team/image:latest", lab.host());
//! std::process::Command::new("crane").args(["digest", &image]).envs(config.env()).status().unwrap();
//! assert_eq!(lab.counts().writes, 0);
//! println!("{}", lab.transcript());
//! ```
//!
//! | Behaviour | Switch |
//! |---|---|
//! | Basic authentication, by the registry itself | [`Lab::htpasswd`] |
//! | token server with scopes, anonymous and identity tokens, expiry, refusals | [`Lab::token_server`], [`TokenServer`] |
//! | logins in docker's configuration: password, identity token, helpers | [`Lab::docker_config`], [`Login`] |
//! | reads that lag behind writes of tags, per tag, random, counted in reads, flickering | [`Lab::lag`], [`Lag`] |
//! | pull limit with `ratelimit-*` headers | [`Lab::pull_limit`], [`PullLimit`] |
//! | referrers API: present, absent, ignored, paged, HTML, an error | [`Lab::referrers`], [`Referrers`] |
//! | pages of tags | [`Lab::tags_per_page`] |
//! | immutable tags | [`Lab::immutable`], [`Immutable`] |
//! | deletion: by digest, of tags too, of what no tag names, of nothing | [`Lab::deletes`], [`Deletes`] |
//! | faults at the n-th write, or at requests that match a pattern | [`Client::arm`], [`Rule`], [`Fault`] |
//! | delays, fixed or random; a clock that differs | [`Lab::delay`], [`Lab::clock_skew`] |
//! | counts and a log | [`Client::counts`], [`Client::log`], [`Client::transcript`] |
//! | `127.0.0.1`, `[::1]`, `localhost` | [`Lab::at`], [`Address`] |
//!
//! Each switch has a setter that works while clients run: [`Lab::set_lag`] for [`Lab::lag`]. What belongs to a client
//! (faults, delay, clock, counts, log) is set at a [`Client`]; a lab is its own first one.
//!
//! - Two clients of one registry: [`Lab::client`] gives a second address, and [`Lab::trusted_client`] one that needs no account. Accounts, lag, limit, referrers and immutable
//!   tags are common to both.
//! - Two labs on one registry: [`Lab::before`]. Only the data is common.
//! - A registry that runs already: [`Registry::at_port`] and [`Lab::before`]. Its files are out of reach, and with them
//!   the referrers API.
//!
//! `tests/live` runs the real crane and the real docker against each behaviour, and `recordings` holds what they write and
//! print. Where no public source documents a behaviour, the switch states what the lab does.
#![allow(clippy::disallowed_methods, reason = "a laboratory for tests runs servers itself")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod answers;
mod deletion;
mod docker_config;
mod faults;
mod http;
mod immutable;
mod lag;
mod limits;
mod pattern;
mod proxy;
mod record;
mod referrers;
mod registry;
mod route;
mod service;

use std::ops::Deref;
use std::sync::Arc;

pub use accounts::{Account, Refusal, TokenServer};
pub use deletion::Deletes;
pub use docker_config::{DockerConfig, Login};
pub use faults::{Fault, RetryAfter, Rule};
pub use immutable::{Immutable, ImmutableTags};
pub use lag::Lag;
pub use limits::PullLimit;
pub use proxy::{Address, Client, Delay};
pub use record::{Counts, Entry};
pub use referrers::Referrers;
pub use registry::{Registry, Tags, digest};

use service::Service;

pub struct Lab {
    /// Closed before the registry ends.
    client: Client,
    service: Arc<Service>,
}

/// A lab is its own first client.
impl Deref for Lab {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Lab {
    /// A lab with a registry of its own, at 127.0.0.1.
    pub fn start() -> Self {
        Self::at(Address::V4)
    }

    /// The same at another form of the loopback address.
    pub fn at(address: Address) -> Self {
        Self::with(Registry::start(), address)
    }

    /// One more lab on a registry that runs.
    pub fn before(registry: &Arc<Registry>) -> Self {
        Self::with(registry.clone(), Address::V4)
    }

    /// The same at another form of the loopback address.
    pub fn with(registry: Arc<Registry>, address: Address) -> Self {
        let service = Arc::new(Service::new(registry));
        Self { client: Client::new(service.clone(), address, false), service }
    }

    /// One more client, with an address, faults, counts and a log of its own.
    pub fn client(&self) -> Client {
        Client::new(self.service.clone(), Address::V4, false)
    }

    /// One more client that needs no account, for stand-ins that cannot log in.
    pub fn trusted_client(&self) -> Client {
        Client::new(self.service.clone(), Address::V4, true)
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.service.registry
    }

    /// Docker's configuration with a login at the first client's address.
    pub fn docker_config(&self, login: &Login) -> DockerConfig {
        DockerConfig::new(self.host(), login)
    }

    /// Accounts that the registry itself checks (Basic authentication), all with all rights.
    #[must_use]
    pub fn htpasswd(self, accounts: impl IntoIterator<Item = Account>) -> Self {
        self.set_htpasswd(accounts);
        self
    }

    /// See [`Self::htpasswd`]; no accounts turn it off. The registry restarts.
    pub fn set_htpasswd(&self, accounts: impl IntoIterator<Item = Account>) {
        self.registry().set_htpasswd(&accounts.into_iter().collect::<Vec<_>>());
    }

    /// Accounts of a token server.
    #[must_use]
    pub fn token_server(self, server: TokenServer) -> Self {
        self.set_token_server(server);
        self
    }

    /// See [`Self::token_server`]; `None` turns it off. Tokens that were handed out keep their scopes.
    pub fn set_token_server(&self, server: impl Into<Option<TokenServer>>) {
        *self.service.token_server.lock().unwrap() = server.into();
    }

    /// An identity token of an account, as `docker login` gets it in place of the password.
    pub fn identity_token(&self, account: &str) -> String {
        self.service.tokens.identity(account)
    }

    /// Ends the access tokens that were handed out.
    pub fn expire_tokens(&self) {
        self.service.tokens.expire();
    }

    /// Ends the identity tokens that were handed out.
    pub fn revoke_identity_tokens(&self) {
        self.service.tokens.revoke_identities();
    }

    /// Reads lag behind writes of tags.
    #[must_use]
    pub fn lag(self, lag: impl Into<Lag>) -> Self {
        self.set_lag(lag);
        self
    }

    /// See [`Self::lag`]. Counts for later writes.
    pub fn set_lag(&self, lag: impl Into<Lag>) {
        self.service.lagging.set(lag.into());
    }

    /// Makes all writes visible now.
    pub fn settle(&self) {
        self.service.lagging.settle();
    }

    /// Limits pulls as Docker Hub does: GET requests for manifests, per account.
    #[must_use]
    pub fn pull_limit(self, limit: impl Into<PullLimit>) -> Self {
        self.set_pull_limit(limit.into());
        self
    }

    /// See [`Self::pull_limit`]; forgets what was counted so far. `None` turns it off.
    pub fn set_pull_limit(&self, limit: impl Into<Option<PullLimit>>) {
        self.service.pulls.set(limit.into());
    }

    /// Serves the referrers API in this form; the registry itself has none.
    #[must_use]
    pub fn referrers(self, form: Referrers) -> Self {
        self.set_referrers(form);
        self
    }

    /// See [`Self::referrers`].
    pub fn set_referrers(&self, form: Referrers) {
        *self.service.referrers.lock().unwrap() = form;
    }

    /// Lists tags in pages of this size, with `Link` to the next page.
    #[must_use]
    pub fn tags_per_page(self, tags: usize) -> Self {
        self.set_tags_per_page(tags);
        self
    }

    /// See [`Self::tags_per_page`]; `None` turns it off.
    pub fn set_tags_per_page(&self, tags: impl Into<Option<usize>>) {
        *self.service.tags_per_page.lock().unwrap() = tags.into();
    }

    /// Refuses to move tags.
    #[must_use]
    pub fn immutable(self, tags: impl Into<ImmutableTags>) -> Self {
        self.set_immutable(tags.into());
        self
    }

    /// See [`Self::immutable`]; `None` turns it off.
    pub fn set_immutable(&self, tags: impl Into<Option<ImmutableTags>>) {
        *self.service.immutable.lock().unwrap() = tags.into();
    }

    /// Deletes in the way of a registry.
    #[must_use]
    pub fn deletes(self, form: Deletes) -> Self {
        self.set_deletes(form);
        self
    }

    /// See [`Self::deletes`].
    pub fn set_deletes(&self, form: Deletes) {
        *self.service.deletes.lock().unwrap() = form;
    }

    /// Holds back each request of the first client; see [`Client::set_delay`].
    #[must_use]
    pub fn delay(self, delay: impl Into<Delay>) -> Self {
        self.set_delay(delay);
        self
    }

    /// Sets the registry's clock as the first client sees it; see [`Client::set_clock_skew`].
    #[must_use]
    pub fn clock_skew(self, seconds: i64) -> Self {
        self.set_clock_skew(seconds);
        self
    }
}
