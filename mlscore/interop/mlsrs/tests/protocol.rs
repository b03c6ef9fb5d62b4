//! The driver of mls-rs through its protocol.

#[path = "../../driver/test/scenario.rs"]
mod scenario;

use base64::{engine::general_purpose::STANDARD, Engine};
use mls_rs::crypto::SignatureSecretKey;
use mls_rs::extension::built_in::RatchetTreeExt;
use mls_rs::group::LeafIndex;
use mls_rs::mls_rs_codec::{byte_vec, MlsEncode};
use mls_rs::{CipherSuite, CipherSuiteProvider, CryptoProvider, MlsMessage};
use mls_rs_crypto_openssl::OpensslCryptoProvider;
use scenario::{encode, Driver, Member, World};
use serde_json::{json, Value};

const PATH: &str = env!("CARGO_BIN_EXE_mlsrs-driver");
const CUSTOM: u16 = 0xf0a1;

#[test]
fn members_and_tracker_agree() {
    for (suite, private) in [
        (1, 32),
        (2, 32),
        (3, 32),
        (4, 57),
        (5, 66),
        (6, 57),
        (7, 48),
    ] {
        scenario::run(PATH, suite, private);
    }
}

/// A LeafOperationProposal in an external join removes the sender of its intent
/// and those who are one user with it; nobody if another signed the intent or
/// the leaf has changed since.
#[test]
fn expansion() {
    let driver = Driver::start(PATH);
    let expansion = json!({"custom": CUSTOM, "associated": [[encode(b"bob"), encode(b"bert")]]});
    let member = |name: &str| {
        let mut request = expansion.clone();
        request["suite"] = json!(1);
        driver.member(name, request)
    };
    let members = ["alice", "bob", "bert"].map(member).into();
    let mut world = World::new(&driver, members, expansion.clone());
    let carol = member("carol");
    let join = |world: &World, custom: &str| {
        let group_info = world.members[0].group_info();
        let request = json!({"group_info": group_info, "custom": [custom]});
        carol.ask("external_join", request)
    };

    let stale = proposal(&world.members[1], &world.members[1].keys);
    let commit = world.members[1].commit(json!({"force_path": true}));
    world.deliver(1, &commit["commit"]);
    let forged = proposal(&world.members[1], &world.members[0].keys);
    for (custom, why) in [(stale, "has changed"), (forged, "signature")] {
        let reply = join(&world, &custom);
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{reply}");
    }

    let fresh = proposal(&world.members[1], &world.members[1].keys);
    let commit = join(&world, &fresh);
    world.enter(carol, &commit["commit"]);
    assert_eq!(world.members.len(), 2);
}

/// The encoded LeafOperationProposal of a member of suite 1 that removes those
/// associated with it too, signed with the keys given.
fn proposal(member: &Member, keys: &Value) -> String {
    let suite = OpensslCryptoProvider::new()
        .cipher_suite_provider(CipherSuite::CURVE25519_AES128)
        .unwrap();
    let bytes = |v: &Value| STANDARD.decode(v.as_str().unwrap()).unwrap();
    let info = MlsMessage::from_bytes(&bytes(&member.group_info())).unwrap();
    let info = info.into_group_info().unwrap();
    let tree = info
        .extensions()
        .get_as::<RatchetTreeExt>()
        .unwrap()
        .unwrap();
    let index = member.own_leaf().as_u64().unwrap() as u32;
    let leaf = LeafIndex::try_from(index).unwrap();
    let leaf = tree
        .tree_data()
        .get_leaf(leaf)
        .unwrap()
        .unwrap()
        .mls_encode_to_vec()
        .unwrap();

    let opaque = |parts: &[&[u8]]| {
        let mut out = Vec::new();
        parts
            .iter()
            .for_each(|p| byte_vec::mls_encode(p, &mut out).unwrap());
        out
    };
    let reference = suite
        .hash(&opaque(&[b"MLS 1.0 LeafNode Reference", &leaf]))
        .unwrap();
    let mut intent = opaque(&[b"group"]);
    intent.extend(index.to_be_bytes());
    intent.extend(opaque(&[&reference]));
    intent.push(2);
    let [seed, public] = ["signature_private", "signature_key"].map(|k| bytes(&keys[k]));
    let key = SignatureSecretKey::new([seed, public].concat());
    let signed = opaque(&[b"MLS 1.0 LeafOperationIntentTBS", &intent]);
    intent.extend(opaque(&[&suite.sign(&key, &signed).unwrap()]));

    let mut encoded = CUSTOM.to_be_bytes().to_vec();
    encoded.extend(opaque(&[&intent]));
    encode(&encoded)
}
