//! A driver at work, seen through its protocol: members and a tracker that
//! have to agree after each message.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::{engine::general_purpose::STANDARD, Engine};
use serde_json::{json, Value};

pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub struct Driver {
    process: Child,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Driver {
    pub fn start(path: &str) -> Self {
        let mut process = Command::new(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Driver {
            process,
            pipes: RefCell::new((input, output)),
        }
    }

    /// The reply to a request, which may be an error.
    pub fn ask(&self, request: Value) -> Value {
        let mut pipes = self.pipes.borrow_mut();
        writeln!(pipes.0, "{request}").unwrap();
        let mut line = String::new();
        pipes.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub fn get(&self, request: Value) -> Value {
        let reply = self.ask(request.clone());
        assert!(reply.get("error").is_none(), "{request}: {reply}");
        reply
    }

    pub fn member(&self, name: &str, mut more: Value) -> Member<'_> {
        more["op"] = json!("member");
        more["member"] = json!(name);
        more["identity"] = json!(encode(name.as_bytes()));
        let keys = self.get(more);
        Member {
            driver: self,
            name: name.into(),
            keys,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Member<'a> {
    driver: &'a Driver,
    name: String,
    pub keys: Value,
}

impl Member<'_> {
    pub fn ask(&self, op: &str, mut request: Value) -> Value {
        request["op"] = json!(op);
        request["member"] = json!(self.name);
        self.driver.ask(request)
    }

    pub fn get(&self, op: &str, request: Value) -> Value {
        let reply = self.ask(op, request.clone());
        assert!(
            reply.get("error").is_none(),
            "{}: {op} {request}: {reply}",
            self.name
        );
        reply
    }

    pub fn group_info(&self) -> Value {
        self.get("group_info", json!({}))["group_info"].clone()
    }

    pub fn own_leaf(&self) -> Value {
        self.get("state", json!({}))["own_leaf"].clone()
    }

    pub fn propose(&self, proposal: Value) -> Value {
        self.get("propose", proposal)["message"].clone()
    }

    /// A commit that the delivery service takes.
    pub fn commit(&self, commit: Value) -> Value {
        let reply = self.get("commit", commit);
        self.get("confirm", json!({}));
        reply
    }

    fn process(&self, message: &Value) -> Value {
        self.get("process", json!({ "message": message }))
    }
}

/// A group: those who get each message, and a tracker.
pub struct World<'a> {
    driver: &'a Driver,
    pub members: Vec<Member<'a>>,
}

impl<'a> World<'a> {
    /// A group of the members, the first of which adds the others by value.
    pub fn new(driver: &'a Driver, members: Vec<Member<'a>>, track: Value) -> Self {
        let first = &members[0];
        first.get("create", json!({"group_id": encode(b"group")}));
        let mut start = track;
        start["op"] = json!("track");
        start["tracker"] = json!("t");
        start["group_info"] = first.group_info();
        driver.get(start);
        let adds: Vec<_> = members[1..]
            .iter()
            .map(|m| json!({"kind": "add", "key_package": m.get("key_package", json!({}))["key_package"]}))
            .collect();
        let added = first.commit(json!({ "proposals": adds }));
        for m in &members[1..] {
            m.get("join", json!({"welcome": added["welcome"]}));
        }
        let world = World { driver, members };
        world.agree(&added["commit"]);
        world
    }

    /// Hands a message to all but its sender; those whom it removes leave.
    pub fn deliver(&mut self, sender: usize, message: &Value) {
        let sender = self.members[sender].name.clone();
        self.members
            .retain(|m| m.name == sender || m.process(message)["removed"] != json!(true));
        self.agree(message);
    }

    /// Lets a new member in by its external commit.
    pub fn enter(&mut self, member: Member<'a>, commit: &Value) {
        self.members.push(member);
        self.deliver(self.members.len() - 1, commit);
    }

    fn tree_hash(&self) -> Value {
        self.members[0].get("state", json!({}))["tree_hash"].clone()
    }

    /// Members agree on everything, and the tracker, once it has the message
    /// too, on what it can know.
    fn agree(&self, message: &Value) {
        let request = json!({"op": "track_message", "tracker": "t", "message": message});
        let tracked = self.driver.get(request);
        let mut secret = None;
        for m in &self.members {
            let mut state = m.get("state", json!({}));
            let fields = state.as_object_mut().unwrap();
            fields.remove("own_leaf");
            let authenticator = fields.remove("epoch_authenticator").unwrap();
            assert_eq!(state, tracked, "{}", m.name);
            assert_eq!(*secret.get_or_insert(authenticator.clone()), authenticator);
        }
        assert_eq!(
            tracked["members"].as_array().unwrap().len(),
            self.members.len()
        );
    }
}

/// What every driver can do. The private keys have so many bytes.
pub fn run(path: &str, suite: u16, private: usize) {
    let driver = Driver::start(path);
    let member = |name: &str| driver.member(name, json!({ "suite": suite }));
    let mut world = World::new(&driver, vec![member("alice"), member("bob")], json!({}));
    let key = world.members[0].keys["signature_private"].as_str().unwrap();
    assert_eq!(STANDARD.decode(key).unwrap().len(), private);

    // External joins, an update by reference, a path without proposals.
    for name in ["carol", "dave"] {
        let joiner = member(name);
        let join = json!({"group_info": world.members[1].group_info()});
        let join = joiner.get("external_join", join);
        world.enter(joiner, &join["commit"]);
    }
    let update = world.members[1].propose(json!({"kind": "update"}));
    world.deliver(1, &update);
    let commit = world.members[0].commit(json!({"by_reference": true}));
    world.deliver(0, &commit["commit"]);
    let commit = world.members[2].commit(json!({"force_path": true}));
    world.deliver(2, &commit["commit"]);

    // A PSK, with a path if that is asked for.
    let psk = json!({"id": encode(b"id"), "secret": encode(&[1; 32])});
    for m in &world.members {
        m.get("psk", psk.clone());
    }
    for force_path in [false, true] {
        let before = world.tree_hash();
        let proposals = json!([{"kind": "psk", "id": psk["id"]}]);
        let commit = json!({"proposals": proposals, "force_path": force_path});
        let commit = world.members[2].commit(commit);
        world.deliver(2, &commit["commit"]);
        assert_eq!(world.tree_hash() != before, force_path);
    }

    // A resync that has a SelfRemove and a PSK.
    let self_remove = world.members[1].propose(json!({"kind": "self_remove"}));
    world.deliver(1, &self_remove);
    let carol = world.members.remove(2);
    let join = json!({
        "group_info": world.members[0].group_info(),
        "resync": true,
        "self_removes": [self_remove],
        "psks": [psk["id"]],
    });
    let join = carol.get("external_join", join);
    world.enter(carol, &join["commit"]);
    assert_eq!(names(&world), ["alice", "dave", "carol"]);

    // Proposals that a commit leaves out; one that is discarded.
    let gone = world.members[2].own_leaf();
    let remove = world.members[0].propose(json!({"kind": "remove", "leaf": gone}));
    world.deliver(0, &remove);
    let commit = world.members[0].commit(json!({"force_path": true}));
    world.deliver(0, &commit["commit"]);
    world.members[0].get("commit", json!({"force_path": true}));
    world.members[0].get("discard", json!({}));
    assert!(world.members[0].ask("confirm", json!({}))["error"].is_string());
    assert_eq!(names(&world), ["alice", "dave", "carol"]);

    // Other extensions and a removal by value.
    let commit = world.members[1].commit(json!({"proposals": [
        {"kind": "remove", "leaf": gone},
        {"kind": "group_context_extensions", "required_proposals": []},
    ]}));
    world.deliver(1, &commit["commit"]);
    assert_eq!(names(&world), ["alice", "dave"]);

    refuses(&driver, &world.members[0]);
}

fn names(world: &World) -> Vec<String> {
    world.members.iter().map(|m| m.name.clone()).collect()
}

/// Bad requests get errors, and nobody is changed by them.
fn refuses(driver: &Driver, member: &Member) {
    let before = member.get("state", json!({}));
    for (op, request) in [
        ("process", json!({"message": encode(b"no message")})),
        ("process", json!({"message": "no base64"})),
        (
            "commit",
            json!({"proposals": [{"kind": "remove", "leaf": 1 << 31}]}),
        ),
        ("commit", json!({"proposals": [{"kind": "update"}]})),
        ("propose", json!({"kind": "unknown"})),
        ("join", json!({})),
        ("external_join", json!({"group_info": encode(b"none")})),
        ("create", json!({"external_senders": [encode(b"none")]})),
        ("no_such_operation", json!({})),
    ] {
        let reply = member.ask(op, request);
        let error = reply["error"].as_str();
        assert!(
            error.is_some_and(|e| !e.starts_with("panic")),
            "{op}: {reply}"
        );
    }
    assert_eq!(member.get("state", json!({})), before);
    for request in [
        json!({"op": "state", "member": "nobody"}),
        json!({"op": "state"}),
        json!({"op": "track_message", "tracker": "none"}),
        json!("no object"),
    ] {
        assert!(driver.ask(request)["error"].is_string());
    }
    let unknown = driver.ask(json!({"op": "member", "member": "m", "suite": 0xfff0}));
    assert!(unknown["error"].is_string());
}
