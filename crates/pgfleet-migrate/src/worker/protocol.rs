//! The lines between a worker and its caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgfleet_postgres::Address;
use pgfleet_sql::version::Version;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::announce::Applied;
use crate::error::{Error, ErrorKind, ErrorRecord};
use crate::event::Event;
use crate::options::{Concurrently, Durability, OnAhead, OnChanged, OnOutOfOrder, Options, RetryOn, Who};
use crate::report::Report;
use crate::revert::Goal;
use crate::set::Set;
use crate::target::Target;
use crate::worker::describe::Description;

/// The version of these lines; both sides must have the same.
pub(crate) const PROTOCOL: u32 = 2;

/// What tells a line of ours from what a program prints.
#[derive(Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) pgfleet: u32,
    #[serde(default)]
    pub(crate) id: u64,
}

/// A request. Not `Debug`: it may hold a password.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) pgfleet: u32,
    /// Chosen by the caller; the answers bear it.
    pub(crate) id: u64,
    pub(crate) ask: Ask,
}

/// What is asked for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// What the program has in it, as far as the files beside the manifest do not say it.
    Describe,
    /// The same with all texts.
    Export,
    Migrate(Box<Task>),
    Seed(Box<Task>),
    Revert(Box<Task>, Back),
    /// Ends the request of this id in an orderly way.
    Stop,
    /// The answer to [`Answer::Announce`] of the request of this id; the text is an error.
    Announced(Option<String>),
}

/// An answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) pgfleet: u32,
    pub(crate) id: u64,
    pub(crate) answer: Answer,
}

/// What is answered; everything but events and announcements ends the request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Event(Event),
    /// Asks the caller to tell others; the run waits for [`Ask::Announced`].
    Announce(Applied),
    Description(Box<Description>),
    Report(Box<Report>),
    Error(Box<ErrorRecord>),
}

/// One target and how to work on it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    target: Place,
    terms: Terms,
    /// Values for seeds.
    pub(crate) properties: BTreeMap<String, String>,
    /// Those of them that are the tenant's own.
    pub(crate) own: BTreeSet<String>,
    /// Values for placeholders of the service's own set.
    pub(crate) placeholders: BTreeMap<String, String>,
}

/// A target with its connection strings.
#[derive(Serialize, Deserialize)]
struct Place {
    name: String,
    url: String,
    admin: Option<String>,
    schema: Option<String>,
    tenant: Option<String>,
    shared: bool,
}

/// The options that can be handed over.
#[derive(Serialize, Deserialize)]
struct Terms {
    lock_timeout: Duration,
    lock_tries: u32,
    retry_on: RetryOn,
    max_tries: u32,
    min_retry_wait: Duration,
    max_retry_wait: Duration,
    wait_attempts: u32,
    wait_delay: Duration,
    lock_wait: Option<Duration>,
    durability: Durability,
    concurrently: Concurrently,
    on_changed: OnChanged,
    on_missing: OnChanged,
    on_ahead: OnAhead,
    on_out_of_order: OnOutOfOrder,
    to: Option<String>,
    set: Option<String>,
    enough: Option<String>,
    run: Option<String>,
    always_seed: bool,
    announce: bool,
    dry_run: bool,
    look_only: bool,
    #[serde(default)]
    lock_first: bool,
    who: Who,
}

/// How far to go back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Back {
    Steps(usize),
    To(Option<String>),
    Run(String),
}

impl Task {
    /// The values for seeds and placeholders are those of the path's own set.
    pub(crate) fn new(target: &Target, options: &Options, set: &Set) -> Self {
        let pairs = |address: &Address| address.expose_pairs().expose_secret().to_owned();
        // A program looks itself.
        let Target { name, address, admin, schema, tenant, shared, known: _ } = target;
        let place = Place {
            name: name.clone(),
            url: pairs(address),
            admin: admin.as_ref().map(pairs),
            schema: schema.clone(),
            tenant: tenant.clone(),
            shared: *shared,
        };
        Self {
            target: place,
            terms: Terms::of(options),
            properties: set.seeds.properties.clone(),
            own: set.seeds.own().clone(),
            placeholders: set.placeholders.clone(),
        }
    }

    /// Returns the target's name.
    pub(crate) fn name(&self) -> &str {
        &self.target.name
    }

    /// Reads what is to be worked on; the options have neither a way to stop nor an announcer yet.
    pub(crate) fn read(&self) -> Result<(Target, Options, bool), Error> {
        let address = |text: &String| {
            Address::parse(text).map_err(|error| {
                Error::connection(format!("cannot use the connection string of {}", self.target.name), error)
            })
        };
        let Place { name, url, admin, schema, tenant, shared } = &self.target;
        let mut target = Target::new(name, address(url)?);
        target.admin = admin.as_ref().map(address).transpose()?;
        target.schema.clone_from(schema);
        target.tenant.clone_from(tenant);
        target.shared = *shared;
        Ok((target, self.terms.options()?, self.terms.announce))
    }
}

