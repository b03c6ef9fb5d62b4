//! The protocol of interoperability drivers (`../README.md`): a stack gives
//! members and trackers, [`run`] answers requests about them.

mod message;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::panic::{self, AssertUnwindSafe};

use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{json, Map, Value};

pub use message::{
    Bytes, Commit, Committed, ContextExtensions, Expansion, ExternalJoin, Hello, Keys,
    Member as MemberState, NewMember, Processed, Proposal, State, Track,
};
use message::{Create, Join, Message, Psk, Request};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Says that the stack has no such operation, and why.
#[derive(Debug)]
pub struct Unsupported(pub &'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Unsupported {}

/// An MLS implementation.
pub trait Stack {
    type Member: Member;
    type Tracker: Tracker;

    fn hello(&self) -> Hello;
    fn member(&self, request: NewMember) -> Result<Self::Member>;
    fn track(&self, request: Track) -> Result<Self::Tracker>;
}

/// A client of one group. An operation that fails leaves it as it was.
pub trait Member {
    fn keys(&self) -> Result<Keys>;
    fn key_package(&mut self) -> Result<Vec<u8>>;
    fn create(&mut self, group_id: &[u8], extensions: &ContextExtensions) -> Result<()>;
    fn join(&mut self, welcome: &[u8], ratchet_tree: Option<&[u8]>) -> Result<()>;
    /// Joins by an external commit, and gives it.
    fn external_join(&mut self, join: ExternalJoin) -> Result<Vec<u8>>;
    fn propose(&mut self, proposal: &Proposal) -> Result<Vec<u8>>;
    fn commit(&mut self, commit: &Commit) -> Result<Committed>;
    fn confirm(&mut self) -> Result<()>;
    fn discard(&mut self) -> Result<()>;
    fn process(&mut self, message: &[u8]) -> Result<Processed>;
    fn psk(&mut self, id: &[u8], secret: &[u8]) -> Result<()>;
    fn group_info(&mut self) -> Result<Vec<u8>>;
    fn state(&self) -> Result<State>;
}

/// A public group.
pub trait Tracker {
    fn process(&mut self, message: &[u8]) -> Result<()>;
    fn state(&self) -> Result<State>;
}

/// Answers the requests on standard input until it ends.
pub fn run<S: Stack>(stack: S) -> io::Result<()> {
    let mut driver = Driver {
        stack,
        members: HashMap::new(),
        trackers: HashMap::new(),
    };
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let reply = driver.answer(&line?);
        serde_json::to_writer(&mut out, &reply)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

struct Driver<S: Stack> {
    stack: S,
    members: HashMap<String, S::Member>,
    trackers: HashMap<String, S::Tracker>,
}

impl<S: Stack> Driver<S> {
    fn answer(&mut self, line: &str) -> Value {
        let done = panic::catch_unwind(AssertUnwindSafe(|| self.perform(line)));
        match done {
            Ok(Ok(reply)) => reply,
            Ok(Err(e)) if e.is::<Unsupported>() => {
                json!({"error": e.to_string(), "unsupported": true})
            }
            Ok(Err(e)) => json!({"error": chain(e.as_ref())}),
            Err(cause) => json!({"error": format!("panic: {}", text(cause.as_ref()))}),
        }
    }

    fn perform(&mut self, line: &str) -> Result<Value> {
        let Request {
            op,
            member,
            tracker,
            content,
        } = serde_json::from_str(line)?;
        match op.as_str() {
            "hello" => reply(self.stack.hello()),
            "track" => {
                let name = tracker.ok_or(UNNAMED)?;
                let made = self.stack.track(read(content)?)?;
                let state = made.state()?;
                self.trackers.insert(name, made);
                reply(state)
            }
            "track_message" => {
                let tracker = get(&mut self.trackers, tracker)?;
                tracker.process(&read::<Message>(content)?.message.0)?;
                reply(tracker.state()?)
            }
            "untrack" => drop_of(&mut self.trackers, tracker),
            "member" => {
                let name = member.ok_or(UNNAMED)?;
                let made = self.stack.member(read(content)?)?;
                let keys = made.keys()?;
                self.members.insert(name, made);
                reply(keys)
            }
            "forget" => drop_of(&mut self.members, member),
            op => apply(get(&mut self.members, member)?, op, content),
        }
    }
}

const UNNAMED: &str = "the request names no member or tracker";

fn get<T>(all: &mut HashMap<String, T>, name: Option<String>) -> Result<&mut T> {
    let name = name.ok_or(UNNAMED)?;
    Ok(all
        .get_mut(&name)
        .ok_or_else(|| format!("{name:?} is not known"))?)
}

fn drop_of<T>(all: &mut HashMap<String, T>, name: Option<String>) -> Result<Value> {
    let name = name.ok_or(UNNAMED)?;
    all.remove(&name)
        .ok_or_else(|| format!("{name:?} is not known"))?;
    reply(())
}

fn apply<M: Member>(member: &mut M, op: &str, content: Map<String, Value>) -> Result<Value> {
    match op {
        "key_package" => reply(json!({"key_package": Bytes(member.key_package()?)})),
        "create" => {
            let create: Create = read(content)?;
            reply(member.create(&create.group_id.0, &create.extensions)?)
        }
        "join" => {
            let join: Join = read(content)?;
            let tree = join.ratchet_tree.as_ref().map(|t| t.0.as_slice());
            reply(member.join(&join.welcome.0, tree)?)
        }
        "external_join" => {
            let commit = member.external_join(read(content)?)?;
            reply(json!({"commit": Bytes(commit)}))
        }
        "propose" => reply(json!({"message": Bytes(member.propose(&read(content)?)?)})),
        "commit" => reply(member.commit(&read(content)?)?),
        "confirm" => reply(member.confirm()?),
        "discard" => reply(member.discard()?),
        "process" => reply(member.process(&read::<Message>(content)?.message.0)?),
        "psk" => {
            let psk: Psk = read(content)?;
            reply(member.psk(&psk.id.0, &psk.secret.0)?)
        }
        "group_info" => reply(json!({"group_info": Bytes(member.group_info()?)})),
        "state" => reply(member.state()?),
        _ => Err(format!("operation {op:?} is not known").into()),
    }
}

fn read<T: DeserializeOwned>(content: Map<String, Value>) -> Result<T> {
    Ok(serde_json::from_value(Value::Object(content))?)
}

/// A reply is an object; what gives nothing gives an empty one.
fn reply(content: impl Serialize) -> Result<Value> {
    Ok(match serde_json::to_value(content)? {
        Value::Null => json!({}),
        value => value,
    })
}

/// The text of an error and of its sources, each said once.
fn chain(e: &dyn Error) -> String {
    let mut whole = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let text = e.to_string();
        if !whole.contains(&text) {
            whole = format!("{whole}: {text}");
        }
        source = e.source();
    }
    whole
}

fn text(cause: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = cause.downcast_ref::<&str>() {
        return text;
    }
    cause.downcast_ref::<String>().map_or("", String::as_str)
}
