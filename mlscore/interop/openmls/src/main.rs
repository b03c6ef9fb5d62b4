//! A driver for OpenMLS.

mod member;
mod storage;
mod tracker;

use driver::{Hello, NewMember, Result, State, Track};
use openmls::prelude::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::DeserializeBytes;
use openmls::prelude::*;
use openmls_rust_crypto::RustCrypto;

struct OpenMls;

impl driver::Stack for OpenMls {
    type Member = member::Client;
    type Tracker = tracker::Tracker;

    fn hello(&self) -> Hello {
        Hello {
            stack: "openmls",
            version: "0.9.2",
            suites: suites().into_iter().map(u16::from).collect(),
            self_remove: ProposalType::SelfRemove.into(),
            operations: Hello::all_operations(),
        }
    }

    fn member(&self, request: NewMember) -> Result<Self::Member> {
        member::Client::new(request)
    }

    fn track(&self, request: Track) -> Result<Self::Tracker> {
        tracker::Tracker::new(request)
    }
}

/// The cipher suites of RFC 9420 that the cryptographic provider has.
fn suites() -> Vec<Ciphersuite> {
    let mut all = RustCrypto::default().supported_ciphersuites();
    all.retain(|s| u16::from(*s) <= 7);
    all.sort_by_key(|s| u16::from(*s));
    all
}

fn message(encoded: &[u8]) -> Result<MlsMessageBodyIn> {
    Ok(MlsMessageIn::tls_deserialize_exact_bytes(encoded)?.extract())
}

fn group_info(encoded: &[u8]) -> Result<VerifiableGroupInfo> {
    match message(encoded)? {
        MlsMessageBodyIn::GroupInfo(info) => Ok(info),
        _ => Err("the message is no GroupInfo".into()),
    }
}

fn public_message(encoded: &[u8]) -> Result<PublicMessageIn> {
    match message(encoded)? {
        MlsMessageBodyIn::PublicMessage(message) => Ok(message),
        _ => Err("the message is no PublicMessage".into()),
    }
}

/// What a group is for all to see.
fn public_state(group: &PublicGroup) -> State {
    let context = group.group_context();
    State {
        epoch: context.epoch().as_u64(),
        epoch_authenticator: None,
        tree_hash: driver::Bytes(context.tree_hash().to_vec()),
        confirmed_transcript_hash: driver::Bytes(context.confirmed_transcript_hash().to_vec()),
        own_leaf: None,
        members: group
            .members()
            .map(|m| driver::MemberState {
                leaf: m.index.u32(),
                identity: driver::Bytes(m.credential.serialized_content().to_vec()),
                signature_key: driver::Bytes(m.signature_key),
            })
            .collect(),
    }
}

fn main() -> std::io::Result<()> {
    driver::run(OpenMls)
}