impl Terms {
    fn of(options: &Options) -> Self {
        // Without `..`: an option that is new must be thought of here.
        let Options {
            lock_timeout,
            lock_tries,
            retry_on,
            max_tries,
            min_retry_wait,
            max_retry_wait,
            wait_attempts,
            wait_delay,
            lock_wait,
            durability,
            concurrently,
            on_changed,
            on_missing,
            on_ahead,
            on_out_of_order,
            to,
            set,
            enough,
            run,
            always_seed,
            announcer,
            dry_run,
            look_only,
            lock_first,
            who,
            stop: _,
        } = options;
        Self {
            lock_timeout: *lock_timeout,
            lock_tries: *lock_tries,
            retry_on: *retry_on,
            max_tries: *max_tries,
            min_retry_wait: *min_retry_wait,
            max_retry_wait: *max_retry_wait,
            wait_attempts: *wait_attempts,
            wait_delay: *wait_delay,
            lock_wait: *lock_wait,
            // Who waits for a later commit is not there when a program is done.
            durability: if *durability == Durability::Later { Durability::Run } else { *durability },
            concurrently: *concurrently,
            on_changed: *on_changed,
            on_missing: *on_missing,
            on_ahead: *on_ahead,
            on_out_of_order: *on_out_of_order,
            to: to.as_ref().map(ToString::to_string),
            set: set.clone(),
            enough: enough.as_ref().map(ToString::to_string),
            run: run.clone(),
            always_seed: *always_seed,
            announce: announcer.is_some(),
            dry_run: *dry_run,
            look_only: *look_only,
            lock_first: *lock_first,
            who: who.clone(),
        }
    }

    fn options(&self) -> Result<Options, Error> {
        Ok(Options {
            lock_timeout: self.lock_timeout,
            lock_tries: self.lock_tries,
            retry_on: self.retry_on,
            max_tries: self.max_tries,
            min_retry_wait: self.min_retry_wait,
            max_retry_wait: self.max_retry_wait,
            wait_attempts: self.wait_attempts,
            wait_delay: self.wait_delay,
            lock_wait: self.lock_wait,
            durability: self.durability,
            concurrently: self.concurrently,
            on_changed: self.on_changed,
            on_missing: self.on_missing,
            on_ahead: self.on_ahead,
            on_out_of_order: self.on_out_of_order,
            to: version(self.to.as_ref())?,
            set: self.set.clone(),
            enough: version(self.enough.as_ref())?,
            run: self.run.clone(),
            always_seed: self.always_seed,
            announcer: None,
            dry_run: self.dry_run,
            look_only: self.look_only,
            lock_first: self.lock_first,
            who: self.who.clone(),
            stop: crate::options::Stop::default(),
        })
    }
}

impl From<&Goal> for Back {
    fn from(goal: &Goal) -> Self {
        match goal {
            Goal::Steps(steps) => Self::Steps(*steps),
            Goal::To(version) => Self::To(version.as_ref().map(ToString::to_string)),
            Goal::Run(run) => Self::Run(run.clone()),
        }
    }
}

impl Back {
    pub(crate) fn goal(&self) -> Result<Goal, Error> {
        Ok(match self {
            Self::Steps(steps) => Goal::Steps(*steps),
            Self::To(to) => Goal::To(version(to.as_ref())?),
            Self::Run(run) => Goal::Run(run.clone()),
        })
    }
}

fn version(text: Option<&String>) -> Result<Option<Version>, Error> {
    text.map(|text| text.parse().map_err(|_| Error::new(ErrorKind::Program, format!("{text} is no version"))))
        .transpose()
}

/// Makes a line of a message of ours.
pub(crate) fn line(message: &impl Serialize) -> String {
    // Maps with keys that are no strings and numbers that are no numbers are all that JSON cannot
    // hold; there are none here.
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::SetPath;

    #[test]
    fn a_task_is_read_as_it_was_given() {
        let mut target = Target::new("trip/acme", Address::parse("postgresql://u:p@h:5433/d").unwrap());
        target.schema = Some("trip".to_owned());
        let options = Options {
            lock_timeout: Duration::from_millis(1500),
            to: Some("0007".parse().unwrap()),
            always_seed: true,
            run: Some("0198".to_owned()),
            on_ahead: OnAhead::Error,
            ..Options::default()
        };
        let target = target.shared_by("acme");
        let properties = BTreeMap::from([("admin_email".to_owned(), "a'b".to_owned())]);
        let path = SetPath::from(Set::from_migrations("trip", Vec::new())).with_properties(&properties);
        let task = Task::new(&target, &options, path.own());
        let text = line(&Request { pgfleet: PROTOCOL, id: 1, ask: Ask::Migrate(Box::new(task)) });
        assert_eq!(text.matches('\n').count(), 1);
        let request: Request = serde_json::from_str(&text).unwrap();
        let Ask::Migrate(task) = request.ask else { panic!("{text}") };
        assert_eq!(task.properties, properties);
        assert_eq!(task.own, BTreeSet::from(["admin_email".to_owned()]));
        let (again, terms, announce) = task.read().unwrap();
        assert!(!announce);
        assert_eq!(again.address.password().unwrap().expose_secret(), "p");
        assert_eq!((again.name, again.schema), (target.name, target.schema));
        assert_eq!((again.tenant, again.shared), (target.tenant, target.shared));
        assert_eq!(format!("{terms:?}"), format!("{options:?}"));
    }
}
