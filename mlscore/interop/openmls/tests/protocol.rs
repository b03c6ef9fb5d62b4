//! The driver of OpenMLS through its protocol.

#[path = "../../driver/test/scenario.rs"]
mod scenario;

use scenario::{encode, Driver, World};
use serde_json::json;

const PATH: &str = env!("CARGO_BIN_EXE_openmls-driver");

#[test]
fn members_and_tracker_agree() {
    for suite in [1, 2, 3] {
        scenario::run(PATH, suite, 32);
    }
}

/// What the README says of OpenMLS is so.
#[test]
fn limits() {
    let driver = Driver::start(PATH);
    let member = |name: &str| driver.member(name, json!({"suite": 1}));
    let mut world = World::new(&driver, vec![member("alice"), member("bob")], json!({}));

    let remove = world.members[0].propose(json!({"kind": "remove", "leaf": 1}));
    world.deliver(0, &remove);
    let reply = world.members[1].ask("commit", json!({"by_reference": true}));
    assert!(reply["error"].is_null(), "{reply}"); // without its own removal
    world.members[1].get("discard", json!({}));

    let carol = member("carol");
    let join = json!({"group_info": world.members[0].group_info(), "custom": [encode(b"any")]});
    assert_eq!(carol.ask("external_join", join)["unsupported"], json!(true));

    for m in &world.members {
        m.get(
            "psk",
            json!({"id": encode(b"id"), "secret": encode(&[1; 32])}),
        );
    }
    let psk = world.members[0].propose(json!({"kind": "psk", "id": encode(b"id")}));
    world.deliver(0, &psk);
    let reply = world.members[0].ask("commit", json!({"force_path": true}));
    assert_eq!(reply["unsupported"], json!(true), "{reply}");

    let other = driver.ask(json!({"op": "member", "member": "m", "suite": 7}));
    assert_eq!(other["unsupported"], json!(true), "{other}");
}
