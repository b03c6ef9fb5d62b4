//! What requests and replies hold.

use base64::{engine::general_purpose::STANDARD, Engine};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Bytes, in base64.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        STANDARD
            .decode(text)
            .map(Bytes)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// A request, its content not yet read.
#[derive(Deserialize)]
pub(crate) struct Request {
    pub op: String,
    pub member: Option<String>,
    pub tracker: Option<String>,
    #[serde(flatten)]
    pub content: Map<String, Value>,
}

#[derive(Deserialize)]
pub struct Track {
    #[serde(default)]
    pub group_info: Bytes,
    #[serde(flatten)]
    pub expansion: Expansion,
}

/// How LeafOperationProposals are expanded, if they are.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Expansion {
    pub custom: Option<u16>,
    pub associated: Vec<Vec<Bytes>>,
}

#[derive(Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub message: Bytes,
}

#[derive(Deserialize)]
pub(crate) struct Create {
    #[serde(default)]
    pub group_id: Bytes,
    #[serde(flatten)]
    pub extensions: ContextExtensions,
}

#[derive(Deserialize)]
pub(crate) struct Join {
    #[serde(default)]
    pub welcome: Bytes,
    pub ratchet_tree: Option<Bytes>,
}

#[derive(Deserialize)]
pub(crate) struct Psk {
    #[serde(default)]
    pub id: Bytes,
    #[serde(default)]
    pub secret: Bytes,
}

#[derive(Deserialize)]
pub struct NewMember {
    pub suite: u16,
    #[serde(default)]
    pub identity: Bytes,
    #[serde(default)]
    pub proposals: Vec<u16>,
    #[serde(flatten)]
    pub expansion: Expansion,
}

/// The extensions of a group context, as far as the protocol knows any.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ContextExtensions {
    pub external_senders: Vec<Bytes>,
    pub required_proposals: Option<Vec<u16>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ExternalJoin {
    pub group_info: Bytes,
    pub resync: bool,
    pub self_removes: Vec<Bytes>,
    pub custom: Vec<Bytes>,
    pub psks: Vec<Bytes>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Proposal {
    Add {
        #[serde(default)]
        key_package: Bytes,
    },
    Update,
    Remove {
        leaf: u32,
    },
    SelfRemove,
    Psk {
        #[serde(default)]
        id: Bytes,
    },
    GroupContextExtensions(ContextExtensions),
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Commit {
    pub proposals: Vec<Proposal>,
    pub by_reference: bool,
    pub force_path: bool,
}

#[derive(Serialize)]
pub struct Hello {
    pub stack: &'static str,
    pub version: &'static str,
    pub suites: Vec<u16>,
    pub self_remove: u16,
    pub operations: Vec<&'static str>,
}

impl Hello {
    /// The names of all operations.
    pub fn all_operations() -> Vec<&'static str> {
        vec![
            "member",
            "key_package",
            "create",
            "join",
            "external_join",
            "propose",
            "commit",
            "confirm",
            "discard",
            "process",
            "psk",
            "group_info",
            "state",
            "forget",
            "track",
            "track_message",
            "untrack",
        ]
    }
}

#[derive(Serialize)]
pub struct Keys {
    pub signature_key: Bytes,
    pub signature_private: Bytes,
}

#[derive(Serialize)]
pub struct Committed {
    pub commit: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome: Option<Bytes>,
}

#[derive(Serialize)]
pub struct Processed {
    pub kind: &'static str,
    pub removed: bool,
}

impl Processed {
    pub fn proposal() -> Self {
        Processed {
            kind: "proposal",
            removed: false,
        }
    }

    pub fn commit(removed: bool) -> Self {
        Processed {
            kind: "commit",
            removed,
        }
    }
}

/// The state of a member or, without its own two fields, of a tracker.
#[derive(Serialize)]
pub struct State {
    pub epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch_authenticator: Option<Bytes>,
    pub tree_hash: Bytes,
    pub confirmed_transcript_hash: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_leaf: Option<u32>,
    pub members: Vec<Member>,
}

#[derive(Serialize)]
pub struct Member {
    pub leaf: u32,
    pub identity: Bytes,
    pub signature_key: Bytes,
}
